//! What a connection begins with.

use std::sync::Arc;

use super::connection::{ConnKey, HostEnds};
use super::local::LocalEnd;
use super::state::State;
use super::template::Template;
use crate::engine::service::{Activity, ForwardingMethod, RealServer};
use crate::engine::sync::Sequence;

/// How a connection begins.
#[derive(Debug)]
pub struct NewConnection {
    /// Its identity.
    pub key: ConnKey,
    /// Its server; `None` for one that a server began through SNAT, and for one past all servers.
    pub real: Option<Arc<RealServer>>,
    /// Its template, if the service is persistent.
    pub template: Option<Arc<Template>>,
    /// The director's own end, by full NAT.
    pub local: Option<LocalEnd>,
    /// Whether it is for one packet only: no other packet finds it, and no timer ends it.
    pub one_packet: bool,
    /// How packets reach the server.
    pub method: ForwardingMethod,
    /// Which of its ends are the director's own host.
    pub host: HostEnds,
    /// Its first state.
    pub state: State,
    /// How long it lives without another packet, in milliseconds.
    pub timeout_ms: u32,
    /// What it is told to other directors with, and was heard with.
    pub sync: SyncTraits,
}

/// What a connection begins with of interest to other directors.
#[derive(Clone, Copy, Debug, Default)]
pub struct SyncTraits {
    /// The firewall mark of its first packet, or 0.
    pub mark: u32,
    /// Whether the kernel's connection tracking would follow it.
    pub tracked: bool,
    /// What another director told of it, if one did.
    pub heard: Option<Heard>,
}

/// What another director tells of a connection beyond its identity, state and time.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// How it counts with its server.
    pub activity: Activity,
    /// Whether no packet of the server has been seen, and none is expected.
    pub one_way: bool,
    /// Packets from the client that it is taken to have had.
    pub in_packets: u32,
    /// How its sequence numbers are shifted.
    pub sequence: Option<Sequence>,
}
