//! Which sockets the services need on a host.

use std::fs;

use hashbrown::HashSet;

use crate::engine::ftp;
use crate::engine::mark::{ALL_PORTS, MarkRule, Ports};
use crate::engine::service::{Protocol, ServiceKey, Snapshot};
use crate::link::HostView;
use crate::packet::headers::{ISAKMP, protocol};
use crate::packet::{Addr, Endpoint, Family, Prefix};

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
        let Some(Asked { protocols, single: Some(ports), .. }) = asked_by(rule) else { continue };
        let leads = |addr: &Addr| led_to(services, rule, addr.family()).is_some();
        let routed = overlaps(rule, host).filter(Prefix::is_single).map(|prefix| prefix.addr());
        let addrs = own_addresses(rule, host).chain(routed).filter(leads);
        for (addr, protocol) in
            addrs.flat_map(|addr| protocols.iter().map(move |each| (addr, *each)))
        {
            let endpoints =
                ports.iter().map(|port| ServiceKey::Address { protocol, addr, port: *port });
            keys.extend(endpoints);
        }
    }
    keys
}

/// A network that is the kernel's by a route, or an address of its own, as far as the rule of a
/// service's mark takes its packets. It has too many addresses, or ports, to hold each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GuardedNetwork {
    pub service: ServiceKey,
    pub network: Prefix,
    pub protocol: Protocol,
    /// All ports if there are none.
    pub ports: Vec<Ports>,
}

/// Such networks, each once.
pub(super) fn guarded_networks(services: &Snapshot, host: &HostView) -> Vec<GuardedNetwork> {
    let mut found = Vec::new();
    for rule in services.active_marks() {
        let Some(Asked { protocols, single: few, ranges }) = asked_by(rule) else { continue };
        let is_wide = few.is_none();
        let own = own_addresses(rule, host).filter(|_| is_wide).filter_map(single);
        let routed = overlaps(rule, host).filter(|prefix| is_wide || !prefix.is_single());
        for network in own.chain(routed) {
            let Some(service) = led_to(services, rule, network.addr().family()) else { continue };
            for protocol in &protocols {
                let ports = ranges.clone();
                let guarded = GuardedNetwork { service, network, protocol: *protocol, ports };
                if !found.contains(&guarded) {
                    found.push(guarded);
                }
            }
        }
    }
    found
}

/// What a rule takes of an address.
struct Asked {
    protocols: Vec<Protocol>,
    /// The ports, if they are few enough to be held one by one; 0 for all.
    single: Option<Vec<u16>>,
    /// All ports if there are none.
    ranges: Vec<Ports>,
}

/// What a rule takes of each of its addresses; none if it picks out a few packets by where they come
/// from, for which whole addresses are not taken from the kernel.
fn asked_by(rule: &MarkRule) -> Option<Asked> {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter();
    let protocols = protocols.filter(|each| rule.may_be(each.number())).collect();
    let ranges = rule.destination_ports();
    let count: usize = ranges.iter().map(|range| range.len()).sum();
    match count {
        0 => None,
        1..=MOST_PORTS => {
            let single = Some(ranges.iter().cloned().flatten().collect());
            Some(Asked { protocols, single, ranges })
        }
        _ if ranges != [ALL_PORTS] => Some(Asked { protocols, single: None, ranges }),
        _ if rule.is_picky() => None,
        _ => Some(Asked { protocols, single: Some(vec![0]), ranges: Vec::new() }),
    }
}

/// The addresses of the host's interfaces that a rule's packets may go to.
fn own_addresses(rule: &MarkRule, host: &HostView) -> impl Iterator<Item = Addr> {
    host.addresses.iter().map(|own| own.addr).filter(|addr| rule.may_go_to(*addr))
}

fn single(addr: Addr) -> Option<Prefix> {
    let bits = match addr.family() {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    Prefix::new(addr, bits)
}

/// A service of a family to whose mark a rule may lead.
fn led_to(services: &Snapshot, rule: &MarkRule, family: Family) -> Option<ServiceKey> {
    let marks = services.services().filter_map(|service| match service.key() {
        ServiceKey::Mark { mark, family: of } if of == family => Some(mark),
        ServiceKey::Mark { .. } | ServiceKey::Address { .. } => None,
    });
    let mark = marks.filter(|mark| rule.may_give(*mark)).min()?;
    Some(ServiceKey::Mark { mark, family })
}

/// What a rule's destination has in common with what is the kernel's by a route. The loopback
/// network stays with the kernel.
fn overlaps(rule: &MarkRule, host: &HostView) -> impl Iterator<Item = Prefix> {
    let pairs = host.locals.iter().filter_map(|local| Some((*local, rule.destination_network()?)));
    let both = pairs.filter_map(|(local, wanted)| {
        let (wide, narrow) =
            if local.len() <= wanted.len() { (local, wanted) } else { (wanted, local) };
        wide.contains(narrow.addr()).then_some(narrow)
    });
    both.filter(|prefix| !prefix.addr().is_loopback())
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
