//! The TCP state machine of IPVS.

use TcpState::{
    Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA, Listen as LI,
    None as NO, SynAck as SA, SynRecv as SR, SynSent as SS, TimeWait as TW,
};

use crate::engine::service::Activity;

/// A state of a TCP connection as the director sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// Just made.
    None,
    /// Data may flow.
    Established,
    /// The server opened it.
    SynSent,
    /// The client opened it.
    SynRecv,
    /// The server began to close.
    FinWait,
    /// Both have closed.
    TimeWait,
    /// Reset, or a segment without any flag that means something.
    Close,
    /// The client began to close.
    CloseWait,
    /// The client's last acknowledgement is missing.
    LastAck,
    /// Listening; never entered.
    Listen,
    /// Answered under `secure_tcp`.
    SynAck,
}

impl TcpState {
    /// All, in the order of their numbers.
    pub(super) const ALL: [Self; 11] = [NO, ES, SS, SR, FW, TW, CL, CW, LA, LI, SA];

    /// Seconds in states that `ipvsadm --set` cannot change, and the defaults of the two it can.
    ///
    /// **Source** — IPVS `tcp_timeouts`.
    pub(super) fn fixed_timeout_s(self) -> u32 {
        match self {
            NO => 2,
            ES => 900,
            SS | FW | TW | LI | SA => 120,
            SR | CW => 60,
            CL => 10,
            LA => 30,
        }
    }

    /// **Source** — IPVS `tcp_state_active_table`.
    pub(super) fn activity(self) -> Activity {
        match self {
            ES | SS | SR | SA => Activity::Active,
            NO | FW | TW | CL | CW | LA | LI => Activity::Inactive,
        }
    }

    /// The name as `ipvsadm -Lc` shows it.
    pub(super) fn name(self) -> &'static str {
        match self {
            NO => "NONE",
            ES => "ESTABLISHED",
            SS => "SYN_SENT",
            SR => "SYN_RECV",
            FW => "FIN_WAIT",
            TW => "TIME_WAIT",
            CL => "CLOSE",
            CW => "CLOSE_WAIT",
            LA => "LAST_ACK",
            LI => "LISTEN",
            SA => "SYNACK",
        }
    }
}

/// Where a segment was seen going, for the choice of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// From the client.
    Input,
    /// From the server.
    Output,
    /// From the client, of a connection whose server never answers through the director.
    InputOnly,
}

/// The flags of a segment, as in byte 13 of its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    const FIN: u8 = 0x01;
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;

    /// Whether SYN is set.
    pub fn syn(self) -> bool {
        self.0 & Self::SYN != 0
    }

    /// Whether RST is set.
    pub fn rst(self) -> bool {
        self.0 & Self::RST != 0
    }

    /// Whether ACK is set.
    pub fn ack(self) -> bool {
        self.0 & Self::ACK != 0
    }

    /// Whether FIN is set.
    pub fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }
}

/// The state after a segment.
///
/// **Source** — IPVS `tcp_states` and `set_tcp_state`: RST counts first, then SYN, FIN, ACK; a
/// segment with none of them closes. `secure` is the table of the sysctl `secure_tcp`.
pub fn next(state: TcpState, flags: TcpFlags, seen: Seen, secure: bool) -> TcpState {
    let event = match flags {
        _ if flags.rst() => RST,
        _ if flags.syn() => SYN,
        _ if flags.fin() => FIN,
        _ if flags.ack() => ACK,
        _ => return CL,
    };
    let table = if secure { &SECURE } else { &NORMAL };
    table[seen as usize][event][state as usize]
}

const SYN: usize = 0;
const FIN: usize = 1;
const ACK: usize = 2;
const RST: usize = 3;

/// By direction, event and present state.
type Table = [[[TcpState; 11]; 4]; 3];

#[rustfmt::skip]
static NORMAL: Table = [
    [ // input
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
        [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR],
    ],
    [ // output
        [SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR],
        [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
        [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL],
    ],
    [ // input only
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
        [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
    ],
];

#[rustfmt::skip]
static SECURE: Table = [
    [
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA],
        [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA],
        [ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
    ],
    [
        [SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA],
        [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
        [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL],
    ],
    [
        [SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA],
        [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(steps: &[(Seen, u8)]) -> Vec<&'static str> {
        let mut state = TcpState::None;
        let step = |(seen, flags): &(Seen, u8)| {
            state = next(state, TcpFlags(*flags), *seen, false);
            state.name()
        };
        steps.iter().map(step).collect()
    }

    #[test]
    fn a_client_that_closes_first_ends_in_time_wait() {
        let steps = [
            (Seen::Input, 0x02),
            (Seen::Output, 0x12),
            (Seen::Input, 0x10),
            (Seen::Input, 0x11),
            (Seen::Output, 0x11),
            (Seen::Input, 0x10),
        ];
        let names = ["SYN_RECV", "SYN_RECV", "ESTABLISHED", "CLOSE_WAIT", "TIME_WAIT", "TIME_WAIT"];
        assert_eq!(walk(&steps), names);
    }

    #[test]
    fn one_way_traffic_goes_by_its_own_table() {
        let steps = [(Seen::InputOnly, 0x02), (Seen::InputOnly, 0x10), (Seen::InputOnly, 0x11)];
        assert_eq!(walk(&steps), ["SYN_RECV", "ESTABLISHED", "FIN_WAIT"]);
    }

    #[test]
    fn a_segment_without_flags_closes() {
        assert_eq!(walk(&[(Seen::Input, 0x02), (Seen::Input, 0x28)]), ["SYN_RECV", "CLOSE"]);
    }
}
