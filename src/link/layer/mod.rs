//! The link layer as a whole: routes, neighbours, own addresses.

mod groups;
mod kernel;
mod next_hop;
mod output;
mod own;
mod query;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::HashSet;
use pnet_base::MacAddr;

pub use self::groups::Groups;
use self::next_hop::Choice;
use super::adopt::Watch;
use super::arp::Arp;
use super::claim::{Claims, PortSet, Why};
use super::frame::{Arrival, Classifier, Hop, PortId, Segment, Tags};
use super::held::OwnedPacket;
use super::message::Message;
use super::nd::{self, Heard};
use super::neighbour::{Neighbours, Place};
use super::port::Port;
use super::route::Routes;
use super::view::HostView;
use crate::engine::Moment;
use crate::packet::{Addr, PacketBuf, Prefix};

/// What an administrator decides about the link layer.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The interfaces to work on, at most [`MAX_PORTS`](super::MAX_PORTS).
    pub interfaces: Vec<String>,
    /// Addresses the director has itself.
    pub addresses: Vec<OwnAddress>,
    /// Whether a gateway that real servers ask for and nobody has may be taken.
    pub adopt: bool,
    /// Whether the only interface is a device without link headers, to which the kernel routes what
    /// is for the director, and from which it routes on what the director forwards. Then there is
    /// nobody to ask by ARP, and every interface of the host is a port by which packets may leave.
    pub routed: bool,
}

/// An address that the director has itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnAddress {
    /// The address.
    pub addr: Addr,
    /// The network it is in.
    pub prefix: Prefix,
    /// The interface it is on.
    pub interface: String,
}

/// What the link layer has to know about the virtual services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// The virtual addresses.
    pub virtuals: HashSet<Addr>,
    /// Real servers of all services.
    pub servers: HashSet<Addr>,
    /// Those reached by NAT, whose gateway the director is.
    pub masqueraded: HashSet<Addr>,
    /// Addresses from which servers reached by full NAT see their clients come.
    pub locals: HashSet<Addr>,
}

/// What became of a packet that is to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispatch {
    /// It may leave now, behind this header.
    Ready(Hop),
    /// A copy waits for its next hop's link address.
    Held,
    /// It is lost.
    Lost(Lost),
}

/// Why a packet did not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// No port leads to its destination.
    NoRoute,
    /// Its next hop does not answer.
    Silent,
    /// Too many next hops are being asked for.
    Overload,
}

/// A frame to be sent.
#[derive(Debug)]
pub struct Transmit {
    /// The port to send through.
    pub port: PortId,
    /// The frame.
    pub frame: OwnedPacket,
}

/// Something an administrator may want to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The director answers for an address from now on.
    Took {
        /// The address.
        addr: Addr,
        /// Where, and with which link address.
        at: Vec<(String, MacAddr)>,
        /// Why.
        why: Why,
    },
    /// An address is left to a rival.
    Yielded {
        /// The address.
        addr: Addr,
        /// Why the director wanted it.
        why: Why,
        /// The interface the rival was heard on.
        interface: String,
        /// The rival.
        rival: MacAddr,
        /// The rival's address, if it is one of the real servers.
        server: Option<Addr>,
    },
    /// A rival uses an address as well; the director keeps it.
    Contested {
        /// The address.
        addr: Addr,
        /// The interface the rival was heard on.
        interface: String,
        /// The rival.
        rival: MacAddr,
        /// The rival's address, if it is one of the real servers.
        server: Option<Addr>,
    },
    /// A real server asks for several addresses that nobody has; one may be its gateway.
    AmbiguousGateway {
        /// The server.
        server: Addr,
        /// The addresses.
        candidates: Vec<Addr>,
    },
    /// A next hop does not answer.
    Silent {
        /// Its address.
        addr: Addr,
    },
}

