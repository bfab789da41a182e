//! Networks of namespaces on one machine: for learning, for tests and for measurements.
//!
//! - [`net`]: namespaces, links, addresses, routes. Everything goes through netlink, nothing
//!   through the `ip` command, and nothing has a name outside the process that made it, so all of
//!   it disappears with that process.
//! - [`topology`]: what a lab consists of, as data; [`Network`] builds it.
//! - [`web`] and [`services`]: what runs on the hosts.
//! - [`process`]: the processes of a running lab; [`story`]: what it shows to its reader.

pub mod net;
mod network;
pub mod process;
pub mod services;
pub mod story;
pub(crate) mod sys;
pub mod topology;
pub mod web;

pub use network::Network;
