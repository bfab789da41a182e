//! What goes out: questions, answers, announcements, and packets that waited.

use pnet_base::MacAddr;

use super::super::arp::{Arp, Operation};
use super::super::claim::{Action, Asker, PortSet, Rival};
use super::super::frame::{Segment, Tags};
use super::super::held::OwnedPacket;
use super::super::neighbour::{Evidence, Place, Question};
use super::{Event, LinkLayer, MAX_EVENTS, NOBODY, Transmit};
use crate::engine::Moment;
use crate::packet::Addr;

impl LinkLayer {
    /// Turns what neighbours and claims want into frames and events.
    pub(super) fn settle(&mut self, now: Moment) {
        for action in self.claims.take_actions() {
            self.act(action, now);
        }
        let masked = self.claims.owned().fold(PortSet::default(), |all, (_, ports)| all | ports);
        if masked != self.masked || self.neighbours.take_moved() {
            self.masked = masked;
            self.epoch += 1;
        }
        for (to, mut packet) in self.neighbours.take_orphans() {
            self.dispatch_again(to, &packet.packet(), now);
        }
        for (place, to, packet) in self.neighbours.take_ready() {
            self.transmit(place, to, packet);
        }
        for question in self.neighbours.take_questions() {
            self.ask(question);
        }
        for addr in self.neighbours.take_silent() {
            self.tell(Event::Silent { addr });
        }
    }

    pub(super) fn act(&mut self, action: Action, now: Moment) {
        match action {
            Action::Probe(addr, ports) => self.shout(ports, NOBODY, addr),
            Action::Announce(addr, ports) => self.shout(ports, addr, addr),
            Action::Answer(addr, asker) => self.answer(addr, asker, now),
            Action::Took(addr, ports, why) => {
                let on = self.port_ids().filter(|(id, _)| ports.contains(*id));
                let at = on.map(|(_, port)| (port.name.clone(), port.own_mac)).collect();
                self.tell(Event::Took { addr, at, why });
                self.epoch += 1;
            }
            Action::Yielded(addr, why, Rival { segment, mac: rival, server }) => {
                let interface = self.ports[usize::from(segment.port.0)].name.clone();
                self.tell(Event::Yielded { addr, why, interface, rival, server });
                self.epoch += 1;
            }
            Action::Contested(addr, Rival { segment, mac: rival, server }) => {
                let interface = self.ports[usize::from(segment.port.0)].name.clone();
                self.tell(Event::Contested { addr, interface, rival, server });
            }
        }
    }

    pub(super) fn answer(&mut self, addr: Addr, asker: Asker, now: Moment) {
        let own_mac = self.ports[usize::from(asker.segment.port.0)].own_mac;
        let arp = Arp {
            operation: Operation::Reply,
            sender_mac: own_mac,
            sender: addr,
            target_mac: asker.mac,
            target: asker.addr,
        };
        self.counters.answers += 1;
        self.send(asker.segment, &arp, asker.mac);
        if asker.addr != NOBODY && !self.kernels.contains(&asker.addr) {
            let place = Place { segment: asker.segment, mac: asker.mac };
            self.neighbours.heard(asker.addr, place, Evidence::Asked, now);
        }
    }

    /// Probes for, or announces, an address on every segment of some ports.
    pub(super) fn shout(&mut self, ports: PortSet, sender: Addr, target: Addr) {
        for segment in
            self.segments().filter(|segment| ports.contains(segment.port)).collect::<Vec<_>>()
        {
            let sender_mac = self.ports[usize::from(segment.port.0)].own_mac;
            self.request(segment, sender, sender_mac, target, None);
        }
    }

    pub(super) fn ask(&mut self, question: Question) {
        let target = question.key.addr;
        if let Some(place) = question.of {
            let (sender, mac) = self.asker_for(target, place.segment.port);
            self.request(place.segment, sender, mac, target, Some(place.mac));
            return;
        }
        let segments: Vec<Segment> = match question.key.segment {
            Some(segment) => vec![segment],
            None => self.segments().collect(),
        };
        for segment in segments {
            let (sender, mac) = self.asker_for(target, segment.port);
            self.request(segment, sender, mac, target, None);
        }
    }

    pub(super) fn request(
        &mut self,
        segment: Segment,
        sender: Addr,
        sender_mac: MacAddr,
        target: Addr,
        of: Option<MacAddr>,
    ) {
        let target_mac = MacAddr::zero();
        let arp = Arp { operation: Operation::Request, sender_mac, sender, target_mac, target };
        self.counters.questions += 1;
        self.send(segment, &arp, of.unwrap_or(MacAddr::broadcast()));
    }

    pub(super) fn send(&mut self, segment: Segment, arp: &Arp, destination: MacAddr) {
        if self.ports[usize::from(segment.port.0)].index.is_none() {
            return;
        }
        let frame = OwnedPacket::frame(arp.frame(segment, destination));
        self.transmits.push_back(Transmit { port: segment.port, frame });
    }

    /// Every segment there is: all ports untagged, and the VLANs that frames for us came from.
    pub(super) fn segments(&self) -> impl Iterator<Item = Segment> {
        let untagged = self.port_ids().map(|(port, _)| Segment { port, tags: Tags::NONE });
        untagged.chain(self.tagged.iter().copied())
    }

    pub(super) fn tell(&mut self, event: Event) {
        // An event that nobody fetched yet is not worth telling twice, nor memory.
        if self.events.len() < MAX_EVENTS && !self.events.contains(&event) {
            self.events.push_back(event);
        }
    }
}
