//! Plain routing: the client talks to the real servers, the director's kernel forwards.

use nix::sys::utsname::uname;

use super::super::network::Network;
use super::{Forwarder, Refusal};

pub(super) fn start(network: &Network) -> Result<Forwarder, Refusal> {
    network.director.set_sysctl("net.ipv4.ip_forward", "1")?;
    Ok(Forwarder { version: kernel(), program: None })
}

/// The kernel that forwards.
pub(super) fn kernel() -> String {
    let release = uname().ok().map(|name| name.release().to_string_lossy().into_owned());
    format!("Linux {}", release.unwrap_or_default()).trim().to_owned()
}
