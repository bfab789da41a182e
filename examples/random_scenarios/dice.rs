//! Chance that can be repeated.

/// A source of random numbers. **Source** — SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// The dice of one scenario.
    pub fn new(kind: &str, seed: u64) -> Self {
        let mixed = kind.bytes().fold(seed, |state, byte| {
            state.wrapping_mul(0x100_0000_01b3).wrapping_add(byte.into())
        });
        Self(mixed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn number(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// True this often in a hundred times.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.number(1, 100) <= percent
    }

    /// One of some.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }

    /// One of some words.
    pub fn word(&mut self, of: &str) -> String {
        let words: Vec<&str> = of.split(' ').collect();
        (*self.one(&words)).to_string()
    }

    /// An index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        (self.next() % len as u64) as usize
    }

    /// One of some, each as likely as its weight says.
    pub fn weighted<T: Copy>(&mut self, of: &[(u32, T)]) -> T {
        let total: u64 = of.iter().map(|(weight, _)| u64::from(*weight)).sum();
        let mut left = self.number(0, total - 1);
        for (weight, value) in of {
            match left.checked_sub((*weight).into()) {
                Some(rest) => left = rest,
                None => return *value,
            }
        }
        unreachable!("a number below the sum of all weights falls into one of them")
    }
}
