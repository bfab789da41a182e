//! The connection table of one worker.

use std::sync::Arc;

use super::begin::NewConnection;
use super::connection::{Connection, Direction};
use super::hash::Hasher;
use super::index::Index;
use super::slab::Slab;
use super::wheel::Wheel;
use crate::engine::service::{Activity, RealServer};
use crate::engine::time::Moment;
use crate::packet::Endpoint;

/// A connection in the table. Valid until the connection is removed; what is removed while an id
/// is held is up to the holder, as everything happens in one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnId(u32);

/// A connection that is gone, but counts with its real server until this is dropped.
#[derive(Debug)]
#[must_use = "dropping it counts the connection out"]
pub struct StillCounted {
    real: Arc<RealServer>,
    activity: Activity,
}

impl Drop for StillCounted {
    fn drop(&mut self) {
        self.real.unbind_connection(self.activity);
    }
}

/// The connections of one worker: records in segments that are never moved, an index by both
/// directions of each, and a timer wheel.
#[derive(Debug)]
pub struct ConnTable {
    records: Slab,
    index: Index,
    wheel: Wheel,
    hasher: Hasher,
    len: usize,
    limit: usize,
}

/// A control connection whose time is up stays this long if connections that it announced are left.
///
/// **Source** — IPVS `ip_vs_conn_expire`.
const HELD_TIMEOUT_MS: u32 = 60_000;

/// A packet's place in the table, computed ahead of its turn.
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    hash: u64,
    source: Endpoint,
    destination: Endpoint,
    protocol: u8,
}

impl ConnTable {
    /// An empty table that takes `limit` connections; `seed` keys its hash.
    pub fn new(limit: usize, seed: u64, now: Moment) -> Self {
        Self {
            records: Slab::default(),
            index: Index::new(),
            wheel: Wheel::new(now),
            hasher: Hasher::new(seed),
            len: 0,
            limit: limit.min(MAX_CONNECTIONS),
        }
    }

    /// Prepares the look-up of a packet.
    #[inline]
    pub fn prepare(&self, source: Endpoint, destination: Endpoint, protocol: u8) -> Lookup {
        let hash = self.hasher.hash(source, destination, protocol);
        Lookup { hash, source, destination, protocol }
    }

    /// The connection that a packet belongs to, and which way it goes.
    #[inline]
    pub fn find(&self, lookup: &Lookup) -> Option<(ConnId, Direction)> {
        let mut direction = None;
        let Lookup { hash, source, destination, protocol } = *lookup;
        let entry = self.index.find(hash, |entry| {
            let found = self.records.get(entry >> 1).direction(source, destination, protocol);
            direction = found;
            found.is_some()
        })?;
        Some((ConnId(entry >> 1), direction?))
    }

