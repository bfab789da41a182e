//! The messages of the control protocol and their bytes.
//!
//! The kernel's own IPVS generic-netlink family, byte for byte, so that programs written for the
//! kernel understand us; a family `ULVS` beside it for what the kernel tells in other ways; and as
//! much of generic netlink's controller as it takes to find them. Knows bytes and the conversion to
//! the engine's terms; refuses to know sockets and the service table.

mod attr;
pub mod connection;
pub mod controller;
pub mod convert;
pub mod counter;
mod frame;
pub mod ipvs;
pub mod setting;

pub use attr::{Attributes, Writer};
pub use frame::{Frame, Outcome, acknowledge, done, frames, header, refuse};

/// A generic-netlink family of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenericFamily {
    /// The name by which clients ask for it.
    pub name: &'static str,
    /// The message type under which its messages travel.
    pub id: u16,
    /// Version in the generic-netlink header.
    pub version: u8,
    /// The highest attribute number.
    pub max_attribute: u32,
    /// Its commands with the flags that the controller tells about them.
    pub operations: &'static [(u8, u32)],
}
