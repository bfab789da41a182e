//! Hashing of connection keys.

use crate::packet::Endpoint;

/// A keyed hash of (source, destination, protocol).
///
/// The keys are secret random numbers, so that nobody outside can aim for one bucket. The mixing
/// is a folded multiplication of 64 bits, as in foldhash and wyhash.
#[derive(Clone, Copy, Debug)]
pub struct Hasher {
    keys: [u64; 4],
}

impl Hasher {
    /// A hasher whose keys derive from `seed`.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self { keys: std::array::from_fn(|_| split_mix(&mut state)) }
    }

    /// The hash of a packet or key.
    #[inline]
    pub fn hash(&self, source: Endpoint, destination: Endpoint, protocol: u8) -> u64 {
        let (from, to) = (source.addr.bits(), destination.addr.bits());
        let rest =
            u64::from(source.port) << 32 | u64::from(destination.port) << 16 | u64::from(protocol);
        let low = fold(from as u64 ^ self.keys[0], to as u64 ^ self.keys[1]);
        let high = (from >> 64) as u64 ^ ((to >> 64) as u64).rotate_left(32);
        fold(low ^ rest ^ self.keys[2], high ^ rest.rotate_left(24) ^ self.keys[3])
    }
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// The next number of a SplitMix64 sequence (Steele, Lea and Flood, OOPSLA 2014).
pub fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}
