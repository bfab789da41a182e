//! The way out: finding next hops and sending, port by port.

use arrayvec::ArrayVec;
use pnet_base::MacAddr;

use super::network::{View, WorkerNetwork, destination_of};
use super::shared::SharedLink;
use crate::driver::{BATCH, HEADROOM, Sender};
use crate::engine::{Hop, Moment, Network, Output, Owner, Verdict};
use crate::link::{self, DEVICE, DOOR, DOOR_ADDRESS, Dispatch, PortId, Segment, Tags};
use crate::packet::fragment::{Cutter, Fragments, must_be_cut};
use crate::packet::{PacketBuf, SegmentKind};

/// Senders by port; none where the interface is away.
pub(super) type Senders = [Option<Box<dyn Sender>>];

/// Ports by packet of a batch; `None` for those that do not leave now.
pub(super) type Exits = ArrayVec<Option<PortId>, BATCH>;

/// What packets need to find their way out.
pub(super) struct Way<'a> {
    pub view: &'a mut View,
    pub link: &'a SharedLink,
    pub senders: &'a mut Senders,
    pub cutter: &'a mut Cutter,
    pub lost: &'a mut LostCounters,
    pub now: Moment,
    /// Whether the packets at hand come from the host itself, by the door.
    pub from_host: bool,
}

/// Packets that the director forwards or sends and that did not leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostCounters {
    /// Their next hop was not known, or they had no room for its header.
    pub no_next_hop: u64,
    /// They were longer than their link allows, and could not be cut.
    pub too_long: u64,
}

impl Way<'_> {
    /// Sends the packets that are forwarded, in their order; those that have to be cut into
    /// fragments of these lengths if they fit.
    pub fn forward(
        &mut self,
        packets: &mut [PacketBuf<'_>],
        verdicts: &[Verdict],
        lengths: &[u16],
    ) {
        let mut done = 0;
        while done < packets.len() {
            let exits = self.route(&mut packets[done..], &verdicts[done..]);
            send(&mut packets[done..done + exits.len()], &exits, self.senders);
            done += exits.len();
            if let (Some(packet), Some(verdict)) = (packets.get_mut(done), verdicts.get(done)) {
                let target = match verdict {
                    Verdict::Forward(hop) => Target::Hop(*hop),
                    _ => Target::Kernel,
                };
                self.send_cut(packet, target, lengths);
                done += 1;
            }
        }
    }

    /// Puts link headers in front of the packets that are forwarded, and says where they leave.
    /// Stops at the first that has to be cut.
    fn route(&mut self, packets: &mut [PacketBuf<'_>], verdicts: &[Verdict]) -> Exits {
        let exits = packets.iter_mut().zip(verdicts).map_while(|(packet, verdict)| match verdict {
            Verdict::Forward(hop) if self.must_be_cut(packet, *hop) => None,
            Verdict::Forward(hop) => Some(self.address(packet, *hop)),
            // Nor of what its own programs sent, which is for them then.
            Verdict::Pass if self.from_host => Some(self.return_to_host(packet)),
            // The kernel has no copy of what it routed to the director.
            Verdict::Pass if self.view.is_routed() && came_in_fragments(packet) => None,
            Verdict::Pass if self.view.is_routed() => Some(self.hand_back(packet)),
            Verdict::Reply | Verdict::Pass | Verdict::Held | Verdict::Drop(_) => Some(None),
        });
        exits.collect()
    }

    /// Whether a packet is too long for where it goes.
    fn must_be_cut(&self, packet: &PacketBuf<'_>, hop: Hop) -> bool {
        let is_plain = packet.offload.segmentation.kind == SegmentKind::None;
        if is_plain && packet.len() <= self.view.smallest_mtu() {
            return false;
        }
        must_be_cut(packet, self.mtu(hop))
    }

    /// The longest packet on the way; the longest that every link takes if the way is not known.
    fn mtu(&self, Hop { to }: Hop) -> usize {
        let Self { view, link, now, .. } = self;
        let network = WorkerNetwork { view, link, now: *now, arrival: PortId::default() };
        network.mtu(to).unwrap_or(self.view.smallest_mtu())
    }

    /// Cuts a packet for its link, into fragments of these lengths if they fit, and sends them.
    fn send_cut(&mut self, packet: &mut PacketBuf<'_>, target: Target, lengths: &[u16]) {
        let mtu = match target {
            Target::Hop(hop) => self.mtu(hop),
            Target::Kernel => usize::MAX,
        };
        // Taken out for the time, as the pieces lie in it.
        let mut cutter = std::mem::take(self.cutter);
        if cutter.cut(packet, mtu, lengths, |pieces| self.send_pieces(pieces, target)).is_err() {
            self.lost.too_long += 1;
        }
        *self.cutter = cutter;
    }

    fn send_pieces(&mut self, pieces: &mut Fragments, target: Target) {
        let mut pieces = pieces.packets();
        loop {
            let mut batch: ArrayVec<PacketBuf<'_>, BATCH> = pieces.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return;
            }
            let exits = batch.iter_mut().map(|piece| match target {
                Target::Hop(hop) => self.address(piece, hop),
                Target::Kernel => self.hand_back(piece),
            });
            let exits = exits.collect();
            send(&mut batch, &exits, self.senders);
        }
    }

    /// Sends a packet that the director made.
    pub fn send_output(&mut self, output: &Output, scratch: &mut Vec<u8>) {
        scratch.clear();
        scratch.resize(HEADROOM, 0);
        scratch.extend_from_slice(&output.bytes);
        let end = scratch.len();
        let mut packet = [PacketBuf::new(scratch, HEADROOM, end)];
        // Whoever sends a packet may send it in fragments, over IPv6 too.
        if packet[0].len() > self.view.smallest_mtu() {
            packet[0].offload.segmentation.kind = SegmentKind::Fragments;
            packet[0].offload.segmentation.size_bytes = u16::MAX;
        }
        self.forward(&mut packet, &[Verdict::Forward(Hop { to: output.to })], &[]);
    }

    /// Says where a packet leaves that the kernel is to see to, unless it would only come back.
    fn hand_back(&mut self, packet: &PacketBuf<'_>) -> Option<PortId> {
        let to = destination_of(packet.bytes());
        let port = to.filter(|to| !self.view.is_diverted(*to)).map(|_| DEVICE);
        self.lost.no_next_hop += u64::from(port.is_none());
        port
    }

    /// Gives a packet of the host's own back to it if it is for the host. Anything else is an answer
    /// of a server on the host that belongs to no connection any more.
    fn return_to_host(&mut self, packet: &mut PacketBuf<'_>) -> Option<PortId> {
        let port = self.deliver(packet);
        self.lost.no_next_hop += u64::from(port.is_none());
        port
    }

    /// Puts the header for the host itself in front of a packet, and says where it goes in.
    fn deliver(&self, packet: &mut PacketBuf<'_>) -> Option<PortId> {
        let to = destination_of(packet.bytes())?;
        if self.view.owner(to) != Owner::Kernel {
            return None;
        }
        let is_open = self.senders.get(usize::from(DOOR.0)).is_some_and(Option::is_some);
        if !is_open && self.view.is_routed() {
            return Some(DEVICE);
        }
        let segment = Segment { port: DOOR, tags: Tags::NONE };
        let hop = link::Hop::new(segment, MacAddr::zero(), DOOR_ADDRESS, to);
        (is_open && hop.write(packet)).then_some(DOOR)
    }

    /// Puts the link header in front of a packet, and says where it leaves, if it does so now.
    fn address(&mut self, packet: &mut PacketBuf<'_>, hop: Hop) -> Option<PortId> {
        match address(packet, hop, self.view, self.link, self.now) {
            Exit::Port(port) => Some(port),
            Exit::Held => None,
            Exit::Host => {
                let port = self.deliver(packet);
                self.lost.no_next_hop += u64::from(port.is_none());
                port
            }
            Exit::Lost => {
                self.lost.no_next_hop += 1;
                None
            }
        }
    }
}