/// What the link layer counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Packets without a route.
    pub no_route: u64,
    /// Packets whose next hop did not answer.
    pub silent: u64,
    /// Packets lost because too many were waiting or too many next hops were asked for.
    pub overflow: u64,
    /// ARP packets that were malformed.
    pub bad_arp: u64,
    /// Messages of neighbour discovery that were malformed, or came from behind a router.
    pub bad_nd: u64,
    /// Questions and announcements sent.
    pub questions: u64,
    /// Answers sent.
    pub answers: u64,
    /// Reports of groups sent.
    pub reports: u64,
}

/// The link layer.
///
/// Call order: [`set_host`](Self::set_host) and [`set_services`](Self::set_services) whenever those
/// change; [`handle_arp`](Self::handle_arp), [`handle_discovery`](Self::handle_discovery),
/// [`dispatch`](Self::dispatch) and, when [`next_timeout`](Self::next_timeout) has come,
/// [`handle_timeout`](Self::handle_timeout); after any of them [`poll_transmit`](Self::poll_transmit) and [`poll_event`](Self::poll_event) until
/// they have nothing more, and a look at [`epoch`](Self::epoch).
#[derive(Debug)]
pub struct LinkLayer {
    settings: Settings,
    ports: Vec<Port>,
    host: Arc<HostView>,
    services: Services,
    routes: Routes,
    neighbours: Neighbours,
    claims: Claims,
    watch: Watch,
    /// Addresses the kernel has or had: those are the kernel's business for good.
    kernels: HashSet<Addr>,
    /// Tagged segments that frames for us came from.
    tagged: BTreeSet<Segment>,
    /// Ports on which we own an address, and so send with our virtual link address.
    masked: PortSet,
    /// Ports on which our own link-local address was made known.
    reported: PortSet,
    /// When groups were last reported because of a query, by port.
    queried: [Option<Moment>; super::MAX_PORTS],
    epoch: u64,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    counters: LinkCounters,
}

impl LinkLayer {
    /// A link layer that knows nothing of the host yet.
    pub fn new(settings: Settings) -> Self {
        let ports = settings.interfaces.iter().take(super::MAX_PORTS);
        Self {
            ports: ports.map(|name| Port::absent(name)).collect(),
            settings,
            host: Arc::default(),
            services: Services::default(),
            routes: Routes::default(),
            neighbours: Neighbours::default(),
            claims: Claims::default(),
            watch: Watch::default(),
            kernels: HashSet::new(),
            tagged: BTreeSet::new(),
            masked: PortSet::default(),
            reported: PortSet::default(),
            queried: [None; super::MAX_PORTS],
            epoch: 1,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            counters: LinkCounters::default(),
        }
    }

    /// Takes over what the kernel knows.
    pub fn set_host(&mut self, host: Arc<HostView>, now: Moment) {
        let before = std::mem::replace(&mut self.host, host);
        self.kernels.extend(self.host.addresses.iter().map(|own| own.addr));
        self.update_ports(&before, now);
        self.routes = self.build_routes();
        let known = self.kernel_neighbours();
        self.neighbours.seed(&known, now);
        for (addr, ..) in &known {
            self.watch.taken(*addr);
        }
        self.claim(now);
        self.epoch += 1;
        self.settle(now);
    }

    /// Takes over which services there are.
    pub fn set_services(&mut self, services: Services, now: Moment) {
        self.services = services;
        self.claim(now);
        self.epoch += 1;
        self.settle(now);
    }

    /// Decides where a packet to an address goes. `learned` says where packets from that address
    /// came from, if any came.
    pub fn dispatch(
        &mut self,
        to: Addr,
        learned: Option<Place>,
        packet: &PacketBuf<'_>,
        now: Moment,
    ) -> Dispatch {
        if self.services.masqueraded.contains(&to) {
            self.watch.served(to, now);
        }
        let dispatch = match self.choose(to, learned) {
            Choice::Place(place) => Dispatch::Ready(self.hop(place, to)),
            Choice::Ask(key, patience) => self.dispatch_to(key, patience, to, packet, now),
            Choice::Nowhere => Dispatch::Lost(Lost::NoRoute),
        };
        match dispatch {
            Dispatch::Ready(_) | Dispatch::Held => {}
            Dispatch::Lost(Lost::NoRoute) => self.counters.no_route += 1,
            Dispatch::Lost(Lost::Silent) => self.counters.silent += 1,
            Dispatch::Lost(Lost::Overload) => self.counters.overflow += 1,
        }
        self.settle(now);
        dispatch
    }

