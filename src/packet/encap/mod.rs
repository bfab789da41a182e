//! Packets within packets: IP in IP, GRE and generic UDP encapsulation (GUE).
//!
//! [`Envelope`] puts the outer headers in front of a packet, [`open()`] finds the packet behind them.
//! Says nothing about who may send what to whom.
//!
//! **Source** — RFC 2003 and RFC 4213 for IP in IP, RFC 2784 and RFC 2890 for GRE,
//! draft-ietf-intarea-gue-09 and draft-herbert-remotecsumoffload for GUE as Linux has it.

mod envelope;
mod open;
#[cfg(test)]
mod tests;

pub use envelope::{Envelope, complete};
pub use open::{
    Closed, Opened, QuotedTunnel, open, open_datagram, open_payload, open_quoted, quoted_tunnel,
};

use super::addr::Family;
use super::headers::protocol;

/// What stands between the outer IP header and the packet inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// Nothing: IP in IP.
    IpIp,
    /// A GRE header.
    Gre {
        /// Whether it carries a checksum.
        checksum: bool,
    },
    /// A UDP and a GUE header.
    Gue {
        /// The UDP source port, which spreads flows over paths.
        source_port: u16,
        /// The UDP port that the other end listens on.
        port: u16,
        /// Whether UDP carries a checksum.
        checksum: bool,
        /// The inner checksum that is left to the other end.
        remote: Option<RemoteChecksum>,
    },
}

impl Wrapping {
    /// Its length in bytes.
    pub const fn len(&self) -> usize {
        match self {
            Self::IpIp => 0,
            Self::Gre { checksum: false } => GRE_LEN,
            Self::Gre { checksum: true } => GRE_LEN + GRE_CHECKSUM_LEN,
            Self::Gue { remote: None, .. } => UDP_LEN + GUE_LEN,
            Self::Gue { remote: Some(_), .. } => UDP_LEN + GUE_LEN + GUE_REMOTE_LEN,
        }
    }

    /// Whether it takes no room.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number in the outer IP header for a packet of a family inside.
    fn protocol(&self, inner: Family) -> u8 {
        match self {
            Self::IpIp => ip_protocol(inner),
            Self::Gre { .. } => protocol::GRE,
            Self::Gue { .. } => protocol::UDP,
        }
    }

    /// Whether its checksum covers the packet inside.
    fn is_checksummed(&self) -> bool {
        matches!(self, Self::Gre { checksum: true } | Self::Gue { checksum: true, .. })
    }
}

/// A transport checksum that the other end of a GUE tunnel sums up.
///
/// **Shape** — bytes from the inner packet's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteChecksum {
    /// Where summing starts.
    pub start: u16,
    /// Where the result goes.
    pub field: u16,
}

/// The outer headers of a packet whose inner one is still to be cut.
///
/// **Shape** — they end where the inner packet starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterHeaders {
    /// Their length in bytes, the IP header included.
    pub len: u8,
    /// Whether GRE or UDP carry a checksum.
    pub checksum: bool,
    /// The largest packet that the way takes, if segments may have to leave in fragments; else 0.
    pub fragment_bytes: u16,
}

fn ip_protocol(family: Family) -> u8 {
    match family {
        Family::V4 => protocol::IPV4,
        Family::V6 => protocol::IPV6,
    }
}

/// Length of an IP header as [`Envelope`] writes it.
const fn ip_header_len(family: Family) -> usize {
    match family {
        Family::V4 => 20,
        Family::V6 => 40,
    }
}

const UDP_LEN: usize = 8;
const UDP_CHECKSUM: usize = 6;
const GRE_LEN: usize = 4;
const GRE_CHECKSUM_LEN: usize = 4;
const GRE_CHECKSUM: usize = 4;
/// The base header of GUE, and the private flags with the field for remote checksums.
const GUE_LEN: usize = 4;
const GUE_REMOTE_LEN: usize = 8;

/// GRE: checksum, routing, key and sequence number present; the version must be 0.
const GRE_HAS_CHECKSUM: u16 = 0x8000;
const GRE_HAS_ROUTING: u16 = 0x4000;
const GRE_HAS_KEY: u16 = 0x2000;
const GRE_HAS_SEQUENCE: u16 = 0x1000;
const GRE_VERSION: u16 = 0x0007;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// GUE: a control message instead of a packet, length of the options in words.
const GUE_CONTROL: u8 = 0x20;
const GUE_OPTION_WORDS: u8 = 0x1f;
/// GUE: the first option is a word of private flags, of which the first is a remote checksum.
/// **Source** — Linux include/net/gue.h, `GUE_FLAG_PRIV`, `GUE_PFLAG_REMCSUM`.
const GUE_HAS_PRIVATE: u16 = 0x0001;
const GUE_HAS_REMOTE: u32 = 0x8000_0000;
