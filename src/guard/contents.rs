//! The rules as nftables has them: which bytes of a packet are looked at, family by family.

mod door;
mod members;
mod outbound;
mod pieces;

use std::ops::RangeInclusive;

use members::End;
pub use members::Members;

use super::nftables::{
    Base, Contents, Expression, Hook, LearnedSet, MARK, PORT, PROTOCOL, Relation, addresses,
    key_type,
};
use crate::packet::headers::protocol;
use crate::packet::{Family, Prefix};

/// Where things are in packets of a family, and in which registers they are compared.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    family: Family,
    /// Bytes of an address.
    addr_len: u32,
    /// Registers of an address.
    addr_registers: u32,
    source: u32,
    destination: u32,
    /// Length of an IP header that is quoted, and where it names the protocol.
    header_len: u32,
    protocol: u32,
    icmp: u8,
    /// Types of ICMP errors that quote a packet.
    errors: &'static [u8],
    echo_request: u8,
}

impl Layout {
    /// The layout of a family.
    pub const fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self {
                family,
                addr_len: 4,
                addr_registers: 1,
                source: 12,
                destination: 16,
                header_len: 20,
                protocol: 9,
                icmp: protocol::ICMP,
                // Destination unreachable, time exceeded, parameter problem.
                errors: &[3, 11, 12],
                echo_request: 8,
            },
            Family::V6 => Self {
                family,
                addr_len: 16,
                addr_registers: 4,
                source: 8,
                destination: 24,
                header_len: 40,
                protocol: 6,
                icmp: protocol::ICMP6,
                // The same and packet too big.
                errors: &[1, 2, 3, 4],
                echo_request: 128,
            },
        }
    }

    /// Where packets of the family are looked at.
    pub fn hook(self) -> Hook {
        Hook::Prerouting(self.family)
    }

    /// The sets of connections to servers that the kernel forwards itself, and of datagrams in
    /// fragments whose first one was dropped.
    pub fn learned_sets(self) -> [LearnedSet; 2] {
        let addr = addresses(self.family);
        let connection = key_type(&[addr, PORT, addr, PORT, PROTOCOL]);
        let (number, registers) =
            (if self.addr_len == 4 { PORT } else { MARK }, self.addr_registers);
        let set = |name, key_type, registers, keep_ms| LearnedSet {
            name,
            key_type,
            key_len: 4 * registers,
            keep_ms,
        };
        [
            set(DIRECT, connection, 2 * registers + 3, DIRECT_MS),
            set(PIECES, key_type(&[addr, addr, number]), 2 * registers + 1, PIECES_MS),
        ]
    }

    /// Adds a set, unless it is there or has no members.
    pub fn add_set(self, to: &mut Contents, members: Members<'_>) {
        if !members.are_in(to) {
            to.sets.extend(members.set(self));
        }
    }

    /// Adds a set of servers, unless it is there, and learns connections to them.
    pub fn add_servers(self, to: &mut Contents, servers: Members<'_>) {
        if servers.are_in(to) {
            return;
        }
        self.add_set(to, servers);
        if servers.are_in(to) {
            self.learn_requests(to, &servers.found(self, End::Destination));
        }
    }

    /// Drops packets to the members.
    pub fn drop_requests(self, to: &mut Contents, members: Members<'_>) {
        self.add_set(to, members);
        if members.are_in(to) {
            self.drop(to, members.found(self, End::Destination));
        }
    }

    /// Drops packets from elsewhere to a network and some ports, or all if there are none.
    pub fn drop_network_requests(
        self,
        to: &mut Contents,
        network: Prefix,
        protocol: u8,
        ports: &[RangeInclusive<u16>],
    ) {
        let relation = Relation::Unequal;
        let not_own = Expression::Compare { register: 0, relation, value: interface_name("lo") };
        let mut found = vec![Expression::InInterface { register: 0 }, not_own];
        found.extend(self.within(network, self.destination));
        found.extend([load_protocol(0), equal(0, vec![protocol])]);
        if ports.is_empty() {
            return self.drop(to, found);
        }
        for range in ports {
            let bound = |relation, port: &u16| {
                let value = port.to_be_bytes().to_vec();
                Expression::Compare { register: 0, relation, value }
            };
            let port = vec![
                load(0, Base::Transport, 2, 2),
                bound(Relation::AtLeast, range.start()),
                bound(Relation::AtMost, range.end()),
            ];
            self.drop(to, [found.clone(), port].concat());
        }
    }

    /// Drops packets from endpoints that would be forwarded, but for answers to what was forwarded;
    /// and ICMP errors about packets to them.
    pub fn drop_replies(self, to: &mut Contents, servers: Members<'_>) {
        self.add_servers(to, servers);
        if !servers.are_in(to) {
            return;
        }
        let found = servers.found(self, End::Source);
        self.drop(to, [found, self.unless_direct(), is_forwarded()].concat());
        self.drop_errors(to, &servers.quoted(self));
    }

    /// The same for all ports of addresses. Connections that these begin are no answers.
    pub fn drop_all_replies(self, to: &mut Contents, servers: Members<'_>) {
        self.add_servers(to, servers);
        if !servers.are_in(to) {
            return;
        }
        let found = servers.found(self, End::Source);
        for is_answer in [not_tcp(), does_not_begin()] {
            let unless = self.unless_direct();
            self.drop(to, [found.clone(), is_answer, unless, is_forwarded()].concat());
        }
        self.drop_errors(to, &servers.quoted(self));
    }

    /// The same for protocols without ports.
    pub fn drop_portless_replies(self, to: &mut Contents, servers: Members<'_>) {
        self.add_set(to, servers);
        if !servers.are_in(to) {
            return;
        }
        let found = servers.found(self, End::Source);
        let mut unless_direct = self.hosts(self.destination, self.source);
        unless_direct.push(Expression::Miss { register: 0, set: DIRECT });
        self.drop(to, [found, unless_direct, is_forwarded()].concat());
        let mut learn = self.hosts(self.source, self.destination);
        learn.push(Expression::Learn { register: 0, set: DIRECT, keep_ms: DIRECT_MS });
        add(to, FORWARDED, &[servers.found(self, End::Destination), learn].concat());
        self.drop_errors(to, &servers.quoted(self));
    }

    /// Drops ICMP errors that meet some conditions, unless they are about a packet of a connection
    /// that the kernel forwards.
    fn drop_errors(self, to: &mut Contents, conditions: &[Expression]) {
        let mut unless_direct = self.quoted_connection();
        unless_direct.push(Expression::Miss { register: 0, set: DIRECT });
        for kind in self.errors {
            let is_error = self.is_icmp(*kind);
            let all = [&is_error, conditions, &unless_direct, &is_forwarded()].concat();
            self.drop(to, all);
        }
    }

    /// Loads both ends of the connection whose packet an ICMP error quotes.
    fn quoted_connection(self) -> Vec<Expression> {
        let behind = self.addr_registers;
        vec![
            self.quoted(0, self.source, self.addr_len),
            self.quoted(behind, self.header_len, 2),
            self.quoted(behind + 1, self.destination, self.addr_len),
            self.quoted(2 * behind + 1, self.header_len + 2, 2),
            self.quoted(2 * behind + 2, self.protocol, 1),
        ]
    }

    fn is_icmp(self, kind: u8) -> Vec<Expression> {
        vec![
            load_protocol(0),
            equal(0, vec![self.icmp]),
            load(0, Base::Transport, 0, 1),
            equal(0, vec![kind]),
        ]
    }

    /// Loads bytes of the packet that an ICMP error quotes.
    fn quoted(self, register: u32, offset: u32, len: u32) -> Expression {
        load(register, Base::Transport, 8 + offset, len)
    }

    /// Goes on unless the packet answers a connection that the kernel forwards.
    fn unless_direct(self) -> Vec<Expression> {
        let mut connection = self.connection(self.destination, 2, self.source, 0);
        connection.push(Expression::Miss { register: 0, set: DIRECT });
        connection
    }

    /// Remembers connections to servers, by matching packets that the kernel forwards or sends.
    fn learn_requests(self, to: &mut Contents, matches: &[Expression]) {
        let rule = [matches, &self.learn_in(DIRECT)].concat();
        [FORWARDED, SENT].iter().for_each(|chain| add(to, chain, &rule));
    }

    /// Remembers the connection of a packet to a server.
    fn learn_in(self, set: &'static str) -> Vec<Expression> {
        let mut connection = self.connection(self.source, 0, self.destination, 2);
        connection.push(Expression::Learn { register: 0, set, keep_ms: DIRECT_MS });
        connection
    }

    /// Loads both ends of a connection, the one that is not the server's first.
    fn connection(self, near: u32, near_port: u32, far: u32, far_port: u32) -> Vec<Expression> {
        let behind = self.addr_registers;
        vec![
            self.load_addr(0, near),
            load(behind, Base::Transport, near_port, 2),
            self.load_addr(behind + 1, far),
            load(2 * behind + 1, Base::Transport, far_port, 2),
            load_protocol(2 * behind + 2),
        ]
    }

    /// Loads the same for a packet without ports.
    fn hosts(self, near: u32, far: u32) -> Vec<Expression> {
        let behind = self.addr_registers;
        let no_port = |register| Expression::Constant { register, value: vec![0; 4] };
        vec![
            self.load_addr(0, near),
            no_port(behind),
            self.load_addr(behind + 1, far),
            no_port(2 * behind + 1),
            load_protocol(2 * behind + 2),
        ]
    }

    fn within(self, prefix: Prefix, offset: u32) -> [Expression; 3] {
        let bits = u32::from(prefix.len()) + 128 - 8 * self.addr_len;
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        let bytes = |bits: u128| bits.to_be_bytes()[16 - self.addr_len as usize..].to_vec();
        [
            self.load_addr(0, offset),
            Expression::Mask { register: 0, mask: bytes(mask) },
            equal(0, bytes(prefix.addr().bits() & mask)),
        ]
    }

    fn load_addr(self, register: u32, offset: u32) -> Expression {
        load(register, Base::Network, offset, self.addr_len)
    }
}

