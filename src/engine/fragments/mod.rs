//! Fragments that wait for the rest of their datagram.
//!
//! Owns the bytes of incomplete datagrams and knows when they have waited too long; knows nothing of
//! connections and services. A [`Director`](super::Director) gathers the fragments here that may
//! concern it, as the kernel does in front of IPVS, and hands out whole [`Datagram`]s.
//!
//! # Against attackers
//!
//! - Memory is bounded, the bookkeeping included. Where fragments do not fit, the datagrams make
//!   room that have waited longest: first those of the sender itself if it holds more than its
//!   share, else anybody's. A flood shortens the time that fragments may take to arrive; it does not
//!   keep others from getting through, as refusing new datagrams would.
//! - Fragments that overlap discard their datagram; repeated ones are dropped by themselves.
//! - When too many of a sender's other fragments have come in between, its datagram begins anew:
//!   identifications are reused.
//!
//! **Source** — RFC 791 §3.2, RFC 8200 §4.5, RFC 5722; limits, time and what is tolerated as Linux
//! has them (`net.ipv4.ipfrag_time`, `ipfrag_high_thresh`, `ipfrag_max_dist`, `ip6frag_time`), but
//! that Linux refuses new datagrams when memory is full.

mod datagram;
mod gathering;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::time::Moment;
use super::verdict::DropReason;
use crate::packet::fragment::Placement;
use crate::packet::{Addr, Family, Headers};
pub use datagram::{DATAGRAM_HEADROOM, Datagram};
use gathering::{Added, Gathering};

/// Incomplete datagrams.
#[derive(Debug)]
pub struct Reassembly {
    limit_bytes: usize,
    used_bytes: usize,
    waiting: HashMap<Key, Waiting>,
    sources: HashMap<Addr, Source>,
    /// The datagrams of either family in order of age, which is that of their deadlines.
    by_age: [BTreeMap<u64, Key>; 2],
    by_source: BTreeMap<(Addr, u64), Key>,
    next_ticket: u64,
    counters: FragmentCounters,
    spare: Vec<Datagram>,
}

/// What the fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    source: Addr,
    destination: Addr,
    id: u32,
    /// Over IPv6 datagrams of different protocols share their identifications.
    protocol: u8,
}

#[derive(Debug)]
struct Waiting {
    gathering: Gathering,
    since: Moment,
    /// Its place in the order of age.
    ticket: u64,
    /// How many fragments of the source had come when the last of this datagram did.
    seen: u64,
    cost_bytes: usize,
}

/// Who sends fragments, as long as a datagram of it is incomplete.
#[derive(Debug, Default)]
struct Source {
    datagrams: usize,
    cost_bytes: usize,
    /// Fragments that came.
    seen: u64,
}

/// What became of a fragment.
#[derive(Debug)]
pub enum Gathered {
    /// It waits for the rest.
    Held,
    /// It was the last one missing.
    Whole(Datagram),
    /// It is of no use.
    Refused(DropReason),
}

/// A datagram that stayed incomplete for too long.
#[derive(Debug)]
pub struct Expired {
    /// Its first fragment as it came, if that came.
    pub first: Option<Vec<u8>>,
}

/// What became of datagrams that came in fragments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentCounters {
    /// Became whole.
    pub reassembled: u64,
    /// Stayed incomplete for too long.
    pub timed_out: u64,
    /// Made room for others.
    pub pushed_out: u64,
    /// Began anew, after too many other fragments of their sender.
    pub restarted: u64,
}

