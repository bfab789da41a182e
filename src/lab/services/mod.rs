//! What hosts of a lab do besides serving pages.

pub mod dnat;
pub mod ftp;
pub mod mysql;
pub mod nfs;
pub mod ping;
mod sessions;
pub mod watch;
