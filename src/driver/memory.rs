//! A cable in memory: what is sent at one end is received at the other.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd};

use arrayvec::ArrayVec;
use crossbeam_channel as channel;

use super::{
    BATCH, HEADROOM, Receiver, ReceiverCounters, SOURCES, Sender, SenderCounters, Waker, virtio,
};
use crate::packet::{Checksum, Offload, PacketBuf};

/// What a cable is like, in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cable {
    /// Frames that are on their way at most; more are refused.
    pub capacity: usize,
    /// Loses one frame of every so many, without the sender's noticing.
    pub loses_one_of: Option<NonZeroU64>,
}

impl Default for Cable {
    fn default() -> Self {
        Self { capacity: 1024, loses_one_of: None }
    }
}

/// One end of a cable.
#[derive(Debug)]
pub struct Memory {
    /// Receives what the other end sends.
    pub receiver: MemoryReceiver,
    /// Sends to the other end.
    pub sender: MemorySender,
}

impl Memory {
    /// Lays a cable and returns its two ends.
    ///
    /// **Errors** — no descriptors left to wait with.
    pub fn cable(cable: Cable) -> io::Result<[Self; 2]> {
        let (to_second, from_first) = direction(cable)?;
        let (to_first, from_second) = direction(cable)?;
        Ok([
            Self { receiver: from_second, sender: to_second },
            Self { receiver: from_first, sender: to_first },
        ])
    }
}

fn direction(cable: Cable) -> io::Result<(MemorySender, MemoryReceiver)> {
    let (frames, arriving) = channel::bounded(cable.capacity);
    let waker = Waker::new()?;
    let receiver = MemoryReceiver {
        frames: arriving,
        waker: waker.clone(),
        gone: false,
        counters: ReceiverCounters::default(),
    };
    Ok((MemorySender { frames, waker, cable, counters: SenderCounters::default() }, receiver))
}

/// A frame on its way, with room in front.
#[derive(Debug)]
struct Frame {
    storage: Vec<u8>,
    offload: Offload,
}

/// The room that frames have in front: as much as those of a packet socket.
const ROOM_BYTES: usize = HEADROOM + virtio::HEADER_BYTES;

impl Frame {
    /// Copies a packet; `None` if its checksum lies outside it.
    fn copy(packet: &PacketBuf<'_>) -> Option<Self> {
        let mut offload = packet.offload;
        if let Checksum::Unfinished { start, .. } = &mut offload.checksum {
            *start = u32::try_from(ROOM_BYTES + packet.unfinished_checksum()?.0).ok()?;
        }
        let mut storage = vec![0; ROOM_BYTES];
        storage.extend_from_slice(packet.bytes());
        Some(Self { storage, offload })
    }

    fn packet(&mut self) -> PacketBuf<'_> {
        let end = self.storage.len();
        let mut packet = PacketBuf::new(&mut self.storage, ROOM_BYTES, end);
        packet.offload = self.offload;
        packet
    }
}

/// The receiving half of one end.
#[derive(Debug)]
pub struct MemoryReceiver {
    frames: channel::Receiver<Frame>,
    waker: Waker,
    gone: bool,
    counters: ReceiverCounters,
}

impl MemoryReceiver {
    fn take(&mut self) -> ArrayVec<Frame, BATCH> {
        // Before looking, so that what is sent meanwhile wakes again.
        self.waker.clear();
        let mut frames = ArrayVec::new();
        while !frames.is_full() {
            match self.frames.try_recv() {
                Ok(frame) => frames.push(frame),
                Err(error) => {
                    self.gone = error.is_disconnected();
                    break;
                }
            }
        }
        if !self.frames.is_empty() {
            self.waker.wake();
        }
        frames
    }
}

impl Receiver for MemoryReceiver {
    fn receive(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> io::Result<usize> {
        let mut frames = self.take();
        let mut batch: ArrayVec<_, BATCH> = frames.iter_mut().map(Frame::packet).collect();
        self.counters.frames += batch.len() as u64;
        if !batch.is_empty() {
            handle(&mut batch);
        }
        Ok(batch.len())
    }

    fn readiness(&self) -> ArrayVec<BorrowedFd<'_>, SOURCES> {
        std::iter::once(self.waker.as_fd()).collect()
    }

    fn is_gone(&mut self) -> bool {
        self.gone
    }

    fn counters(&mut self) -> ReceiverCounters {
        self.counters
    }
}

/// The sending half of one end.
#[derive(Debug)]
pub struct MemorySender {
    frames: channel::Sender<Frame>,
    waker: Waker,
    cable: Cable,
    counters: SenderCounters,
}

