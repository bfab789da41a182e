//! The director, without I/O: packets and `now` in, verdicts out.
//!
//! Names no socket, file, thread, clock or log sink, so that the same code runs under the drivers,
//! in the simulator, in benches and under fuzzers.

pub mod conn;
pub mod scheduler;
pub mod service;
pub mod stats;
mod time;

pub use time::Moment;
