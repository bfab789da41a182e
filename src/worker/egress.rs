//! The way out: finding next hops and sending, port by port.

use arrayvec::ArrayVec;

use super::network::View;
use super::shared::SharedLink;
use crate::driver::{BATCH, HEADROOM, Sender};
use crate::engine::{Hop, Moment, Output, Verdict};
use crate::link::{Dispatch, PortId};
use crate::packet::PacketBuf;

/// Senders by port; none where the interface is away.
pub(super) type Senders = [Option<Box<dyn Sender>>];

/// Ports by packet of a batch; `None` for those that do not leave now.
pub(super) type Exits = ArrayVec<Option<PortId>, BATCH>;

/// Puts link headers in front of the packets that are forwarded, and says where they leave.
pub(super) fn route(
    packets: &mut [PacketBuf<'_>],
    verdicts: &[Verdict],
    view: &mut View,
    link: &SharedLink,
    now: Moment,
) -> (Exits, u64) {
    let mut lost = 0;
    let exits = packets.iter_mut().zip(verdicts).map(|(packet, verdict)| match verdict {
        Verdict::Forward(hop) => {
            let exit = address(packet, *hop, view, link, now);
            lost += u64::from(exit == Exit::Lost);
            match exit {
                Exit::Port(port) => Some(port),
                Exit::Held | Exit::Lost => None,
            }
        }
        Verdict::Reply | Verdict::Pass | Verdict::Drop(_) => None,
    });
    (exits.collect(), lost)
}

/// Sends the packets that leave now, port by port and in order.
pub(super) fn send(packets: &mut [PacketBuf<'_>], exits: &Exits, senders: &mut Senders) {
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

/// Sends a packet that the director made.
pub(super) fn send_output(
    output: &Output,
    scratch: &mut Vec<u8>,
    view: &mut View,
    link: &SharedLink,
    senders: &mut Senders,
    now: Moment,
) -> bool {
    scratch.clear();
    scratch.resize(HEADROOM, 0);
    scratch.extend_from_slice(&output.bytes);
    let end = scratch.len();
    let mut packet = PacketBuf::new(scratch, HEADROOM, end);
    match address(&mut packet, Hop { to: output.to }, view, link, now) {
        Exit::Port(port) => {
            if let Some(Some(sender)) = senders.get_mut(usize::from(port.0)) {
                sender.send(&mut [&mut packet]);
            }
            true
        }
        Exit::Held => true,
        Exit::Lost => false,
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
    if let Some(hop) = view.hops.lookup(to, now) {
        return if hop.write(packet) { Exit::Port(hop.port) } else { Exit::Lost };
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
