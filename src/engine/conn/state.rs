//! Connection states of every protocol, their timeouts and their names.

use super::sctp::SctpState;
use super::tcp::TcpState;
use crate::engine::service::{Activity, Protocol, Timeouts};

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A TCP connection.
    Tcp(TcpState),
    /// A UDP connection: there is one state.
    Udp,
    /// An SCTP association.
    Sctp(SctpState),
    /// An ICMP echo exchange that a real server began through the director's SNAT.
    Echo,
}

/// So many seconds in milliseconds, 49 days at most: the longest that `--set` takes are three months,
/// and other directors may tell of centuries.
///
/// Records count idle time in 32 bits, so a longer one would never be seen to be over.
pub fn lasting_ms(seconds: u32) -> u32 {
    seconds.saturating_mul(1000).min(LONGEST_MS)
}

/// An hour less than 32 bits hold, in which whoever looks after the table comes by.
const LONGEST_MS: u32 = u32::MAX - 3_600_000;

impl State {
    /// How long the connection lives on after a packet that left it in this state.
    ///
    /// **Units** — milliseconds. **Source** — IPVS `tcp_timeouts`, `udp_timeouts` and `sctp_timeouts`; those of
    /// `ipvsadm --set` replace ESTABLISHED, FIN_WAIT and UDP.
    pub fn timeout_ms(self, timeouts: &Timeouts) -> u32 {
        let seconds = match self {
            Self::Tcp(TcpState::Established) => timeouts.tcp_s,
            Self::Tcp(TcpState::FinWait) => timeouts.tcp_fin_s,
            Self::Tcp(state) => state.fixed_timeout_s(),
            Self::Udp => timeouts.udp_s,
            Self::Sctp(state) => state.timeout_s(),
            Self::Echo => ECHO_TIMEOUT_S,
        };
        lasting_ms(seconds)
    }

    /// Whether a connection in this state is active for its real server.
    pub fn activity(self) -> Activity {
        match self {
            Self::Tcp(state) => state.activity(),
            Self::Sctp(state) => state.activity(),
            Self::Udp | Self::Echo => Activity::Inactive,
        }
    }

    /// Whether the client has asked and nobody has confirmed.
    pub fn is_half_open(self) -> bool {
        matches!(
            self,
            Self::Tcp(TcpState::SynRecv | TcpState::SynAck)
                | Self::Sctp(SctpState::Init1 | SctpState::Init)
        )
    }

    /// Whether data may flow, as far as the protocol tells.
    pub fn may_carry_data(self) -> bool {
        matches!(
            self,
            Self::Tcp(TcpState::Established) | Self::Sctp(SctpState::Established) | Self::Udp
        )
    }

    /// Its number among the states of its protocol.
    ///
    /// **Source** — `IP_VS_TCP_S_*` and the like of linux/ip_vs.h, in the order of the types here.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp(state) => state as u8,
            Self::Sctp(state) => state as u8,
            Self::Udp | Self::Echo => 0,
        }
    }

    /// The state of that number, of a protocol with services.
    pub fn from_number(protocol: Protocol, number: u16) -> Option<Self> {
        let number = usize::from(number);
        match protocol {
            Protocol::Tcp => TcpState::ALL.get(number).copied().map(Self::Tcp),
            Protocol::Sctp => SctpState::ALL.get(number).copied().map(Self::Sctp),
            Protocol::Udp => (number == 0).then_some(Self::Udp),
        }
    }

    /// The name as `ipvsadm -Lc` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp(state) => state.name(),
            Self::Udp => "UDP",
            Self::Sctp(state) => state.name(),
            Self::Echo => "ICMP",
        }
    }
}

/// **Source** — netfilter's `nf_ct_icmp_timeout`, 30 s: IPVS itself has no such connections.
const ECHO_TIMEOUT_S: u32 = 30;
