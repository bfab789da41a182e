//! What the host has learned about the paths to others: where they take less than its own links do.
//!
//! It learns that from ICMP errors about its own packets, and from its own packets that the director
//! puts into tunnels. Only what its TCP announces follows from it here.

use std::collections::HashMap;
use std::net::IpAddr;

use super::DirectorHost;

/// What an IPv4 path is taken to carry at least, in bytes. **Source** — Linux `min_pmtu`.
const MIN_MTU_V4: usize = 552;
/// What an IPv6 path carries at least, in bytes, RFC 8200 §5.
const MIN_MTU_V6: usize = 1280;

/// The largest packets that paths take, in bytes, where that is less than their first link does.
#[derive(Debug, Default)]
pub struct Paths(HashMap<IpAddr, usize>);

impl Paths {
    /// Takes note that the path to an address takes packets of `mtu` bytes only.
    pub fn learn(&mut self, to: IpAddr, mtu: usize) {
        let mtu = mtu.max(if to.is_ipv6() { MIN_MTU_V6 } else { MIN_MTU_V4 });
        let known = self.0.entry(to).or_insert(mtu);
        *known = mtu.min(*known);
    }

    /// The largest packet that the path to an address takes, if its first link takes `link` bytes;
    /// `None` for the host itself.
    pub fn mtu(&self, to: IpAddr, link: Option<usize>) -> Option<usize> {
        let known = self.0.get(&to).copied();
        known.map_or(link, |known| Some(link.map_or(known, |link| link.min(known))))
    }
}

impl DirectorHost {
    /// Learns from a packet of its own that has `grown` by so many bytes what a tunnel leaves of the
    /// link to its server.
    ///
    /// **Source** — IPVS `maybe_update_pmtu`.
    pub(super) fn learn_tunnel(&mut self, to: IpAddr, server: IpAddr, grown: usize) {
        if let Some(mtu) = self.routes.mtu_towards(server).filter(|_| grown != 0) {
            self.paths.learn(to, mtu.saturating_sub(grown));
        }
    }
}
