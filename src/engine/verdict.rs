//! What becomes of a packet.

use crate::packet::{Addr, Malformed};

/// The one outcome of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The packet, rewritten in place, goes on.
    Forward(Hop),
    /// The packet is consumed; what answers it is to be fetched by `poll_output`.
    Reply,
    /// The packet is none of the director's business; the host's own stack sees to it.
    Pass,
    /// The packet is a fragment and waits for the others. Once its datagram is whole, that is to be
    /// fetched by `poll_datagram` and judged.
    Held,
    /// The packet ends here.
    Drop(DropReason),
}

/// Where a packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The address to route to. For direct routing it is not the packet's destination.
    pub to: Addr,
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DropReason {
            $($(#[doc = $doc])* $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// What it means, in a sentence.
            pub fn about(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),*).trim_ascii(),)*
                }
            }

            /// The name under which it is counted and shown.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than its headers say, or lengths that contradict each other.
    Truncated = "truncated",
    /// Neither IPv4 nor IPv6, or addresses that cannot be on a wire.
    BadHeader = "bad-header",
    /// Wrong IPv4 header checksum, or wrong ICMP checksum.
    BadChecksum = "bad-checksum",
    /// A transport header that does not fit.
    BadTransport = "bad-transport",
    /// A fragment that contradicts the others of its datagram, or makes it too long.
    BadFragment = "bad-fragment",
    /// A fragment that overlaps with another, which is discarded with its whole datagram.
    OverlappingFragment = "overlapping-fragment",
    /// A fragment whose payload has come already.
    RepeatedFragment = "repeated-fragment",
    /// The connection's real server was removed from its service.
    ServerRemoved = "server-removed",
    /// The service's server cannot be reached by a forwarding method of this director yet.
    UnsupportedMethod = "unsupported-method",
    /// A packet to a service with the SIP persistence engine that has no Call-ID.
    NoCallId = "no-call-id",
    /// It would have opened a connection, but `drop_packet` was its bane.
    DropPacket = "drop-packet",
    /// The way to the far end of a tunnel takes smaller packets only than any tunnel needs.
    TunnelTooNarrow = "tunnel-too-narrow",
    /// With the headers of a tunnel it would be longer than a packet can be.
    TooLong = "too-long",
    /// An ICMP error about a tunnel, of which note was taken and nobody has to be told.
    PathMtu = "path-mtu",
    /// It would have to grow, and there is no room in its frame.
    NoRoom = "no-room",
    /// The service has no server for it, and nobody is to be told.
    NoServer = "no-server",
    /// The connection table is full.
    TableFull = "table-full",
    /// No free port for a connection that a server begins.
    PortsExhausted = "ports-exhausted",
    /// No free port for a connection by full NAT at any local address of its service.
    LocalPortsExhausted = "local-ports-exhausted",
    /// The director has no address of its own towards a server reached by full NAT.
    NoLocalAddress = "no-local-address",
    /// The director is the addressee's router but has no rule to forward it by.
    NotForwarded = "not-forwarded",
    /// Addressed to the director itself, which has no use for it.
    NotForUs = "not-for-us",
    /// It would go from another host to a loopback address, or from one to another host, or to this
    /// host for an address that is not this host's; or it is from one of this host's addresses, and
    /// was sent by somebody else.
    LocalBoundary = "local-boundary",
    /// An ICMP error about it would have been sent but for the limit on their rate.
    IcmpLimited = "icmp-limited",
    /// Its time to live ended and no ICMP error may be sent about it.
    TtlExpired = "ttl-expired",
}

impl From<Malformed> for DropReason {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Truncated => Self::Truncated,
            Malformed::Version | Malformed::Martian => Self::BadHeader,
            Malformed::HeaderChecksum => Self::BadChecksum,
            Malformed::Transport => Self::BadTransport,
        }
    }
}

/// How many packets had which verdict. Every packet moves exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerdictCounters {
    /// Packets forwarded.
    pub forwarded: u64,
    /// Packets answered.
    pub replied: u64,
    /// Packets left to the host.
    pub passed: u64,
    /// Fragments kept until their datagrams are whole. Those are judged, and counted, as well.
    pub held: u64,
    dropped: [u64; DropReason::ALL.len()],
}

impl VerdictCounters {
    /// Counts a verdict.
    pub fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Forward(_) => self.forwarded += 1,
            Verdict::Reply => self.replied += 1,
            Verdict::Pass => self.passed += 1,
            Verdict::Held => self.held += 1,
            Verdict::Drop(reason) => self.dropped[reason as usize] += 1,
        }
    }

    /// Packets dropped for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Reasons for which packets were dropped, with their numbers.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        let all = DropReason::ALL.iter().map(|reason| (*reason, self.dropped(*reason)));
        all.filter(|(_, count)| *count > 0)
    }

    /// All packets seen.
    pub fn total(&self) -> u64 {
        self.forwarded + self.replied + self.passed + self.held + self.dropped.iter().sum::<u64>()
    }
}
