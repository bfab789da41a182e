//! Who has which link address, and the packets that wait to know.
//!
//! An entry is made because a packet is to be sent there, because the kernel knows the neighbour,
//! or because the neighbour asked for one of our addresses; never because of a message alone that
//! nobody asked for. A message never changes a link address that was confirmed: it makes the
//! director ask, and the answer decides.

use std::collections::BTreeSet;

use hashbrown::{HashMap, HashSet};
use pnet_base::MacAddr;

use super::frame::{PortId, Segment, Tags};
use super::held::OwnedPacket;
use crate::engine::Moment;
use crate::packet::{Addr, PacketBuf};

/// What a neighbour is known by: its address, on one segment or wherever it turns up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The segment it is on; none if it is asked for everywhere.
    pub segment: Option<Segment>,
    /// Its address.
    pub addr: Addr,
}

/// A neighbour's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The segment it is on.
    pub segment: Segment,
    /// Its link address.
    pub mac: MacAddr,
}

impl Place {
    /// The other end of a port without link addresses.
    pub fn on(port: PortId) -> Self {
        Self { segment: Segment { port, tags: Tags::NONE }, mac: MacAddr::zero() }
    }
}

/// What is known about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Its place.
    Known(Place),
    /// It has been asked for; packets may wait.
    Waiting,
    /// It did not answer lately.
    Silent,
    /// There is no room to ask for more neighbours.
    Full,
}

/// A question to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Whom it is about.
    pub key: Key,
    /// Where its answer is expected from; everybody is asked if none.
    pub of: Option<Place>,
}

/// How somebody's link address became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It answered us.
    Answer,
    /// It answered us, but does not insist on replacing what is known.
    Offer,
    /// It answered us without saying its link address, which is thus no other than it was.
    Confirmation,
    /// It asked for an address of ours.
    Asked,
    /// It was overheard.
    Overheard,
}

/// How long a neighbour is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Milliseconds between two questions.
    pub retry_ms: u64,
    /// Milliseconds for which it is not asked again after it did not answer.
    pub silence_ms: u64,
}

/// The usual patience.
pub const PATIENT: Patience = Patience { retry_ms: 1000, silence_ms: 1000 };

/// The neighbours.
///
/// **Shape** — at most [`MAX_NEIGHBOURS`] entries, the least recently used one making room; at most
/// [`MAX_ASKED`] being asked for, [`MAX_HELD_EACH`] packets waiting for one and [`MAX_HELD`]
/// packets or [`MAX_HELD_BYTES`] in all.
#[derive(Debug, Default)]
pub struct Neighbours {
    entries: HashMap<Key, Neighbour>,
    timers: BTreeSet<(Moment, Key)>,
    asked: usize,
    held: usize,
    held_bytes: usize,
    questions: Vec<Question>,
    ready: Vec<(Place, Addr, OwnedPacket)>,
    orphans: Vec<(Addr, OwnedPacket)>,
    silent: Vec<Addr>,
    moved: bool,
    overflow: u64,
}

#[derive(Debug)]
struct Neighbour {
    state: State,
    used: Moment,
    due: Option<Moment>,
}

#[derive(Debug)]
enum State {
    /// Asked for `tries` times, with the packets that wait.
    Asked { tries: u8, patience: Patience, held: Vec<(Addr, OwnedPacket)> },
    /// Known since.
    Known { place: Place, confirmed: Moment },
    /// Known, but asked again.
    Verified { place: Place, tries: u8 },
    /// Set by the administrator.
    Permanent { place: Place },
    /// Did not answer.
    Silent,
}

impl Neighbours {
    /// Looks a neighbour up for a packet, and asks for it if need be.
    pub fn resolve(&mut self, key: Key, patience: Patience, now: Moment) -> Lookup {
        let Some(entry) = self.entries.get_mut(&key) else {
            return self.ask_new(key, patience, now);
        };
        entry.used = now;
        match &entry.state {
            State::Asked { .. } => Lookup::Waiting,
            State::Silent => Lookup::Silent,
            State::Permanent { place } | State::Verified { place, .. } => Lookup::Known(*place),
            State::Known { place, confirmed } => {
                let (place, age_ms) = (*place, now.ms_since(*confirmed));
                if age_ms > CONFIRMED_MS {
                    self.verify(key, place, now);
                }
                Lookup::Known(place)
            }
        }
    }

