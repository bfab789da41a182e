//! The receiving half of a queue.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use arrayvec::ArrayVec;
use tun_rs::SyncDevice;

use super::statistics;
use crate::driver::virtio::{self, HEADER_BYTES};
use crate::driver::{BATCH, HEADROOM, Receiver, ReceiverCounters, SOURCES};
use crate::packet::{Offload, PacketBuf};

/// Receives the packets of one queue, a system call each, in memory of its own.
pub struct TunReceiver {
    queue: Arc<SyncDevice>,
    memory: Box<[u8]>,
    gone: bool,
    /// Whether the queue was empty at the end of the last batch. Then the next look is left out: a
    /// worker that sleeps is woken for what has come meanwhile, at no more than that look's cost.
    drained: bool,
    counters: ReceiverCounters,
    /// Whether it counts what the kernel could not put into any queue of the device.
    counts_drops: bool,
}

impl TunReceiver {
    pub(super) fn new(queue: Arc<SyncDevice>, counts_drops: bool) -> Self {
        Self {
            queue,
            memory: vec![0; SLOT_BYTES * BATCH].into(),
            gone: false,
            drained: false,
            counters: ReceiverCounters::default(),
            counts_drops,
        }
    }

    /// Reads what is there, a batch at most.
    fn fill(&mut self) -> io::Result<ArrayVec<(usize, Offload), BATCH>> {
        let mut filled = ArrayVec::new();
        for _ in 0..BATCH {
            let at = filled.len() * SLOT_BYTES;
            let slot = &mut self.memory[at..at + SLOT_BYTES][HEADER_AT..];
            match self.queue.recv(slot) {
                Ok(len) => match offload(&slot[..len]) {
                    // One that fills the slot may have been cut off.
                    Some(offload) if len < slot.len() => {
                        filled.push((len - HEADER_BYTES, offload));
                    }
                    _ => self.counters.damaged += 1,
                },
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => {
                        self.drained = !filled.is_empty();
                        break;
                    }
                    Some(libc::EINTR) => {}
                    // What came before the end is still to be handled.
                    _ if !filled.is_empty() => break,
                    _ => {
                        self.gone = true;
                        return Err(error);
                    }
                },
            }
        }
        Ok(filled)
    }
}

/// The offload metadata in front of a packet, as it will lie in its slot.
fn offload(bytes: &[u8]) -> Option<Offload> {
    let (header, packet) = bytes.split_first_chunk()?;
    virtio::parse(header, PACKET_AT, packet.len())
}

impl Receiver for TunReceiver {
    fn receive(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> io::Result<usize> {
        if std::mem::take(&mut self.drained) {
            return Ok(0);
        }
        let filled = self.fill()?;
        self.counters.frames += filled.len() as u64;
        // Never moved: that would copy all of its capacity.
        let mut batch = ArrayVec::<PacketBuf<'_>, BATCH>::new();
        for (slot, (len, offload)) in self.memory.chunks_exact_mut(SLOT_BYTES).zip(&filled) {
            let mut packet = PacketBuf::new(slot, PACKET_AT, PACKET_AT + len);
            packet.offload = *offload;
            batch.push(packet);
        }
        if !batch.is_empty() {
            handle(&mut batch);
        }
        Ok(batch.len())
    }

    fn readiness(&self) -> ArrayVec<BorrowedFd<'_>, SOURCES> {
        std::iter::once(self.queue.as_fd()).collect()
    }

    fn is_gone(&mut self) -> bool {
        // The kernel detaches the queues of a device that vanishes, and knows no name then.
        self.gone |= self.queue.name().is_err();
        self.gone
    }

    fn counters(&mut self) -> ReceiverCounters {
        if self.counts_drops
            && let Ok(name) = self.queue.name()
            && let Some(drops) = statistics::queue_drops(&name)
        {
            self.counters.ring_drops = drops;
        }
        self.counters
    }
}

impl std::fmt::Debug for TunReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunReceiver").field("counters", &self.counters).finish_non_exhaustive()
    }
}

/// Where packets start in their slots: at a cache line's start, with room for [`HEADROOM`] and the
/// header of the packet itself in front.
const PACKET_AT: usize = (HEADROOM + HEADER_BYTES).next_multiple_of(CACHE_LINE_BYTES);
const HEADER_AT: usize = PACKET_AT - HEADER_BYTES;
const CACHE_LINE_BYTES: usize = 64;
/// An IPv6 packet without a jumbo payload, the longest there is, and a byte to tell longer ones by.
const LONGEST_BYTES: usize = 40 + 65_535 + 1;
/// An odd number of cache lines: were the distance a multiple of 4096, the headers of all packets
/// would compete for the same few cache sets.
const SLOT_BYTES: usize =
    ((PACKET_AT + LONGEST_BYTES).div_ceil(CACHE_LINE_BYTES) | 1) * CACHE_LINE_BYTES;
