//! Diversions: what has to come to the director's device though the kernel would not route it there.
//!
//! Replies of real servers go to clients, by the kernel's routes as by anybody's. A rule of policy
//! routing could lead them to the device by their source, but would be left behind by a process that
//! is killed. So a table of nftables, which vanishes with the process, forwards them to the device as
//! they arrive, before the kernel looks at them. Virtual addresses are diverted in the same way: that
//! works also at addresses of the kernel's own, and on hosts that do not forward.
//!
//! What is diverted too much does no harm: the director hands back what it has no use for.

use std::collections::BTreeSet;
use std::io;

use super::nftables::{Base, Contents, Expression, Hook, OwnedTable, Relation, Set};
use super::nftables::{PORT, PROTOCOL, addresses, key, key_type, octets};
use super::plan::{GuardedNetwork, guarded_keys, guarded_networks, with_keys};
use super::untrack::Untracked;
use crate::engine::ftp;
use crate::engine::service::{ForwardingMethod, ServiceKey, Snapshot};
use crate::link::{HostView, Interface, is_door};
use crate::packet::{Addr, Family, Prefix};

/// The diversions, as long as this lives.
#[derive(Debug, Default)]
pub struct Diversions {
    table: Option<OwnedTable>,
    installed: Option<Diverted>,
}

/// What is diverted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diverted {
    /// The device's number.
    device: u32,
    /// The interfaces whose packets are looked at.
    interfaces: Vec<String>,
    /// Addresses of which the director has everything.
    addresses: BTreeSet<Addr>,
    /// Addresses of the kernel's own at which there are services, or that the director uses.
    shared: BTreeSet<Addr>,
    /// Virtual endpoints at those.
    services: BTreeSet<(Addr, u8, u16)>,
    /// Protocols at those of which the director has every port.
    whole: BTreeSet<(Addr, u8)>,
    /// Networks that are the kernel's by a route, as far as rules of marks take their packets, and
    /// addresses of its own of which they take more ports than can be listed.
    marked: Vec<GuardedNetwork>,
    /// Real servers, whatever they send.
    servers: BTreeSet<Addr>,
    /// Real servers that answer to local addresses.
    peers: BTreeSet<Addr>,
    /// Those local addresses that are the kernel's own.
    locals: BTreeSet<Addr>,
    /// Servers about whose packets ICMP errors may come.
    reached: BTreeSet<Addr>,
    /// Networks whose connections to the outside the director translates.
    networks: Vec<Prefix>,
    /// Whether real servers are on this host, which outsiders must not reach as one of its clients.
    has_local_servers: bool,
}

impl Diverted {
    /// What these services need on this host to come to the device of this number, where `addresses`
    /// are the director's that the kernel does not have.
    pub fn new(
        services: &Snapshot,
        host: &HostView,
        addresses: impl Iterator<Item = Addr>,
        device: u32,
    ) -> Self {
        let addresses = addresses.collect();
        let mut diverted = Self { device, addresses, ..Self::default() };
        for key in guarded_keys(services, host) {
            diverted.add_service(key, host);
        }
        diverted.marked = guarded_networks(services, host);
        for service in services.services() {
            for real in service.pool().reals().iter() {
                if host.owns(real.addr()) {
                    diverted.has_local_servers = true;
                } else {
                    diverted.add_server(real.addr(), real.method());
                }
            }
        }
        let locals = services.locals.ports.keys().map(|(addr, _)| *addr);
        diverted.locals = locals.filter(|addr| host.owns(*addr)).collect();
        diverted.shared.extend(&diverted.locals);
        diverted.peers.extend(&services.locals.servers);
        for rule in &services.snat {
            let any = Prefix::new(Addr::v4(0), 0).expect("no prefix is shorter");
            let network = rule.source.unwrap_or(any);
            if !diverted.networks.contains(&network) {
                diverted.networks.push(network);
            }
            if host.owns(rule.to) {
                diverted.shared.insert(rule.to);
                let protocols = OUTBOUND.into_iter().map(|protocol| (rule.to, protocol));
                diverted.whole.extend(protocols);
            }
        }
        diverted
    }

    /// What of it need not be tracked once the director has forwarded it.
    pub fn untracked(&self) -> Untracked {
        let addresses = self.addresses.union(&self.shared).copied().collect();
        let networks = self.marked.iter().map(|each| each.network).collect();
        Untracked { device: self.device, addresses, networks, servers: self.reached.clone() }
    }

