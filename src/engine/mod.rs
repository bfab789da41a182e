//! The director, without I/O: packets and `now` in, verdicts out.
//!
//! Names no socket, file, thread, clock or log sink, so that the same code runs under the drivers,
//! in the simulator, in benches and under fuzzers.

pub mod conn;
mod defence;
mod director;
pub mod event;
pub mod fragments;
pub mod ftp;
pub mod local;
pub mod mark;
mod network;
pub mod rewrite;
pub mod scheduler;
pub mod service;
pub mod settings;
pub mod shard;
mod sip;
mod snat;
pub mod stats;
pub mod sync;
mod time;
mod verdict;

pub use defence::Defence;
pub use director::{Director, DirectorConfig, FullNatCounters, MAX_BATCH, Output, SyncCounters};
pub use mark::MarkRule;
pub use network::{Awaited, Copies, Hold, Keeper, Network, Owner};
pub use settings::Settings;
pub use snat::{DEFAULT_PORTS, SnatRule};
pub use time::Moment;
pub use verdict::{DropReason, Hop, Verdict, VerdictCounters};
