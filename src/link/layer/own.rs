//! Addresses of the director's own: which to claim, what is heard about them, which to adopt.

use hashbrown::HashMap;
use pnet_base::MacAddr;

use super::super::adopt::Finding;
use super::super::claim::{Asker, PortSet, Rival, Why};
use super::super::frame::{Arrival, Segment};
use super::super::message::{Message, is_host, nobody};
use super::super::neighbour::{Evidence, Place};
use super::super::route::Route;
use super::{Event, LinkLayer, OwnAddress};
use crate::engine::Moment;
use crate::packet::{Addr, Prefix};

impl LinkLayer {
    pub(super) fn claim(&mut self, now: Moment) {
        if self.settings.routed {
            return;
        }
        let mut wanted = HashMap::new();
        for own in &self.settings.addresses {
            if let Some(port) = self.port_named(&own.interface) {
                let here = PortSet::from_iter([port]);
                // A link-local address may be ours on many links.
                wanted
                    .entry(own.addr)
                    .and_modify(|(_, ports)| *ports = *ports | here)
                    .or_insert((Why::Configured, here));
            }
        }
        for addr in self.services.virtuals.iter().filter(|addr| is_host(**addr)) {
            wanted.entry(*addr).or_insert_with(|| (Why::VirtualAddress, self.ports_for(*addr)));
        }
        for addr in self.services.locals.iter().filter(|addr| is_host(**addr)) {
            wanted.entry(*addr).or_insert_with(|| (Why::LocalAddress, self.ports_for(*addr)));
        }
        wanted.retain(|addr, _| !self.kernels.contains(addr) && !self.host.owns(*addr));
        let kernels: Vec<Addr> = self.kernels.iter().copied().collect();
        kernels.into_iter().for_each(|addr| self.claims.release(addr));
        self.claims.set(&wanted, now);
        self.introduce();
    }

    /// The ports on which somebody may ask for a virtual address.
    pub(super) fn ports_for(&self, addr: Addr) -> PortSet {
        if addr.is_link_local() {
            return self.port_ids().map(|(id, _)| id).collect();
        }
        let on_link = |route: &Route| !route.is_default && route.gateway.is_none();
        if let Some(route) = self.routes.lookup(addr).filter(on_link) {
            return PortSet::from_iter([route.port]);
        }
        let bare = self.port_ids().filter(|(_, port)| port.is_bare(addr.family()));
        let bare: PortSet = bare.map(|(id, _)| id).collect();
        if bare.is_empty() { self.port_ids().map(|(id, _)| id).collect() } else { bare }
    }

    /// Takes note of where somebody says that an address of his is.
    pub(super) fn hear(&mut self, addr: Addr, arrival: &Arrival, message: &Message, now: Moment) {
        let segment = arrival.segment;
        self.watch.taken(addr);
        self.contest(addr, segment, message.mac, now);
        if self.kernels.contains(&addr) || self.claims.owns(addr) || self.introduces(addr) {
            return;
        }
        let ours = message.asks.is_some_and(|target| {
            self.claims.owns(target) || self.host.owns(target) || self.introduces(target)
        });
        let evidence = if ours { Evidence::Asked } else { message.evidence };
        self.neighbours.heard(addr, Place { segment, mac: message.mac }, evidence, now);
    }

    /// Answers a question, or learns from it.
    pub(super) fn hear_question(
        &mut self,
        target: Addr,
        arrival: &Arrival,
        message: &Message,
        now: Moment,
    ) {
        let Message { mac, has, .. } = *message;
        let addr = has.unwrap_or(nobody(target.family()));
        let asker = Asker { segment: arrival.segment, addr, mac };
        if target == self.ports[usize::from(arrival.segment.port.0)].own_link_local {
            return self.answer(target, asker, now);
        }
        if has.is_none() && !self.claims.owns(target) {
            self.contest(target, arrival.segment, mac, now);
            return;
        }
        // Somebody who asks for his own address only says that it is his.
        if has == Some(target) {
            return;
        }
        if self.claims.knows(target) {
            self.claims.asked(target, asker);
        } else if self.services.masqueraded.contains(&addr) {
            self.consider_adoption(target, asker, now);
        }
    }

    pub(super) fn contest(&mut self, addr: Addr, segment: Segment, mac: MacAddr, now: Moment) {
        // Most messages are about others, and there may be many servers.
        if !self.claims.knows(addr) {
            return;
        }
        let place = Place { segment, mac };
        let server =
            self.services.servers.iter().find(|server| self.neighbours.is_at(**server, place));
        let rival = Rival { segment, mac, server: server.copied() };
        self.claims.contested(addr, rival, now);
    }

    /// Whether an address that a real server asks for is a gateway to be taken. Takes no address
    /// that is known to be anybody's, and none where the administrator has decided.
    pub(super) fn consider_adoption(&mut self, target: Addr, asker: Asker, now: Moment) {
        let finding = self.watch.asked(asker.addr, target, now);
        if !self.settings.adopt || !self.may_adopt(target, asker) {
            return;
        }
        match finding {
            Finding::Nothing => {}
            Finding::Gateway => self.claims.adopt(target, asker, now),
            Finding::Ambiguous(candidates) => {
                self.tell(Event::AmbiguousGateway { server: asker.addr, candidates });
            }
        }
    }

    pub(super) fn may_adopt(&self, target: Addr, asker: Asker) -> bool {
        let port = asker.segment.port;
        let name = &self.ports[usize::from(port.0)].name;
        let place = Place { segment: asker.segment, mac: asker.mac };
        let is_the_server = self.neighbours.is_at(asker.addr, place);
        // That the kernel is on the link itself says nothing about networks.
        let in_network = |prefix: &Prefix| {
            !prefix.addr().is_link_local()
                && (prefix.contains(target) || prefix.contains(asker.addr))
        };
        let family = target.family();
        let named = |own: &OwnAddress| own.interface == *name && own.addr.family() == family;
        let decided = self.settings.addresses.iter().any(named)
            || self.claims.has_adopted(port, family)
            || self.host.addresses.iter().any(|own| in_network(&own.prefix));
        let somebodys = self.kernels.contains(&target)
            || self.host.owns(target)
            || self.services.servers.contains(&target)
            || self.services.virtuals.contains(&target)
            || self.services.locals.contains(&target)
            || self.segments().any(|segment| self.neighbours.knows(segment, target));
        is_the_server && !decided && !somebodys
    }
}
