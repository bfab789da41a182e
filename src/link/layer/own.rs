//! Addresses of the director's own: which to claim, what is heard about them, which to adopt.

use hashbrown::HashMap;
use pnet_base::MacAddr;

use super::super::adopt::Finding;
use super::super::arp::{Arp, Operation, is_host};
use super::super::claim::{Asker, PortSet, Rival, Why};
use super::super::frame::{Addressee, Arrival, Segment};
use super::super::neighbour::{Evidence, Place};
use super::super::route::Route;
use super::{Event, LinkLayer};
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
                wanted.insert(own.addr, (Why::Configured, PortSet::from_iter([port])));
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
    }

    /// The ports on which somebody may ask for a virtual address.
    pub(super) fn ports_for(&self, addr: Addr) -> PortSet {
        let on_link = |route: &Route| !route.is_default && route.gateway.is_none();
        if let Some(route) = self.routes.lookup(addr).filter(on_link) {
            return PortSet::from_iter([route.port]);
        }
        let bare: PortSet =
            self.port_ids().filter(|(_, port)| port.bare).map(|(id, _)| id).collect();
        if bare.is_empty() { self.port_ids().map(|(id, _)| id).collect() } else { bare }
    }

    pub(super) fn hear(&mut self, arrival: &Arrival, arp: &Arp, now: Moment) {
        let place = Place { segment: arrival.segment, mac: arp.sender_mac };
        self.watch.taken(arp.sender);
        self.contest(arp.sender, arrival.segment, arp.sender_mac, now);
        if self.kernels.contains(&arp.sender) || self.claims.owns(arp.sender) {
            return;
        }
        let ours = self.claims.owns(arp.target) || self.host.owns(arp.target);
        let evidence = match arp.operation {
            Operation::Reply if arrival.to != Addressee::Everybody => Evidence::Answer,
            Operation::Request if ours => Evidence::Asked,
            Operation::Reply | Operation::Request => Evidence::Overheard,
        };
        self.neighbours.heard(arp.sender, place, evidence, now);
    }

    pub(super) fn hear_request(&mut self, arrival: &Arrival, arp: &Arp, now: Moment) {
        if arp.is_probe() && !self.claims.owns(arp.target) {
            self.contest(arp.target, arrival.segment, arp.sender_mac, now);
            return;
        }
        // Somebody who asks for his own address only says that it is his.
        if arp.sender == arp.target {
            return;
        }
        let asker = Asker { segment: arrival.segment, addr: arp.sender, mac: arp.sender_mac };
        if self.claims.knows(arp.target) {
            self.claims.asked(arp.target, asker);
        } else if self.services.masqueraded.contains(&arp.sender) {
            self.consider_adoption(arp.target, asker, now);
        }
    }

    pub(super) fn contest(&mut self, addr: Addr, segment: Segment, mac: MacAddr, now: Moment) {
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
        let in_network = |prefix: &Prefix| prefix.contains(target) || prefix.contains(asker.addr);
        let decided = self.settings.addresses.iter().any(|own| own.interface == *name)
            || self.claims.has_adopted(port)
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
