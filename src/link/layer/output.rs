//! What goes out: questions, answers, announcements, and packets that waited.

use pnet_base::MacAddr;

use super::super::claim::{Action, Asker, PortSet, Rival};
use super::super::frame::{Segment, Tags};
use super::super::held::OwnedPacket;
use super::super::message::{self, Speaker, is_host, nobody};
use super::super::neighbour::{Evidence, Place, Question};
use super::{Event, LinkLayer, MAX_EVENTS, Transmit};
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
            Action::Probe(addr, ports) => self.probe(addr, ports),
            Action::Announce(addr, ports) => self.announce(addr, ports),
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
        let mac = self.ports[usize::from(asker.segment.port.0)].own_mac;
        let frame = message::answer(Speaker { addr, mac }, &asker, self.claims.is_gateway(addr));
        self.counters.answers += 1;
        self.send(asker.segment, frame);
        if is_host(asker.addr) && !self.kernels.contains(&asker.addr) {
            let place = Place { segment: asker.segment, mac: asker.mac };
            self.neighbours.heard(asker.addr, place, Evidence::Asked, now);
        }
    }

    /// Asks on every segment of some ports whether anybody has an address.
    fn probe(&mut self, addr: Addr, ports: PortSet) {
        // Whoever has it, or wants it as well, talks to those who listen.
        self.report(addr, ports);
        for segment in self.segments_of(ports) {
            let mac = self.ports[usize::from(segment.port.0)].own_mac;
            self.question(segment, Speaker { addr: nobody(addr.family()), mac }, addr, None);
        }
    }

    /// Tells every segment of some ports that an address is ours.
    fn announce(&mut self, addr: Addr, ports: PortSet) {
        self.report(addr, ports);
        let is_router = self.claims.is_gateway(addr);
        for segment in self.segments_of(ports) {
            let mac = self.ports[usize::from(segment.port.0)].own_mac;
            self.counters.questions += 1;
            self.send(segment, message::announcement(segment, Speaker { addr, mac }, is_router));
        }
    }

    pub(super) fn ask(&mut self, question: Question) {
        let target = question.key.addr;
        if let Some(place) = question.of {
            let from = self.asker_for(target, place.segment.port);
            self.question(place.segment, from, target, Some(place.mac));
            return;
        }
        let segments: Vec<Segment> = match question.key.segment {
            Some(segment) => vec![segment],
            None => self.segments().collect(),
        };
        for segment in segments {
            let from = self.asker_for(target, segment.port);
            self.question(segment, from, target, None);
        }
    }

    fn question(&mut self, segment: Segment, from: Speaker, target: Addr, of: Option<MacAddr>) {
        self.counters.questions += 1;
        self.send(segment, message::question(segment, from, target, of));
    }

    pub(super) fn send(&mut self, segment: Segment, frame: Box<[u8]>) {
        if self.ports[usize::from(segment.port.0)].index.is_none() {
            return;
        }
        let frame = OwnedPacket::frame(frame);
        self.transmits.push_back(Transmit { port: segment.port, frame });
    }

    pub(super) fn segments_of(&self, ports: PortSet) -> Vec<Segment> {
        self.segments().filter(|segment| ports.contains(segment.port)).collect()
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
