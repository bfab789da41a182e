//! Which sockets the services need on a host.

use std::fs;
use std::ops::RangeInclusive;

use hashbrown::HashSet;

use crate::engine::MarkRule;
use crate::engine::ftp;
use crate::engine::service::{Protocol, ServiceKey, Snapshot};
use crate::link::HostView;
use crate::packet::headers::{ISAKMP, protocol};
use crate::packet::{Addr, Endpoint, Prefix};

/// What a guard keeps the kernel away from: a port of one of its addresses, or a protocol there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guarded {
    /// The number of the transport protocol.
    pub protocol: u8,
    /// The kernel's address and the port; port 0 for all that a protocol has there, which works for
    /// those that the kernel itself has no use for.
    pub at: Endpoint,
    /// The interface that the address is on, for one that is valid on a single link; else 0.
    pub interface: u32,
}

/// The services, for those of FTP where their servers' data connections come from, and for those by
/// mark the endpoints at the kernel's addresses that the rules of their marks name, as if each had a
/// service of its own.
pub(super) fn guarded_keys(services: &Snapshot, host: &HostView) -> HashSet<ServiceKey> {
    let mut keys: HashSet<_> = services.services().map(|service| service.key()).collect();
    keys.extend(services.services().filter_map(|service| data_port(service.key())));
    for rule in services.active_marks() {
        let Some((protocols, ports)) = endpoints_of(rule) else { continue };
        let leads = |family| services.service(&ServiceKey::Mark { mark: rule.value, family });
        let own = host.addresses.iter().map(|own| own.addr);
        let own = own.filter(|addr| leads(addr.family()).is_some());
        let own = own.filter(|addr| rule.destination.is_none_or(|prefix| prefix.contains(*addr)));
        let routed = overlaps(rule, host).filter(Prefix::is_single).map(|prefix| prefix.addr());
        let own = own.chain(routed.filter(|addr| leads(addr.family()).is_some()));
        for (addr, protocol) in own.flat_map(|addr| protocols.iter().map(move |each| (addr, *each)))
        {
            let endpoints =
                ports.iter().map(|port| ServiceKey::Address { protocol, addr, port: *port });
            keys.extend(endpoints);
        }
    }
    keys
}

/// A network that is the kernel's by a route, as far as the rule of a service's mark takes its
/// packets. It has too many addresses to hold ports at each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GuardedNetwork {
    pub service: ServiceKey,
    pub network: Prefix,
    pub protocol: Protocol,
    /// All ports if there are none.
    pub ports: Vec<RangeInclusive<u16>>,
}

/// Such networks, each once.
pub(super) fn guarded_networks(services: &Snapshot, host: &HostView) -> Vec<GuardedNetwork> {
    let mut networks = Vec::new();
    for rule in services.active_marks() {
        let Some((protocols, _)) = endpoints_of(rule) else { continue };
        for network in overlaps(rule, host).filter(|prefix| !prefix.is_single()) {
            let service = ServiceKey::Mark { mark: rule.value, family: network.addr().family() };
            if services.service(&service).is_none() {
                continue;
            }
            for protocol in &protocols {
                let ports = rule.destination_ports.clone();
                let guarded = GuardedNetwork { service, network, protocol: *protocol, ports };
                if !networks.contains(&guarded) {
                    networks.push(guarded);
                }
            }
        }
    }
    networks
}

/// The protocols and single ports that a rule takes, or port 0 for all; none if it picks out a few
/// packets by where they come from, for which whole addresses are not taken from the kernel.
fn endpoints_of(rule: &MarkRule) -> Option<(Vec<Protocol>, Vec<u16>)> {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter();
    let protocols =
        protocols.filter(|each| rule.protocol.is_none_or(|number| number == each.number()));
    let is_picky = rule.source.is_some() || rule.input.is_some();
    let ports = single_ports(&rule.destination_ports);
    (ports != [0] || !is_picky).then(|| (protocols.collect(), ports))
}

