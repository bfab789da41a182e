//! What the director asks about the network around it.

use super::super::frame::PortId;
use super::super::message::is_host;
use super::super::neighbour::{Key, Place};
use super::super::view::nearest;
use super::LinkLayer;
use super::next_hop::Choice;
use crate::packet::{Addr, Prefix};

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
    /// own there, else any whose answers can come back. Virtual addresses only if there are no others
    /// of the kind: with direct routing the servers have them as well.
    pub fn address_towards(&self, to: Addr, learned: Option<Place>) -> Option<Addr> {
        // The host talks to itself from the address it talks to.
        if self.host.owns(to) {
            return Some(to);
        }
        let port = self.port_towards(to, learned)?;
        let state = self.ports.get(usize::from(port.0))?;
        let fits = |addr: &Addr| {
            addr.family() == to.family() && addr.is_link_local() == to.is_link_local()
        };
        let kernels = self.host.addresses.iter().filter(|own| fits(&own.addr));
        let on_port = kernels.clone().filter(|own| Some(own.interface) == state.index);
        let is_virtual = |addr: Addr| self.services.virtuals.contains(&addr);
        // One of the same network first.
        let near = on_port
            .min_by_key(|own| (!own.prefix.contains(to), is_virtual(own.addr)))
            .map(|own| own.addr);
        let nearest = |addrs: &mut dyn Iterator<Item = Addr>| nearest(addrs, is_virtual, to);
        near.or_else(|| {
            let owned = self.claims.owned().filter(|(_, ports)| ports.contains(port));
            nearest(&mut owned.map(|(addr, _)| addr).filter(fits))
        })
        .or_else(|| nearest(&mut kernels.map(|own| own.addr).filter(|addr| is_host(*addr))))
        .or_else(|| nearest(&mut self.claims.owned().map(|(addr, _)| addr).filter(fits)))
        .or_else(|| to.is_link_local().then_some(state.own_link_local))
    }

    /// The addresses that an administrator gave the director itself, with their networks.
    pub fn configured_networks(&self) -> Vec<(Addr, Prefix)> {
        self.settings.addresses.iter().map(|own| (own.addr, own.prefix)).collect()
    }

    /// Networks of which every address is the kernel's own, as of its loopback interface.
    pub fn kernel_networks(&self) -> impl Iterator<Item = Prefix> {
        self.host.locals.iter().filter(|prefix| !prefix.is_single()).copied()
    }

    /// The addresses that are the kernel's now.
    pub fn kernel_addresses(&self) -> impl Iterator<Item = Addr> {
        self.host.addresses.iter().map(|own| own.addr)
    }
}
