//! Guard rules: what sockets cannot keep from the kernel.
//!
//! A host that forwards packets would send replies of real servers on as they are, and their
//! connections to the outside as well. A service of every port has no port to hold. With
//! CAP_NET_ADMIN a table of nftables drops such packets after the director has seen them.
//!
//! The rules know no connections: what a real server sends from a balanced port, or matching a rule
//! of source NAT, is dropped also if it answers somebody who came to it through this host as a
//! router. Connection tracking could tell these apart, at a cost for every packet.

use std::collections::BTreeSet;
use std::io;

use super::guarded_keys;
use super::nftables::{
    ADDR_PROTOCOL, ADDR_PROTOCOL_PORT, Base, Contents, Expression, Hook, OwnedTable, Relation, Set,
    key,
};
use crate::engine::SnatRule;
use crate::engine::service::{ForwardingMethod, Protocol, ServiceKey, Snapshot};
use crate::link::HostView;
use crate::packet::{Addr, Family, Prefix};

/// The rules as they are in the kernel, or why they are not.
#[derive(Debug, Default)]
pub struct Rules {
    table: Option<OwnedTable>,
    installed: Option<Wanted>,
    failed: Option<Wanted>,
}

/// What the rules are to keep from the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Virtual endpoints.
    services: BTreeSet<(Addr, u8, u16)>,
    /// Virtual addresses of services of every port.
    whole: BTreeSet<(Addr, u8)>,
    /// Where real servers reply from.
    servers: BTreeSet<(Addr, u8, u16)>,
    /// Real servers that reply from every port.
    whole_servers: BTreeSet<(Addr, u8)>,
    /// Connections of real servers to the outside.
    outbound: Vec<SnatRule>,
    forwards: bool,
}

impl Wanted {
    /// What these services need on this host.
    pub fn new(snapshot: &Snapshot, host: &HostView) -> Self {
        let mut wanted = Self { forwards: host.forwards_v4, ..Self::default() };
        for key in guarded_keys(snapshot, host) {
            wanted.add_service(key, host);
        }
        for service in snapshot.services() {
            for real in service.pool().reals().iter() {
                if real.method() == ForwardingMethod::Masquerade && !host.owns(real.addr()) {
                    wanted.add_server(service.key(), real.addr(), real.port());
                }
            }
        }
        wanted.outbound = snapshot.snat.clone();
        wanted
    }

    /// Whether sockets do not suffice.
    pub fn is_needed(&self) -> bool {
        !self.whole.is_empty() || self.forwards_replies()
    }

    /// Whether the kernel would forward what real servers send.
    pub fn forwards_replies(&self) -> bool {
        let any =
            !self.servers.is_empty() || !self.whole_servers.is_empty() || !self.outbound.is_empty();
        self.forwards && any
    }

    fn add_service(&mut self, key: ServiceKey, host: &HostView) {
        let ServiceKey::Address { protocol, addr, port } = key else { return };
        if addr.family() != Family::V4 {
            return;
        }
        if port != 0 {
            self.services.insert((addr, protocol.number(), port));
        } else if host.owns(addr) || self.forwards {
            self.whole.insert((addr, protocol.number()));
        }
    }

    fn add_server(&mut self, key: ServiceKey, addr: Addr, port: u16) {
        if addr.family() != Family::V4 {
            return;
        }
        match key {
            ServiceKey::Address { protocol, .. } if port != 0 => {
                self.servers.insert((addr, protocol.number(), port));
            }
            ServiceKey::Address { protocol, .. } => {
                self.whole_servers.insert((addr, protocol.number()));
            }
            ServiceKey::Mark { .. } => {
                let balanced = [Protocol::Tcp, Protocol::Udp].map(|each| (addr, each.number()));
                self.whole_servers.extend(balanced);
            }
        }
    }

    fn contents(&self) -> Contents {
        let mut contents = Contents::default();
        contents.drop_ports("services", &self.services, 16, 2, false);
        contents.drop_all("whole_services", &self.whole, 16, false);
        if self.forwards {
            contents.drop_ports("servers", &self.servers, 12, 0, true);
            contents.drop_errors("servers", &self.servers);
            contents.drop_all("whole_servers", &self.whole_servers, 12, true);
            for rule in self.outbound.iter().filter(|rule| rule.to.family() == Family::V4) {
                contents.drop_outbound(rule);
            }
        }
        contents
    }
}

impl Rules {
    /// Brings the kernel's rules up to date. Says `false` if they are needed and cannot be had.
    pub fn update(&mut self, wanted: Wanted) -> Result<(), Option<io::Error>> {
        if !wanted.is_needed() {
            self.table = None;
            self.installed = None;
            self.failed = None;
            return Ok(());
        }
        if self.installed.as_ref() == Some(&wanted) {
            return Ok(());
        }
        if self.failed.as_ref() == Some(&wanted) {
            return Err(None);
        }
        match self.install(&wanted) {
            Ok(()) => {
                self.installed = Some(wanted);
                self.failed = None;
                Ok(())
            }
            Err(error) => {
                self.failed = Some(wanted);
                Err(Some(error))
            }
        }
    }

    /// Whether there are rules in the kernel.
    pub fn are_installed(&self) -> bool {
        self.installed.is_some()
    }