/// Adds a rule to a chain, if that is there.
fn add(to: &mut Contents, chain: &str, rule: &[Expression]) {
    let chain = to.others.iter_mut().find(|each| each.name == chain);
    if let Some(chain) = chain {
        chain.rules.push(rule.to_vec());
    }
}

/// What an interface's name begins with that fits a pattern of iptables; all of it, with the zeroes
/// behind it, if there is no `+`.
fn interface_name(pattern: &str) -> Vec<u8> {
    let mut value = pattern.strip_suffix('+').unwrap_or(pattern).as_bytes().to_vec();
    if !pattern.ends_with('+') {
        value.resize(libc::IFNAMSIZ, 0);
    }
    value.truncate(libc::IFNAMSIZ);
    value
}

fn not_tcp() -> Vec<Expression> {
    let value = vec![protocol::TCP];
    vec![load_protocol(0), Expression::Compare { register: 0, relation: Relation::Unequal, value }]
}

/// Goes on for segments of TCP that do not open a connection.
fn does_not_begin() -> Vec<Expression> {
    let opens = Expression::Compare { register: 0, relation: Relation::Unequal, value: vec![SYN] };
    vec![
        load_protocol(0),
        equal(0, vec![protocol::TCP]),
        load(0, Base::Transport, 13, 1),
        Expression::Mask { register: 0, mask: vec![SYN | ACK | RST] },
        opens,
    ]
}

