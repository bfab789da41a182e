//! Bytes of packets: views, checksums and building, without policy.
//!
//! Knows header layouts and nothing of services, connections, sockets or time. Everything here
//! takes untrusted bytes and answers with an error where they do not fit.

mod addr;
pub mod buf;
pub mod checksum;
pub mod encap;
pub mod fragment;
pub mod headers;
pub mod options;
pub mod reply;
pub mod sctp;
pub mod segment;

pub use addr::{Addr, Endpoint, Family, Prefix, address_text};
pub use buf::{Checksum, Offload, PacketBuf, SegmentKind, Segmentation};
pub use headers::{Fragment, Headers, Malformed};
