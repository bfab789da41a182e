//! Frames of Linux network interfaces, through packet sockets.
//!
//! Receives in a ring that is shared with the kernel, where packets are changed in place, and sends
//! them from there. Super-frames stay whole: their metadata travels in `virtio_net_hdr`s. Needs
//! CAP_NET_RAW over the network namespace and nothing else.

mod config;
mod frame;
mod open;
mod receiver;
mod sender;

pub use config::{AfPacketConfig, RingConfig};
pub use open::{AfPacket, AfPacketGroup, Program, Steering};
pub use receiver::AfPacketReceiver;
pub use sender::AfPacketSender;

#[cfg(test)]
mod tests;