    /// The same from these interfaces; from all by which packets reach the kernel if none is named.
    pub fn by(mut self, host: &HostView, only: &[String]) -> Self {
        self.interfaces = watched(host, self.device, only);
        // The host's own clients.
        if !self.shared.is_empty() || !self.addresses.is_empty() || !self.marked.is_empty() {
            self.interfaces.push("lo".into());
        }
        self
    }

    fn add_server(&mut self, addr: Addr, method: ForwardingMethod) {
        match method {
            ForwardingMethod::Masquerade => {
                self.servers.insert(addr);
                self.reached.insert(addr);
            }
            ForwardingMethod::FullNat | ForwardingMethod::Tunnel => {
                self.reached.insert(addr);
            }
            ForwardingMethod::Direct | ForwardingMethod::Local | ForwardingMethod::Bypass => {}
        }
    }

    fn add_service(&mut self, key: ServiceKey, host: &HostView) {
        let ServiceKey::Address { protocol, addr, port } = key else { return };
        if !host.owns(addr) {
            return;
        }
        self.shared.insert(addr);
        self.whole.extend(with_keys(protocol, port).iter().map(|number| (addr, *number)));
        match port {
            // Data connections come to any port.
            0 | ftp::CONTROL_PORT => drop(self.whole.insert((addr, protocol.number()))),
            port => drop(self.services.insert((addr, protocol.number(), port))),
        }
    }

    fn is_empty(&self) -> bool {
        self.addresses.is_empty()
            && self.shared.is_empty()
            && self.marked.is_empty()
            && self.servers.is_empty()
            && self.reached.is_empty()
            && self.networks.is_empty()
    }

    fn contents(&self) -> Contents {
        let hook = Hook::Ingress(self.interfaces.clone());
        let mut contents = Contents::new(hook);
        contents.rules.extend(exceptions());
        if self.has_local_servers {
            contents.rules.push(forgeries());
        }
        for family in [Family::V4, Family::V6] {
            FamilyRules { contents: &mut contents, family, device: self.device }.add(self);
        }
        contents
    }
}

impl Diversions {
    /// Brings the kernel's table up to date.
    ///
    /// **Errors** — the table is as it was.
    pub fn update(&mut self, wanted: Diverted) -> io::Result<()> {
        if self.installed.as_ref() == Some(&wanted) {
            return Ok(());
        }
        if wanted.is_empty() || wanted.interfaces.is_empty() {
            self.table = None;
        } else {
            let contents = wanted.contents();
            let table = match &mut self.table {
                Some(table) => table,
                none => none.insert(OwnedTable::new(&contents.hook)?),
            };
            table.replace(&contents)?;
        }
        self.installed = Some(wanted);
        Ok(())
    }

    /// Whether the kernel can divert at all: tries it where nothing passes.
    pub fn probe(device: u32) -> io::Result<()> {
        let example = Addr::v4(0xc000_0201);
        let diverted = Diverted {
            device,
            interfaces: vec!["lo".into()],
            servers: BTreeSet::from([example]),
            ..Diverted::default()
        };
        Self::default().update(diverted)
    }
}

/// The interfaces by which packets reach the kernel's routing: not those that only carry frames for
/// another one.
fn watched(host: &HostView, device: u32, only: &[String]) -> Vec<String> {
    let is_port = |each: &Interface| {
        let master =
            each.master.and_then(|index| host.interfaces.iter().find(|m| m.index == index));
        let kind = master.and_then(|master| master.kind.as_deref());
        kind.is_some_and(|kind| CARRIERS.contains(&kind))
    };
    let named = |each: &&Interface| only.is_empty() || only.contains(&each.name);
    let others = host
        .interfaces
        .iter()
        .filter(|each| each.index != device && each.name != "lo" && !is_door(&each.name));
    let routed = others.filter(named).filter(|each| !is_port(each));
    routed.map(|each| each.name.clone()).collect()
}

