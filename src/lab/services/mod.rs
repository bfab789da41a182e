//! What hosts of a lab do besides serving pages.

pub mod dnat;
pub mod mysql;
pub mod nfs;
pub mod ping;
pub mod watch;