/// Where the pieces of a packet go.
#[derive(Clone, Copy)]
enum Target {
    Hop(Hop),
    /// Back to the kernel, which routed it here.
    Kernel,
}

fn came_in_fragments(packet: &PacketBuf<'_>) -> bool {
    packet.offload.segmentation.kind == SegmentKind::Fragments
}

/// Sends the packets that leave now, port by port and in order.
fn send(packets: &mut [PacketBuf<'_>], exits: &Exits, senders: &mut Senders) {
    for (port, sender) in (0..).map(PortId).zip(senders) {
        let Some(sender) = sender else { continue };
        let leaving = packets.iter_mut().zip(exits).filter(|(_, exit)| **exit == Some(port));
        let mut frames = ArrayVec::<&mut PacketBuf<'_>, BATCH>::new();
        leaving.for_each(|(packet, _)| frames.push(packet));
        if !frames.is_empty() {
            sender.send(&mut frames);
        }
    }
}

/// Sends the frames of the link layer.
pub(super) fn send_link_output(link: &SharedLink, senders: &mut Senders) {
    while let Some(mut transmit) = link.with(|layer| layer.poll_transmit()) {
        if let Some(Some(sender)) = senders.get_mut(usize::from(transmit.port.0)) {
            sender.send(&mut [&mut transmit.frame.packet()]);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Port(PortId),
    Held,
    /// It is for the host itself.
    Host,
    Lost,
}

/// Puts the link header in front of a packet.
fn address(
    packet: &mut PacketBuf<'_>,
    Hop { to }: Hop,
    view: &mut View,
    link: &SharedLink,
    now: Moment,
) -> Exit {
    // Where the kernel routes packets on, it does so by their destination.
    if view.is_routed() && destination_of(packet.bytes()) != Some(to) {
        return if view.owner(to) == Owner::Kernel { Exit::Host } else { Exit::Lost };
    }
    if let Some(hop) = view.hops.lookup(to, now) {
        return if hop.write(packet) { Exit::Port(hop.port) } else { Exit::Lost };
    }
    if view.owner(to) == Owner::Kernel {
        return Exit::Host;
    }
    let learned = view.learned.lookup(to);
    match link.with(|layer| layer.dispatch(to, learned, packet, now)) {
        Dispatch::Ready(hop) => {
            view.hops.insert(to, hop, now);
            if hop.write(packet) { Exit::Port(hop.port) } else { Exit::Lost }
        }
        Dispatch::Held => Exit::Held,
        Dispatch::Lost(_) => Exit::Lost,
    }
}
