//! Where a packet goes: routes first, then who is known, then asking.

use pnet_base::MacAddr;

use super::super::frame::{Hop, PortId, Segment, Tags};
use super::super::held::OwnedPacket;
use super::super::message::is_host;
use super::super::neighbour::{Key, Lookup, PATIENT, Patience, Place};
use super::super::port::Port;
use super::super::route::{Route, Routes};
use super::{DEVICE, Dispatch, LinkLayer, Lost, Transmit};
use crate::engine::Moment;
use crate::packet::{Addr, PacketBuf};

/// Where a packet goes.
pub(super) enum Choice {
    Place(Place),
    Ask(Key, Patience),
    Nowhere,
}

impl LinkLayer {
    pub(super) fn choose(&self, to: Addr, learned: Option<Place>) -> Choice {
        if to.is_link_local() && !self.settings.routed {
            return self.choose_link_local(to, learned);
        }
        let route = self.routes.lookup(to);
        if self.settings.routed {
            return route.map_or(Choice::Nowhere, |route| Choice::Place(Place::on(route.port)));
        }
        let via = |route: Route| {
            let segment = Segment { port: route.port, tags: Tags::NONE };
            let addr = route.gateway.unwrap_or(to);
            Choice::Ask(Key { segment: Some(segment), addr }, PATIENT)
        };
        if let Some(route) = route.filter(|route| !route.is_default) {
            return via(route);
        }
        let anywhere = Key { segment: None, addr: to };
        let is_server = self.services.servers.contains(&to);
        if self.neighbours.place(&anywhere).is_some() {
            return Choice::Ask(anywhere, PATIENT);
        }
        // Anybody can send from a server's address, so a server is only believed to be where it
        // answers.
        if !is_server {
            let family = to.family();
            let bare =
                |place: &Place| self.ports[usize::from(place.segment.port.0)].is_bare(family);
            if let Some(place) = learned.filter(bare) {
                return Choice::Place(place);
            }
            if let Some(key) = self.known_on_bare(to) {
                return Choice::Ask(key, PATIENT);
            }
        }
        // A server may be on a link that the kernel has no address on; only if nobody there
        // answers, the default route is meant.
        let is_bare = |(_, port): (PortId, &Port)| port.is_bare(to.family());
        let search = is_server && self.port_ids().any(is_bare);
        match route {
            Some(_) if search && !self.neighbours.is_silent(&anywhere) => {
                Choice::Ask(anywhere, SEARCH)
            }
            Some(route) => via(route),
            None if self.ports.iter().any(|port| port.index.is_some()) => {
                Choice::Ask(anywhere, PATIENT)
            }
            None => Choice::Nowhere,
        }
    }

    /// An address that is valid on one link only does not say on which: it is where it was seen
    /// last, else where it answers.
    fn choose_link_local(&self, to: Addr, learned: Option<Place>) -> Choice {
        let is_there =
            |place: &Place| self.ports[usize::from(place.segment.port.0)].index.is_some();
        match learned.filter(is_there) {
            Some(place) => Choice::Place(place),
            None if self.port_ids().next().is_some() => {
                Choice::Ask(Key { segment: None, addr: to }, PATIENT)
            }
            None => Choice::Nowhere,
        }
    }

    /// A neighbour that asked for an address of ours on a bare port.
    pub(super) fn known_on_bare(&self, to: Addr) -> Option<Key> {
        let is_bare = |on: &Segment| self.ports[usize::from(on.port.0)].is_bare(to.family());
        let bare = self.segments().filter(is_bare);
        let mut keys = bare.map(|segment| Key { segment: Some(segment), addr: to });
        keys.find(|key| self.neighbours.place(key).is_some())
    }

    pub(super) fn dispatch_to(
        &mut self,
        key: Key,
        patience: Patience,
        to: Addr,
        packet: &PacketBuf<'_>,
        now: Moment,
    ) -> Dispatch {
        if !is_host(key.addr) {
            return Dispatch::Lost(Lost::NoRoute);
        }
        match self.neighbours.resolve(key, patience, now) {
            Lookup::Known(place) => Dispatch::Ready(self.hop(place, to)),
            Lookup::Waiting => {
                self.neighbours.hold(key, to, packet);
                Dispatch::Held
            }
            Lookup::Silent => Dispatch::Lost(Lost::Silent),
            Lookup::Full => Dispatch::Lost(Lost::Overload),
        }
    }

    /// A packet's next hop did not answer: there may be another.
    pub(super) fn dispatch_again(&mut self, to: Addr, packet: &PacketBuf<'_>, now: Moment) {
        let Choice::Ask(key, patience) = self.choose(to, None) else {
            self.counters.silent += 1;
            return;
        };
        match self.neighbours.resolve(key, patience, now) {
            Lookup::Known(place) => self.transmit(place, to, OwnedPacket::copy(packet)),
            Lookup::Waiting => self.neighbours.hold(key, to, packet),
            Lookup::Silent | Lookup::Full => self.counters.silent += 1,
        }
    }

    pub(super) fn transmit(&mut self, place: Place, to: Addr, mut packet: OwnedPacket) {
        if packet.prepend(&self.hop(place, to)) {
            self.transmits.push_back(Transmit { port: place.segment.port, frame: packet });
        }
    }

    pub(super) fn hop(&self, place: Place, to: Addr) -> Hop {
        if self.settings.routed {
            return Hop::headless(DEVICE, place.segment.port);
        }
        Hop::new(place.segment, self.source_mac(place.segment.port), place.mac, to)
    }

    /// The link address to send with: the virtual one where we own an address, so that bridges
    /// and switches always know where it is.
    pub(super) fn source_mac(&self, port: PortId) -> MacAddr {
        let state = &self.ports[usize::from(port.0)];
        if self.masked.contains(port) { state.own_mac } else { state.mac }
    }

    pub(super) fn build_routes(&self) -> Routes {
        let mut routes = Routes::default();
        for route in &self.host.routes {
            if let Some(port) = self.port_of(route.interface) {
                routes.add(route.prefix, port, route.gateway, route.metric);
            }
        }
        for own in &self.host.addresses {
            if let Some(port) = self.port_of(own.interface) {
                routes.add(own.prefix, port, None, u32::MAX - 1);
            }
        }
        for own in &self.settings.addresses {
            if let Some(port) = self.port_named(&own.interface) {
                routes.add(own.prefix, port, None, u32::MAX);
            }
        }
        routes
    }

    pub(super) fn port_of(&self, index: u32) -> Option<PortId> {
        let position = self.ports.iter().position(|port| port.index == Some(index))?;
        Some(PortId(position as u16))
    }

    pub(super) fn port_named(&self, name: &str) -> Option<PortId> {
        let position = self.ports.iter().position(|port| port.name == name)?;
        Some(PortId(position as u16))
    }

    pub(super) fn port_ids(&self) -> impl Iterator<Item = (PortId, &Port)> {
        let ids = (0..=u16::MAX).map(PortId);
        ids.zip(&self.ports).filter(|(_, port)| port.index.is_some())
    }
}

/// How a server is searched for on links that the kernel has no address on, before its default
/// route is used.
const SEARCH: Patience = Patience { retry_ms: 200, silence_ms: 60_000 };
