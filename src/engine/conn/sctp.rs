//! The SCTP state machine of IPVS.

use SctpState::{
    Closed as CL, Cookie as CO, CookieEchoed as CE, CookieReplied as CR, CookieSent as CS,
    CookieWait as CW, Established as ES, Init as IN, Init1 as I1, None as NO, Rejected as RJ,
    ShutdownAckSent as SA, ShutdownReceived as SR, ShutdownSent as SS,
};

use super::tcp::Seen;
use crate::engine::service::Activity;
use crate::packet::sctp::COMMON_HEADER_LEN;

/// A state of an SCTP association as the director sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SctpState {
    /// Just made.
    None,
    /// The client's first INIT.
    Init1,
    /// A second INIT, or more from the client before the server answered.
    Init,
    /// The server sent its cookie.
    CookieSent,
    /// The client returned it.
    CookieReplied,
    /// The server sent an INIT itself.
    CookieWait,
    /// Never entered.
    Cookie,
    /// The server returned the client's cookie.
    CookieEchoed,
    /// Data may flow.
    Established,
    /// The server began to shut down.
    ShutdownSent,
    /// The client began to shut down.
    ShutdownReceived,
    /// The server acknowledged the shutdown.
    ShutdownAckSent,
    /// The server aborted the first INIT.
    Rejected,
    /// Shut down or aborted.
    Closed,
}

impl SctpState {
    /// All, in the order of their numbers.
    pub(super) const ALL: [Self; 14] = [NO, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL];

    /// Seconds in a state.
    ///
    /// **Source** — IPVS `sctp_timeouts`.
    pub(super) fn timeout_s(self) -> u32 {
        match self {
            NO => 2,
            I1 | RJ => 4,
            ES => 900,
            IN | CS | CR | CW | CO | CE | SS | SR | SA | CL => 61,
        }
    }

    /// **Source** — IPVS `set_sctp_state`: associations are active while established.
    pub(super) fn activity(self) -> Activity {
        if self == ES { Activity::Active } else { Activity::Inactive }
    }

    /// The name as `ipvsadm -Lc` shows it.
    pub(super) fn name(self) -> &'static str {
        match self {
            NO => "NONE",
            I1 => "INIT1",
            IN => "INIT",
            CS => "C-SENT",
            CR => "C-REPLIED",
            CW => "C-WAIT",
            CO => "COOKIE",
            CE => "C-ECHOED",
            ES => "ESTABLISHED",
            SS => "S-SENT",
            SR => "S-RECEIVED",
            SA => "S-ACK-SENT",
            RJ => "REJECTED",
            CL => "CLOSED",
        }
    }
}

/// What a packet means for the state: the row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SctpEvent {
    /// Data, acknowledgements, heartbeats and chunks that mean nothing here.
    Data,
    /// INIT.
    Init,
    /// INIT ACK.
    InitAck,
    /// COOKIE ECHO.
    CookieEcho,
    /// COOKIE ACK.
    CookieAck,
    /// SHUTDOWN.
    Shutdown,
    /// SHUTDOWN ACK.
    ShutdownAck,
    /// SHUTDOWN COMPLETE.
    ShutdownComplete,
    /// ERROR.
    Error,
    /// ABORT.
    Abort,
}

impl SctpEvent {
    /// What the chunks of a packet mean, given its bytes from the SCTP header on; `None` if there
    /// is no chunk.
    ///
    /// The first chunk decides, except that an ABORT behind a cookie counts as an ABORT.
    ///
    /// **Source** — IPVS `set_sctp_state`; chunk types of RFC 9260 §3.2.
    pub fn of(transport: &[u8]) -> Option<Self> {
        let event = Self::of_first_chunk(transport)?;
        let chunks = &transport[COMMON_HEADER_LEN..];
        let chunk: &[u8; 4] = chunks.first_chunk()?;
        if matches!(event, Self::CookieEcho | Self::CookieAck) {
            let len = usize::from(u16::from_be_bytes([chunk[2], chunk[3]]));
            let next = chunks.get(len.next_multiple_of(4)..).and_then(|rest| rest.first_chunk());
            let next = next.map(|chunk: &[u8; 4]| Self::of_chunk(chunk[0]));
            if len >= chunk.len() && next == Some(Self::Abort) {
                return next;
            }
        }
        Some(event)
    }

    /// What the first chunk of a packet means by itself, which decides whether the packet may open
    /// a connection.
    ///
    /// **Source** — IPVS `sctp_conn_schedule`.
    pub fn of_first_chunk(transport: &[u8]) -> Option<Self> {
        let chunk: &[u8; 4] = transport.get(COMMON_HEADER_LEN..)?.first_chunk()?;
        Some(Self::of_chunk(chunk[0]))
    }

