//! What the director has to know about the network around it.

use std::fmt;
use std::sync::Arc;

use super::event::Event;
use crate::packet::{Addr, Endpoint};

/// Who answers for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The host's own stack.
    Kernel,
    /// The director, under a link address of its own: it is the host there.
    Director,
    /// Somebody else.
    Other,
}

/// Whether the host's own stack sees the packets that the director gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// Those only that the director leaves to it.
    None,
    /// Every one, as beside a packet socket.
    All,
    /// Every one but those of services, from which guard rules keep it.
    ButServices,
}

/// Keeps the host's own stack away from an endpoint as long as it lives.
pub trait Hold: fmt::Debug + Send + Sync {}

/// Who keeps the host's own stack away from endpoints.
pub trait Keeper: fmt::Debug + Send + Sync {
    /// See [`Network::await_connection`]; the address is the host's own.
    fn await_connection(&self, at: Endpoint) -> Awaited;
}

/// Where a connection that is announced is to come.
#[derive(Clone, Debug)]
pub struct Awaited {
    /// The endpoint.
    pub at: Endpoint,
    /// What keeps the host's own stack away from it, if that is needed and can be had.
    pub hold: Option<Arc<dyn Hold>>,
}

impl Awaited {
    /// At an endpoint that nobody needs to be kept away from.
    pub fn at(at: Endpoint) -> Self {
        Self { at, hold: None }
    }
}

/// Routes, link sizes and addresses, as far as verdicts depend on them.
///
/// Asked for new connections, large packets and errors only, and now and then for the way to a
/// tunnel's end, so it may take its time.
pub trait Network {
    /// The largest packet that the way to `to` takes, in bytes from the IP header on; `None` if
    /// there is no way.
    fn mtu(&self, to: Addr) -> Option<usize>;

    /// The director's address on the way to `to`: the source of its own packets there.
    fn address_towards(&self, to: Addr) -> Option<Addr>;

    /// Who answers for `addr`.
    fn owner(&self, addr: Addr) -> Owner;

    /// Whether the host's own stack sees the packets as well, and gathers their fragments itself.
    fn copies(&self) -> Copies {
        Copies::None
    }

    /// Whether `addr` is the host's own.
    fn is_local(&self, addr: Addr) -> bool {
        self.owner(addr) == Owner::Kernel
    }

    /// Whether the packet in question was sent by the host itself, as far as can be told: one from an
    /// address of the host's that was not is forged.
    fn is_from_host(&self) -> bool {
        true
    }

    /// Changes whenever something that was asked before may be answered differently now. Whoever
    /// remembers answers must also ask again now and then, as neighbours come to be known.
    fn epoch(&self) -> u64 {
        0
    }

    /// Sees to it that a TCP connection to `at` comes to the director only; where the host needs
    /// that port itself, it may be another one.
    fn await_connection(&self, at: Endpoint) -> Awaited {
        Awaited::at(at)
    }

    /// Whether the way to `to` leaves by the interface of this name.
    fn leaves_by(&self, to: Addr, interface: &str) -> bool;

    /// Whether the packet in question came by the interface of this name; never, where interfaces
    /// are not told apart.
    fn arrived_by(&self, _interface: &str) -> bool {
        false
    }

    /// Hears what the director considers about a packet. Here nobody listens, so that the event is
    /// not even made, and established connections pay nothing for it.
    #[inline]
    fn witness(&self, _event: impl FnOnce() -> Event) {}
}
