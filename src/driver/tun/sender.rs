//! The sending half of a queue.

use std::io;
use std::sync::Arc;

use tun_rs::SyncDevice;

use crate::driver::{Sender, SenderCounters, virtio};
use crate::packet::PacketBuf;

/// Gives packets to the kernel, which routes them on: a system call each, in which the kernel takes
/// the packet all the way to the next device.
pub struct TunSender {
    queue: Arc<SyncDevice>,
    counters: SenderCounters,
    /// A packet with its header, where there was no room for one in front of it.
    spare: Vec<u8>,
}

impl TunSender {
    pub(super) fn new(queue: Arc<SyncDevice>) -> Self {
        Self { queue, counters: SenderCounters::default(), spare: Vec::new() }
    }

    fn send_one(&mut self, packet: &mut PacketBuf<'_>) {
        let Some(header) = virtio::emit(packet) else {
            self.counters.rejected += 1;
            return;
        };
        let (storage, range) = packet.storage_mut();
        let sent = match range.start.checked_sub(header.len()) {
            Some(start) => {
                storage[start..range.start].copy_from_slice(&header);
                self.write(&storage[start..range.end])
            }
            None => {
                let mut spare = std::mem::take(&mut self.spare);
                spare.clear();
                spare.extend_from_slice(&header);
                spare.extend_from_slice(&storage[range]);
                let sent = self.write(&spare);
                self.spare = spare;
                sent
            }
        };
        match sent {
            Ok(()) => self.counters.frames += 1,
            Err(error) => count(&mut self.counters, &error),
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            match self.queue.send(bytes) {
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                other => return other.map(drop),
            }
        }
    }
}

fn count(counters: &mut SenderCounters, error: &io::Error) {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => counters.refused += 1,
        // The device is down, or gone.
        Some(libc::EIO | libc::EBADFD | libc::ENODEV) => counters.link_down += 1,
        _ => counters.rejected += 1,
    }
}

impl Sender for TunSender {
    fn send(&mut self, packets: &mut [&mut PacketBuf<'_>]) {
        for packet in packets {
            self.send_one(packet);
        }
    }

    fn counters(&self) -> SenderCounters {
        self.counters
    }
}

impl std::fmt::Debug for TunSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunSender").field("counters", &self.counters).finish_non_exhaustive()
    }
}
