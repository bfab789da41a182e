//! FTP through NAT: what is said on a control connection about data connections to come.
//!
//! The server's `227` answer to PASV names an address that clients cannot reach, and the client's
//! PORT names a port to which the server will connect. `talk` reads both; the director enters the
//! connection that is to be expected, and translates the address.
//!
//! **Source** — RFC 959 §4.1.2 and §4.2, RFC 2428; IPVS `ip_vs_ftp`, as to what is recognised.

mod talk;

pub use talk::{Mode, active, passive, request};

/// The control port of services that are helped. **Source** — IPVS `ip_vs_ftp`, parameter `ports`.
pub const CONTROL_PORT: u16 = 21;
