//! Rewriting of packets for the forwarding methods, in place.
//!
//! Takes parsed packets and says what changes; decides nothing.

pub mod icmp;
pub mod introduce;
pub mod nat;
pub mod sequence;
pub mod tunnel;
