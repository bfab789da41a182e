//! The host that the director lives on: the director in front, and a model of the kernel's own stack
//! for what it leaves alone.
//!
//! Owns routes, sockets and the fragments for the host itself. Packets come in by [`DirectorHost::receive`] and
//! [`DirectorHost::send_own`]; what leaves is fetched by [`DirectorHost::poll_emission`].

mod answers;
mod deliver;
mod echo;
mod errors;
mod forward;
mod neighbours;
mod options;
mod paths;
mod policy;
mod routes;
mod servers;
mod sockets;
mod story;
mod sync;
mod tcp;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use super::packet::{Packet, Proto, dissect, internet_checksum};
use super::topology::{Host, Link};
use crate::control::RunningSync;
use crate::engine::event::Event;
use crate::engine::fragments::Reassembly;
use crate::engine::mark::Subject;
use crate::engine::service::ServiceTable;
use crate::engine::{Director, DirectorConfig, DropReason, Moment, Network, Owner, Verdict};
use crate::packet::fragment::Cutter;
use crate::packet::{Addr, Headers, PacketBuf, SegmentKind, Segmentation};
use answers::{Trouble, icmp_error};
use echo::Echo;
use neighbours::Neighbours;
pub use neighbours::Question;
use options::Refused;
use paths::Paths;
pub use policy::{Policy, Rule};
pub use routes::{Prefix, RouteError, Routes, Target, Way};
use servers::ServerRoutes;
pub use sockets::{End, SocketError, Sockets};
pub use story::{Fate, Story};

/// Bytes in front of a packet for the headers of a tunnel.
/// Room behind a packet, for payloads that grow.
const TAILROOM: usize = 64;
/// Room in front of a packet.
const HEADROOM: usize = 128;
/// Why the host drops packets for their options.
const SOURCE_ROUTE: &str = "it wants to go a way of its own";
const BAD_OPTION: &str = "its options make no sense";
/// The first identification of a packet of the host's own stack.
const FIRST_ID: u32 = 0x4000;
/// Steps of expiry that one call may take; the simulator waits until all is done.
const EXPIRY_BUDGET: u32 = u32::MAX;

/// A packet as it travels between the host's parts.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Its bytes, from the IP header on.
    pub bytes: Vec<u8>,
    /// Where its checksum is still to be summed from, and where it goes after that.
    pub unfinished: Option<(usize, u16)>,
    /// The fragments that it came in, and leaves in.
    pub pieces: Option<Pieces>,
}

/// The fragments of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// The longest, in bytes from its IP header on.
    longest: u16,
    /// How long their payloads are, if that is to be kept.
    lengths: Vec<u16>,
}

impl Datagram {
    /// A packet with complete checksums that is no datagram of fragments.
    pub fn plain(bytes: Vec<u8>) -> Self {
        Self { bytes, unfinished: None, pieces: None }
    }

    /// The bytes of a packet with its checksum summed up, as a network card would.
    fn finished(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let field = self.unfinished.map(|(start, offset)| (start, start + usize::from(offset)));
        if let Some((start, field)) = field
            && let Some(covered) = bytes.get(start..).filter(|_| field + 2 <= bytes.len())
        {
            let sum = internet_checksum(covered);
            bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }
}

/// A packet that the host put on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emission {
    /// Whom it was sent to.
    pub host: Host,
    /// Its bytes, from the IP header on, checksums complete.
    pub bytes: Vec<u8>,
}

/// What the director left of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consulted {
    /// Nothing.
    Done,
    /// The whole packet, for the host's own stack.
    LeftToHost,
    /// Nothing, and a program that sent it is told so at once.
    Refused,
}

