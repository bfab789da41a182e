//! Networks of namespaces on one machine: for learning, for tests and for measurements.
//!
//! - [`net`]: namespaces, links, addresses, routes. Everything goes through netlink, nothing
//!   through the `ip` command, and nothing has a name outside the process that made it, so all of
//!   it disappears with that process.
//! - [`web`]: a small fast web server that the hosts of a lab run.

pub mod net;
mod sys;
pub mod web;
