//! The loop of one worker.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use crossbeam_channel::Receiver as Inbox;

use super::egress::{self, LostCounters, Way};
use super::mailbox::{ListedConnection, Mailbox, Page, Request, WorkerCounters};
use super::network::{View, WorkerNetwork, source_of};
use super::shared::{Clock, SharedLink};
use super::steer;
use super::sync::SyncOutlet;
use crate::driver::{BATCH, HEADROOM, MOST_DESCRIPTORS, Receiver, SOURCES, Sender, wait};
use crate::engine::fragments::{DATAGRAM_HEADROOM, Datagram};
use crate::engine::sync::Entry;
use crate::engine::{Director, MAX_BATCH, Moment, Verdict, shard};
use crate::link::{
    Arrival, Class, Classifier, DOOR, IgnoredCounters, MAX_PORTS, OwnedPacket, Place, PortId,
};
use crate::packet::encap::quoted_tunnel;
use crate::packet::fragment::Cutter;
use crate::packet::{Fragment, Headers, PacketBuf};

const _: () = assert!(BATCH <= MAX_BATCH);
const _: () = assert!(HEADROOM <= DATAGRAM_HEADROOM);
// The worker's own and the interfaces', and one more for the door.
const _: () = assert!(1 + MAX_PORTS * SOURCES < MOST_DESCRIPTORS);

/// What a worker is made of.
pub struct WorkerConfig {
    /// Its number, from 0.
    pub number: usize,
    /// Its engine.
    pub director: Director,
    /// The link layer.
    pub link: Arc<SharedLink>,
    /// The clock.
    pub clock: Clock,
    /// How it waits when there is nothing to do.
    pub patience: Patience,
    /// The mailboxes of all workers, its own included.
    pub peers: Peers,
    /// The way to other directors.
    pub outlet: Arc<SyncOutlet>,
    /// Its own mailbox's inner end.
    pub inbox: Inbox<Request>,
    /// Ends the worker once it is set (and the worker woken).
    pub stop: Arc<AtomicBool>,
}

/// The mailboxes of all workers, by number.
pub type Peers = Arc<[Mailbox]>;

/// How a worker waits when there is nothing to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// Look again and again for this long before going to sleep.
    pub spin: Duration,
}

/// A worker, to be run in a thread of its own.
pub struct Worker {
    number: usize,
    director: Director,
    link: Arc<SharedLink>,
    clock: Clock,
    patience: Patience,
    peers: Peers,
    inbox: Inbox<Request>,
    stop: Arc<AtomicBool>,
    view: View,
    link_epoch: u64,
    classifiers: Vec<Option<Classifier>>,
    receivers: Vec<Option<Box<dyn Receiver>>>,
    senders: Vec<Option<Box<dyn Sender>>>,
    scratch: Vec<u8>,
    ignored: IgnoredCounters,
    handed_over: u64,
    mailbox_full: u64,
    cutter: Cutter,
    lost: LostCounters,
    outlet: Arc<SyncOutlet>,
    sync_unsent: u64,
}

/// How many connections a page of a listing looks at, so that a listing never holds packets up
/// for long.
const PAGE_LEN: usize = 4096;
/// Requests that are fulfilled between two batches, so that what others hand over does not hold up
/// what the worker receives itself.
const MOST_REQUESTS: usize = 4 * BATCH;
/// Expiry steps between two batches.
const TIMER_BUDGET: u32 = 256;
/// How long a worker sleeps at most: expiry is this exact.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

impl Worker {
    /// A worker without ports; they come by [`Request::Attach`].
    pub fn new(config: WorkerConfig) -> Self {
        let WorkerConfig { number, director, link, clock, patience, .. } = config;
        let WorkerConfig { peers, outlet, inbox, stop, .. } = config;
        Self {
            number,
            director,
            link,
            clock,
            patience,
            peers,
            inbox,
            stop,
            view: View::new(),
            link_epoch: 0,
            classifiers: Vec::new(),
            receivers: Vec::new(),
            senders: Vec::new(),
            scratch: Vec::new(),
            ignored: IgnoredCounters::default(),
            handed_over: 0,
            mailbox_full: 0,
            cutter: Cutter::new(HEADROOM, RandomState::new().build_hasher().finish()),
            lost: LostCounters::default(),
            outlet,
            sync_unsent: 0,
        }
    }

