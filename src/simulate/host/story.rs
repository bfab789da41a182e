//! What became of a packet and why, for people who want to know.

use std::cell::RefCell;

use super::Routes;
use crate::engine::event::Event;
use crate::engine::{DropReason, Network, Owner};
use crate::packet::Addr;
use crate::simulate::packet::Packet;
use crate::simulate::topology::Host;

/// A packet that arrived, what the director considered about it, and what became of it.
#[derive(Clone, Debug)]
pub struct Story {
    /// The packet as it came.
    pub packet: Packet,
    /// What the director considered, in its order.
    pub events: Vec<Event>,
    /// What became of it.
    pub fate: Fate,
}

/// What becomes of a packet.
#[derive(Clone, Debug)]
pub enum Fate {
    /// It goes on, rewritten.
    Forwarded {
        /// As it goes on; `None` if it cannot be read any more.
        packet: Option<Box<Packet>>,
        /// The host whose link address it is sent to; `None` if there is no way.
        to: Option<Host>,
    },
    /// The director answers it.
    Answered,
    /// The director leaves it to the host, which is the addressee (true) or a router for it.
    LeftToHost(bool),
    /// The director drops it.
    Dropped(DropReason),
    /// The host drops it before the director sees it.
    NotTaken(&'static str),
    /// The director does not see it: the virtual address is not one of the host's.
    Bypassed,
}

/// A network that listens to what the director considers.
pub(super) struct Listening<'a> {
    /// The network itself.
    pub routes: &'a Routes,
    /// What was heard.
    pub heard: RefCell<Vec<Event>>,
}

impl Network for Listening<'_> {
    fn mtu(&self, to: Addr) -> Option<usize> {
        self.routes.mtu(to)
    }

    fn address_towards(&self, to: Addr) -> Option<Addr> {
        self.routes.address_towards(to)
    }

    fn owner(&self, addr: Addr) -> Owner {
        self.routes.owner(addr)
    }

    fn leaves_by(&self, to: Addr, interface: &str) -> bool {
        self.routes.leaves_by(to, interface)
    }

    fn witness(&self, event: impl FnOnce() -> Event) {
        self.heard.borrow_mut().push(event());
    }
}
