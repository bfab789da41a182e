//! Control: how administrators and their programs reach the service table.
//!
//! - [`netlink`]: the messages and their bytes.
//! - [`handler`]: requests in, replies out, without I/O.
//! - [`server`] and [`client`]: both ends, with the Unix [`socket`] between them.
//! - [`ipvsadm`]: the command that administrators know.
//! - [`iptables`]: its words, for what the director does in its stead.
//! - [`sysctl`]: the settings of `net.ipv4.vs`, as sysctl(8) shows and changes them.
//! - [`proc`]: what the kernel shows in files below `/proc/net`.
//! - [`rules`]: files of such commands.

pub mod advice;
pub mod client;
mod errno;
pub mod handler;
pub mod iptables;
pub mod ipvsadm;
pub mod marks;
pub mod netlink;
pub mod proc;
pub mod rules;
pub mod server;
mod snat;
pub mod socket;
mod sync;
pub mod sysctl;

pub use sync::{RunningSync, SyncDaemon, SyncDaemons, SyncRequest, SyncRole};
