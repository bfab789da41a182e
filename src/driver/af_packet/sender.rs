//! The sending half: batches of frames with their offload metadata.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use arrayvec::ArrayVec;

use crate::driver::sys::{PacketSocket, send_frames};
use crate::driver::{BATCH, Sender, SenderCounters, virtio};
use crate::packet::PacketBuf;

/// Sends on one interface, super-frames whole: the device cuts them, or the kernel on its behalf.
#[derive(Debug)]
pub struct AfPacketSender {
    socket: PacketSocket,
    counters: SenderCounters,
    /// A frame with its header, where there was no room for one in front of it.
    spare: Vec<u8>,
}

impl AfPacketSender {
    pub(super) fn new(socket: PacketSocket) -> Self {
        Self { socket, counters: SenderCounters::default(), spare: Vec::new() }
    }

    fn transmit(&mut self, messages: &[IoSlice<'_>]) {
        let fd = self.socket.as_fd();
        transmit(messages, &mut self.counters, |rest| send_frames(fd, rest));
    }

    fn send_copied(&mut self, header: &[u8], frame: &[u8]) {
        let mut spare = std::mem::take(&mut self.spare);
        spare.clear();
        spare.extend_from_slice(header);
        spare.extend_from_slice(frame);
        self.transmit(&[IoSlice::new(&spare)]);
        self.spare = spare;
    }
}

impl Sender for AfPacketSender {
    fn send(&mut self, frames: &mut [&mut PacketBuf<'_>]) {
        let mut messages = ArrayVec::<IoSlice<'_>, BATCH>::new();
        for frame in frames {
            let Some(header) = virtio::emit(frame) else {
                self.counters.rejected += 1;
                continue;
            };
            if messages.is_full() || frame.headroom() < header.len() {
                self.transmit(&messages);
                messages.clear();
            }
            let (storage, range) = frame.storage_mut();
            match range.start.checked_sub(header.len()) {
                Some(start) => {
                    storage[start..range.start].copy_from_slice(&header);
                    messages.push(IoSlice::new(&storage[start..range.end]));
                }
                None => self.send_copied(&header, &storage[range]),
            }
        }
        self.transmit(&messages);
    }

    fn counters(&self) -> SenderCounters {
        self.counters
    }
}

/// Sends all messages in order and counts what becomes of each.
fn transmit(
    messages: &[IoSlice<'_>],
    counters: &mut SenderCounters,
    mut send: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
) {
    let mut rest = messages;
    let mut retries = RETRIES;
    while !rest.is_empty() {
        match send(rest).map_err(|error| Refusal::from(&error)) {
            Ok(sent) => {
                let sent = sent.min(rest.len());
                counters.frames += sent as u64;
                rest = &rest[sent..];
            }
            Err(Refusal::Full) if retries > 0 => retries -= 1,
            Err(Refusal::Full) => {
                counters.refused += rest.len() as u64;
                return;
            }
            Err(Refusal::Dropped) => {
                counters.refused += 1;
                rest = &rest[1..];
            }
            Err(Refusal::Frame) => {
                counters.rejected += 1;
                rest = &rest[1..];
            }
            Err(Refusal::Link) => {
                counters.link_down += rest.len() as u64;
                return;
            }
        }
    }
}

/// Why the kernel did not send a frame.
enum Refusal {
    /// The socket's buffer is full: too much is on its way in the device.
    Full,
    /// The device dropped this frame.
    Dropped,
    /// The frame cannot be sent on this link: too long, or its metadata is refused.
    Frame,
    /// The link is down or gone.
    Link,
}

impl From<&io::Error> for Refusal {
    fn from(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Self::Full,
            Some(libc::ENOBUFS | libc::ENOMEM) => Self::Dropped,
            Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => Self::Link,
            _ => Self::Frame,
        }
    }
}

/// How often a full socket buffer is asked again before the rest of a batch is given up.
const RETRIES: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: i32) -> io::Result<usize> {
        Err(io::Error::from_raw_os_error(code))
    }

    /// Sends one-byte frames, whose value chooses what the kernel says.
    fn outcome(frames: &[u8], mut kernel: impl FnMut(u8) -> io::Result<usize>) -> SenderCounters {
        let mut counters = SenderCounters::default();
        let messages: Vec<_> = frames.chunks(1).map(IoSlice::new).collect();
        transmit(&messages, &mut counters, |rest| kernel(rest[0][0]));
        counters
    }

    #[test]
    fn a_bad_frame_is_skipped_and_the_rest_is_sent() {
        let counters = outcome(&[0, 1, 0, 2, 0], |frame| match frame {
            0 => Ok(1),
            1 => error(libc::EMSGSIZE),
            _ => error(libc::EINVAL),
        });
        assert_eq!(counters, SenderCounters { frames: 3, rejected: 2, ..Default::default() });
    }

    #[test]
    fn a_dropped_frame_does_not_stop_the_next() {
        let counters =
            outcome(&[0, 1, 0], |frame| if frame == 0 { Ok(1) } else { error(libc::ENOBUFS) });
        assert_eq!(counters, SenderCounters { frames: 2, refused: 1, ..Default::default() });
    }

    #[test]
    fn a_full_buffer_is_asked_again_but_not_for_ever() {
        let mut calls = 0;
        let counters = outcome(&[0, 0], |_| {
            calls += 1;
            if calls < 3 { error(libc::EAGAIN) } else { Ok(1) }
        });
        assert_eq!(counters, SenderCounters { frames: 2, ..Default::default() });
        let counters = outcome(&[0, 0], |_| error(libc::EAGAIN));
        assert_eq!(counters, SenderCounters { refused: 2, ..Default::default() });
    }

    #[test]
    fn a_link_that_is_down_loses_the_rest() {
        let counters =
            outcome(&[0, 1, 0], |frame| if frame == 0 { Ok(1) } else { error(libc::ENETDOWN) });
        assert_eq!(counters, SenderCounters { frames: 1, link_down: 2, ..Default::default() });
    }
}