impl MemorySender {
    fn send_one(&mut self, packet: &PacketBuf<'_>) {
        let Some(frame) = Frame::copy(packet) else {
            self.counters.rejected += 1;
            return;
        };
        let next = self.counters.frames + 1;
        if self.cable.loses_one_of.is_some_and(|every| next.is_multiple_of(every.get())) {
            self.counters.frames = next;
            return;
        }
        match self.frames.try_send(frame) {
            Ok(()) => self.counters.frames = next,
            Err(channel::TrySendError::Full(_)) => self.counters.refused += 1,
            Err(channel::TrySendError::Disconnected(_)) => self.counters.link_down += 1,
        }
    }
}

impl Sender for MemorySender {
    fn send(&mut self, frames: &mut [&mut PacketBuf<'_>]) {
        for frame in frames {
            self.send_one(frame);
        }
        self.waker.wake();
    }

    fn counters(&self) -> SenderCounters {
        self.counters
    }
}

impl Drop for MemorySender {
    fn drop(&mut self) {
        self.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::driver::{Wakened, wait};

    fn send(end: &mut Memory, marks: std::ops::Range<u8>) {
        for mark in marks {
            end.sender.send(&mut [&mut PacketBuf::new(&mut [mark; 70], 10, 70)]);
        }
    }

    fn receive(end: &mut Memory) -> Vec<u8> {
        let mut marks = Vec::new();
        let mut look = |batch: &mut [PacketBuf<'_>]| {
            marks.extend(batch.iter().map(|packet| packet.bytes()[0]));
        };
        while end.receiver.receive(&mut look).unwrap() > 0 {}
        marks
    }

    #[test]
    fn both_ends_hear_each_other() {
        let [mut one, mut other] = Memory::cable(Cable::default()).unwrap();
        send(&mut one, 0..100);
        send(&mut other, 100..103);
        assert_eq!(receive(&mut other), (0..100).collect::<Vec<_>>());
        assert_eq!(receive(&mut one), [100, 101, 102]);
        assert_eq!(other.receiver.counters().frames, 100);
    }

    #[test]
    fn offload_metadata_arrives() {
        let [mut one, mut other] = Memory::cable(Cable::default()).unwrap();
        let mut storage = [7; 100];
        let mut packet = PacketBuf::new(&mut storage, 40, 100);
        packet.set_unfinished_checksum(34, 16);
        packet.offload.segmentation.size_bytes = 9;
        one.sender.send(&mut [&mut packet]);
        let look = &mut |batch: &mut [PacketBuf<'_>]| {
            assert!(batch[0].headroom() >= HEADROOM);
            assert_eq!(batch[0].unfinished_checksum(), Some((34, 50)));
            assert_eq!(batch[0].offload.segmentation.size_bytes, 9);
        };
        assert_eq!(other.receiver.receive(look).unwrap(), 1);
        assert!(packet.resize(51));
        one.sender.send(&mut [&mut packet]);
        assert_eq!(one.sender.counters().rejected, 1);
    }

    #[test]
    fn a_full_cable_refuses_and_a_bad_one_loses() {
        let full = Cable { capacity: 3, loses_one_of: None };
        let [mut one, mut other] = Memory::cable(full).unwrap();
        send(&mut one, 0..5);
        assert_eq!(receive(&mut other), [0, 1, 2]);
        assert_eq!(one.sender.counters().refused, 2);
        let bad = Cable { loses_one_of: NonZeroU64::new(3), ..Cable::default() };
        let [mut one, mut other] = Memory::cable(bad).unwrap();
        send(&mut one, 0..7);
        assert_eq!(receive(&mut other), [0, 1, 3, 4, 6]);
        assert_eq!(one.sender.counters().frames, 7);
    }

    #[test]
    fn a_frame_wakes_and_the_end_of_the_other_end_is_noticed() {
        let [mut one, mut other] = Memory::cable(Cable::default()).unwrap();
        let woken = |end: &Memory, ms| {
            wait(&end.receiver.readiness(), Some(Duration::from_millis(ms))).unwrap()
        };
        assert_eq!(woken(&other, 1), Wakened::default());
        send(&mut one, 0..65);
        for expected in [64, 1] {
            assert_eq!(woken(&other, 9000).ready, 1);
            assert_eq!(other.receiver.receive(&mut |_| ()).unwrap(), expected);
        }
        assert_eq!(woken(&other, 1), Wakened::default());
        assert!(!other.receiver.is_gone());
        drop(one);
        assert_eq!(woken(&other, 9000).ready, 1);
        assert!(receive(&mut other).is_empty());
        assert!(other.receiver.is_gone());
        send(&mut other, 0..1);
        assert_eq!(other.sender.counters().link_down, 1);
    }
}
