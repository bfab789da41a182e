//! The timer wheel of the connection table: which connections to look at next, never all of them.
//!
//! Hashed hierarchical wheel (Varghese and Lauck, SOSP 1987) whose slots are doubly linked lists
//! through the connection records. It is lazy: a packet that extends a connection's life does not
//! touch the wheel; when the connection comes up it is put back where it now belongs. Only a
//! deadline that moves nearer has to be moved at once.

use crate::engine::time::Moment;

/// **Units** — milliseconds per tick, as a power of two: 16 ms.
const TICK_BITS: u32 = 4;
/// Slots per level, as a power of two.
const LEVEL_BITS: u32 = 8;
const SLOTS: usize = 1 << LEVEL_BITS;
/// Three levels of 256 slots reach 4 s, 17 min and 74 h; what lies beyond is put at the far end
/// and put back from there.
const LEVELS: u32 = 3;
const FARTHEST_TICKS: u64 = (1 << (LEVEL_BITS * LEVELS)) - 1;

/// No connection.
pub const NIL: u32 = u32::MAX;
/// In a record's `previous`: the rest of the word is the slot whose head the record is.
const IS_HEAD: u32 = 1 << 31;

/// The links of one connection, kept in its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Links {
    previous: u32,
    next: u32,
}

impl Links {
    /// Links of a record that is on no list.
    pub const NONE: Self = Self { previous: NIL, next: NIL };
}

/// Where the records are whose links the wheel threads.
pub trait Records {
    /// The links of a record.
    fn links(&mut self, id: u32) -> &mut Links;
}

/// The wheel.
#[derive(Debug)]
pub struct Wheel {
    heads: Box<[u32]>,
    /// The tick up to which everything has been looked at.
    tick: u64,
}

impl Wheel {
    /// An empty wheel at `now`.
    pub fn new(now: Moment) -> Self {
        Self {
            heads: vec![NIL; SLOTS * LEVELS as usize].into_boxed_slice(),
            tick: now.as_ms() >> TICK_BITS,
        }
    }

    /// Puts a record that is on no list where it comes up at `deadline` or shortly before.
    pub fn insert(&mut self, records: &mut impl Records, id: u32, deadline: Moment) {
        let slot = self.slot(deadline);
        let first = std::mem::replace(&mut self.heads[slot], id);
        *records.links(id) = Links { previous: IS_HEAD | slot as u32, next: first };
        if first != NIL {
            records.links(first).previous = id;
        }
    }

    /// Takes a record off its list.
    pub fn remove(&mut self, records: &mut impl Records, id: u32) {
        let Links { previous, next } = std::mem::replace(records.links(id), Links::NONE);
        if previous == NIL {
            return;
        }
        if previous & IS_HEAD != 0 {
            self.heads[(previous & !IS_HEAD) as usize] = next;
        } else {
            records.links(previous).next = next;
        }
        if next != NIL {
            records.links(next).previous = previous;
        }
    }

    /// The next record to be looked at by `now`, taken off its list; `None` if there is none yet.
    ///
    /// The caller inserts it again if its deadline has not come. At most `budget` ticks without a
    /// record are passed; it is reduced by those.
    pub fn poll(
        &mut self,
        records: &mut impl Records,
        now: Moment,
        budget: &mut u32,
    ) -> Option<u32> {
        let target = now.as_ms() >> TICK_BITS;
        loop {
            for level in 0..LEVELS {
                let shift = LEVEL_BITS * level;
                if self.tick & ((1 << shift) - 1) != 0 {
                    break;
                }
                let head = self.heads[level_slot(level, self.tick >> shift)];
                if head != NIL {
                    self.remove(records, head);
                    return Some(head);
                }
            }
            if self.tick >= target || *budget == 0 {
                return None;
            }
            self.tick += 1;
            *budget -= 1;
        }
    }

    fn slot(&self, deadline: Moment) -> usize {
        // Rounded up, so that a record never comes up before its deadline for rounding alone, and
        // never in the slot that is being emptied now.
        let due = (deadline.as_ms() + (1 << TICK_BITS) - 1) >> TICK_BITS;
        let ticks = due.saturating_sub(self.tick).clamp(1, FARTHEST_TICKS);
        let due = self.tick + ticks;
        let level = (63 - ticks.leading_zeros()) / LEVEL_BITS;
        level_slot(level, due >> (LEVEL_BITS * level))
    }
}

fn level_slot(level: u32, index: u64) -> usize {
    level as usize * SLOTS + index as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Records for Vec<Links> {
        fn links(&mut self, id: u32) -> &mut Links {
            &mut self[id as usize]
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn every_record_comes_up_once_and_never_long_before_or_after(
            deadlines in proptest::collection::vec(0u64..40_000_000, 1..60),
            removed in any::<u64>(),
        ) {
            let start = 12_345;
            let mut wheel = Wheel::new(Moment::from_ms(start));
            let mut records = vec![Links::NONE; deadlines.len()];
            let deadlines: Vec<_> = deadlines.iter().map(|after| start + after).collect();
            for (id, deadline) in deadlines.iter().enumerate() {
                wheel.insert(&mut records, id as u32, Moment::from_ms(*deadline));
            }
            let is_removed = |id: usize| removed >> (id % 64) & 1 == 1;
            for id in (0..deadlines.len()).filter(|id| is_removed(*id)) {
                wheel.remove(&mut records, id as u32);
            }
            let mut fired = vec![None; deadlines.len()];
            let mut now = start;
            while now < start + 41_000_000 {
                now += 300_007;
                let mut budget = u32::MAX;
                let moment = Moment::from_ms(now);
                while let Some(id) = wheel.poll(&mut records, moment, &mut budget) {
                    let deadline = deadlines[id as usize];
                    if now < deadline {
                        wheel.insert(&mut records, id, Moment::from_ms(deadline));
                    } else {
                        prop_assert_eq!(fired[id as usize].replace(now), None);
                        prop_assert!(now - deadline <= 300_007 + 32);
                    }
                }
            }
            for (id, fired) in fired.iter().enumerate() {
                prop_assert_eq!(fired.is_none(), is_removed(id));
            }
        }
    }
}
