//! What the link layer takes over from the kernel.

use std::sync::Arc;

use pnet_base::MacAddr;

use super::super::claim::PortSet;
use super::super::frame::{PortId, Segment, Tags};
use super::super::message::{Speaker, is_host, nobody};
use super::super::neighbour::Place;
use super::super::port::Port;
use super::super::view::{HostView, KernelAddress};
use super::LinkLayer;
use crate::engine::Moment;
use crate::packet::{Addr, Family};

impl LinkLayer {
    pub(super) fn update_ports(&mut self, before: &HostView, now: Moment) {
        if self.settings.routed {
            return self.follow_interfaces();
        }
        let mut gone = PortSet::default();
        for (id, port) in (0..=u16::MAX).map(PortId).zip(&mut self.ports) {
            let old = (port.index, port.mac);
            port.update(self.host.interface(&port.name));
            let Some(index) = port.index else {
                gone.insert(id);
                continue;
            };
            if old != (Some(index), port.mac) {
                gone.insert(id);
            }
            let addresses = self.host.addresses.iter().filter(|own| own.interface == index);
            let mut addresses = addresses.map(|own| own.addr).filter(|addr| !addr.is_link_local());
            port.bare_v4 = !addresses.clone().any(|addr| addr.family() == Family::V4);
            port.bare_v6 = !addresses.any(|addr| addr.family() == Family::V6);
            let vlans = self.host.interfaces.iter().filter(|each| each.up);
            let vlans = vlans.filter_map(|each| each.vlan).filter(|(lower, _)| *lower == index);
            port.foreign_vlans = vlans.map(|(_, number)| number).collect();
        }
        if !gone.is_empty() && !before.interfaces.is_empty() {
            self.neighbours.forget(|segment| gone.contains(segment.port));
            self.reported = self.reported.without(gone);
            // Those that are back: others still have the link address they had before.
            self.claims.announce_again(gone, now);
        }
    }

    /// Takes every interface of the host for a port behind the device to which the kernel routes.
    fn follow_interfaces(&mut self) {
        self.ports.truncate(1);
        let Some(device) = self.ports.first_mut() else { return };
        device.update_routed(self.host.interface(&device.name));
        let (device, host) = (device.index, Arc::clone(&self.host));
        let others = host.interfaces.iter().filter(|each| Some(each.index) != device);
        for interface in others.take(usize::from(u16::MAX)) {
            let mut port = Port::absent(&interface.name);
            port.update_routed(Some(interface));
            self.ports.push(port);
        }
    }

    pub(super) fn kernel_neighbours(&self) -> Vec<(Addr, Place, bool)> {
        let here = self.host.neighbours.iter().filter_map(|known| {
            let segment = Segment { port: self.port_of(known.interface)?, tags: Tags::NONE };
            let place = Place { segment, mac: known.mac };
            let usable = is_host(known.addr) && !known.mac.is_multicast() && !known.mac.is_zero();
            usable.then_some((known.addr, place, known.permanent))
        });
        here.collect()
    }

    pub(super) fn is_own_mac(&self, mac: MacAddr) -> bool {
        self.port_ids().any(|(_, port)| port.mac == mac || port.own_mac == mac)
    }

    /// The kernel's or our own address to ask a neighbour with, and the link address to ask from.
    pub(super) fn asker_for(&self, target: Addr, port: PortId) -> Speaker {
        let state = &self.ports[usize::from(port.0)];
        let on_port = |own: &&KernelAddress| Some(own.interface) == state.index;
        let kernels = self.host.addresses.iter().filter(on_port);
        if let Some(own) = kernels.clone().find(|own| own.prefix.contains(target)) {
            return Speaker { addr: own.addr, mac: state.mac };
        }
        let mut configured = self.settings.addresses.iter().filter(|own| {
            own.interface == state.name && own.prefix.contains(target) && self.claims.owns(own.addr)
        });
        if let Some(own) = configured.next() {
            return Speaker { addr: own.addr, mac: state.own_mac };
        }
        if target.family() == Family::V4 {
            return Speaker { addr: nobody(Family::V4), mac: self.source_mac(port) };
        }
        // With IPv6 only somebody with an address is answered, but any address of the link will do.
        match kernels.map(|own| own.addr).find(|addr| addr.is_link_local()) {
            Some(addr) if !self.masked.contains(port) => Speaker { addr, mac: state.mac },
            _ => Speaker { addr: state.own_link_local, mac: state.own_mac },
        }
    }
}
