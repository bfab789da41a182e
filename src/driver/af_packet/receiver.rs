//! The receiving half: a ring shared with the kernel.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use arrayvec::ArrayVec;
use socket2::SockRef;

use super::frame::{Reject, packet};
use crate::driver::sys::{PacketSocket, SlotRing};
use crate::driver::{BATCH, Receiver, ReceiverCounters};
use crate::packet::PacketBuf;

/// Receives what arrives on one interface, in place in the ring.
///
/// Frames that the host sends itself are not received.
#[derive(Debug)]
pub struct AfPacketReceiver {
    // Before the socket, so that the memory is unmapped first.
    ring: SlotRing,
    socket: PacketSocket,
    index: u32,
    counters: ReceiverCounters,
}

impl AfPacketReceiver {
    pub(super) fn new(ring: SlotRing, socket: PacketSocket, index: u32) -> Self {
        Self { ring, socket, index, counters: ReceiverCounters::default() }
    }
}

impl Receiver for AfPacketReceiver {
    fn receive(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> io::Result<usize> {
        Ok(receive(&mut self.ring, &mut self.counters, handle))
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn is_gone(&mut self) -> bool {
        // An error waiting on the socket (the link went down) keeps poll from sleeping; reading
        // it clears it. What it says is not needed: frames come again when the link is up again.
        let _ = SockRef::from(&self.socket).take_error();
        // The kernel unbinds the socket of an interface that vanishes.
        self.socket.bound().is_ok_and(|bound| bound.index != Some(self.index))
    }

    fn counters(&mut self) -> ReceiverCounters {
        if let Ok(statistics) = self.socket.take_statistics() {
            self.counters.ring_drops += u64::from(statistics.drops);
        }
        self.counters
    }
}

/// Hands one batch from `ring` to `handle` and gives its slots back.
pub(super) fn receive(
    ring: &mut SlotRing,
    counters: &mut ReceiverCounters,
    handle: &mut dyn FnMut(&mut [PacketBuf<'_>]),
) -> usize {
    let mut batch = ArrayVec::<PacketBuf<'_>, BATCH>::new();
    for slot in ring.ready(BATCH) {
        match packet(slot) {
            Ok(packet) => batch.push(packet),
            Err(Reject::Outgoing) => {}
            Err(Reject::Damaged) => counters.damaged += 1,
        }
    }
    let count = batch.len();
    counters.frames += count as u64;
    if count > 0 {
        handle(&mut batch);
    }
    drop(batch);
    ring.release();
    count
}
