//! A TUN device: IP packets that the kernel routes to the director, and takes from it to route on.
//!
//! One queue for each worker, super-frames whole in both directions, no link headers. Needs
//! CAP_NET_ADMIN over the network namespace, and `/dev/net/tun`. The device is not persistent: with
//! its last descriptor the kernel removes it, its addresses and every route to it, however the
//! process ends.
//!
//! **Steering** — the kernel remembers by which queue packets of a flow were written, and puts those
//! of the same flow into that queue from then on, in either direction: its flow hash does not tell
//! the two apart. So both ends of a connection come to the worker that owns it once it has forwarded
//! one packet of each; before that, packets are handed over.

mod open;
mod receiver;
mod sender;
mod statistics;

pub use open::{Tun, TunConfig};
pub use receiver::TunReceiver;
pub use sender::TunSender;
