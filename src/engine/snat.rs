//! Source NAT for connections that real servers begin, as `iptables -t nat ... -j SNAT` does it.

use std::ops::RangeInclusive;

use super::network::Network;
use crate::packet::{Addr, Prefix};

/// A rule in the words of iptables: `-o INTERFACE -s SOURCE -d DESTINATION -p PROTOCOL -j SNAT
/// --to-source ADDRESS[:PORTS]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnatRule {
    /// The interface the packet leaves by (`-o`); any if `None`.
    pub out: Option<String>,
    /// Where the packet comes from (`-s`); anywhere if `None`.
    pub source: Option<Prefix>,
    /// Where it goes to (`-d`); anywhere if `None`.
    pub destination: Option<Prefix>,
    /// Its IP protocol number (`-p`); any of TCP, UDP and ICMP echo if `None`.
    pub protocol: Option<u8>,
    /// The source address it gets.
    pub to: Addr,
    /// The source ports to choose from.
    pub ports: RangeInclusive<u16>,
}

/// Source ports of translated connections unless a rule names others.
///
/// **Source** — the range of Linux's IP masquerading (`PORT_MASQ_BEGIN`, `PORT_MASQ_END`), which
/// lies beyond the default range of ephemeral ports, so that the host does not use them itself.
pub const DEFAULT_PORTS: RangeInclusive<u16> = 61_000..=65_095;

impl SnatRule {
    /// Whether the rule takes a packet of this kind.
    pub fn takes(&self, protocol: u8, source: Addr, to: Addr, network: &impl Network) -> bool {
        self.protocol.is_none_or(|wanted| wanted == protocol)
            && self.to.family() == source.family()
            && self.source.is_none_or(|prefix| prefix.contains(source))
            && self.destination.is_none_or(|prefix| prefix.contains(to))
            && self.out.as_deref().is_none_or(|interface| network.leaves_by(to, interface))
    }
}