/// Leaves to the kernel what is none of a router's business.
fn exceptions() -> Vec<Vec<Expression>> {
    let mut rules = vec![vec![
        // Somebody else's, or everybody's.
        Expression::LinkAddressee { register: 0 },
        compare(Relation::Unequal, vec![PACKET_HOST]),
        Expression::Accept,
    ]];
    // The interface of a VLAN has its packets without the tag.
    for tag in [0x8100_u16, 0x88a8] {
        rules.push(vec![
            load(0, Base::Link, 12, 2),
            compare(Relation::Equal, tag.to_be_bytes().to_vec()),
            Expression::Accept,
        ]);
    }
    // Neighbour discovery concerns the link it comes from.
    rules.push(vec![
        Expression::EtherType { register: 0 },
        compare(Relation::Equal, ether_type(Family::V6).to_vec()),
        Expression::TransportProtocol { register: 0 },
        compare(Relation::Equal, vec![ICMP6]),
        load(0, Base::Transport, 0, 1),
        compare(Relation::AtLeast, vec![ROUTER_SOLICITATION]),
        compare(Relation::AtMost, vec![REDIRECT]),
        Expression::Accept,
    ]);
    rules
}

/// Leaves to the kernel, which drops them, packets that say to come from the host itself and come by
/// a link.
fn forgeries() -> Vec<Expression> {
    vec![
        Expression::Arrival { register: 0 },
        compare(Relation::Unequal, LOOPBACK.to_ne_bytes().to_vec()),
        Expression::SourceType { register: 0 },
        compare(Relation::Equal, LOCAL.to_ne_bytes().to_vec()),
        Expression::Accept,
    ]
}

/// The rules for packets of one family.
struct FamilyRules<'a> {
    contents: &'a mut Contents,
    family: Family,
    device: u32,
}

