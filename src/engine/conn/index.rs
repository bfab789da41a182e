//! The hash index of the connection table: linear hashing in buckets of one cache line.
//!
//! A lookup touches one line here and one record in the table. The index grows by splitting one
//! bucket at a time (Litwin, "Linear hashing", VLDB 1980), so that no insertion ever waits for the
//! whole table to be moved, and memory comes in segments that are never copied. `hashbrown` would
//! stop for the whole table when it grows, and has no way to fetch a bucket ahead of its use.

/// Entries in a bucket; with them a bucket fills a cache line.
const SLOTS: usize = 10;
/// Mean entries per bucket at which the next bucket is split. Measured with 200,000 entries: 5
/// takes 13.8 bytes an entry and 4 % overflow buckets, 6 takes 14.6 bytes and 18 %.
const MEAN_LOAD: usize = 5;
/// Buckets at the start, as a power of two. Hash bits from here on are the tag, so that a split
/// can tell its two halves without looking at the connections.
const INITIAL_BITS: u32 = 10;
/// Buckets per piece of memory.
const SEGMENT: usize = 4096;
/// Most doublings: after them the tag has no bit left to split by.
const MAX_BITS: u32 = INITIAL_BITS + 16;

const EMPTY: u32 = u32::MAX;
const NONE: u32 = u32::MAX;

/// A bucket: the hash bits of its entries, the entries, and where it goes on if it is full.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Bucket {
    tags: [u16; SLOTS],
    entries: [u32; SLOTS],
    overflow: u32,
}

/// Where a bucket is.
#[derive(Clone, Copy, Debug)]
enum Place {
    Primary(usize),
    Overflow(u32),
}

/// Maps hashes to entries, which are numbers below [`u32::MAX`] that mean something to the caller.
#[derive(Debug)]
pub struct Index {
    segments: Vec<Box<[Bucket]>>,
    overflow: Vec<Bucket>,
    free_overflow: Vec<u32>,
    /// Entries on their way while a bucket is split; kept for its memory.
    moving: Vec<(u16, u32)>,
    /// Buckets at the last full doubling.
    base: usize,
    /// How many of those have been split since.
    split: usize,
    len: usize,
}

impl Index {
    /// An empty index.
    pub fn new() -> Self {
        Self {
            segments: vec![segment()],
            overflow: Vec::new(),
            free_overflow: Vec::new(),
            moving: Vec::new(),
            base: 1 << INITIAL_BITS,
            split: 0,
            len: 0,
        }
    }

    /// Reads a word of the hash's bucket, to have it on its way from memory before it is needed.
    #[inline]
    pub fn touch(&self, hash: u64) -> u32 {
        self.bucket(self.position(hash)).overflow
    }

    /// The first entry under `hash` that `is_match` accepts.
    #[inline]
    pub fn find(&self, hash: u64, mut is_match: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = tag(hash);
        let mut bucket = self.bucket(self.position(hash));
        loop {
            let mut hits = bucket.hits(tag);
            while hits != 0 {
                let entry = bucket.entries[hits.trailing_zeros() as usize];
                if entry != EMPTY && is_match(entry) {
                    return Some(entry);
                }
                hits &= hits - 1;
            }
            if bucket.overflow == NONE {
                return None;
            }
            bucket = &self.overflow[bucket.overflow as usize];
        }
    }

    /// Adds an entry. The same entry may be there under other hashes.
    pub fn insert(&mut self, hash: u64, entry: u32) {
        self.put(self.position(hash), tag(hash), entry);
        self.len += 1;
        if self.len > (self.base + self.split) * MEAN_LOAD {
            self.split_next();
        }
    }

    /// Removes an entry; `false` if it was not there.
    pub fn remove(&mut self, hash: u64, entry: u32) -> bool {
        let mut previous = None;
        let mut at = Place::Primary(self.position(hash));
        loop {
            let bucket = self.at_mut(at);
            if let Some(slot) = bucket.entries.iter().position(|each| *each == entry) {
                bucket.entries[slot] = EMPTY;
                self.len -= 1;
                self.unchain_if_empty(previous, at);
                return true;
            }
            if bucket.overflow == NONE {
                return false;
            }
            previous = Some(at);
            at = Place::Overflow(bucket.overflow);
        }
    }

