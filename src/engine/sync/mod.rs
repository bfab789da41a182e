//! Synchronisation of connections between directors: what a master tells, and what a backup hears.
//!
//! [`Entry`] is one connection or template as it is told, [`message`] how entries travel,
//! [`master`] gathers them into messages, [`due`] knows when a connection is to be told. Refuses to
//! know sockets and the connection table; `engine/director/sync.rs` brings both together.

pub mod due;
mod entry;
pub mod master;
pub mod message;
#[cfg(test)]
mod tests;

pub use entry::{Engine, Entry, SEQUENCE_LEN, Sequence, flag};
pub use master::{MasterCounters, Outgoing};

use super::time::Moment;

/// The synchronisation that a director takes part in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncRoles {
    /// It tells its connections.
    pub master: Option<MasterConfig>,
    /// It hears those of others.
    pub is_backup: bool,
}

/// How a master tells its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MasterConfig {
    /// Its synchronisation id.
    pub id: u8,
    /// Longest message in bytes, but for one that holds a single entry.
    pub max_len: u16,
    /// Over how many ports messages are spread, a power of two.
    pub ports: u8,
    /// When it was started.
    pub since: Moment,
    /// Tells one start from the next.
    pub start: u64,
}

/// Most ports of one master. **Source** — IPVS `IPVS_SYNC_PORTS_MAX`.
pub const MAX_PORTS: u8 = 64;
