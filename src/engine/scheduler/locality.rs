//! What `lblc` and `lblcr` remember: which servers a destination address was sent to.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Reals, hash};
use crate::engine::service::RealServer;
use crate::engine::time::Moment;
use crate::packet::Addr;

/// What is remembered of destination addresses, with the housekeeping of IPVS.
///
/// **Shape** — ordered by IPVS's bucket and then by address: sweeps go through it as IPVS's do,
/// and no choice of addresses makes a search slow. Has less than [`FULL`] entries.
#[derive(Debug)]
pub(super) struct Memory<T> {
    entries: BTreeMap<(usize, Addr), Entry<T>>,
    expiration_ms: u64,
    next_tick: Moment,
    /// Counts the ticks up to the next full sweep, from 1.
    tick: u32,
    /// The bucket at which the last partial sweep ended.
    rover: usize,
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    last_use: Moment,
}

/// Buckets of the table.
///
/// **Source** — IPVS `CONFIG_IP_VS_LBLC_TAB_BITS`.
const BUCKET_BITS: u32 = 10;

/// Entries beyond which the sweeps begin to make room.
const CROWDED: usize = 16_384;

/// Entries at which no more are made.
const FULL: usize = CROWDED * 3 / 2;

/// Time between two sweeps, and how many of them make a full one.
const TICK_MS: u64 = 60_000;
const TICKS_PER_FULL_SWEEP: u32 = 30;

/// How long an entry must have been idle for a partial sweep to take it.
const IDLE_MS: u64 = 6 * 60_000;

impl<T> Memory<T> {
    /// Remembers nothing yet.
    pub(super) fn new(expiration_ms: u64, now: Moment) -> Self {
        let next_tick = Moment::from_ms(now.as_ms() + TICK_MS);
        Self { entries: BTreeMap::new(), expiration_ms, next_tick, tick: 1, rover: 0 }
    }

    /// Sets how long an address is kept that nobody asks for.
    pub(super) fn set_expiration(&mut self, expiration_ms: u64) {
        self.expiration_ms = expiration_ms;
    }

    /// What is remembered of an address, which is being used.
    pub(super) fn recall(&mut self, addr: Addr, now: Moment) -> Option<&mut T> {
        let entry = self.entries.get_mut(&key(addr))?;
        entry.last_use = now;
        Some(&mut entry.value)
    }

    /// What is remembered of an address, left as it is.
    pub(super) fn peek(&self, addr: Addr) -> Option<&T> {
        self.entries.get(&key(addr)).map(|entry| &entry.value)
    }

    /// Remembers something of an address, unless there is no room.
    pub(super) fn remember(&mut self, addr: Addr, value: T, now: Moment) {
        if self.entries.len() < FULL {
            self.entries.insert(key(addr), Entry { value, last_use: now });
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Sweeps as often as is due; returns when the next sweep is.
    pub(super) fn handle_timeout(&mut self, now: Moment) -> Moment {
        while self.next_tick <= now {
            let at = self.next_tick;
            self.sweep(at);
            self.next_tick = Moment::from_ms(at.as_ms() + TICK_MS);
        }
        self.next_tick
    }

    fn sweep(&mut self, now: Moment) {
        if self.tick == TICKS_PER_FULL_SWEEP {
            self.tick = 1;
            self.entries.retain(|_, entry| now.ms_since(entry.last_use) <= self.expiration_ms);
            return;
        }
        self.tick += 1;
        let excess = self.entries.len().saturating_sub(CROWDED);
        if excess > 0 {
            self.make_room((excess * 4 / 3).min(CROWDED / 2), now);
        }
    }

    /// Goes through the buckets from where the last sweep ended until `goal` idle entries are gone.
    fn make_room(&mut self, goal: usize, now: Moment) {
        let before = self.entries.len();
        for _ in 0..1 << BUCKET_BITS {
            self.rover = (self.rover + 1) % (1 << BUCKET_BITS);
            // 0.0.0.0 sorts before every other address.
            let start = |bucket| (bucket, Addr::v4(0));
            let idle = self.entries.range(start(self.rover)..start(self.rover + 1));
            let idle = idle.filter(|(_, entry)| now.ms_since(entry.last_use) >= IDLE_MS);
            let idle: Vec<_> = idle.map(|(key, _)| *key).collect();
            for key in idle {
                self.entries.remove(&key);
            }
            if before - self.entries.len() >= goal {
                return;
            }
        }
    }
}

/// **Source** — IPVS `ip_vs_lblc_hashkey`.
fn key(addr: Addr) -> (usize, Addr) {
    (hash::bucket(hash::fold(addr), BUCKET_BITS), addr)
}

/// A server that is remembered, also while it is not in the list.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// The server.
    pub(super) real: Arc<RealServer>,
    /// Where it was seen last.
    index: usize,
}

impl Held {
    /// Holds the server at an index of the list.
    pub(super) fn new(reals: &Reals, index: usize) -> Self {
        Self { real: Arc::clone(&reals[index]), index }
    }

    /// Its index in the list, if it is there.
    pub(super) fn position(&self, reals: &Reals) -> Option<usize> {
        if reals.get(self.index).is_some_and(|real| Arc::ptr_eq(real, &self.real)) {
            return Some(self.index);
        }
        reals.iter().position(|real| Arc::ptr_eq(real, &self.real))
    }

    /// Its index like [`position`](Self::position), and remembers it.
    pub(super) fn locate(&mut self, reals: &Reals) -> Option<usize> {
        self.index = self.position(reals)?;
        Some(self.index)
    }
}

/// Whether a server has more active connections than weight while another has less than half of
/// its own weight.
///
/// **Source** — IPVS `is_overloaded` of lblc and lblcr; not the overload of the thresholds.
pub(super) fn is_overburdened(real: &RealServer, reals: &Reals) -> bool {
    let (active, weight) = load(real);
    active > weight
        && reals.iter().any(|other| {
            let (active, weight) = load(other);
            active * 2 < weight
        })
}

fn load(real: &RealServer) -> (i64, i64) {
    (i64::from(real.active()), i64::from(real.weight()))
}
