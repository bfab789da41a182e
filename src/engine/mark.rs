//! Firewall marks, as `iptables -t mangle ... -j MARK` gives them.

use std::ops::RangeInclusive;

use super::network::Network;
use crate::packet::headers::carries_ports;
use crate::packet::{Headers, Prefix};

/// A rule in the words of iptables: `-s SOURCE -d DESTINATION -i INTERFACE -p PROTOCOL --sport PORTS
/// --dport PORTS -j MARK --set-xmark VALUE/MASK`. One without addresses is for both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarkRule {
    /// The interface the packet came by (`-i`); any if `None`.
    pub input: Option<String>,
    /// Where the packet comes from (`-s`); anywhere if `None`.
    pub source: Option<Prefix>,
    /// Where it goes to (`-d`); anywhere if `None`.
    pub destination: Option<Prefix>,
    /// Its IP protocol number (`-p`); any if `None`.
    pub protocol: Option<u8>,
    /// The source ports it may have; any if there are none.
    pub source_ports: Vec<RangeInclusive<u16>>,
    /// The destination ports it may have; any if there are none.
    pub destination_ports: Vec<RangeInclusive<u16>>,
    /// Bits that are turned over once those of the mask are zero.
    pub value: u32,
    /// Bits of the mark that are set to zero first.
    pub mask: u32,
    /// What the rule is for, in somebody's words (`--comment`).
    pub comment: Option<String>,
}

impl MarkRule {
    /// Whether the rule takes a packet.
    pub fn takes(&self, headers: &Headers, network: &impl Network) -> bool {
        let Headers { source, destination, .. } = headers;
        self.protocol.is_none_or(|wanted| wanted == headers.protocol)
            && self.source.is_none_or(|prefix| prefix.contains(source.addr))
            && self.destination.is_none_or(|prefix| prefix.contains(destination.addr))
            && has_port(&self.source_ports, headers.protocol, source.port)
            && has_port(&self.destination_ports, headers.protocol, destination.port)
            && self.input.as_deref().is_none_or(|interface| network.arrived_by(interface))
    }
}

/// The mark that rules give to a packet: each that takes it, in their order, changes the mark.
pub fn mark(rules: &[MarkRule], headers: &Headers, network: &impl Network) -> u32 {
    rules
        .iter()
        .filter(|rule| rule.takes(headers, network))
        .fold(0, |mark, rule| mark & !rule.mask ^ rule.value)
}

fn has_port(wanted: &[RangeInclusive<u16>], number: u8, port: u16) -> bool {
    wanted.is_empty() || carries_ports(number) && wanted.iter().any(|range| range.contains(&port))
}