/// The director and its host.
#[derive(Debug)]
pub struct DirectorHost {
    /// Addresses, routes and link sizes.
    pub routes: Routes,
    /// Routes for marked packets.
    pub policy: Policy,
    /// Sockets of the host's own programs.
    pub sockets: Sockets,
    director: Director,
    reassembly: Reassembly,
    cutter: Cutter,
    emitted: VecDeque<Emission>,
    neighbours: Neighbours,
    server_routes: ServerRoutes,
    paths: Paths,
    /// The options that answers to the packet in hand have.
    echo: Option<Echo>,
    questions: Vec<Question>,
    next_id: u32,
    now: Moment,
    sync: Vec<RunningSync>,
    /// What became of each packet, if anybody wants to know.
    stories: Option<VecDeque<Story>>,
}

impl DirectorHost {
    /// A host in the oracle's network, whose director balances `services`.
    pub fn new(services: Arc<ServiceTable>, seed: u64, now: Moment) -> Self {
        let config = DirectorConfig {
            icmp_errors_per_s: None,
            // The question is what the kernel would do.
            misreads_ipv6: true,
            ..DirectorConfig::new(0, seed)
        };
        Self {
            routes: Routes::default(),
            policy: Policy::default(),
            sockets: Sockets::default(),
            director: Director::new(services, config, now),
            reassembly: Reassembly::new(config.fragments_bytes),
            cutter: Cutter::new(0, seed),
            emitted: VecDeque::new(),
            neighbours: Neighbours::default(),
            server_routes: ServerRoutes::default(),
            paths: Paths::default(),
            echo: None,
            questions: Vec::new(),
            next_id: FIRST_ID,
            now,
            sync: Vec::new(),
            stories: None,
        }
    }

    /// Takes note of what becomes of each packet from now on, and why.
    pub fn take_notes(&mut self) {
        self.stories.get_or_insert_default();
        self.routes.journal.listen();
    }

    /// The next note, if there are any.
    #[must_use]
    pub fn poll_story(&mut self) -> Option<Story> {
        self.stories.as_mut()?.pop_front()
    }

    /// The director.
    pub fn director(&self) -> &Director {
        &self.director
    }

    /// Moves the clock on, and does what is due by then.
    pub fn advance(&mut self, now: Moment) {
        self.now = now;
        self.echo = None;
        self.director.refresh();
        self.director.handle_timeout(now, EXPIRY_BUDGET);
        self.director.expire_fragments(&self.routes, now, EXPIRY_BUDGET);
        self.collect_output();
        self.send_sync();
        for mut segment in self.sockets.poll(now) {
            let path = self.path_towards(segment.dst);
            sockets::lower_mss(&mut segment, path);
            self.send_own(segment);
        }
        self.neighbours.ask(now, |question| self.questions.push(question));
        for packet in self.neighbours.give_up(now) {
            if let Some(packet) = dissect(&packet) {
                let source = self.routes.source_towards(packet.src);
                self.complain(&packet, Trouble::HostUnreachable, source);
            }
        }
    }

    /// What the host asked its links since the last call.
    pub fn take_questions(&mut self) -> Vec<Question> {
        std::mem::take(&mut self.questions)
    }