impl Reassembly {
    /// Room for incomplete datagrams in so many bytes of memory.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            used_bytes: 0,
            waiting: HashMap::new(),
            sources: HashMap::new(),
            by_age: Default::default(),
            by_source: BTreeMap::new(),
            next_ticket: 0,
            counters: FragmentCounters::default(),
            spare: Vec::new(),
        }
    }

    /// Takes the fragment in `packet`, whose headers were read. `keep_lengths` says whether the whole
    /// datagram is to leave in fragments of the same lengths if it can.
    pub fn add(
        &mut self,
        packet: &[u8],
        headers: &Headers,
        keep_lengths: bool,
        now: Moment,
    ) -> Gathered {
        let Ok(Some(place)) = Placement::read(packet) else {
            return Gathered::Refused(DropReason::BadFragment);
        };
        let packet = &packet[..headers.len];
        if place.offset == 0 && !place.more {
            return self.take_atomic(packet, &place);
        }
        let key = Key::new(headers, &place);
        self.count_arrival(&key);
        if self.is_too_far(&key) {
            self.counters.restarted += 1;
            self.remove(&key);
        }
        if !self.waiting.contains_key(&key) {
            self.begin(key, keep_lengths, now);
        }
        self.add_to(&key, packet, &place)
    }

    /// The next datagram whose time is up.
    pub fn expire(&mut self, now: Moment) -> Option<Expired> {
        let due = |(family, timeout_ms): (usize, u64)| {
            let key = *self.by_age[family].first_key_value()?.1;
            let since = self.waiting.get(&key)?.since;
            (now.ms_since(since) >= timeout_ms).then_some(key)
        };
        let key = [(V4, TIMEOUT_V4_MS), (V6, TIMEOUT_V6_MS)].into_iter().find_map(due)?;
        let waiting = self.remove(&key)?;
        self.counters.timed_out += 1;
        Some(Expired { first: waiting.gathering.into_first() })
    }

    /// Takes back the memory of a datagram that was sent.
    pub fn recycle(&mut self, datagram: Datagram) {
        if self.spare.len() < MAX_SPARE {
            self.spare.push(datagram);
        }
    }

    /// Whether there are no incomplete datagrams.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes of memory that incomplete datagrams take.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// What became of datagrams.
    pub fn counters(&self) -> FragmentCounters {
        self.counters
    }

    /// An IPv6 packet with a fragment header that is all of its datagram. Others of the same
    /// identification do not matter. **Source** — RFC 6946.
    fn take_atomic(&mut self, packet: &[u8], place: &Placement) -> Gathered {
        let mut gathering = Gathering::new(false);
        match gathering.add(packet, place) {
            Added::Last => self.finish(gathering),
            Added::Kept | Added::Useless(_) | Added::Fatal(_) => {
                Gathered::Refused(DropReason::BadFragment)
            }
        }
    }

    fn add_to(&mut self, key: &Key, packet: &[u8], place: &Placement) -> Gathered {
        let seen = self.sources.get(&key.sender()).map_or(0, |source| source.seen);
        let Some(waiting) = self.waiting.get_mut(key) else {
            return Gathered::Refused(DropReason::BadFragment);
        };
        waiting.seen = seen;
        match waiting.gathering.add(packet, place) {
            Added::Kept => {
                self.account(key);
                self.make_room(key);
                Gathered::Held
            }
            Added::Last => match self.remove(key) {
                Some(waiting) => self.finish(waiting.gathering),
                None => Gathered::Refused(DropReason::BadFragment),
            },
            Added::Useless(reason) => {
                // It may have been the first to come.
                if waiting.gathering.is_empty() {
                    self.remove(key);
                }
                Gathered::Refused(reason)
            }
            Added::Fatal(reason) => {
                self.remove(key);
                Gathered::Refused(reason)
            }
        }
    }

    fn finish(&mut self, gathering: Gathering) -> Gathered {
        let mut datagram = self.spare.pop().unwrap_or_default();
        match gathering.assemble(&mut datagram) {
            Ok(()) => {
                self.counters.reassembled += 1;
                Gathered::Whole(datagram)
            }
            Err(reason) => {
                self.recycle(datagram);
                Gathered::Refused(reason)
            }
        }
    }

    fn count_arrival(&mut self, key: &Key) {
        self.sources.entry(key.sender()).or_default().seen += 1;
    }

    /// Whether too many other fragments of its sender have come since the last of a datagram.
    fn is_too_far(&self, key: &Key) -> bool {
        let (Some(waiting), Some(source)) =
            (self.waiting.get(key), self.sources.get(&key.sender()))
        else {
            return false;
        };
        key.family() == V4 && source.seen - waiting.seen > MAX_DISTANCE
    }

    fn begin(&mut self, key: Key, keep_lengths: bool, now: Moment) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.by_age[key.family()].insert(ticket, key);
        self.by_source.insert((key.sender(), ticket), key);
        let source = self.sources.entry(key.sender()).or_default();
        source.datagrams += 1;
        let (gathering, seen) = (Gathering::new(keep_lengths), source.seen);
        self.waiting.insert(key, Waiting { gathering, since: now, ticket, seen, cost_bytes: 0 });
    }

    fn remove(&mut self, key: &Key) -> Option<Waiting> {
        let waiting = self.waiting.remove(key)?;
        let sender = key.sender();
        self.by_age[key.family()].remove(&waiting.ticket);
        self.by_source.remove(&(sender, waiting.ticket));
        self.used_bytes -= waiting.cost_bytes;
        if let Some(source) = self.sources.get_mut(&sender) {
            source.datagrams -= 1;
            source.cost_bytes -= waiting.cost_bytes;
            if source.datagrams == 0 {
                self.sources.remove(&sender);
            }
        }
        Some(waiting)
    }

    /// Brings the sums up to date with what a datagram costs now.
    fn account(&mut self, key: &Key) {
        let Some(waiting) = self.waiting.get_mut(key) else { return };
        let cost = DATAGRAM_COST_BYTES + waiting.gathering.cost_bytes();
        let before = std::mem::replace(&mut waiting.cost_bytes, cost);
        self.used_bytes = self.used_bytes + cost - before;
        if let Some(source) = self.sources.get_mut(&key.sender()) {
            source.cost_bytes = source.cost_bytes + cost - before;
        }
    }

    /// Removes datagrams until the rest fits.
    fn make_room(&mut self, newest: &Key) {
        while self.used_bytes > self.limit_bytes {
            let sender = newest.sender();
            let held = self.sources.get(&sender).map_or(0, |source| source.cost_bytes);
            let victim = match held > self.limit_bytes / SHARES {
                true => self.by_source.range((sender, 0)..).next().map(|(_, key)| *key),
                false => self.oldest(),
            };
            if victim.and_then(|key| self.remove(&key)).is_none() {
                return;
            }
            self.counters.pushed_out += 1;
        }
    }

    fn oldest(&self) -> Option<Key> {
        let fronts = self.by_age.iter().filter_map(|ages| ages.first_key_value());
        fronts.min_by_key(|(ticket, _)| **ticket).map(|(_, key)| *key)
    }
}

