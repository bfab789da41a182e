//! The multiplicative hash of the schedulers that go by address.

use crate::packet::{Addr, Family};

/// The top `bits` bits of the product with the golden ratio.
///
/// **Source** — IPVS `ip_vs_dh_hashkey` and its like since Linux 4.18: `hash_32`, Knuth's
/// multiplicative hashing with 0x61C88647.
pub(super) fn bucket(value: u32, bits: u32) -> usize {
    (value.wrapping_mul(0x61c8_8647) >> (32 - bits)) as usize
}

/// An address as the 32 bits that are hashed.
///
/// **Shape** — IPv4 in host order; IPv6 as the exclusive or of its four words, each in host order.
pub(super) fn fold(addr: Addr) -> u32 {
    match addr.family() {
        Family::V4 => addr.v4_bits(),
        Family::V6 => (0..4).fold(0, |folded, word| folded ^ (addr.bits() >> (32 * word)) as u32),
    }
}