    /// Entries in the index.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        let buckets = self.segments.len() * SEGMENT + self.overflow.capacity();
        buckets * size_of::<Bucket>() + self.free_overflow.capacity() * size_of::<u32>()
    }

    #[inline]
    fn position(&self, hash: u64) -> usize {
        let low = hash as usize & (self.base - 1);
        if low < self.split { hash as usize & (2 * self.base - 1) } else { low }
    }

    #[inline]
    fn bucket(&self, position: usize) -> &Bucket {
        &self.segments[position / SEGMENT][position % SEGMENT]
    }

    fn at_mut(&mut self, place: Place) -> &mut Bucket {
        match place {
            Place::Primary(position) => &mut self.segments[position / SEGMENT][position % SEGMENT],
            Place::Overflow(index) => &mut self.overflow[index as usize],
        }
    }

    fn put(&mut self, position: usize, tag: u16, entry: u32) {
        let mut at = Place::Primary(position);
        loop {
            let bucket = self.at_mut(at);
            if let Some(slot) = bucket.entries.iter().position(|each| *each == EMPTY) {
                bucket.tags[slot] = tag;
                bucket.entries[slot] = entry;
                return;
            }
            at = match bucket.overflow {
                NONE => self.chain(at),
                next => Place::Overflow(next),
            };
        }
    }

    fn chain(&mut self, full: Place) -> Place {
        let index = self.free_overflow.pop().unwrap_or_else(|| {
            self.overflow.push(Bucket::NEW);
            self.overflow.len() as u32 - 1
        });
        self.at_mut(full).overflow = index;
        Place::Overflow(index)
    }

    fn unchain_if_empty(&mut self, previous: Option<Place>, at: Place) {
        let (Some(previous), Place::Overflow(index)) = (previous, at) else { return };
        let bucket = &mut self.overflow[index as usize];
        if bucket.entries.iter().all(|entry| *entry == EMPTY) {
            let next = std::mem::replace(&mut bucket.overflow, NONE);
            self.at_mut(previous).overflow = next;
            self.free_overflow.push(index);
        }
    }

    /// Divides the entries of the next bucket between it and a new one at the end.
    fn split_next(&mut self) {
        let bit = self.base.trailing_zeros();
        if bit >= MAX_BITS {
            return;
        }
        let (from, to) = (self.split, self.base + self.split);
        if to / SEGMENT == self.segments.len() {
            self.segments.push(segment());
        }
        let mut moving = std::mem::take(&mut self.moving);
        self.take_chain(from, &mut moving);
        self.split += 1;
        if self.split == self.base {
            self.base *= 2;
            self.split = 0;
        }
        for (tag, entry) in moving.drain(..) {
            let upper = tag >> (bit - INITIAL_BITS) & 1 == 1;
            self.put(if upper { to } else { from }, tag, entry);
        }
        self.moving = moving;
    }

    /// Takes all entries out of a bucket and its overflow buckets.
    fn take_chain(&mut self, position: usize, taken: &mut Vec<(u16, u32)>) {
        let mut at = Place::Primary(position);
        loop {
            let bucket = self.at_mut(at);
            let next = std::mem::replace(&mut bucket.overflow, NONE);
            for (tag, entry) in bucket.tags.iter().zip(&mut bucket.entries) {
                if *entry != EMPTY {
                    taken.push((*tag, std::mem::replace(entry, EMPTY)));
                }
            }
            if let Place::Overflow(emptied) = at {
                self.free_overflow.push(emptied);
            }
            if next == NONE {
                return;
            }
            at = Place::Overflow(next);
        }
    }
}

impl Bucket {
    const NEW: Self = Self { tags: [0; SLOTS], entries: [EMPTY; SLOTS], overflow: NONE };

    /// Which slots have this tag, as a bit mask. Empty slots may be among them.
    #[inline]
    fn hits(&self, tag: u16) -> u32 {
        let mut hits = 0;
        for (slot, each) in self.tags.iter().enumerate() {
            hits |= u32::from(*each == tag) << slot;
        }
        hits
    }
}

fn segment() -> Box<[Bucket]> {
    vec![Bucket::NEW; SEGMENT].into_boxed_slice()
}

fn tag(hash: u64) -> u16 {
    (hash >> INITIAL_BITS) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bucket_is_one_cache_line() {
        assert_eq!(size_of::<Bucket>(), 64);
    }

    #[test]
    fn entries_survive_growth_and_removal() {
        let hash =
            |entry: u32| u64::from(entry).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let mut index = Index::new();
        for entry in 0..200_000 {
            index.insert(hash(entry), entry);
        }
        for entry in 0..200_000 {
            assert_eq!(index.find(hash(entry), |found| found == entry), Some(entry));
        }
        for entry in (0..200_000).step_by(2) {
            assert!(index.remove(hash(entry), entry));
            assert!(!index.remove(hash(entry), entry));
        }
        for entry in 0..200_000 {
            let expected = (entry % 2 == 1).then_some(entry);
            assert_eq!(index.find(hash(entry), |found| found == entry), expected);
        }
        assert_eq!(index.len(), 100_000);
        assert!(index.memory_bytes() / 200_000 < 16, "{} bytes", index.memory_bytes());
    }

    proptest! {
        /// Few distinct hashes, so that buckets overflow and split while they do.
        #[test]
        fn it_agrees_with_a_plain_list(
            operations in proptest::collection::vec((any::<bool>(), 0u64..40, 0u32..60), 1..800),
        ) {
            let mut index = Index::new();
            let mut list: Vec<(u64, u32)> = Vec::new();
            for (adds, hash, entry) in operations {
                let entry = entry * 40 + hash as u32;
                let hash = hash << 8 | hash << 40;
                let known = list.iter().position(|each| *each == (hash, entry));
                match (adds, known) {
                    (true, None) => {
                        index.insert(hash, entry);
                        list.push((hash, entry));
                    }
                    (false, known) => {
                        prop_assert_eq!(index.remove(hash, entry), known.is_some());
                        known.map(|at| list.swap_remove(at));
                    }
                    (true, Some(_)) => {}
                }
                prop_assert_eq!(index.len(), list.len());
            }
            for (hash, entry) in list {
                prop_assert_eq!(index.find(hash, |found| found == entry), Some(entry));
            }
        }
    }
}