    /// Runs until told to stop.
    ///
    /// **Errors** — only when waiting itself fails. A port that fails is let go; its interface
    /// may be attached again.
    pub fn run(&mut self) -> io::Result<()> {
        let mut idle_since = None;
        while !self.stop.load(Ordering::Acquire) {
            if self.turn() > 0 {
                idle_since = None;
                continue;
            }
            let since = *idle_since.get_or_insert_with(Instant::now);
            if since.elapsed() < self.patience.spin {
                std::hint::spin_loop();
                continue;
            }
            self.sleep()?;
        }
        Ok(())
    }

    /// Does what there is to do now; returns how many packets and requests that was.
    pub fn turn(&mut self) -> usize {
        let now = self.clock.now();
        self.refresh();
        let mut done = self.receive(now);
        for _ in 0..MOST_REQUESTS {
            let Ok(request) = self.inbox.try_recv() else { break };
            done += 1;
            self.fulfil(request, now);
        }
        self.director.handle_timeout(now, TIMER_BUDGET);
        self.send_sync();
        self.expire_fragments(now);
        if self.number == 0 && self.link.next_timeout().is_some_and(|due| due <= now) {
            self.link.with(|layer| layer.handle_timeout(now));
        }
        if self.link.take_output() {
            egress::send_link_output(&self.link, &mut self.senders);
        }
        done
    }

    /// Sends what other directors are to be told.
    fn send_sync(&mut self) {
        while let Some(message) = self.director.poll_sync() {
            self.sync_unsent += u64::from(!self.outlet.send(&message));
            self.director.recycle_sync(message.bytes);
        }
    }

    /// Takes over what another director tells of this worker's connections.
    fn hear(&mut self, message: &[u8], id: u8, now: Moment) {
        let Self { director, view, link, number, peers, .. } = self;
        let network = WorkerNetwork { view, link, now, arrival: PortId::default() };
        let owns =
            |entry: &Entry| shard::owner(entry.client, entry.protocol, peers.len()) == *number;
        // Whoever handed it over has looked at its header.
        let _ = director.handle_sync(message, id, owns, &network, now);
    }

    fn expire_fragments(&mut self, now: Moment) {
        let Self { director, view, link, .. } = self;
        let network = WorkerNetwork { view, link, now, arrival: PortId::default() };
        director.expire_fragments(&network, now, TIMER_BUDGET);
        self.send_outputs(now);
    }

    fn refresh(&mut self) {
        self.director.refresh();
        let epoch = self.link.epoch();
        if epoch == self.link_epoch {
            return;
        }
        self.link_epoch = epoch;
        let Self { view, classifiers, link, .. } = self;
        link.with(|layer| {
            view.renew(layer);
            let ports = (0..layer.ports().len() as u16).map(PortId);
            *classifiers = ports.map(|port| layer.classifier(port)).collect();
            classifiers.resize(usize::from(DOOR.0), None);
            classifiers.push(Some(Classifier::door()));
        });
    }

    fn receive(&mut self, now: Moment) -> usize {
        let mut done = 0;
        for port in 0..self.receivers.len() {
            // Taken out for the time, so that the frames, which lie in the receiver's memory, and
            // the rest of the worker can be used together.
            let Some(mut receiver) = self.receivers[port].take() else { continue };
            let received = receiver.receive(&mut |frames| self.handle_frames(port, frames, now));
            match received {
                Ok(count) => {
                    done += count;
                    self.receivers[port] = Some(receiver);
                }
                Err(_) => self.senders[port] = None,
            }
        }
        done
    }