    fn of_chunk(number: u8) -> Self {
        match number {
            1 => Self::Init,
            2 => Self::InitAck,
            6 => Self::Abort,
            7 => Self::Shutdown,
            8 => Self::ShutdownAck,
            9 => Self::Error,
            10 => Self::CookieEcho,
            11 => Self::CookieAck,
            14 => Self::ShutdownComplete,
            _ => Self::Data,
        }
    }
}

/// The state after a packet.
///
/// **Source** — IPVS `sctp_states`.
pub fn next(state: SctpState, event: SctpEvent, seen: Seen) -> SctpState {
    TABLE[seen as usize][event as usize][state as usize]
}

/// By direction, event and present state.
type Table = [[[SctpState; 14]; 10]; 3];

#[rustfmt::skip]
static TABLE: Table = [
    [ // input
        [ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN],
        [CW, CW, CW, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL],
        [CR, IN, IN, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL],
        [SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL],
        [CL, IN, IN, CS, CR, CW, CO, CE, ES, CL, SR, CL, RJ, CL],
        [CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, SR, CL, RJ, CL],
        [CL, I1, IN, CS, CR, CW, CO, CL, ES, SS, SR, SA, RJ, CL],
        [CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL],
    ],
    [ // output
        [ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [CW, CW, CW, CW, CW, CW, CW, CW, ES, CW, CW, CW, CW, CW],
        [CS, CS, CS, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [CE, CE, CE, CE, CE, CE, CE, CE, ES, SS, SR, SA, RJ, CL],
        [ES, ES, ES, ES, ES, ES, ES, ES, ES, SS, SR, SA, RJ, CL],
        [SS, SS, SS, SS, SS, SS, SS, SS, SS, SS, SR, SA, RJ, CL],
        [SA, SA, SA, SA, SA, CW, CO, CE, ES, SA, SA, SA, RJ, CL],
        [CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL],
    ],
    [ // input only
        [ES, I1, IN, CS, CR, ES, CO, CE, ES, SS, SR, SA, RJ, CL],
        [I1, IN, IN, IN, IN, IN, CO, CE, ES, SS, SR, SA, IN, IN],
        [CE, CE, CE, CE, CE, CE, CO, CE, ES, SS, SR, SA, RJ, CL],
        [ES, ES, ES, ES, ES, ES, CO, CE, ES, SS, SR, SA, RJ, CL],
        [ES, I1, IN, ES, ES, CW, ES, ES, ES, SS, SR, SA, RJ, CL],
        [SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL],
        [CL, IN, IN, CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL],
        [CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, CL, CL, RJ, CL],
        [CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL],
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(chunks: &[u8]) -> Vec<u8> {
        [&[0; COMMON_HEADER_LEN], chunks].concat()
    }

    #[test]
    fn the_first_chunk_decides_but_for_an_abort_behind_a_cookie() {
        assert_eq!(SctpEvent::of(&packet(&[1, 0, 0, 4])), Some(SctpEvent::Init));
        let cookie_and_data = [10, 0, 0, 5, 9, 0, 0, 0, 0, 0, 0, 4];
        assert_eq!(SctpEvent::of(&packet(&cookie_and_data)), Some(SctpEvent::CookieEcho));
        let cookie_and_abort = [10, 0, 0, 5, 9, 0, 0, 0, 6, 0, 0, 4];
        assert_eq!(SctpEvent::of(&packet(&cookie_and_abort)), Some(SctpEvent::Abort));
        let first = SctpEvent::of_first_chunk(&packet(&cookie_and_abort));
        assert!(matches!(first, Some(SctpEvent::CookieEcho | SctpEvent::CookieAck)));
        assert_eq!(SctpEvent::of(&packet(&[77, 0, 0, 4])), Some(SctpEvent::Data));
    }

    #[test]
    fn cut_packets_have_no_event() {
        assert_eq!(SctpEvent::of(&packet(&[1, 0, 0])), None);
        assert_eq!(SctpEvent::of(&[]), None);
        assert_eq!(SctpEvent::of(&packet(&[10, 0, 0xff, 0xff])), Some(SctpEvent::CookieEcho));
    }

    #[test]
    fn an_association_is_set_up_and_shut_down() {
        let steps = [
            (SctpEvent::Init, Seen::Input, "INIT1"),
            (SctpEvent::InitAck, Seen::Output, "C-SENT"),
            (SctpEvent::CookieEcho, Seen::Input, "C-REPLIED"),
            (SctpEvent::CookieAck, Seen::Output, "ESTABLISHED"),
            (SctpEvent::Data, Seen::Input, "ESTABLISHED"),
            (SctpEvent::Shutdown, Seen::Input, "S-RECEIVED"),
            (SctpEvent::ShutdownAck, Seen::Output, "S-ACK-SENT"),
            (SctpEvent::ShutdownComplete, Seen::Input, "CLOSED"),
        ];
        let mut state = SctpState::None;
        for (event, seen, name) in steps {
            state = next(state, event, seen);
            assert_eq!(state.name(), name);
        }
    }
}
