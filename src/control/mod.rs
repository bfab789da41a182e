//! Control: how administrators and their programs reach the service table.
//!
//! - [`netlink`]: the messages and their bytes.
//! - [`handler`]: requests in, replies out, without I/O.
//! - [`server`] and [`client`]: both ends, with the Unix [`socket`] between them.
//! - [`ipvsadm`]: the command that administrators know.
//! - [`rules`]: files of such commands.

pub mod advice;
pub mod client;
mod errno;
pub mod handler;
pub mod ipvsadm;
pub mod netlink;
pub mod rules;
pub mod server;
pub mod socket;
mod sync;

pub use sync::{SyncDaemon, SyncRequest, SyncRole};
