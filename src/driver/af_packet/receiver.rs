//! The receiving half: rings shared with the kernel.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use arrayvec::ArrayVec;
use socket2::SockRef;

use super::frame::{Reject, packet};
use crate::driver::sys::{PacketSocket, Ready, Slot, SlotRing};
use crate::driver::{BATCH, Receiver, ReceiverCounters, SOURCES};
use crate::packet::PacketBuf;

/// Receives what arrives on one interface, in place in its rings.
///
/// **Shape** — frames of ordinary length and super-frames have a ring each, so that a slot fits
/// what lies in it: with one ring, whose slots all fit a super-frame, 16 MiB hold 240 frames; with
/// two they hold 4,800 and 120. Under packet floods on a busy machine the one lost a third of the
/// frames where the two lost next to none, at the same cost (2.5 µs to forward a 60-byte frame, 16 to 17
/// for a super-frame). Between the rings, frames are taken in order of their arrival. Frames that
/// the host sends itself are not received.
#[derive(Debug)]
pub struct AfPacketReceiver {
    pub(super) short: Inlet,
    pub(super) long: Inlet,
    pub(super) index: u32,
    pub(super) counters: ReceiverCounters,
}

/// A ring and the socket that fills it.
#[derive(Debug)]
pub(super) struct Inlet {
    // Before the socket, so that the memory is unmapped first.
    pub(super) ring: SlotRing,
    pub(super) socket: PacketSocket,
}

impl AfPacketReceiver {
    fn inlets(&self) -> [&Inlet; SOURCES] {
        [&self.short, &self.long]
    }
}

impl Receiver for AfPacketReceiver {
    fn receive(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> io::Result<usize> {
        let rings = [&mut self.short.ring, &mut self.long.ring];
        Ok(receive(rings, &mut self.counters, handle))
    }

    fn readiness(&self) -> ArrayVec<BorrowedFd<'_>, SOURCES> {
        self.inlets().map(|inlet| inlet.socket.as_fd()).into()
    }

    fn is_gone(&mut self) -> bool {
        self.inlets().iter().any(|Inlet { socket, .. }| {
            // An error waiting on the socket (the link went down) keeps poll from sleeping; reading
            // it clears it. What it says is not needed: when the link is up, frames come again.
            let _ = SockRef::from(socket).take_error();
            // The kernel unbinds the socket of an interface that vanishes.
            socket.bound().is_ok_and(|bound| bound.index != Some(self.index))
        })
    }

    fn counters(&mut self) -> ReceiverCounters {
        let drops = self.inlets().map(|inlet| inlet.socket.take_statistics().map(|s| s.drops));
        let drops = drops.into_iter().flatten();
        self.counters.ring_drops += drops.map(u64::from).sum::<u64>();
        self.counters
    }
}

/// Hands one batch from the rings to `handle` and gives their slots back.
pub(super) fn receive(
    [short, long]: [&mut SlotRing; 2],
    counters: &mut ReceiverCounters,
    handle: &mut dyn FnMut(&mut [PacketBuf<'_>]),
) -> usize {
    let count = {
        // Never moved: that would copy all of its capacity.
        let mut batch = ArrayVec::<PacketBuf<'_>, BATCH>::new();
        let mut slots = InOrder { short: short.ready(BATCH), long: long.ready(BATCH) };
        for slot in slots.by_ref().take(BATCH) {
            match packet(slot) {
                Ok(packet) => batch.push(packet),
                Err(Reject::Outgoing) => {}
                Err(Reject::Damaged) => counters.damaged += 1,
            }
        }
        counters.frames += batch.len() as u64;
        if !batch.is_empty() {
            handle(&mut batch);
        }
        batch.len()
    };
    short.release();
    long.release();
    count
}

/// The filled slots of two rings in order of arrival.
struct InOrder<'a> {
    short: Ready<'a>,
    long: Ready<'a>,
}

impl<'a> Iterator for InOrder<'a> {
    type Item = Slot<'a>;

    fn next(&mut self) -> Option<Slot<'a>> {
        let short = self.short.next_arrival();
        let Some(long) = self.long.next_arrival() else {
            // Not one that has come only now: a long one may have come before it.
            return short.and_then(|_| self.short.next());
        };
        // A short frame that was not there yet when it was looked for may have come before the
        // long one that was looked for after it; it is there by now.
        match short.or_else(|| self.short.next_arrival()) {
            Some(short) if short <= long => self.short.next(),
            _ => self.long.next(),
        }
    }
}