impl Key {
    fn new(headers: &Headers, place: &Placement) -> Self {
        let protocol = match headers.family {
            Family::V4 => place.protocol.1,
            Family::V6 => 0,
        };
        let (source, destination) = (headers.source.addr, headers.destination.addr);
        Self { source, destination, id: place.id, protocol }
    }

    fn family(&self) -> usize {
        match self.source.family() {
            Family::V4 => V4,
            Family::V6 => V6,
        }
    }

    /// Whom its memory is charged to. Over IPv6 one host has as many addresses as it likes in its
    /// network.
    fn sender(&self) -> Addr {
        match self.source.family() {
            Family::V4 => self.source,
            Family::V6 => Addr::v6(self.source.bits() & !u128::from(u64::MAX)),
        }
    }
}

const V4: usize = 0;
const V6: usize = 1;
/// **Source** — `net.ipv4.ipfrag_time`; RFC 1122 §3.3.2 would have 60 to 120 seconds.
const TIMEOUT_V4_MS: u64 = 30_000;
/// **Source** — RFC 8200 §4.5, `net.ipv6.ip6frag_time`.
const TIMEOUT_V6_MS: u64 = 60_000;
/// Fragments of a sender that may come between two of one datagram.
/// **Source** — `net.ipv4.ipfrag_max_dist`.
const MAX_DISTANCE: u64 = 64;
/// A sender that holds more than one part of so many of all memory makes room by itself.
const SHARES: usize = 4;
/// What a datagram costs beside its fragments: entries of five tables, as measured when they are
/// full (tests/allocations.rs).
const DATAGRAM_COST_BYTES: usize = 2304;
/// Datagrams whose memory is kept for the next.
const MAX_SPARE: usize = 2;