/// Goes on for packets that are not for the host itself.
fn is_forwarded() -> Vec<Expression> {
    vec![Expression::DestinationType { register: 0 }, equal(0, UNICAST.to_ne_bytes().to_vec())]
}

/// Goes on for packets that are for the host itself.
fn is_local() -> Vec<Expression> {
    vec![Expression::DestinationType { register: 0 }, equal(0, LOCAL.to_ne_bytes().to_vec())]
}

fn load(register: u32, base: Base, offset: u32, len: u32) -> Expression {
    Expression::Payload { register, base, offset, len }
}

fn load_protocol(register: u32) -> Expression {
    Expression::TransportProtocol { register }
}

fn lookup(register: u32, set: &'static str) -> Expression {
    Expression::Lookup { register, set }
}

fn equal(register: u32, value: Vec<u8>) -> Expression {
    Expression::Compare { register, relation: Relation::Equal, value }
}

/// Connections to servers that the kernel forwards: the other's address and port, the server's, the
/// protocol.
const DIRECT: &str = "direct";
/// How long those are remembered. **Source** — a TCP connection's time in IPVS.
const DIRECT_MS: u64 = 900_000;
/// Datagrams whose first fragment was dropped: addresses and number.
const PIECES: &str = "pieces";
/// How long those are remembered. **Source** — Linux `ipfrag_time`.
const PIECES_MS: u64 = 30_000;
/// The host's own clients of services: address, port, protocol.
const CLIENTS: &str = "clients";
/// Chains of packets that the kernel forwards, and that the host itself sends.
const FORWARDED: &str = "forwarded";
const SENT: &str = "sent";
/// Flags of TCP.
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// `RTN_UNICAST`: an address that is neither the host's own nor a group's.
const UNICAST: u32 = 1;
/// `RTN_LOCAL`: an address of the host's own.
const LOCAL: u32 = 2;
