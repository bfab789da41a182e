//! Rules for the host's own clients and servers: what tells their packets from others.

use super::super::nftables::{
    Base, Chain, Contents, Expression, Hook, LearnedSet, PORT, PROTOCOL, addresses, key_type,
};
use super::{
    CLIENTS, DIRECT_MS, End, FORWARDED, Layout, Members, SENT, add, equal, is_local, load,
    load_protocol, lookup,
};
use crate::packet::Family;

/// What keeps from the kernel what servers send to the host's own clients.
impl Layout {
    /// The endpoints of the host's own programs that are clients of services.
    pub fn clients_set(self) -> LearnedSet {
        let key_type = key_type(&[addresses(self.family), PORT, PROTOCOL]);
        LearnedSet {
            name: CLIENTS,
            key_type,
            key_len: 4 * (self.addr_registers + 2),
            keep_ms: DIRECT_MS,
        }
    }

    /// The chain of packets that the kernel forwards.
    pub fn forwarded(self) -> Chain {
        Chain { name: FORWARDED, hook: Hook::Forward(self.family), rules: Vec::new() }
    }

    /// The chain of packets that the host itself sends.
    pub fn sent(self) -> Chain {
        Chain { name: SENT, hook: Hook::Output(self.family), rules: Vec::new() }
    }

    /// Leaves what comes by an interface alone.
    pub fn accept_from(self, to: &mut Contents, interface: u32) {
        let is_from = equal(0, interface.to_ne_bytes().to_vec());
        to.rules.push(vec![Expression::Arrival { register: 0 }, is_from, Expression::Accept]);
    }

    /// Keeps the kernel from forwarding packets out of an interface.
    pub fn drop_forwarded_to(self, to: &mut Contents, interface: u32) {
        let leaves = equal(0, interface.to_ne_bytes().to_vec());
        add(to, FORWARDED, &[Expression::Departure { register: 0 }, leaves, Expression::Drop]);
    }

    /// Remembers which of the host's own programs are clients of the services of a set.
    pub fn learn_clients(self, to: &mut Contents, services: Members<'_>) {
        if !services.are_in(to) {
            return;
        }
        let mut rule = services.found(self, End::Destination);
        rule.extend(self.client(self.source, 0));
        rule.push(Expression::Learn { register: 0, set: CLIENTS, keep_ms: DIRECT_MS });
        add(to, SENT, &rule);
    }

    /// Drops what the servers of a set send to the host's own clients of services, which the
    /// director has to translate first.
    pub fn drop_deliveries(self, to: &mut Contents, servers: Members<'_>) {
        if !servers.are_in(to) {
            return;
        }
        let found = servers.found(self, End::Source);
        let mut is_client = self.client(self.destination, 2);
        is_client.push(lookup(0, CLIENTS));
        let drop = vec![Expression::Drop];
        to.rules.push([found, is_client, self.unless_direct(), drop].concat());
    }

    /// Drops what comes from endpoints of a set to the host itself: connections that servers of FTP
    /// open to the host's own clients, which nobody can tell from others before they are answered.
    pub fn drop_calls(self, to: &mut Contents, servers: Members<'_>) {
        if servers.are_in(to) {
            let found = servers.found(self, End::Source);
            to.rules
                .push([found, self.unless_direct(), is_local(), vec![Expression::Drop]].concat());
        }
    }

    /// Loads an endpoint of one of the host's own programs.
    fn client(self, addr: u32, port: u32) -> Vec<Expression> {
        let behind = self.addr_registers;
        vec![
            self.load_addr(0, addr),
            load(behind, Base::Transport, port, 2),
            load_protocol(behind + 1),
        ]
    }
}

/// What the director's door needs, where packets of both families are seen.
impl Layout {
    /// The set of connections whose packets came in by the door.
    pub fn delivered_set(self) -> LearnedSet {
        let name = self.delivered();
        let [connections, _] = self.learned_sets();
        LearnedSet { name, ..connections }
    }

    fn delivered(self) -> &'static str {
        match self.family {
            Family::V4 => "delivered",
            Family::V6 => "delivered6",
        }
    }

    /// Remembers the connections of packets to these servers.
    pub fn learn_deliveries(self, to: &mut Contents, servers: Members<'_>) {
        self.add_set(to, servers);
        if servers.are_in(to) {
            let found = servers.found(self, End::Destination);
            to.rules.push([self.is_family(), found, self.learn_in(self.delivered())].concat());
        }
    }

    /// Leads what answers such connections to the door, ICMP errors included.
    pub fn lead_answers(self, to: &mut Contents, chain: &str, door: u32) {
        let set = self.delivered();
        let mut answer = self.connection(self.destination, 2, self.source, 0);
        answer.push(lookup(0, set));
        add(to, chain, &[self.is_family(), answer, redirect(door)].concat());
        let mut quoted = self.quoted_connection();
        quoted.push(lookup(0, set));
        for kind in self.errors {
            let is_error = self.is_icmp(*kind);
            add(to, chain, &[&self.is_family(), &is_error, &quoted, &redirect(door)[..]].concat());
        }
    }

    /// Leads packets to these services to the door.
    pub fn lead_requests(self, to: &mut Contents, chain: &str, services: Members<'_>, door: u32) {
        self.add_set(to, services);
        if services.are_in(to) {
            let found = services.found(self, End::Destination);
            add(to, chain, &[self.is_family(), found, redirect(door)].concat());
        }
    }

    fn is_family(self) -> Vec<Expression> {
        let number: u16 = match self.family {
            Family::V4 => 0x0800,
            Family::V6 => 0x86dd,
        };
        vec![Expression::EtherType { register: 0 }, equal(0, number.to_be_bytes().to_vec())]
    }
}

/// Sends the packet out of the door.
fn redirect(door: u32) -> Vec<Expression> {
    vec![
        Expression::Constant { register: 0, value: door.to_ne_bytes().to_vec() },
        Expression::Redirect { device: 0 },
    ]
}