    /// Handles the frames of one port that arrived together.
    fn handle_frames(&mut self, port: usize, frames: &mut [PacketBuf<'_>], now: Moment) {
        let count = self.classify(port, frames, now);
        let packets = &mut frames[..count];
        let arrival = PortId(port as u16);
        let count = if self.peers.len() > 1 { self.hand_over(arrival, packets) } else { count };
        self.handle_packets(arrival, &mut packets[..count], now);
    }

    /// Judges packets, each from its IP header on, and sends what comes of them; then the datagrams
    /// that their fragments have made whole.
    fn handle_packets(&mut self, arrival: PortId, packets: &mut [PacketBuf<'_>], now: Moment) {
        self.judge(arrival, packets, &[], now);
        while let Some(datagram) = self.director.poll_datagram() {
            let owner = self.owner(datagram.bytes());
            if owner == self.number {
                self.handle_datagram(arrival, datagram, now);
            } else {
                let request = Request::HandOverDatagram { datagram, port: arrival };
                let taken = self.peers[owner].try_hand_over(request);
                self.handed_over += u64::from(taken);
                self.mailbox_full += u64::from(!taken);
            }
        }
    }

    fn handle_datagram(&mut self, arrival: PortId, mut datagram: Datagram, now: Moment) {
        let (packet, lengths) = datagram.parts();
        self.judge(arrival, &mut [packet], lengths, now);
        self.director.recycle_datagram(datagram);
    }

    /// Judges packets and sends what comes of them, in fragments of these lengths if they fit.
    fn judge(
        &mut self,
        arrival: PortId,
        packets: &mut [PacketBuf<'_>],
        lengths: &[u16],
        now: Moment,
    ) {
        let mut verdicts = ArrayVec::<Verdict, MAX_BATCH>::new();
        let Self { director, view, link, .. } = self;
        let network = WorkerNetwork { view, link, now, arrival };
        director.handle_batch(packets, &network, now, &mut verdicts);
        self.way(now, arrival == DOOR).forward(packets, &verdicts, lengths);
        self.send_outputs(now);
    }

    /// Sends what the director has to say by itself.
    fn send_outputs(&mut self, now: Moment) {
        while let Some(output) = self.director.poll_output() {
            let mut scratch = std::mem::take(&mut self.scratch);
            self.way(now, false).send_output(&output, &mut scratch);
            self.scratch = scratch;
            self.director.recycle(output);
        }
    }

    fn way(&mut self, now: Moment, from_host: bool) -> Way<'_> {
        let Self { view, link, senders, cutter, lost, .. } = self;
        Way { view, link, senders, cutter, lost, now, from_host }
    }

    /// Gathers the IP packets for the director at the front, in their order, and sees to the rest.
    /// Returns how many there are.
    fn classify(&mut self, port: usize, frames: &mut [PacketBuf<'_>], now: Moment) -> usize {
        let Some(Some(classifier)) = self.classifiers.get(port) else { return 0 };
        let mut kept = 0;
        for at in 0..frames.len() {
            match classifier.classify(&mut frames[at]) {
                Class::Packet(arrival) => {
                    learn(&mut self.view, &arrival, frames[at].bytes());
                    frames.swap(kept, at);
                    kept += 1;
                }
                Class::Arp(arrival) => {
                    let bytes = frames[at].bytes();
                    self.link.with(|layer| layer.handle_arp(&arrival, bytes, now));
                }
                Class::Discovery(arrival) => {
                    self.link.with(|layer| layer.handle_discovery(&arrival, &frames[at], now));
                }
                Class::Ignored(reason) => self.ignored.count(reason),
            }
        }
        kept
    }

    /// Hands packets of other workers' connections over to them, and gathers its own at the front.
    fn hand_over(&mut self, port: PortId, packets: &mut [PacketBuf<'_>]) -> usize {
        let mut kept = 0;
        for at in 0..packets.len() {
            let owner = self.owner(packets[at].bytes());
            if owner == self.number {
                packets.swap(kept, at);
                kept += 1;
            } else {
                let packet = OwnedPacket::copy(&packets[at]);
                let taken = self.peers[owner].try_hand_over(Request::HandOver { packet, port });
                self.handed_over += u64::from(taken);
                self.mailbox_full += u64::from(!taken);
            }
        }
        kept
    }

    /// The worker that owns a packet; its own number if it cannot be told.
    fn owner(&self, bytes: &[u8]) -> usize {
        let Ok(headers) = Headers::parse(bytes) else { return self.number };
        let snapshot = self.director.snapshot();
        let is_virtual = |addr| {
            snapshot.is_virtual(addr) || snapshot.marks_own_addresses() && self.view.is_own(addr)
        };
        if !matches!(headers.fragment, Fragment::Whole | Fragment::Atomic) {
            let client = steer::client_of_fragment(&headers, is_virtual);
            return shard::owner(client, steer::protocol_of_fragment(&headers), self.peers.len());
        }
        // An error about a tunnel belongs to the connection inside.
        let tunnelled = quoted_tunnel(bytes, &headers).map(|quoted| quoted.inner);
        let tunnelled = tunnelled.filter(|inner| is_virtual(inner.destination.addr));
        let locals = &snapshot.locals;
        let is_answer = |protocol, from, to| self.director.is_answer(protocol, from, to);
        let (client, protocol) = match tunnelled.or_else(|| headers.quoted(bytes)) {
            Some(Headers { source, destination, protocol, .. })
                if is_answer(protocol, destination, source) =>
            {
                (source, protocol)
            }
            Some(quoted) => (steer::client_of_error(&quoted, locals, is_virtual), quoted.protocol),
            None if is_answer(headers.protocol, headers.source, headers.destination) => {
                (headers.destination, headers.protocol)
            }
            None => (steer::client(&headers, locals, is_virtual), headers.protocol),
        };
        shard::owner(client, protocol, self.peers.len())
    }

    fn fulfil(&mut self, request: Request, now: Moment) {
        match request {
            Request::Attach { port, receiver, sender } => self.attach(port, receiver, sender),
            // The next turn begins with a look at services and routes.
            Request::Follow { followed } => {
                // Whoever waited may have given up.
                let _ = followed.send(());
            }
            Request::List { from, answer } => {
                let (page, next) = self.director.connections().page(from, PAGE_LEN);
                let listed = page.into_iter().filter(|conn| !conn.is_outbound());
                let connections = listed.map(|conn| ListedConnection::new(conn, now)).collect();
                let _ = answer.send(Page { connections, next });
            }
            Request::Count { answer } => {
                let _ = answer.send(self.counters());
            }
            Request::Synchronise { message, id } => self.hear(&message, id, now),
            Request::HandOver { mut packet, port } => {
                self.handle_packets(port, &mut [packet.packet()], now);
            }
            Request::HandOverDatagram { datagram, port } => {
                self.handle_datagram(port, datagram, now);
            }
        }
    }

    fn attach(&mut self, port: PortId, receiver: Box<dyn Receiver>, sender: Box<dyn Sender>) {
        let index = usize::from(port.0);
        if self.receivers.len() <= index {
            self.receivers.resize_with(index + 1, || None);
            self.senders.resize_with(index + 1, || None);
        }
        self.receivers[index] = Some(receiver);
        self.senders[index] = Some(sender);
    }

    /// What it has counted.
    pub fn counters(&mut self) -> WorkerCounters {
        let receivers = self.receivers.iter_mut().map(|receiver| {
            receiver.as_mut().map(|receiver| receiver.counters()).unwrap_or_default()
        });
        let senders = self
            .senders
            .iter()
            .map(|sender| sender.as_ref().map(|sender| sender.counters()).unwrap_or_default());
        WorkerCounters {
            ports: receivers.zip(senders).collect(),
            verdicts: self.director.verdicts().clone(),
            full_nat: self.director.full_nat(),
            fragments: self.director.fragments(),
            ignored: self.ignored,
            connections: self.director.connections().len(),
            handed_over: self.handed_over,
            mailbox_full: self.mailbox_full,
            lost: self.lost,
            sync: self.director.sync_counters(),
            sync_unsent: self.sync_unsent,
        }
    }

    fn sleep(&mut self) -> io::Result<()> {
        let trouble = {
            let waker = self.peers[self.number].waker();
            let ports = self.receivers.iter().flatten().flat_map(|each| each.readiness());
            let descriptors: ArrayVec<_, MOST_DESCRIPTORS> =
                std::iter::once(waker.as_fd()).chain(ports).collect();
            let woken = wait(&descriptors, Some(self.longest_sleep()))?;
            waker.clear();
            woken.trouble
        };
        if trouble {
            self.let_go();
        }
        Ok(())
    }

    /// Until the link layer wants to be looked after, at the most.
    fn longest_sleep(&self) -> Duration {
        let due = self.link.next_timeout();
        due.map_or(LONGEST_SLEEP, |due| LONGEST_SLEEP.min(due - self.clock.now()))
    }

    /// Lets go of the ports whose interfaces are gone.
    fn let_go(&mut self) {
        for (receiver, sender) in self.receivers.iter_mut().zip(&mut self.senders) {
            if receiver.as_mut().is_some_and(|receiver| receiver.is_gone()) {
                *receiver = None;
                *sender = None;
            }
        }
    }
}

/// Takes note of where a packet came from.
fn learn(view: &mut View, arrival: &Arrival, bytes: &[u8]) {
    let Some(source) = source_of(bytes) else { return };
    if !view.learns(arrival.segment.port, source) {
        return;
    }
    view.learned.insert(source, Place { segment: arrival.segment, mac: arrival.source });
}
