//! Counters, their sums and their rates.

use std::ops::{AddAssign, SubAssign};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters of one real server in one worker.
///
/// Written by that worker alone, so a plain load and store suffice; read by anybody.
#[derive(Debug, Default)]
pub struct Counters {
    connections: AtomicU64,
    in_packets: AtomicU64,
    out_packets: AtomicU64,
    in_bytes: AtomicU64,
    out_bytes: AtomicU64,
}

impl Counters {
    /// Counts a scheduled connection.
    pub fn count_connection(&self) {
        bump(&self.connections, 1);
    }

    /// Counts `packets` packets of together `bytes` bytes (from the IP header on) to the server.
    pub fn count_in(&self, packets: u64, bytes: u64) {
        bump(&self.in_packets, packets);
        bump(&self.in_bytes, bytes);
    }

    /// Counts packets from the server.
    pub fn count_out(&self, packets: u64, bytes: u64) {
        bump(&self.out_packets, packets);
        bump(&self.out_bytes, bytes);
    }

    /// The values now.
    pub fn totals(&self) -> Totals {
        Totals {
            connections: self.connections.load(Relaxed),
            in_packets: self.in_packets.load(Relaxed),
            out_packets: self.out_packets.load(Relaxed),
            in_bytes: self.in_bytes.load(Relaxed),
            out_bytes: self.out_bytes.load(Relaxed),
        }
    }
}

fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

/// Sums of counters. Arithmetic wraps, so that differences are right even across a wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets to real servers.
    pub in_packets: u64,
    /// Packets from real servers.
    pub out_packets: u64,
    /// Bytes to real servers, from the IP header on.
    pub in_bytes: u64,
    /// Bytes from real servers.
    pub out_bytes: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.combine(other, u64::wrapping_add);
    }
}

impl SubAssign for Totals {
    fn sub_assign(&mut self, other: Self) {
        self.combine(other, u64::wrapping_sub);
    }
}

impl Totals {
    fn combine(&mut self, other: Self, with: fn(u64, u64) -> u64) {
        self.connections = with(self.connections, other.connections);
        self.in_packets = with(self.in_packets, other.in_packets);
        self.out_packets = with(self.out_packets, other.out_packets);
        self.in_bytes = with(self.in_bytes, other.in_bytes);
        self.out_bytes = with(self.out_bytes, other.out_bytes);
    }
}

/// Rates per second, as `ipvsadm --rate` shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Connections per second.
    pub cps: u64,
    /// Packets per second to real servers.
    pub in_pps: u64,
    /// Packets per second from real servers.
    pub out_pps: u64,
    /// Bytes per second to real servers.
    pub in_bps: u64,
    /// Bytes per second from real servers.
    pub out_bps: u64,
}

/// Exponentially weighted rates of a set of counters, sampled every two seconds.
///
/// **Source** — IPVS `ip_vs_estimation`: `rate += ((delta << 9) - rate) >> 2` for connections and
/// packets, shown as `(rate + 0x1ff) >> 10`; `delta << 4` and `(rate + 0xf) >> 5` for bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Estimator {
    last: Totals,
    scaled: [u64; 5],
}

/// Milliseconds between two samples of an [`Estimator`].
pub const ESTIMATION_PERIOD_MS: u64 = 2000;

impl Estimator {
    /// An estimator whose first sample is the difference to `totals`.
    pub fn new(totals: Totals) -> Self {
        Self { last: totals, scaled: [0; 5] }
    }

    /// Takes a sample.
    pub fn sample(&mut self, totals: Totals) {
        let mut delta = totals;
        delta -= self.last;
        self.last = totals;
        let inputs = [
            delta.connections << 9,
            delta.in_packets << 9,
            delta.out_packets << 9,
            delta.in_bytes << 4,
            delta.out_bytes << 4,
        ];
        for (rate, input) in self.scaled.iter_mut().zip(inputs) {
            let change = (input.wrapping_sub(*rate) as i64) >> 2;
            *rate = rate.wrapping_add_signed(change);
        }
    }

    /// The rates as of the last sample.
    pub fn rates(&self) -> Rates {
        let per_second = |scaled: u64| scaled.wrapping_add(0x1ff) >> 10;
        let bytes_per_second = |scaled: u64| scaled.wrapping_add(0xf) >> 5;
        Rates {
            cps: per_second(self.scaled[0]),
            in_pps: per_second(self.scaled[1]),
            out_pps: per_second(self.scaled[2]),
            in_bps: bytes_per_second(self.scaled[3]),
            out_bps: bytes_per_second(self.scaled[4]),
        }
    }
}

/// What listings show of a set of counters: their values as of when they were last looked at, less
/// those at the last `-Z`, and their rates.
///
/// **Source** — IPVS, whose listings do not read counters: they show what `ip_vs_estimation` last
/// found, and `-Z` makes that the new zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    zero: Totals,
    seen: Totals,
    estimator: Estimator,
}

impl Account {
    /// An account of counters that start at `totals`.
    pub fn new(totals: Totals) -> Self {
        Self { zero: totals, seen: totals, estimator: Estimator::new(totals) }
    }

    /// Looks at the counters.
    pub fn look(&mut self, totals: Totals) {
        self.seen = totals;
    }

    /// Looks at the counters, and takes a sample for their rates.
    pub fn sample(&mut self, totals: Totals) {
        self.look(totals);
        self.estimator.sample(totals);
    }

    /// Makes what was last seen the new zero, and rates zero.
    pub fn reset(&mut self) {
        *self = Self::new(self.seen);
    }

    /// The counters.
    pub fn totals(&self) -> Totals {
        let mut totals = self.seen;
        totals -= self.zero;
        totals
    }

    /// Their rates.
    pub fn rates(&self) -> Rates {
        self.estimator.rates()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_shows_what_was_seen_since_it_was_reset() {
        let counted = |connections| Totals { connections, ..Totals::default() };
        let mut account = Account::new(counted(5));
        account.look(counted(8));
        assert_eq!(account.totals(), counted(3));
        account.reset();
        assert_eq!(account.totals(), counted(0));
        account.sample(counted(16));
        assert_eq!((account.totals(), account.rates().cps), (counted(8), 1));
    }

    #[test]
    fn a_steady_load_settles_at_its_rate() {
        let mut estimator = Estimator::default();
        let mut totals = Totals::default();
        for _ in 0..60 {
            totals.connections += 200;
            totals.in_bytes += 3000;
            estimator.sample(totals);
        }
        assert_eq!(estimator.rates().cps, 100);
        assert_eq!(estimator.rates().in_bps, 1500);
    }
}
