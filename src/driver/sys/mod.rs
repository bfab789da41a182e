//! Every packet system call, one safe function or small type each.
//!
//! The only place below `driver` where `unsafe` is allowed. Nothing here decides anything: what is
//! asked of the kernel, and when, is up to the drivers above.

#![allow(unsafe_code)]

mod batch;
mod memory;
mod messages;
mod packet_socket;
mod ring;

pub use batch::send_frames;
pub use messages::{Message, receive_messages, turn_on};
pub use packet_socket::{Fanout, PacketSocket};
pub use ring::{DESCRIPTOR_BYTES, Geometry, Ready, Slot, SlotRing};

#[cfg(test)]
pub(super) use {memory::Memory, ring::testing};