    /// Takes a packet that arrived on a link.
    pub fn receive(&mut self, mut datagram: Datagram, link: Link) {
        let link = Some(link);
        let Some(mut packet) = dissect(&datagram.finished()) else { return };
        if let Some(reason) = self.refusal(&packet) {
            return self.note(&packet, Vec::new(), Fate::NotTaken(reason));
        }
        self.director.refresh();
        if packet.dst.is_multicast() {
            // Nobody routes multicast here, and no other program listens to any.
            return self.hear_sync(&packet, link);
        }
        let is_here = self.is_here(&packet, link);
        let here = if is_here { Some(packet.dst) } else { self.routes.source_towards(packet.src) };
        self.echo = Echo::of(&packet, here);
        if let Err(refused) = self.take_options(&mut datagram, &packet, is_here) {
            match refused {
                Refused::SourceRoute => {
                    self.note(&packet, Vec::new(), Fate::NotTaken(SOURCE_ROUTE))
                }
                Refused::Problem(at) => {
                    self.note(&packet, Vec::new(), Fate::NotTaken(BAD_OPTION));
                    self.report(&packet, Trouble::BadHeader(at));
                }
            }
            return;
        }
        if let Some(changed) = dissect(&datagram.finished()) {
            packet = changed;
        }
        if !is_here && self.is_for_service(&packet) {
            // IPVS sees such packets only as replies, and errors once they are routed.
            let is_whole = packet.fields.frag.is_none();
            if packet.is_icmp_error() && is_whole {
                return self.forward_error(packet, None);
            }
            if !packet.is_icmp_error() {
                self.note(&packet, Vec::new(), Fate::Bypassed);
                return self.forward(packet, None);
            }
        }
        self.judge(packet, &datagram, is_here);
        while let Some(mut whole) = self.director.poll_datagram() {
            // Gathering sums up the header.
            self.echo.iter_mut().for_each(Echo::mend);
            let (packet, lengths) = whole.parts();
            let longest = packet.offload.segmentation.size_bytes;
            let pieces = Some(Pieces { longest, lengths: lengths.to_vec() });
            let datagram = Datagram { bytes: packet.bytes().to_vec(), unfinished: None, pieces };
            if let Some(packet) = dissect(&datagram.bytes) {
                let is_here = self.is_here(&packet, link);
                if is_here || !self.is_for_service(&packet) {
                    self.judge(packet, &datagram, is_here);
                } else if packet.is_icmp_error() {
                    self.forward_error(packet, datagram.pieces);
                } else {
                    self.forward(packet, datagram.pieces.as_ref());
                }
            }
            self.director.recycle_datagram(whole);
        }
    }

    /// Does what the options of a packet ask of every host on its way.
    fn take_options(
        &self,
        datagram: &mut Datagram,
        packet: &Packet,
        is_here: bool,
    ) -> Result<(), Refused> {
        let here = if is_here { Some(packet.dst) } else { self.routes.source_towards(packet.dst) };
        match here {
            Some(IpAddr::V4(here)) => options::receive(&mut datagram.bytes, here),
            _ => Ok(()),
        }
    }

    /// Has the director look at a packet, and does with it what that leaves to the host.
    fn judge(&mut self, packet: Packet, datagram: &Datagram, is_here: bool) {
        match self.consult(datagram, None) {
            Consulted::Done | Consulted::Refused => {}
            Consulted::LeftToHost if is_here => self.deliver(packet),
            Consulted::LeftToHost => self.forward(packet, datagram.pieces.as_ref()),
        }
    }

    /// Sends a packet of the host itself, which the director sees on its way out. Returns whether it
    /// was permitted.
    ///
    /// **Source** — IPVS's hooks at `NF_INET_LOCAL_OUT`; what they have looked at there they leave
    /// alone when it arrives at the host again.
    pub fn send_own(&mut self, mut packet: Packet) -> bool {
        if let Some(echo) = &self.echo {
            echo.apply(&mut packet);
        }
        // Nothing is sent from an address that is the host's by policy only.
        if !self.routes.is_local(packet.src) {
            return true;
        }
        // Linux numbers packets that cannot be fragmented only where they belong to a connection.
        if packet.src.is_ipv4() && packet.fields.id != 0 {
            packet.fields.id = self.next_id;
            self.next_id = FIRST_ID | (self.next_id + 1) & 0x3fff;
        }
        let bytes = packet.build();
        let way = self.routes.way(packet.dst);
        if way == Way::Unreachable {
            return true;
        }
        match self.consult(&Datagram::plain(bytes.clone()), Some(packet.dst)) {
            Consulted::Done => true,
            // A mark is set where packets arrive, by loopback: the program has sent it by then.
            Consulted::Refused => {
                dissect(&bytes).is_some_and(|packet| self.mark_of(&packet).is_some())
            }
            Consulted::LeftToHost if way == Way::Local => {
                if let Some(packet) = dissect(&bytes) {
                    self.deliver(packet);
                }
                true
            }
            Consulted::LeftToHost => {
                self.send_out(bytes, packet.dst);
                true
            }
        }
    }

