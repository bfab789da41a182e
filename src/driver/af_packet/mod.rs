//! Frames of Linux network interfaces, through packet sockets.
//!
//! Receives in a ring that is shared with the kernel, where packets are changed in place, and sends
//! them from there. Super-frames stay whole: their metadata travels in `virtio_net_hdr`s. Needs
//! CAP_NET_RAW over the network namespace and nothing else.
//!
//! **Ring version** — TPACKET_V2. A V3 ring packs frames better, but hands them over by blocks: a
//! lone frame waits for the block's timer, whose shortest time is a millisecond. Measured from
//! sending a frame on a veth link to poll's return: V2 9 µs, V3 420 µs (medians of 300, twice).
//! That V2 wastes memory on short frames is cured by [two rings](AfPacketReceiver).
//!
//! **Waiting** — poll at once by default. Where processors are shared with those who are waited
//! for, spinning first costs what it gains: with 50 µs of it a request-response packet took 16 µs
//! of processor time instead of 9, at the same rate.

mod config;
mod frame;
mod groups;
mod open;
mod receiver;
mod sender;

pub use config::{AfPacketConfig, BLOCK_BYTES, RingConfig, SHORT_FRAME_BYTES};
pub use groups::Memberships;
pub use open::{AfPacket, AfPacketGroup, Program, Steering};
pub use receiver::AfPacketReceiver;
pub use sender::AfPacketSender;

#[cfg(test)]
mod tests;