impl FamilyRules<'_> {
    fn add(&mut self, diverted: &Diverted) {
        let Fields { source, destination, .. } = fields(self.family);
        let sources = self.set(["servers", "servers6"], &diverted.servers);
        let addresses = self.set(["addresses", "addresses6"], &diverted.addresses);
        let shared = self.set(["shared", "shared6"], &diverted.shared);
        let reached = self.set(["reached", "reached6"], &diverted.reached);
        let peers = self.set(["peers", "peers6"], &diverted.peers);
        let locals = self.set(["locals", "locals6"], &diverted.locals);
        // Most packets are replies, then requests.
        self.by_address(sources, source);
        if let (Some(peers), Some(locals)) = (peers, locals) {
            let mut rule = self.looks_up(peers, source);
            rule.extend(self.looks_up(locals, destination));
            self.divert(rule);
        }
        self.by_address(addresses, destination);
        self.by_service(diverted);
        self.by_network(&diverted.marked);
        let family = self.family;
        for prefix in diverted.networks.iter().filter(|each| each.addr().family() == family) {
            let mut rule = within(*prefix, source);
            rule.push(Expression::DestinationType { register: 0 });
            rule.push(compare(Relation::Equal, UNICAST.to_ne_bytes().to_vec()));
            self.divert(rule);
        }
        if let Some(set) = shared {
            let mut rule = self.is_fragment();
            rule.extend(self.looks_up(set, destination));
            self.divert(rule);
            self.errors(&self.looks_up(set, destination));
        }
        if let Some(set) = reached {
            let quoted = ICMP_HEADER_BYTES + destination;
            let (len, base) = (self.len(), Base::Transport);
            let lookup = Expression::Lookup { register: 0, set };
            self.errors(&[load(0, base, quoted, len), lookup]);
        }
    }

    fn by_address(&mut self, set: Option<&'static str>, offset: u32) {
        if let Some(set) = set {
            self.divert(self.looks_up(set, offset));
        }
    }

    /// By address, protocol and port, and by address and protocol.
    fn by_service(&mut self, diverted: &Diverted) {
        let Fields { destination, .. } = fields(self.family);
        let (first, len) = (self.len() / 4, self.len());
        let of_family = |addr: &Addr| addr.family() == self.family;
        let ports = diverted.services.iter().filter(|(addr, ..)| of_family(addr));
        let ports = ports.map(|(addr, protocol, port)| key(*addr, *protocol, Some(*port)));
        let whole = diverted.whole.iter().filter(|(addr, _)| of_family(addr));
        let whole = whole.map(|(addr, protocol)| key(*addr, *protocol, None));
        let (ports, whole): (Vec<_>, Vec<_>) = (ports.collect(), whole.collect());
        let start = [
            load(0, Base::Network, destination, len),
            Expression::TransportProtocol { register: first },
        ];
        if !ports.is_empty() {
            let set = self.own(["services", "services6"]);
            self.push_set(set, key_type(&[addresses(self.family), PROTOCOL, PORT]), ports);
            let mut rule = start.to_vec();
            rule.push(load(first + 1, Base::Transport, 2, 2));
            rule.push(Expression::Lookup { register: 0, set });
            self.divert(rule);
        }
        if !whole.is_empty() {
            let set = self.own(["whole", "whole6"]);
            self.push_set(set, key_type(&[addresses(self.family), PROTOCOL]), whole);
            let mut rule = start.to_vec();
            rule.push(Expression::Lookup { register: 0, set });
            self.divert(rule);
        }
    }

    /// By network, protocol and ports; and what else may belong to those: fragments and errors.
    fn by_network(&mut self, marked: &[GuardedNetwork]) {
        let Fields { destination, .. } = fields(self.family);
        let (mut known, family) = (Vec::new(), self.family);
        let marked = marked.iter().filter(|each| each.network.addr().family() == family);
        for GuardedNetwork { network, protocol, ports, .. } in marked {
            let inside = within(*network, destination);
            if !known.contains(network) {
                known.push(*network);
                self.divert([self.is_fragment(), inside.clone()].concat());
                self.errors(&inside);
            }
            let is_protocol = [
                Expression::TransportProtocol { register: 0 },
                compare(Relation::Equal, vec![protocol.number()]),
            ];
            let rule = [&inside[..], &is_protocol].concat();
            if ports.is_empty() {
                self.divert(rule.clone());
            }
            for range in ports {
                let bound = |relation, port: &u16| compare(relation, port.to_be_bytes().to_vec());
                let is_port = [
                    load(0, Base::Transport, 2, 2),
                    bound(Relation::AtLeast, range.start()),
                    bound(Relation::AtMost, range.end()),
                ];
                self.divert([&rule[..], &is_port].concat());
            }
        }
    }

    /// Diverts ICMP errors that match.
    fn errors(&mut self, matches: &[Expression]) {
        let (protocol, kinds): (u8, &[u8]) = match self.family {
            Family::V4 => (ICMP, &ERRORS_V4),
            Family::V6 => (ICMP6, &ERRORS_V6),
        };
        for kind in kinds {
            let mut rule = vec![
                Expression::TransportProtocol { register: 0 },
                compare(Relation::Equal, vec![protocol]),
                load(0, Base::Transport, 0, 1),
                compare(Relation::Equal, vec![*kind]),
            ];
            rule.extend_from_slice(matches);
            self.divert(rule);
        }
    }

    fn is_fragment(&self) -> Vec<Expression> {
        match self.family {
            Family::V4 => vec![
                load(0, Base::Network, 6, 2),
                Expression::Mask { register: 0, mask: vec![0x3f, 0xff] },
                compare(Relation::Unequal, vec![0, 0]),
            ],
            Family::V6 => {
                vec![load(0, Base::Network, 6, 1), compare(Relation::Equal, vec![FRAGMENT_HEADER])]
            }
        }
    }

    fn looks_up(&self, set: &'static str, offset: u32) -> Vec<Expression> {
        let lookup = Expression::Lookup { register: 0, set };
        vec![load(0, Base::Network, offset, self.len()), lookup]
    }

    /// A set of the addresses of this family; `None` if there are none.
    fn set(&mut self, names: Names, members: &BTreeSet<Addr>) -> Option<&'static str> {
        let members = members.iter().filter(|addr| addr.family() == self.family);
        let keys: Vec<_> = members.map(|addr| octets(*addr)).collect();
        let name = self.own(names);
        if keys.is_empty() {
            return None;
        }
        self.push_set(name, addresses(self.family), keys);
        Some(name)
    }

    /// The name of this family's set.
    fn own(&self, [v4, v6]: Names) -> &'static str {
        match self.family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    fn push_set(&mut self, name: &'static str, key_type: u32, keys: Vec<Vec<u8>>) {
        self.contents.sets.push(Set { name, key_type, keys });
    }

    /// Sends packets of this family that match to the device.
    fn divert(&mut self, matches: Vec<Expression>) {
        let mut rule = vec![
            Expression::EtherType { register: 0 },
            compare(Relation::Equal, ether_type(self.family).to_vec()),
        ];
        rule.extend(matches);
        rule.extend([
            Expression::Constant { register: 0, value: self.device.to_ne_bytes().to_vec() },
            Expression::Constant { register: 1, value: octets(nobody(self.family)) },
            Expression::Forward { device: 0, neighbour: 1, family: self.family },
        ]);
        self.contents.rules.push(rule);
    }

    /// Bytes of an address.
    fn len(&self) -> u32 {
        octets(nobody(self.family)).len() as u32
    }
}

