//! What the director asks about the network around it.

use super::super::arp::is_host;
use super::super::frame::PortId;
use super::super::neighbour::{Key, Place};
use super::super::port::Port;
use super::LinkLayer;
use super::next_hop::Choice;
use crate::packet::{Addr, Family, Prefix};

impl LinkLayer {
    /// The port by which packets to an address leave, as far as that is known before asking.
    pub fn port_towards(&self, to: Addr, learned: Option<Place>) -> Option<PortId> {
        match self.choose(to, learned) {
            Choice::Place(place) => Some(place.segment.port),
            Choice::Ask(Key { segment: Some(segment), .. }, _) => Some(segment.port),
            Choice::Ask(key, _) => self.neighbours.place(&key).map(|place| place.segment.port),
            Choice::Nowhere => None,
        }
    }

    /// Whether there is any way to an address, even if it first has to be asked for.
    pub fn leads_to(&self, to: Addr) -> bool {
        !matches!(self.choose(to, None), Choice::Nowhere)
    }

    /// Whether packets come and go without link headers, by one device, and the kernel routes them.
    pub fn is_routed(&self) -> bool {
        self.settings.routed
    }

    /// The largest packet that every port takes.
    pub fn smallest_mtu_bytes(&self) -> u32 {
        self.port_ids().map(|(_, port)| port.mtu_bytes).min().unwrap_or(0)
    }

    /// The director's address on the way to another: the kernel's on that port, else one of its
    /// own there.
    pub fn address_towards(&self, to: Addr, learned: Option<Place>) -> Option<Addr> {
        let port = self.port_towards(to, learned)?;
        let state = self.ports.get(usize::from(port.0))?;
        let known = self.kernel_address_on(state, to).or_else(|| self.own_address_on(port, to));
        known.or_else(|| self.any_kernel_address(to).filter(|_| self.settings.routed))
    }

    /// An address of the kernel, for a link that it has none on.
    fn any_kernel_address(&self, to: Addr) -> Option<Addr> {
        let own = self.host.addresses.iter().map(|own| own.addr);
        let is_usable = |own: &Addr| match own.family() {
            Family::V4 => is_host(*own),
            Family::V6 => *own != LOOPBACK_V6 && own.bits() >> 118 != LINK_LOCAL_V6,
        };
        own.into_iter().find(|own| own.family() == to.family() && is_usable(own))
    }

    fn kernel_address_on(&self, port: &Port, to: Addr) -> Option<Addr> {
        let on_port = self.host.addresses.iter().filter(|own| Some(own.interface) == port.index);
        let same_family = on_port.filter(|own| own.addr.family() == to.family());
        let mut near_first: Vec<_> = same_family.collect();
        near_first.sort_by_key(|own| !own.prefix.contains(to));
        near_first.first().map(|own| own.addr)
    }

    fn own_address_on(&self, port: PortId, to: Addr) -> Option<Addr> {
        let owned = self
            .claims
            .owned()
            .filter(|(addr, ports)| ports.contains(port) && addr.family() == to.family());
        // The nearest, so that the answer does not depend on the order of a hash table.
        owned.map(|(addr, _)| addr).max_by_key(|addr| {
            ((addr.bits() ^ to.bits()).leading_zeros(), std::cmp::Reverse(*addr))
        })
    }

    /// The addresses that an administrator gave the director itself, with their networks.
    pub fn configured_networks(&self) -> Vec<(Addr, Prefix)> {
        self.settings.addresses.iter().map(|own| (own.addr, own.prefix)).collect()
    }

    /// The addresses that are the kernel's now.
    pub fn kernel_addresses(&self) -> impl Iterator<Item = Addr> {
        self.host.addresses.iter().map(|own| own.addr)
    }
}

const LOOPBACK_V6: Addr = Addr::v6(1);
/// The first ten bits of fe80::/10.
const LINK_LOCAL_V6: u128 = 0xfe80 >> 6;
