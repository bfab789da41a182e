//! The link layer, without I/O: whom a frame is for, and where a packet goes next.
//!
//! A received frame is decided about by its port's [`Classifier`], which takes its link header off.
//! A packet that leaves finds its link header in the worker's [`HopCache`], else [`LinkLayer`]
//! routes it, asks for the next hop's link address by ARP or IPv6's neighbour discovery and lets the
//! packet wait meanwhile. [`LinkLayer`] also answers such questions for the addresses that are the
//! director's own: virtual addresses and inside gateways that the kernel does not have.
//!
//! Knows nothing of connections, sockets, threads or clocks: frames, what the kernel knows
//! ([`HostView`]) and `now` go in; frames and [`Event`]s come out.

mod adopt;
mod arp;
mod cache;
mod claim;
mod frame;
mod held;
mod layer;
mod message;
mod nd;
mod neighbour;
mod port;
mod route;
#[cfg(test)]
mod tests;
mod view;

pub use cache::{HopCache, Learned};
pub use claim::{PortSet, Why};
pub use frame::{
    Addressee, Arrival, Class, Classifier, DOOR, DOOR_ADDRESS, Hop, Ignored, IgnoredCounters,
    MAX_PORTS, PortId, Segment, Tags,
};
pub use held::OwnedPacket;
pub use layer::{
    DEVICE, Dispatch, Event, Groups, LinkCounters, LinkLayer, Lost, OwnAddress, Services, Settings,
    Transmit,
};
pub use neighbour::Place;
pub use port::{Port, own_mac};
pub use view::{HostView, Interface, KernelAddress, KernelNeighbour, KernelRoute, is_door};