/// The names of a set for IPv4 and one for IPv6.
type Names = [&'static str; 2];

/// Where addresses are in an IP header.
struct Fields {
    source: u32,
    destination: u32,
}

fn fields(family: Family) -> Fields {
    match family {
        Family::V4 => Fields { source: 12, destination: 16 },
        Family::V6 => Fields { source: 8, destination: 24 },
    }
}

/// The neighbour at the other end of the device, where no address is asked for.
/// **Source** — RFC 7600 §4.8, the IPv4 dummy address; RFC 6666, the discard prefix.
fn nobody(family: Family) -> Addr {
    match family {
        Family::V4 => Addr::v4(0xc000_0008),
        Family::V6 => Addr::v6(0x0100 << 112),
    }
}

fn ether_type(family: Family) -> [u8; 2] {
    match family {
        Family::V4 => [0x08, 0x00],
        Family::V6 => [0x86, 0xdd],
    }
}

pub(super) fn within(prefix: Prefix, offset: u32) -> Vec<Expression> {
    let network = octets(prefix.addr());
    let bits = usize::from(prefix.len());
    let mask: Vec<u8> = (0..network.len())
        .map(|at| !0xff_u8.checked_shr(bits.saturating_sub(8 * at) as u32).unwrap_or(0))
        .collect();
    let masked = network.iter().zip(&mask).map(|(byte, mask)| byte & mask).collect();
    vec![
        load(0, Base::Network, offset, network.len() as u32),
        Expression::Mask { register: 0, mask },
        compare(Relation::Equal, masked),
    ]
}

fn load(register: u32, base: Base, offset: u32, len: u32) -> Expression {
    Expression::Payload { register, base, offset, len }
}

fn compare(relation: Relation, value: Vec<u8>) -> Expression {
    Expression::Compare { register: 0, relation, value }
}

/// Kinds of interfaces whose members' packets come by themselves.
const CARRIERS: [&str; 5] = ["bridge", "bond", "team", "hsr", "openvswitch"];
const PACKET_HOST: u8 = libc::PACKET_HOST;
/// `RTN_UNICAST`: an address that is neither the host's own nor a group's.
const UNICAST: u32 = 1;
/// `RTN_LOCAL`: an address of the host's own.
const LOCAL: u32 = 2;
/// The number of the loopback interface in every namespace.
const LOOPBACK: u32 = 1;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const FRAGMENT_HEADER: u8 = 44;
/// What real servers begin and the director translates: echo requests, TCP, UDP.
const OUTBOUND: [u8; 3] = [ICMP, 6, 17];
/// Destination unreachable, time exceeded, parameter problem.
const ERRORS_V4: [u8; 3] = [3, 11, 12];
/// Destination unreachable, packet too big, time exceeded, parameter problem.
const ERRORS_V6: [u8; 4] = [1, 2, 3, 4];
const ICMP_HEADER_BYTES: u32 = 8;
const ROUTER_SOLICITATION: u8 = 133;
const REDIRECT: u8 = 137;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_a_prefix_has_its_length() {
        let mask = |addr: Addr, len| match &within(Prefix::new(addr, len).unwrap(), 12)[1] {
            Expression::Mask { mask, .. } => mask.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(mask(Addr::v4(0), 0), [0; 4]);
        assert_eq!(mask(Addr::v4(0), 20), [255, 255, 240, 0]);
        assert_eq!(mask(Addr::v4(0), 32), [255; 4]);
        assert_eq!(mask(Addr::v6(1), 12)[..3], [255, 240, 0]);
    }

    #[test]
    fn members_of_a_bridge_are_left_to_it_and_members_of_a_vrf_are_not() {
        let interface = |index, name: &str, master, kind: Option<&str>| Interface {
            index,
            name: name.into(),
            master,
            kind: kind.map(Into::into),
            ..Interface::default()
        };
        let interfaces = vec![
            interface(1, "lo", None, None),
            interface(2, "eth0", Some(4), None),
            interface(3, "eth1", Some(5), None),
            interface(4, "br0", None, Some("bridge")),
            interface(5, "blue", None, Some("vrf")),
            interface(6, "ulvs0", None, Some("tun")),
        ];
        let host = HostView { interfaces, ..HostView::default() };
        assert_eq!(watched(&host, 6, &[]), ["eth1", "br0", "blue"]);
        assert_eq!(watched(&host, 6, &["br0".into()]), ["br0"]);
    }
}
