//! How loaded a server is, and which of many is loaded least: what the counting schedulers share.

use super::Reals;
use crate::engine::service::RealServer;

/// What the connections of a server weigh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overhead {
    /// `256 * active + inactive`.
    ///
    /// **Source** — IPVS `ip_vs_dest_conn_overhead`, Linux up to 6.1.
    #[default]
    Classic,
    /// `256 * active + active + inactive`, as kernels count that keep one total of connections.
    ///
    /// **Source** — IPVS `ip_vs_dest_conn_overhead`, Linux 6.1.192 and 2026 upstream.
    WithTotal,
}

impl Overhead {
    /// How the load of a server comes about: `256 × 2 + 1`.
    pub(super) fn sum(self, real: &RealServer) -> String {
        let (active, inactive) = (real.active(), real.inactive());
        match self {
            Self::Classic => format!("256 × {active} + {inactive}"),
            Self::WithTotal => format!("257 × {active} + {inactive}"),
        }
    }

    /// The load of a server for its weight: `(256 × 2 + 1) / 3 = 171`.
    pub(super) fn quotient(self, real: &RealServer) -> String {
        let load = Ratio::new(self.of(real), real.weight());
        format!("({}) / {} = {load}", self.sum(real), real.weight())
    }

    /// The load of a server.
    pub(super) fn of(self, real: &RealServer) -> u64 {
        let (active, inactive) = (u64::from(real.active()), u64::from(real.inactive()));
        match self {
            Self::Classic => 256 * active + inactive,
            Self::WithTotal => 257 * active + inactive,
        }
    }
}

/// Whether a server may get new connections at all.
pub(super) fn is_eligible(real: &RealServer) -> bool {
    real.weight() > 0 && !real.is_overloaded()
}

/// The eligible servers with their indexes, in the order of the list.
pub(super) fn eligible(reals: &Reals) -> impl Iterator<Item = (usize, &RealServer)> {
    reals.iter().map(|real| &**real).enumerate().filter(|(_, real)| is_eligible(real))
}

/// The server with the least load for its weight; of equals the first.
pub(super) fn least_weighted<'a, K>(
    servers: impl Iterator<Item = (K, &'a RealServer)>,
    load: impl Fn(&RealServer) -> u64,
) -> Option<K> {
    let measured = servers.map(|(key, real)| (key, Ratio::new(load(real), real.weight())));
    measured.reduce(|least, next| if next.1 < least.1 { next } else { least }).map(|(key, _)| key)
}

/// The server of the greatest weight; of equals the first.
pub(super) fn heaviest<'a, K>(servers: impl Iterator<Item = (K, &'a RealServer)>) -> Option<K> {
    let weighed = servers.map(|(key, real)| (key, real.weight()));
    weighed.reduce(|most, next| if next.1 > most.1 { next } else { most }).map(|(key, _)| key)
}

/// A load in proportion to a weight, compared without dividing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ratio {
    load: u64,
    weight: u32,
}

impl Ratio {
    /// The proportion of a load to a weight above 0.
    pub(super) fn new(load: u64, weight: i32) -> Self {
        Self { load, weight: weight.unsigned_abs() }
    }
}

impl PartialEq for Ratio {
    fn eq(&self, other: &Self) -> bool {
        self.partial_cmp(other) == Some(std::cmp::Ordering::Equal)
    }
}

impl PartialOrd for Ratio {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        // Loads have at most 41 bits and weights 31, so 128 bits hold every product.
        let ours = u128::from(self.load) * u128::from(other.weight);
        let theirs = u128::from(other.load) * u128::from(self.weight);
        Some(ours.cmp(&theirs))
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let quotient = self.load as f64 / f64::from(self.weight);
        // Two decimals, and none where they are zero.
        write!(f, "{}", (quotient * 100.0).round() / 100.0)
    }
}