    /// The place of a neighbour, without asking for it.
    pub fn place(&self, key: &Key) -> Option<Place> {
        self.entries.get(key).and_then(Neighbour::place)
    }

    /// Whether anybody is known to have an address on a segment.
    pub fn knows(&self, segment: Segment, addr: Addr) -> bool {
        let keys = [Some(segment), None].map(|segment| Key { segment, addr });
        keys.iter().any(|key| self.place(key).is_some())
    }

    /// Whether an address is known to be at a place.
    pub fn is_at(&self, addr: Addr, place: Place) -> bool {
        let keys = [Some(place.segment), None].map(|segment| Key { segment, addr });
        keys.iter().any(|key| self.place(key) == Some(place))
    }

    /// Whether a neighbour was asked for in vain lately.
    pub fn is_silent(&self, key: &Key) -> bool {
        self.entries.get(key).is_some_and(|entry| matches!(entry.state, State::Silent))
    }

    /// Lets a packet to `to` wait for a neighbour that is being asked for.
    pub fn hold(&mut self, key: Key, to: Addr, packet: &PacketBuf<'_>) {
        let room = self.held < MAX_HELD && self.held_bytes + packet.len() <= MAX_HELD_BYTES;
        let waiting = match self.entries.get_mut(&key).map(|entry| &mut entry.state) {
            Some(State::Asked { held, .. }) if room && held.len() < MAX_HELD_EACH => held,
            _ => {
                self.overflow += 1;
                return;
            }
        };
        let packet = OwnedPacket::copy(packet);
        self.held += 1;
        self.held_bytes += packet.len_bytes();
        waiting.push((to, packet));
    }

    /// Takes note of somebody's link address.
    pub fn heard(&mut self, addr: Addr, place: Place, evidence: Evidence, now: Moment) {
        let here = Key { segment: Some(place.segment), addr };
        let anywhere = Key { segment: None, addr };
        for key in [here, anywhere] {
            self.heard_for(key, place, evidence, now);
        }
        let unknown = !self.entries.contains_key(&here) && !self.entries.contains_key(&anywhere);
        if unknown && evidence == Evidence::Asked && self.entries.len() < MAX_LEARNED {
            self.insert(here, State::Known { place, confirmed: now }, now);
        }
    }

    /// Takes over what the kernel knows, forgetting the permanent entries that are gone.
    pub fn seed(&mut self, known: &[(Addr, Place, bool)], now: Moment) {
        let permanent: HashSet<Key> = known
            .iter()
            .filter(|(_, _, permanent)| *permanent)
            .map(|(addr, place, _)| Key { segment: Some(place.segment), addr: *addr })
            .collect();
        self.entries.retain(|key, entry| {
            !matches!(entry.state, State::Permanent { .. }) || permanent.contains(key)
        });
        for (addr, place, permanent) in known.iter().take(MAX_NEIGHBOURS) {
            let key = Key { segment: Some(place.segment), addr: *addr };
            if *permanent {
                self.settle(key, *place, now);
                self.moved |= self.place(&key).is_some_and(|old| old != *place);
                self.insert(key, State::Permanent { place: *place }, now);
            } else if self.entries.contains_key(&key) {
                self.heard_for(key, *place, Evidence::Overheard, now);
            } else {
                // As good as stale: used, but asked again at the first use.
                let confirmed = Moment::from_ms(0);
                self.insert(key, State::Known { place: *place, confirmed }, now);
            }
        }
    }

