//! What hosts of a lab do besides serving pages.

pub mod nfs;
pub mod ping;