    /// The next packet that left the host.
    #[must_use]
    pub fn poll_emission(&mut self) -> Option<Emission> {
        self.emitted.pop_front()
    }

    /// Why the host drops a packet before anybody else sees it, if it does.
    fn refusal(&self, packet: &Packet) -> Option<&'static str> {
        if packet.fields.bad_ip_sum {
            Some("the checksum of its IP header is wrong")
        } else if packet.fields.quote != 0 {
            Some("it is shorter than its headers say")
        } else {
            self.is_martian(packet).then_some("such an address cannot come by a wire")
        }
    }

    fn note(&mut self, packet: &Packet, events: Vec<Event>, fate: Fate) {
        if let Some(stories) = &mut self.stories {
            stories.push_back(Story { packet: packet.clone(), events, fate });
        }
    }

    /// Whether routing would drop a packet for its addresses. **Source** — RFC 1812 §5.3.7.
    fn is_martian(&self, packet: &Packet) -> bool {
        let reserved = |addr: IpAddr| match addr {
            IpAddr::V4(addr) => addr.octets()[0] == 0 || addr.octets()[0] >= 240,
            IpAddr::V6(addr) => addr.is_unspecified(),
        };
        let src = packet.src;
        // Only IPv4 looks for addresses of its own that come from outside.
        let own = src.is_ipv4() && self.routes.is_local(src);
        reserved(src) || reserved(packet.dst) || src.is_multicast() || own
    }

    /// Whether a packet is delivered to the host itself.
    fn is_here(&self, packet: &Packet, link: Option<Link>) -> bool {
        let is_led = |mark| self.policy.delivers(mark, link, packet.dst);
        self.routes.is_local(packet.dst) || self.mark_of(packet).is_some_and(is_led)
    }

    /// Whether a packet is a client's. A network that a mark names may well be the clients' own: there
    /// the mark tells, which neither fragments nor errors have.
    fn is_for_service(&self, packet: &Packet) -> bool {
        let (snapshot, to) = (self.director.snapshot(), packet.dst.into());
        let is_marked = || packet.fields.frag.is_none() && self.mark_of(packet).is_some();
        let tells = || packet.is_icmp_error() || is_marked();
        snapshot.is_virtual(to) && (!snapshot.is_only_in_marked_network(to) || tells())
    }

    fn mark_of(&self, packet: &Packet) -> Option<u32> {
        let headers = Headers::parse(&packet.raw).ok()?;
        let mark = self.director.snapshot().mark(Subject::new(&headers, &packet.raw), &self.routes);
        (mark != 0).then_some(mark)
    }

    /// Hands a packet to the director, and sends on what it forwards. `own` is where the host itself
    /// sends it, if it does.
    fn consult(&mut self, datagram: &Datagram, own: Option<IpAddr>) -> Consulted {
        self.director.refresh();
        let mut storage = [vec![0; HEADROOM], datagram.bytes.clone()].concat();
        let end = storage.len();
        storage.resize(end + TAILROOM, 0);
        let mut buf = PacketBuf::new(&mut storage, HEADROOM, end);
        if let Some((start, offset)) = datagram.unfinished {
            buf.set_unfinished_checksum(start, offset);
        }
        mark_pieces(&mut buf, datagram.pieces.as_ref());
        let verdict = self.director.handle_packet(&mut buf, &self.routes, self.now);
        let pieces = pieces_of(&buf, datagram.pieces.as_ref());
        let unfinished = buf.unfinished_checksum();
        let unfinished = unfinished.map(|(start, field)| (start, (field - start) as u16));
        let left = Datagram { bytes: buf.bytes().to_vec(), unfinished, pieces: None };
        if self.stories.is_some()
            && let Some(packet) = dissect(&datagram.finished())
        {
            let fate = self.fate(verdict, &packet, &left);
            let events = self.routes.journal.take();
            // Of the host's own packets those only that concern the director.
            if own.is_none() || !events.is_empty() {
                self.note(&packet, events, fate);
            }
        }
        let refused = self.collect_output();
        // What cannot be sent on has asked for a route as well.
        let has_gone = matches!(verdict, Verdict::Forward(_) | Verdict::Reply);
        let misled = if has_gone { self.misled(&datagram.bytes) } else { None };
        match verdict {
            Verdict::Pass => return Consulted::LeftToHost,
            Verdict::Forward(hop) => {
                let to = hop.to.into();
                if let Some(own) = own.filter(|_| !self.routes.is_local(to)) {
                    self.learn_tunnel(
                        own,
                        to,
                        left.bytes.len().saturating_sub(datagram.bytes.len()),
                    );
                }
                // What the host sends keeps its way if the director turns it back to the host.
                let to = own.filter(|_| self.routes.is_local(to)).unwrap_or(to);
                match misled {
                    Some(neighbour) => self.wait_for(neighbour, left.finished()),
                    None => self.route_out(left.finished(), to, pieces.as_ref()),
                }
            }
            Verdict::Reply if refused => return Consulted::Refused,
            Verdict::Drop(reason) if is_refusal(reason) => return Consulted::Refused,
            Verdict::Reply | Verdict::Held | Verdict::Drop(_) => {}
        }
        Consulted::Done
    }

    /// What becomes of a packet by the director's verdict.
    fn fate(&self, verdict: Verdict, packet: &Packet, left: &Datagram) -> Fate {
        match verdict {
            Verdict::Forward(hop) => {
                let to = match self.routes.way(hop.to.into()) {
                    Way::Link(link, next_hop) => Some(Host::owner_of(link, next_hop)),
                    Way::Local | Way::Unreachable => None,
                };
                Fate::Forwarded { packet: dissect(&left.finished()).map(Box::new), to }
            }
            Verdict::Reply => Fate::Answered,
            Verdict::Held => Fate::Held,
            Verdict::Pass => Fate::LeftToHost(self.routes.is_local(packet.dst)),
            Verdict::Drop(reason) => Fate::Dropped(reason),
        }
    }

    /// Sends what the director has to say, and returns whether it refused a port.
    fn collect_output(&mut self) -> bool {
        let mut refused = false;
        while let Some(output) = self.director.poll_output() {
            // As with what the host sends itself.
            if let Some(mut packet) = dissect(&output.bytes)
                && self.routes.is_local(packet.src)
            {
                refused |= is_port_unreachable(&packet);
                let has_options = self.echo.as_ref().is_some_and(|echo| echo.apply(&mut packet));
                let bytes = if has_options { packet.build() } else { output.bytes.clone() };
                self.send_out(bytes, output.to.into());
            }
            self.director.recycle(output);
        }
        refused
    }

    /// Sends a packet that begins here, in fragments if its link wants it.
    fn send_out(&mut self, bytes: Vec<u8>, to: IpAddr) {
        let own = Pieces { longest: u16::MAX, lengths: Vec::new() };
        let is_v6 = bytes.first().is_some_and(|first| first >> 4 == 6);
        self.route_out(bytes, to, Some(&own).filter(|_| is_v6));
    }

    /// Sends a packet on towards an address, in fragments if its link wants it or if it came in some.
    fn route_out(&mut self, mut bytes: Vec<u8>, to: IpAddr, pieces: Option<&Pieces>) {
        match self.routes.way(to) {
            Way::Local => {
                if let Some(packet) = dissect(&bytes) {
                    self.deliver(packet);
                }
            }
            Way::Link(link, next_hop) => {
                let host = Host::owner_of(link, next_hop);
                if !host.answers_for(next_hop) {
                    return self.wait_for((link, next_hop), bytes);
                }
                let end = bytes.len();
                let mut packet = PacketBuf::new(&mut bytes, 0, end);
                mark_pieces(&mut packet, pieces);
                let lengths = pieces.map_or(&[][..], |pieces| &pieces.lengths);
                let (mtu, emitted) = (self.routes.link_mtu(link), &mut self.emitted);
                // What cannot be cut is lost.
                let _ = self.cutter.cut(&mut packet, mtu, lengths, |fragments| {
                    let sent = fragments.packets().map(|piece| piece.bytes().to_vec());
                    emitted.extend(sent.map(|bytes| Emission { host, bytes }));
                });
            }
            Way::Unreachable => {}
        }
    }

    /// Asks for a neighbour who does not answer, and keeps a packet until that is clear.
    fn wait_for(&mut self, neighbour: (Link, IpAddr), bytes: Vec<u8>) {
        let source = dissect(&bytes).map(|packet| packet.src);
        let source = source.filter(|source| self.routes.is_local(*source));
        self.neighbours.wait(neighbour, bytes, source, self.now);
        self.neighbours.ask(self.now, |question| self.questions.push(question));
    }

    /// Sends an ICMP error about a packet, from the address it was sent to if that is the host's.
    fn report(&mut self, packet: &Packet, trouble: Trouble) {
        let source = if self.routes.is_local(packet.dst) {
            Some(packet.dst)
        } else {
            self.routes.source_towards(packet.src)
        };
        self.complain(packet, trouble, source);
    }

    /// Sends an ICMP error about a packet from `source`.
    fn complain(&mut self, packet: &Packet, trouble: Trouble, source: Option<IpAddr>) {
        if let Some(error) = source.and_then(|source| icmp_error(packet, trouble, source)) {
            self.send_own(error);
        }
    }

    /// The largest packet that the path to an address is known to take, in bytes; `None` for the host
    /// itself.
    pub fn path_towards(&self, to: IpAddr) -> Option<usize> {
        let link = match self.routes.way(to) {
            Way::Link(link, _) => Some(self.routes.link_mtu(link)),
            Way::Local | Way::Unreachable => None,
        };
        self.paths.mtu(to, link)
    }
}