    /// Forgets everything on ports that `gone` names, and everything asked for everywhere.
    pub fn forget(&mut self, gone: impl Fn(Segment) -> bool) {
        let keys: Vec<Key> = self.entries.keys().copied().collect();
        for key in keys {
            let place = self.place(&key).map(|place| place.segment);
            if key.segment.or(place).is_none_or(&gone) {
                self.remove(&key);
            }
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Moment) {
        while let Some((due, key)) = self.timers.first().copied() {
            if due > now {
                return;
            }
            self.timers.pop_first();
            self.expire(key, now);
        }
    }

    /// When something is due next.
    pub fn next_timeout(&self) -> Option<Moment> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// The questions to be sent.
    pub fn take_questions(&mut self) -> Vec<Question> {
        std::mem::take(&mut self.questions)
    }

    /// The packets whose neighbour has answered, with the address they were held for.
    pub fn take_ready(&mut self) -> Vec<(Place, Addr, OwnedPacket)> {
        std::mem::take(&mut self.ready)
    }

    /// The packets whose neighbour was given up, with the address they were held for.
    pub fn take_orphans(&mut self) -> Vec<(Addr, OwnedPacket)> {
        std::mem::take(&mut self.orphans)
    }

    /// The neighbours that were given up.
    pub fn take_silent(&mut self) -> Vec<Addr> {
        std::mem::take(&mut self.silent)
    }

    /// Whether a place that was handed out before is no longer true, since this was last asked.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Packets dropped because too many were waiting.
    pub fn overflow(&self) -> u64 {
        self.overflow
    }

    fn ask_new(&mut self, key: Key, patience: Patience, now: Moment) -> Lookup {
        if self.asked >= MAX_ASKED {
            return Lookup::Full;
        }
        self.asked += 1;
        self.insert(key, State::Asked { tries: 1, patience, held: Vec::new() }, now);
        self.schedule(key, Some(later(now, patience.retry_ms)));
        self.questions.push(Question { key, of: None });
        Lookup::Waiting
    }

    fn verify(&mut self, key: Key, place: Place, now: Moment) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.state = State::Verified { place, tries: 1 };
        self.schedule(key, Some(later(now, PATIENT.retry_ms)));
        self.questions.push(Question { key, of: Some(place) });
    }

