//! Connections: what is known of every flow that the director forwards.
//!
//! Owns the table, its index and its timers, and the state machines. Refuses to know packets'
//! bytes and services; a connection arrives here with its real server already chosen.
//! The templates of persistent services are the one table here that all workers share.

mod begin;
mod connection;
mod expected;
mod extras;
mod hash;
mod index;
pub mod local;
pub mod sctp;
mod slab;
mod state;
mod table;
pub mod tcp;
mod template;
mod wheel;

pub use begin::{Heard, NewConnection, SyncTraits};
pub use connection::{ConnKey, Connection, Direction, HostEnds};
pub use expected::{Control, Expectations, Expected, ExpectedView};
pub use extras::Answered;
pub use hash::split_mix;
pub use state::{State, lasting_ms};
pub use table::{ConnId, ConnTable, Lookup};
pub use template::{
    HeardTemplate, Template, TemplateKey, TemplateTable, TemplateTraits, TemplateView,
};