/// Whether a program whose packet is dropped for this reason is told that it may not send it; else it
/// is lost as on a wire.
fn is_refusal(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::NoServer
            | DropReason::DropPacket
            | DropReason::TableFull
            | DropReason::NoCallId
            | DropReason::ServerRemoved
    )
}

fn is_port_unreachable(packet: &Packet) -> bool {
    matches!((packet.proto, packet.kind.as_str()), (Proto::Icmp, "3/3") | (Proto::Icmp6, "1/4"))
}

/// Marks a packet as one that came in fragments.
fn mark_pieces(packet: &mut PacketBuf<'_>, pieces: Option<&Pieces>) {
    if let Some(pieces) = pieces {
        packet.offload.segmentation.kind = SegmentKind::Fragments;
        packet.offload.segmentation.size_bytes = pieces.longest;
    }
}

/// The fragments that a packet leaves in, if it is to leave in some.
fn pieces_of(packet: &PacketBuf<'_>, came_in: Option<&Pieces>) -> Option<Pieces> {
    let Segmentation { kind, size_bytes, .. } = packet.offload.segmentation;
    let lengths = came_in.map_or_else(Vec::new, |pieces| pieces.lengths.clone());
    (kind == SegmentKind::Fragments).then_some(Pieces { longest: size_bytes, lengths })
}

impl Network for Routes {
    fn mtu(&self, to: Addr) -> Option<usize> {
        self.mtu_towards(to.into())
    }

    fn address_towards(&self, to: Addr) -> Option<Addr> {
        self.source_towards(to.into()).map(Addr::from)
    }

    fn owner(&self, addr: Addr) -> Owner {
        if self.is_local(addr.into()) { Owner::Kernel } else { Owner::Other }
    }

    fn epoch(&self) -> u64 {
        self.changes()
    }

    fn leaves_by(&self, to: Addr, interface: &str) -> bool {
        matches!(self.way(to.into()), Way::Link(link, _) if link.name() == interface)
    }

    fn witness(&self, event: impl FnOnce() -> Event) {
        self.journal.hear(event);
    }
}
