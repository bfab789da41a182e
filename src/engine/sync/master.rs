//! The master's side: entries are gathered into messages, which leave when they are full or old.
//!
//! **Source** — IPVS: a message waits for more entries for two seconds, and full ones for 20 ms or
//! seven others, so that those who hear them are not woken for each.

use std::collections::VecDeque;

use super::MasterConfig;
use super::entry::Entry;
use super::message::Version;
use crate::engine::time::Moment;

/// A message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// By how much its port is above the first one.
    pub port_offset: u8,
    /// The message.
    pub bytes: Vec<u8>,
}

/// What a master has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MasterCounters {
    /// Entries told.
    pub entries: u64,
    /// Messages that were lost because too many waited to be sent.
    pub lost: u64,
}

/// What one director has to tell.
#[derive(Debug)]
pub struct Master {
    config: MasterConfig,
    open: Box<[Option<Open>]>,
    queue: VecDeque<Outgoing>,
    /// Messages of the queue that may leave.
    released: usize,
    /// When the rest may leave.
    release_at: Moment,
    /// When it is looked for messages that have waited long enough.
    next_look: Moment,
    spare: Vec<Vec<u8>>,
    counters: MasterCounters,
}

/// A message that takes more entries.
#[derive(Debug)]
struct Open {
    version: Version,
    bytes: Vec<u8>,
    entries: u8,
    since: Moment,
}

/// How long a message waits for more entries, and how often that is looked after.
const LONGEST_WAIT_MS: u64 = 2000;
const LOOK_PERIOD_MS: u64 = 1000;
/// How long full messages wait for more, and how many wait no longer.
const PACE_MS: u64 = 20;
const PACE_MESSAGES: usize = 8;
/// Buffers kept for later messages.
const SPARE: usize = 16;

impl Master {
    /// A master with nothing to tell yet.
    pub fn new(config: MasterConfig) -> Self {
        Self {
            config,
            open: (0..config.ports.max(1)).map(|_| None).collect(),
            queue: VecDeque::new(),
            released: 0,
            release_at: config.since,
            next_look: Moment::from_ms(config.since.as_ms() + LOOK_PERIOD_MS),
            spare: Vec::new(),
            counters: MasterCounters::default(),
        }
    }

    /// How it was set up.
    pub fn config(&self) -> MasterConfig {
        self.config
    }

    /// What it has counted.
    pub fn counters(&self) -> MasterCounters {
        self.counters
    }

    /// Tells an entry; `spread` chooses among the ports. At most `limit` messages wait to be sent.
    pub fn tell(&mut self, entry: &Entry, version: Version, spread: u64, limit: u64, now: Moment) {
        let port = (spread % self.open.len() as u64) as usize;
        let len = version.entry_len(entry);
        let longest = usize::from(self.config.max_len);
        let is_full = self.open[port].as_ref().is_some_and(|open| {
            open.version != version
                || open.entries == u8::MAX
                || open.bytes.len().next_multiple_of(4) + len > longest
        });
        if is_full {
            self.close(port, limit, now);
        }
        let id = self.config.id;
        let spare = &mut self.spare;
        let open = self.open[port].get_or_insert_with(|| {
            let mut bytes = spare.pop().unwrap_or_default();
            version.begin(&mut bytes, id);
            Open { version, bytes, entries: 0, since: now }
        });
        version.push(&mut open.bytes, entry);
        open.entries += 1;
        self.counters.entries += 1;
    }

    /// Lets messages leave whose time has come.
    pub fn handle_timeout(&mut self, now: Moment, limit: u64) {
        if now >= self.next_look {
            while self.next_look <= now {
                self.next_look = Moment::from_ms(self.next_look.as_ms() + LOOK_PERIOD_MS);
            }
            for port in 0..self.open.len() {
                let open = self.open[port].as_ref();
                if open.is_some_and(|open| now.ms_since(open.since) > LONGEST_WAIT_MS) {
                    self.close(port, limit, now);
                    self.released = self.queue.len();
                }
            }
        }
        if now >= self.release_at {
            self.released = self.queue.len();
        }
    }

    /// The next message to be sent.
    #[must_use]
    pub fn poll(&mut self) -> Option<Outgoing> {
        self.released = self.released.checked_sub(1)?;
        self.queue.pop_front()
    }

    /// Takes back the memory of a message that was sent.
    pub fn recycle(&mut self, bytes: Vec<u8>) {
        if self.spare.len() < SPARE {
            self.spare.push(bytes);
        }
    }

    fn close(&mut self, port: usize, limit: u64, now: Moment) {
        let Some(open) = self.open[port].take() else { return };
        if self.queue.len() as u64 >= limit.min(MOST_WAITING) {
            self.counters.lost += 1;
            return self.recycle(open.bytes);
        }
        if self.queue.len() == self.released {
            self.release_at = Moment::from_ms(now.as_ms() + PACE_MS);
        }
        self.queue.push_back(Outgoing { port_offset: port as u8, bytes: open.bytes });
        if self.queue.len() - self.released >= PACE_MESSAGES {
            self.released = self.queue.len();
        }
    }
}

/// However large `sync_qlen_max` is, no more messages than this wait: 64 MiB of the longest.
const MOST_WAITING: u64 = 1024;
