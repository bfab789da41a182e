//! Bytes of packets: views, checksums and building, without policy.
//!
//! Knows header layouts and nothing of services, connections, sockets or time. Everything here
//! takes untrusted bytes and answers with `None` where they do not fit.

mod addr;
pub mod buf;

pub use addr::{Addr, Endpoint, Family};
pub use buf::{Checksum, Offload, PacketBuf, SegmentKind, Segmentation};
