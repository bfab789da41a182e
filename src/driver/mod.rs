//! Where frames come from and go to. All `unsafe` and all packet system calls live below here.
//!
//! A driver knows buffers and offload metadata, never connections.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use arrayvec::ArrayVec;

use crate::packet::PacketBuf;

pub mod af_packet;
pub(crate) mod bpf;
pub mod memory;
mod multicast;
pub mod pcap;
pub mod raw;
mod sys;
pub mod tun;
pub mod virtio;
mod wait;

pub use multicast::{Group, MulticastReceiver, MulticastSender};
pub use wait::{MOST_DESCRIPTORS, Wakened, Waker, wait};

/// Frames that are received together at most.
pub const BATCH: usize = 64;

/// The receiving half of a driver, for one interface in one worker.
pub trait Receiver: Send {
    /// Hands the frames that have arrived, at most [`BATCH`], to `handle` in one call, and takes
    /// their memory back when it returns. Never waits. Returns how many there were; `handle` is
    /// not called if there were none.
    ///
    /// **Shape** — each packet starts at its Ethernet header (at its IP header for TUN), carries
    /// its offload metadata, and has at least [`HEADROOM`] bytes in front. A VLAN tag that the
    /// kernel had taken out is back in its place.
    ///
    /// **Errors** — only those that end the driver's life; a link that is down is no error.
    fn receive(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> io::Result<usize>;

    /// Descriptors of which one becomes readable when there is something to receive; none if
    /// waiting makes no sense.
    fn readiness(&self) -> ArrayVec<BorrowedFd<'_>, SOURCES>;

    /// Whether nothing will ever come again: the interface is gone, the file is at its end. One
    /// that comes back under its name has to be opened anew.
    ///
    /// To be asked when [`wait()`] reports trouble, and now and then. Takes a system call.
    fn is_gone(&mut self) -> bool;

    /// What the driver itself has counted since it was made.
    fn counters(&mut self) -> ReceiverCounters;
}

/// The sending half of a driver, for one interface in one worker.
pub trait Sender: Send {
    /// Sends frames in order, each from its Ethernet header on, with its offload metadata.
    /// Never waits. What the link cannot take now is lost and counted, as on a wire.
    fn send(&mut self, frames: &mut [&mut PacketBuf<'_>]);

    /// What the driver itself has counted since it was made.
    fn counters(&self) -> SenderCounters;
}

/// Descriptors that one receiver has at most.
pub const SOURCES: usize = 2;

/// Bytes that every received frame has free in front of it, for tags and tunnels.
pub const HEADROOM: usize = 128;

/// What a receiver counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverCounters {
    /// Frames handed over.
    pub frames: u64,
    /// Frames that the kernel dropped because the ring was full.
    pub ring_drops: u64,
    /// Frames that came damaged out of the ring (cut off, impossible lengths) and were dropped.
    pub damaged: u64,
}

/// What a sender counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderCounters {
    /// Frames sent.
    pub frames: u64,
    /// Frames lost because the device or its queue would not take them.
    pub refused: u64,
    /// Frames lost because the link was down or gone.
    pub link_down: u64,
    /// Frames that this link cannot carry: too long, or their offload metadata contradicts them.
    pub rejected: u64,
}

/// How long a worker may sleep when nothing arrives.
pub type Patience = Option<Duration>;
