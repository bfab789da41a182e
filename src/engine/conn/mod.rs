//! Connections: what is known of every flow that the director forwards.
//!
//! Owns the table, its index and its timers, and the state machines. Refuses to know packets'
//! bytes and services; a connection arrives here with its real server already chosen.

mod hash;
mod index;
mod state;
mod table;
pub mod tcp;
mod wheel;

pub use hash::split_mix;
pub use state::State;
pub use table::{ConnId, ConnKey, ConnTable, Connection, Direction, Lookup, NewConnection};