    fn heard_for(&mut self, key: Key, place: Place, evidence: Evidence, now: Moment) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let answers = matches!(evidence, Evidence::Answer)
            || matches!(evidence, Evidence::Offer | Evidence::Confirmation)
                && entry.place() == Some(place);
        match &entry.state {
            State::Permanent { .. } => {}
            State::Asked { .. } | State::Silent if evidence == Evidence::Confirmation => {}
            State::Asked { .. } => self.settle(key, place, now),
            State::Silent => {
                entry.state = State::Known { place, confirmed: now };
                self.schedule(key, None);
            }
            State::Known { place: old, .. } if *old == place => {
                if evidence != Evidence::Overheard {
                    entry.state = State::Known { place, confirmed: now };
                }
            }
            State::Known { place: old, .. } => {
                let old = *old;
                self.reverify(key, old, now);
            }
            State::Verified { place: old, .. } if answers => {
                self.moved |= *old != place;
                entry.state = State::Known { place, confirmed: now };
                self.schedule(key, None);
            }
            State::Verified { .. } => {}
        }
    }

    /// Asks everybody about a neighbour that somebody else claims to be.
    fn reverify(&mut self, key: Key, old: Place, now: Moment) {
        self.verify(key, old, now);
        if let Some(question) = self.questions.last_mut() {
            question.of = None;
        }
    }

    /// A neighbour became known: what waited for it is ready.
    fn settle(&mut self, key: Key, place: Place, now: Moment) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let State::Asked { held, .. } = &mut entry.state else { return };
        let held = std::mem::take(held);
        entry.state = State::Known { place, confirmed: now };
        self.asked -= 1;
        self.release(&held);
        self.ready.extend(held.into_iter().map(|(to, packet)| (place, to, packet)));
        self.schedule(key, None);
    }

    fn expire(&mut self, key: Key, now: Moment) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.due = None;
        match &mut entry.state {
            State::Asked { tries, patience, .. } if *tries < TRIES => {
                *tries += 1;
                let due = later(now, patience.retry_ms);
                self.schedule(key, Some(due));
                self.questions.push(Question { key, of: None });
            }
            State::Asked { held, patience, .. } => {
                let (held, silence_ms) = (std::mem::take(held), patience.silence_ms);
                entry.state = State::Silent;
                self.asked -= 1;
                self.release(&held);
                self.orphans.extend(held);
                self.give_up(key, silence_ms, now);
            }
            State::Verified { place, tries } if *tries < TRIES => {
                *tries += 1;
                // The last question goes to everybody: the neighbour may have a new card.
                let of = (*tries < TRIES).then_some(*place);
                self.schedule(key, Some(later(now, PATIENT.retry_ms)));
                self.questions.push(Question { key, of });
            }
            State::Verified { .. } => {
                entry.state = State::Silent;
                self.moved = true;
                self.give_up(key, PATIENT.silence_ms, now);
            }
            State::Silent => self.remove(&key),
            State::Known { .. } | State::Permanent { .. } => {}
        }
    }

    fn give_up(&mut self, key: Key, silence_ms: u64, now: Moment) {
        self.schedule(key, Some(later(now, silence_ms)));
        if self.silent.len() < MAX_ASKED {
            self.silent.push(key.addr);
        }
    }

    fn insert(&mut self, key: Key, state: State, now: Moment) {
        if self.entries.len() >= MAX_NEIGHBOURS && !self.entries.contains_key(&key) {
            self.evict();
        }
        if let Some(old) = self.entries.insert(key, Neighbour { state, used: now, due: None })
            && let Some(due) = old.due
        {
            self.timers.remove(&(due, key));
        }
    }

    /// Makes room by forgetting the least recently used entry that nothing waits for.
    fn evict(&mut self) {
        let idle = self.entries.iter().filter(|(_, entry)| {
            matches!(entry.state, State::Known { .. } | State::Verified { .. } | State::Silent)
        });
        if let Some(key) = idle.min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key) {
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &Key) {
        let Some(entry) = self.entries.remove(key) else { return };
        if let Some(due) = entry.due {
            self.timers.remove(&(due, *key));
        }
        if let State::Asked { held, .. } = entry.state {
            self.asked -= 1;
            self.release(&held);
            self.orphans.extend(held);
        }
    }

    fn release(&mut self, held: &[(Addr, OwnedPacket)]) {
        self.held -= held.len();
        self.held_bytes -= held.iter().map(|(_, packet)| packet.len_bytes()).sum::<usize>();
    }

    fn schedule(&mut self, key: Key, due: Option<Moment>) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if let Some(old) = std::mem::replace(&mut entry.due, due) {
            self.timers.remove(&(old, key));
        }
        self.timers.extend(due.map(|due| (due, key)));
    }
}

impl Neighbour {
    fn place(&self) -> Option<Place> {
        match &self.state {
            State::Known { place, .. }
            | State::Verified { place, .. }
            | State::Permanent { place } => Some(*place),
            State::Asked { .. } | State::Silent => None,
        }
    }
}

fn later(now: Moment, ms: u64) -> Moment {
    Moment::from_ms(now.as_ms() + ms)
}

/// Questions asked before a neighbour is given up.
pub const TRIES: u8 = 3;
/// A neighbour is believed for this long before it is asked again.
///
/// **Source** — Linux `base_reachable_time`, 30 s.
const CONFIRMED_MS: u64 = 30_000;
/// Most entries. **Source** — Linux `gc_thresh3` is 1024; a director has more neighbours.
pub const MAX_NEIGHBOURS: usize = 4096;
/// Entries that may be filled by neighbours' own questions.
const MAX_LEARNED: usize = MAX_NEIGHBOURS / 2;
/// Most neighbours asked for at the same time.
pub const MAX_ASKED: usize = 512;
/// Most packets that wait for one neighbour.
pub const MAX_HELD_EACH: usize = 64;
/// Most packets that wait.
pub const MAX_HELD: usize = 1024;
/// Most bytes that wait.
pub const MAX_HELD_BYTES: usize = 16 << 20;