    /// Reads what packets will need of the index, then their records, to have all of it on its way
    /// from memory at once.
    ///
    /// The loops do nothing else, so that a processor has many of their reads under way together:
    /// with a million connections that halves what a packet costs.
    #[inline]
    pub fn fetch<'a>(&self, lookups: impl Iterator<Item = &'a Lookup> + Clone) {
        let mut seen = 0;
        for lookup in lookups.clone() {
            seen ^= self.index.touch(lookup.hash);
        }
        std::hint::black_box(seen);
        for lookup in lookups {
            if let Some(entry) = self.index.find(lookup.hash, |_| true) {
                seen ^= self.records.get(entry >> 1).touch();
            }
        }
        std::hint::black_box(seen);
    }

    /// Removes all connections.
    pub fn clear(&mut self) {
        for id in 0..self.records.used {
            self.remove(ConnId(id));
        }
    }

    /// The connection.
    pub fn get(&self, id: ConnId) -> &Connection {
        self.records.get(id.0)
    }

    /// The connection, to change what is not its identity.
    pub fn get_mut(&mut self, id: ConnId) -> &mut Connection {
        self.records.get_mut(id.0)
    }

    /// Adds a connection and counts it with its real server; `None` if the table is full.
    ///
    /// An older connection whose server would answer with the very same addresses is no longer
    /// found by those answers: they belong to the newer one, as in IPVS.
    pub fn insert(&mut self, new: NewConnection, now: Moment) -> Option<ConnId> {
        if self.len >= self.limit {
            return None;
        }
        let (one_packet, timeout_ms) = (new.one_packet, new.timeout_ms);
        let id = self.records.take();
        *self.records.get_mut(id) = Connection::begin(new, now);
        self.len += 1;
        if one_packet {
            return Some(ConnId(id));
        }
        self.enter(id);
        let deadline = Moment::from_ms(now.as_ms() + u64::from(timeout_ms));
        self.wheel.insert(&mut self.records, id, deadline);
        Some(ConnId(id))
    }

    /// Removes a connection and counts it out at its real server.
    pub fn remove(&mut self, id: ConnId) {
        drop(self.retire(id));
    }

    /// Removes a connection, which counts with its real server until what is returned is dropped.
    pub fn retire(&mut self, id: ConnId) -> Option<StillCounted> {
        let record = self.records.get_mut(id.0);
        if !record.is_live() {
            return None;
        }
        if !record.is_one_packet() {
            let (forward, reverse) = hashes(&self.hasher, record);
            self.index.remove(forward, id.0 << 1);
            self.index.remove(reverse, id.0 << 1 | 1);
        }
        let counted = record.end().map(|(real, activity)| StillCounted { real, activity });
        self.wheel.remove(&mut self.records, id.0);
        self.records.free.push(id.0);
        self.len -= 1;
        counted
    }

    /// Gives a connection `timeout_ms` to live from `now` on.
    pub fn extend(&mut self, id: ConnId, timeout_ms: u32, now: Moment) {
        let nearer = self.records.get_mut(id.0).renew(timeout_ms, now);
        if nearer {
            let deadline = Moment::from_ms(now.as_ms() + u64::from(timeout_ms));
            self.wheel.remove(&mut self.records, id.0);
            self.wheel.insert(&mut self.records, id.0, deadline);
        }
    }

    /// Removes connections whose time is up, looking at `budget` of them or empty ticks at most.
    /// `kept` is told of those that stay for what they announced.
    pub fn expire(&mut self, now: Moment, mut budget: u32, mut kept: impl FnMut(ConnId)) {
        while budget > 0 {
            let Some(id) = self.wheel.poll(&mut self.records, now, &mut budget) else { return };
            budget = budget.saturating_sub(1);
            let record = self.records.get_mut(id);
            if record.remaining_ms(now) == 0 && record.has_family() {
                record.renew(HELD_TIMEOUT_MS, now);
                kept(ConnId(id));
            }
            let remaining = record.remaining_ms(now);
            if remaining == 0 {
                self.remove(ConnId(id));
            } else {
                let deadline = Moment::from_ms(now.as_ms() + u64::from(remaining));
                self.wheel.insert(&mut self.records, id, deadline);
            }
        }
    }

    /// Connections in the table.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many more connections it takes.
    pub fn room(&self) -> usize {
        self.limit - self.len
    }

    /// Positions at which there may be connections, which [`at`](Self::at) takes.
    pub fn positions(&self) -> usize {
        self.records.used as usize
    }

    /// The connection at a position, if there is one.
    pub fn at(&self, position: usize) -> Option<ConnId> {
        let id = u32::try_from(position).ok().filter(|id| *id < self.records.used)?;
        self.records.get(id).is_live().then_some(ConnId(id))
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.records.memory_bytes() + self.index.memory_bytes()
    }

    /// All connections, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.records.iter().filter(|record| record.is_live())
    }

    /// Connections from position `from` on, at most `count` records looked at, and the position to
    /// go on from; `None` at the end. For listings that must not hold up the packets.
    pub fn page(&self, from: usize, count: usize) -> (Vec<&Connection>, Option<usize>) {
        let end = (from + count).min(self.records.used as usize);
        let live = (from..end).map(|id| self.records.get(id as u32));
        let page = live.filter(|record| record.is_live()).collect();
        (page, (end < self.records.used as usize).then_some(end))
    }

    fn enter(&mut self, id: u32) {
        let record = self.records.get(id);
        let (forward, reverse) = hashes(&self.hasher, record);
        let (source, destination) = record.answers();
        let answers = Lookup { hash: reverse, source, destination, protocol: record.protocol() };
        if let Some((older, Direction::ToClient)) = self.find(&answers) {
            self.index.remove(reverse, older.0 << 1 | 1);
        }
        self.index.insert(forward, id << 1);
        self.index.insert(reverse, id << 1 | 1);
    }
}

/// The hashes of what the client sends and of the answers.
fn hashes(hasher: &Hasher, record: &Connection) -> (u64, u64) {
    let (from, to) = record.answers();
    let forward = hasher.hash(record.client(), record.virtual_endpoint(), record.protocol());
    (forward, hasher.hash(from, to, record.protocol()))
}

/// Entries of the index are a record's number and a direction in 32 bits, one value is taken.
const MAX_CONNECTIONS: usize = (u32::MAX >> 1) as usize;