    fn install(&mut self, wanted: &Wanted) -> io::Result<()> {
        let table = match &mut self.table {
            Some(table) => table,
            none => none.insert(OwnedTable::new(&Hook::Prerouting)?),
        };
        table.replace(&wanted.contents())
    }
}

impl Contents {
    /// Drops packets whose address, at `offset` of the IP header, and port, at `port` of the
    /// transport header, are in a set; only those that are not the host's own if `forwarded`.
    fn drop_ports(
        &mut self,
        name: &'static str,
        members: &BTreeSet<(Addr, u8, u16)>,
        offset: u32,
        port: u32,
        forwarded: bool,
    ) {
        if members.is_empty() {
            return;
        }
        let keys = members.iter().map(|(addr, protocol, port)| key(*addr, *protocol, Some(*port)));
        self.sets.push(Set { name, key_type: ADDR_PROTOCOL_PORT, keys: keys.collect() });
        let mut rule = vec![
            load(0, Base::Network, offset, 4),
            Expression::TransportProtocol { register: 1 },
            load(2, Base::Transport, port, 2),
            Expression::Lookup { register: 0, set: name },
        ];
        rule.extend(ending(forwarded));
        self.rules.push(rule);
    }

    /// The same for every port.
    fn drop_all(
        &mut self,
        name: &'static str,
        members: &BTreeSet<(Addr, u8)>,
        offset: u32,
        forwarded: bool,
    ) {
        if members.is_empty() {
            return;
        }
        let keys = members.iter().map(|(addr, protocol)| key(*addr, *protocol, None));
        self.sets.push(Set { name, key_type: ADDR_PROTOCOL, keys: keys.collect() });
        let mut rule = vec![
            load(0, Base::Network, offset, 4),
            Expression::TransportProtocol { register: 1 },
            Expression::Lookup { register: 0, set: name },
        ];
        rule.extend(ending(forwarded));
        self.rules.push(rule);
    }

    /// Drops ICMP errors that quote a packet to a member of a set.
    fn drop_errors(&mut self, name: &'static str, members: &BTreeSet<(Addr, u8, u16)>) {
        if members.is_empty() {
            return;
        }
        for kind in ICMP_ERRORS {
            let mut rule = vec![
                Expression::TransportProtocol { register: 0 },
                equal(0, vec![1]),
                load(0, Base::Transport, 0, 1),
                equal(0, vec![kind]),
                load(0, Base::Transport, 8 + 16, 4),
                load(1, Base::Transport, 8 + 9, 1),
                load(2, Base::Transport, 8 + 20 + 2, 2),
                Expression::Lookup { register: 0, set: name },
            ];
            rule.extend(ending(true));
            self.rules.push(rule);
        }
    }

    /// Drops what the director translates on its way out.
    fn drop_outbound(&mut self, snat: &SnatRule) {
        let mut rule = Vec::new();
        rule.extend(snat.source.iter().flat_map(|prefix| within(*prefix, 12)));
        rule.extend(snat.destination.iter().flat_map(|prefix| within(*prefix, 16)));
        if let Some(protocol) = snat.protocol {
            rule.push(Expression::TransportProtocol { register: 0 });
            rule.push(equal(0, vec![protocol]));
        }
        if let Some(name) = &snat.out {
            let (name, any_ending) = match name.strip_suffix('+') {
                Some(beginning) => (beginning, true),
                None => (name.as_str(), false),
            };
            let mut value = name.as_bytes().to_vec();
            if !any_ending {
                value.resize(INTERFACE_NAME_LEN, 0);
            }
            value.truncate(INTERFACE_NAME_LEN);
            if !value.is_empty() {
                rule.push(Expression::OutInterface { register: 0 });
                rule.push(equal(0, value));
            }
        }
        rule.extend(ending(true));
        self.rules.push(rule);
    }
}

/// Drops the packet, if it is not for the host itself where only `forwarded` ones are meant.
fn ending(forwarded: bool) -> Vec<Expression> {
    let mut ending = Vec::new();
    if forwarded {
        ending.push(Expression::DestinationType { register: 0 });
        ending.push(equal(0, UNICAST.to_ne_bytes().to_vec()));
    }
    ending.push(Expression::Drop);
    ending
}

fn within(prefix: Prefix, offset: u32) -> [Expression; 3] {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.len())).unwrap_or(0);
    let network = prefix.addr().v4_bits() & mask;
    [
        load(0, Base::Network, offset, 4),
        Expression::Mask { register: 0, mask: mask.to_be_bytes().to_vec() },
        equal(0, network.to_be_bytes().to_vec()),
    ]
}

fn load(register: u32, base: Base, offset: u32, len: u32) -> Expression {
    Expression::Payload { register, base, offset, len }
}

fn equal(register: u32, value: Vec<u8>) -> Expression {
    Expression::Compare { register, relation: Relation::Equal, value }
}

/// `RTN_UNICAST`: an address that is neither the host's own nor a group's.
const UNICAST: u32 = 1;
/// Destination unreachable, time exceeded, parameter problem.
const ICMP_ERRORS: [u8; 3] = [3, 11, 12];
const INTERFACE_NAME_LEN: usize = libc::IFNAMSIZ;
