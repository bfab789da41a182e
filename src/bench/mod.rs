//! Measures the director beside other forwarders, on the machine at hand.
//!
//! ```text
//! plan ──▶ run ──▶ for each contender: network + contender, verified
//!           │      for each round, load, contender: load ──▶ measurement
//!           └────▶ report ──▶ table, JSON, chart
//! ```
//!
//! - [`load`]: what a client does to a director, and what is measured of it.
//! - [`contender`]: the forwarders, each started in the director's namespace.
//! - [`network`]: the namespaces, links and servers that each contender gets for itself.
//! - [`mod@run`]: the order of things.
//! - [`isolation`]: the right to make namespaces, and a place for files.
//! - [`report`]: what was found, and its forms.

pub mod contender;
pub mod isolation;
pub mod load;
pub mod network;
pub mod report;
pub mod run;
mod verify;

pub use contender::{Contender, Launch};
pub use load::{Load, Timing};
pub use report::Report;
pub use run::{Observer, Plan, run};