    /// Takes an ARP packet, without its link header.
    pub fn handle_arp(&mut self, arrival: &Arrival, bytes: &[u8], now: Moment) {
        let Some(arp) = Arp::parse(bytes) else {
            self.counters.bad_arp += 1;
            return;
        };
        self.handle_message(arrival, &Message::of_arp(&arp, arrival), now);
    }

    /// Takes a message of neighbour discovery, without its link header.
    pub fn handle_discovery(&mut self, arrival: &Arrival, packet: &PacketBuf<'_>, now: Moment) {
        let message = match nd::parse(packet) {
            Some(Heard::Solicitation(asked)) => Message::of_solicitation(&asked, arrival),
            Some(Heard::Advertisement(told)) => Message::of_advertisement(&told, arrival),
            Some(Heard::Query(version)) => return self.answer_query(arrival, version, now),
            None => {
                self.counters.bad_nd += 1;
                return;
            }
        };
        self.handle_message(arrival, &message, now);
    }

    fn handle_message(&mut self, arrival: &Arrival, message: &Message, now: Moment) {
        if self.is_own_mac(message.mac) || self.is_own_mac(arrival.source) {
            return;
        }
        self.note_segment(arrival.segment);
        if let Some(addr) = message.has {
            self.hear(addr, arrival, message, now);
        }
        if let Some(target) = message.asks {
            self.hear_question(target, arrival, message, now);
        }
        self.settle(now);
    }

    /// Takes note that a packet for us came from a segment.
    pub fn note_segment(&mut self, segment: Segment) {
        if segment.tags != Tags::NONE && self.tagged.len() < MAX_TAGGED {
            self.tagged.insert(segment);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.neighbours.handle_timeout(now);
        self.claims.handle_timeout(now);
        self.settle(now);
    }

    /// When something is due next.
    pub fn next_timeout(&self) -> Option<Moment> {
        [self.neighbours.next_timeout(), self.claims.next_timeout()].into_iter().flatten().min()
    }

    /// The next frame to be sent.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Whether there is a frame to be sent.
    pub fn has_transmits(&self) -> bool {
        !self.transmits.is_empty()
    }

    /// The next thing to tell an administrator.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Grows whenever headers in a [`HopCache`](super::HopCache) may have become wrong.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The ports.
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// What decides about the frames of a port, as it is now.
    pub fn classifier(&self, port: PortId) -> Option<Classifier> {
        let state = self.ports.get(usize::from(port.0))?;
        if self.settings.routed {
            return Some(Classifier::headless(port));
        }
        Some(Classifier::new(port, state.mac, state.own_mac, &state.foreign_vlans))
    }

    /// The addresses that are the director's own.
    pub fn owned_addresses(&self) -> Vec<Addr> {
        if self.settings.routed {
            let kernels = |addr: &&Addr| !self.host.owns(**addr);
            let Services { virtuals, locals, .. } = &self.services;
            return virtuals.iter().chain(locals).filter(kernels).copied().collect();
        }
        self.claims.owned().map(|(addr, _)| addr).collect()
    }

    /// The addresses at which the director is to be met: its own, and on links with IPv6 one that
    /// goes with its link address there.
    pub fn met_at(&self) -> impl Iterator<Item = Addr> {
        let introduced = self.port_ids().filter(|(id, _)| self.reported.contains(*id));
        let introduced = introduced.map(|(_, port)| port.own_link_local);
        self.owned_addresses().into_iter().chain(introduced)
    }

    /// What has been counted.
    pub fn counters(&self) -> LinkCounters {
        let mut counters = self.counters;
        counters.overflow += self.neighbours.overflow();
        counters
    }
}

/// The port that packets come and go by where the kernel routes them.
pub const DEVICE: PortId = PortId(0);
const MAX_TAGGED: usize = 64;
const MAX_EVENTS: usize = 256;
