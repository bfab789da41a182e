//! What the director considers about a packet, for people who want to know why.

use super::conn::{ConnKey, Connection, Direction, State};
use super::scheduler::Explanation;
use super::service::{ForwardingMethod, ServiceKey};
use crate::packet::{Addr, Endpoint};

/// One consideration.
///
/// Told to [`Network::witness`](super::Network::witness) in the order in which they are made; the
/// verdict ends the story. Nothing is made where nobody listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The packet belongs to a connection.
    Found {
        /// As it is before the packet.
        connection: Sight,
        /// Which way the packet goes.
        direction: Direction,
    },
    /// The packet is an ICMP error about one that belongs to a connection.
    Related {
        /// The connection.
        connection: Sight,
        /// Which way the error goes: where the packet that it quotes came from.
        direction: Direction,
    },
    /// The connection ends, and the packet is judged as if there had been none.
    Ended(Ending),
    /// A service takes the packet.
    Matched {
        /// Its identity.
        service: ServiceKey,
        /// Name of its scheduler.
        scheduler: String,
    },
    /// The scheduler is asked for a server.
    Weighed {
        /// The servers in the order of the service's list, newest first.
        reals: Vec<Endpoint>,
        /// What it looks at.
        explanation: Explanation,
    },
    /// What the scheduler answers: a server, or that none can take the connection.
    Chose(Option<Endpoint>),
    /// The client is bound to a server by the service's persistence.
    Bound(Binding),
    /// A new connection; its state follows.
    Opened(Sight),
    /// A real server begins a connection to the outside, from this address and port.
    BeganOutbound(Endpoint),
    /// A packet moved a connection, or left it in its state.
    Moved {
        /// Before.
        from: State,
        /// After.
        to: State,
        /// How long it lives on without another packet.
        timeout_ms: u32,
    },
}

/// A connection as it is seen at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Its identity.
    pub key: ConnKey,
    /// How packets reach the real server.
    pub method: ForwardingMethod,
    /// Its state.
    pub state: State,
}

impl Sight {
    /// The connection now.
    pub fn of(connection: &Connection) -> Self {
        Self { key: connection.key(), method: connection.method(), state: connection.state() }
    }
}

/// Why a connection ends for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client begins anew while the old connection is closing (`conn_reuse_mode`).
    Reused,
    /// The client begins anew, and the server has weight 0 (`expire_nodest_conn`).
    Quiesced,
    /// The server was removed (`expire_nodest_conn`).
    Removed,
}

/// How persistence binds a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The client, or the network of clients.
    pub client: Addr,
    /// The call that is bound in the client's place, by a persistence engine.
    pub call: Option<String>,
    /// Its server.
    pub real: Endpoint,
    /// Whether it is bound from now on, rather than since an earlier connection.
    pub is_new: bool,
    /// How long it stays bound after its last new connection.
    pub timeout_s: u32,
}
