//! Named sets of endpoints, and of hosts with every port: their keys, and what of a packet is
//! looked up in them.

use std::collections::BTreeSet;

use super::super::nftables::{
    Base, Contents, Expression, PORT, PROTOCOL, Set, addresses, key, key_type,
};
use super::{Layout, load, load_protocol, lookup};
use crate::packet::Addr;

/// What a set of a table is to have.
#[derive(Clone, Copy, Debug)]
pub struct Members<'a> {
    name: &'static str,
    kind: Kind<'a>,
}

/// Addresses with a protocol, and with a port of it or with all.
#[derive(Clone, Copy, Debug)]
enum Kind<'a> {
    Endpoints(&'a BTreeSet<(Addr, u8, u16)>),
    Hosts(&'a BTreeSet<(Addr, u8)>),
}

/// Which end of a packet's way.
#[derive(Clone, Copy, Debug)]
pub enum End {
    Source,
    Destination,
}

impl<'a> Members<'a> {
    /// Endpoints, each an address, a protocol and a port.
    pub fn endpoints(name: &'static str, members: &'a BTreeSet<(Addr, u8, u16)>) -> Self {
        Self { name, kind: Kind::Endpoints(members) }
    }

    /// Addresses, each with a protocol and its every port.
    pub fn hosts(name: &'static str, members: &'a BTreeSet<(Addr, u8)>) -> Self {
        Self { name, kind: Kind::Hosts(members) }
    }

    /// Whether the set is in a table.
    pub fn are_in(self, contents: &Contents) -> bool {
        contents.sets.iter().any(|set| set.name == self.name)
    }

    /// The set of those of a family; none if there are none.
    pub fn set(self, layout: Layout) -> Option<Set> {
        let family = layout.family;
        let of = |addr: &Addr| addr.family() == family;
        let keys: Vec<_> = match self.kind {
            Kind::Endpoints(members) => members
                .iter()
                .filter(|(addr, ..)| of(addr))
                .map(|(addr, protocol, port)| key(*addr, *protocol, Some(*port)))
                .collect(),
            Kind::Hosts(members) => members
                .iter()
                .filter(|(addr, _)| of(addr))
                .map(|(addr, protocol)| key(*addr, *protocol, None))
                .collect(),
        };
        let key_type = match self.kind {
            Kind::Endpoints(_) => key_type(&[addresses(family), PROTOCOL, PORT]),
            Kind::Hosts(_) => key_type(&[addresses(family), PROTOCOL]),
        };
        (!keys.is_empty()).then_some(Set { name: self.name, key_type, keys })
    }

    /// Whether one end of a packet is in the set.
    pub fn found(self, layout: Layout, end: End) -> Vec<Expression> {
        let (addr, port) = layout.end(end);
        let behind = layout.addr_registers;
        let mut found = vec![layout.load_addr(0, addr), load_protocol(behind)];
        if matches!(self.kind, Kind::Endpoints(_)) {
            found.push(load(behind + 1, Base::Transport, port, 2));
        }
        found.push(lookup(0, self.name));
        found
    }

    /// Whether the destination of the packet that an ICMP error quotes is in the set.
    pub fn quoted(self, layout: Layout) -> Vec<Expression> {
        let behind = layout.addr_registers;
        let mut quoted = vec![
            layout.quoted(0, layout.destination, layout.addr_len),
            layout.quoted(behind, layout.protocol, 1),
        ];
        if matches!(self.kind, Kind::Endpoints(_)) {
            quoted.push(layout.quoted(behind + 1, layout.header_len + 2, 2));
        }
        quoted.push(lookup(0, self.name));
        quoted
    }
}

impl Layout {
    /// Where an end's address is in the IP header, and its port in the transport header.
    fn end(self, end: End) -> (u32, u32) {
        match end {
            End::Source => (self.source, 0),
            End::Destination => (self.destination, 2),
        }
    }
}