/// What a rule's destination has in common with what is the kernel's by a route. The loopback
/// network stays with the kernel.
fn overlaps(rule: &MarkRule, host: &HostView) -> impl Iterator<Item = Prefix> {
    let pairs = host.locals.iter().filter_map(|local| Some((*local, rule.destination?)));
    let both = pairs.filter_map(|(local, wanted)| {
        let (wide, narrow) =
            if local.len() <= wanted.len() { (local, wanted) } else { (wanted, local) };
        wide.contains(narrow.addr()).then_some(narrow)
    });
    both.filter(|prefix| !prefix.addr().is_loopback())
}

/// The ports of ranges, if they are few enough to be held one by one; else 0, for all ports.
fn single_ports(ranges: &[RangeInclusive<u16>]) -> Vec<u16> {
    let count: usize = ranges.iter().map(|range| range.len()).sum();
    match count {
        1..=MOST_PORTS => ranges.iter().cloned().flatten().collect(),
        _ => vec![0],
    }
}

/// Ports that a guard holds for one rule at most.
const MOST_PORTS: usize = 1024;

/// What a service needs from the guard.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    Nothing,
    Hold(Vec<Guarded>),
    Cannot(Addr),
}

/// What a service needs on this host.
pub(super) fn plan(key: ServiceKey, host: &HostView) -> Plan {
    let ServiceKey::Address { protocol, addr, port } = key else { return Plan::Nothing };
    if !host.owns(addr) {
        return Plan::Nothing;
    }
    let number = protocol.number();
    let held = match protocol {
        Protocol::Tcp | Protocol::Udp if port == 0 => return Plan::Cannot(addr),
        Protocol::Udp if port == ISAKMP => {
            vec![(number, port), (protocol::ESP, 0), (protocol::AH, 0)]
        }
        Protocol::Tcp | Protocol::Udp => vec![(number, port)],
        Protocol::Sctp if !kernel_has_sctp() => vec![(number, 0)],
        Protocol::Sctp if port == 0 => return Plan::Cannot(addr),
        Protocol::Sctp => vec![(number, port)],
    };
    Plan::Hold(held.into_iter().flat_map(|(number, port)| at(addr, number, port, host)).collect())
}

/// An address that is valid on a single link is guarded on each that it is on.
fn at(addr: Addr, protocol: u8, port: u16, host: &HostView) -> Vec<Guarded> {
    let guarded = |interface| Guarded { protocol, at: Endpoint::new(addr, port), interface };
    if !addr.is_link_local() {
        return vec![guarded(0)];
    }
    let own = host.addresses.iter().filter(|own| own.addr == addr);
    own.map(|own| guarded(own.interface)).collect()
}

/// Where connections that the servers of an FTP service begin seem to come from.
fn data_port(key: ServiceKey) -> Option<ServiceKey> {
    match key {
        ServiceKey::Address { protocol: Protocol::Tcp, addr, port: ftp::CONTROL_PORT } => {
            let port = ftp::CONTROL_PORT - 1;
            Some(ServiceKey::Address { protocol: Protocol::Tcp, addr, port })
        }
        _ => None,
    }
}

/// The protocols of IPsec that come with a service: those packets belong to the exchange of keys.
pub(super) fn with_keys(protocol: Protocol, port: u16) -> &'static [u8] {
    match (protocol, port) {
        (Protocol::Udp, 0 | ISAKMP) => &[protocol::ESP, protocol::AH],
        _ => &[],
    }
}

/// Whether the kernel speaks SCTP now. Asking for a socket would make it load the module.
pub(super) fn kernel_has_sctp() -> bool {
    let protocols = fs::read_to_string("/proc/thread-self/net/protocols").unwrap_or_default();
    protocols.lines().any(|line| line.split_ascii_whitespace().next() == Some("SCTP"))
}
