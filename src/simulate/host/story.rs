//! What became of a packet and why, for people who want to know.

use std::cell::RefCell;

use crate::engine::DropReason;
use crate::engine::event::Event;
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
    /// The director keeps it until the rest of its datagram comes.
    Held,
    /// The director leaves it to the host, which is the addressee (true) or a router for it.
    LeftToHost(bool),
    /// The director drops it.
    Dropped(DropReason),
    /// The host drops it before the director sees it.
    NotTaken(&'static str),
    /// The director does not see it: the virtual address is not one of the host's.
    Bypassed,
}

/// What the director considered, while somebody listens.
#[derive(Clone, Debug, Default)]
pub struct Journal(RefCell<Option<Vec<Event>>>);

impl Journal {
    /// Listens from now on.
    pub fn listen(&self) {
        self.0.borrow_mut().get_or_insert_default();
    }

    /// Takes note of an event if somebody listens.
    pub fn hear(&self, event: impl FnOnce() -> Event) {
        if let Some(events) = &mut *self.0.borrow_mut() {
            events.push(event());
        }
    }

    /// What was heard since the last call.
    pub fn take(&self) -> Vec<Event> {
        self.0.borrow_mut().as_mut().map(std::mem::take).unwrap_or_default()
    }
}
