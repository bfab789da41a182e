//! The ways to the far ends of tunnels: near address, and the largest packet that gets through.
//!
//! Bounded: there are no more far ends than real servers, and no more than [`MAX_PATHS`] are
//! remembered.

use std::time::Duration;

use hashbrown::HashMap;

use crate::engine::network::Network;
use crate::engine::time::Moment;
use crate::packet::{Addr, Family};

/// The way to one far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// The director's own end.
    pub source: Addr,
    /// The largest packet that gets through, in bytes, as far as is known.
    pub mtu: usize,
}

/// What is remembered of ways.
#[derive(Debug, Default)]
pub(super) struct Paths {
    epoch: u64,
    known: HashMap<Addr, (Path, Moment)>,
    learned: HashMap<Addr, Learned>,
}

/// What an ICMP error said of a way.
#[derive(Clone, Copy, Debug)]
struct Learned {
    mtu: usize,
    until: Moment,
    /// What was thought before, until a packet goes that way.
    before: Option<usize>,
}

impl Paths {
    /// The way to `to`; `None` if there is none.
    pub fn towards(&mut self, to: Addr, network: &impl Network, now: Moment) -> Option<Path> {
        if self.epoch != network.epoch() {
            self.epoch = network.epoch();
            self.known.clear();
        }
        match self.known.get(&to) {
            Some((path, asked)) if now.ms_since(*asked) < KNOWN_FOR_MS => Some(*path),
            _ => self.ask(to, network, now),
        }
    }

    #[cold]
    fn ask(&mut self, to: Addr, network: &impl Network, now: Moment) -> Option<Path> {
        let mtu = self.mtu_towards(to, network, now)?;
        if let Some(learned) = self.learned.get_mut(&to) {
            learned.before = None;
        }
        let path = Path { source: network.address_towards(to)?, mtu };
        if self.known.len() >= MAX_PATHS {
            self.known.clear();
        }
        self.known.insert(to, (path, now));
        Some(path)
    }

    /// Takes note that the way to `to` takes packets of `mtu` bytes only.
    ///
    /// Returns what the way was thought to take: before, if nothing was sent there since the first
    /// time that something was learned of it, and from now on otherwise. Never learns of more than is
    /// known.
    ///
    /// **Source** — Linux `__ip_rt_update_pmtu`: what is learned is at least `min_pmtu` and
    /// forgotten after `mtu_expires`. The first time it makes another route, of which IPVS's
    /// `ip_vs_in_icmp` does not know until it has sent another packet.
    pub fn learn(
        &mut self,
        to: Addr,
        mtu: usize,
        network: &impl Network,
        now: Moment,
    ) -> Option<usize> {
        let current = self.mtu_towards(to, network, now)?;
        let learned = self.learned.get(&to).filter(|learned| learned.until > now);
        let before = learned.map_or(Some(current), |learned| learned.before);
        if mtu > current {
            return Some(before.unwrap_or(current));
        }
        let mtu = mtu.max(MIN_PMTU).min(current);
        if self.learned.len() >= MAX_PATHS {
            self.learned.retain(|_, learned| learned.until > now);
        }
        if self.learned.len() < MAX_PATHS {
            self.learned.insert(to, Learned { mtu, until: now + LEARNED_FOR, before });
            self.known.remove(&to);
        }
        Some(before.unwrap_or(mtu))
    }

    /// The largest packet that gets through, in bytes, as far as is known.
    fn mtu_towards(&self, to: Addr, network: &impl Network, now: Moment) -> Option<usize> {
        Some(network.mtu(to)?.min(self.learned(to, now).unwrap_or(usize::MAX)))
    }

    fn learned(&self, to: Addr, now: Moment) -> Option<usize> {
        self.learned.get(&to).filter(|learned| learned.until > now).map(|learned| learned.mtu)
    }
}

impl Path {
    /// The largest packet of a family that fits into an envelope of `overhead` bytes; `None` if
    /// that is too little for the tunnel.
    ///
    /// **Source** — IPVS `__ip_vs_get_out_rt`, `__ip_vs_get_out_rt_v6`.
    pub fn inner_mtu(&self, overhead: usize) -> Option<usize> {
        let least = match self.source.family() {
            Family::V4 => 68,
            Family::V6 => 1280,
        };
        self.mtu.checked_sub(overhead).filter(|mtu| *mtu >= least)
    }
}

/// Most ways that are remembered.
const MAX_PATHS: usize = 4096;
/// How long a way is taken for granted while the network says that nothing changed.
const KNOWN_FOR_MS: u64 = 1000;
/// **Source** — Linux `net.ipv4.route.mtu_expires`, 600 s.
const LEARNED_FOR: Duration = Duration::from_secs(600);
/// **Source** — Linux `net.ipv4.route.min_pmtu`.
const MIN_PMTU: usize = 552;
