//! The Internet checksum: whole, in part and by difference.
//!
//! **Source** — RFC 1071 for the sum, RFC 1624 for updates (equation 3, which has no corner case
//! at zero).

use super::addr::{Addr, Family};

/// A one's-complement sum that is not folded yet.
///
/// Sixty-four bits hold more 16-bit words than any packet has, so adding never overflows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The sum of `bytes` as big-endian words; an odd last byte is padded with zero.
    pub fn of(bytes: &[u8]) -> Self {
        let mut sum = 0u64;
        let mut chunks = bytes.chunks_exact(4);
        for chunk in &mut chunks {
            sum += u64::from(u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
        }
        let rest = chunks.remainder();
        let mut last = [0u8; 4];
        last[..rest.len()].copy_from_slice(rest);
        Self(sum + u64::from(u32::from_be_bytes(last)))
    }

    /// The sum of the pseudo-header of a transport packet of `len` bytes.
    ///
    /// **Source** — RFC 9293 §3.1 for IPv4, RFC 8200 §8.1 for IPv6.
    pub fn pseudo_header(source: Addr, destination: Addr, protocol: u8, len: usize) -> Self {
        Self(u64::from(protocol) + len as u64).plus_addr(source).plus_addr(destination)
    }

    /// This sum and another.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// This sum and one word.
    #[must_use]
    pub fn plus_word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    /// This sum without one word, in one's-complement arithmetic.
    #[must_use]
    pub fn minus_word(self, word: u16) -> Self {
        self.plus_word(!word)
    }

    /// What cancels this sum out.
    #[must_use]
    pub fn negated(self) -> Self {
        Self(u64::from(!self.folded()))
    }

    /// The sum of the same bytes if they begin one place later. **Source** — RFC 1071 §2 (B).
    #[must_use]
    pub fn swapped(self) -> Self {
        Self(u64::from(self.folded().swap_bytes()))
    }

    /// This sum and an address as it stands in a header of its family.
    #[must_use]
    pub fn plus_addr(self, addr: Addr) -> Self {
        match addr.family() {
            Family::V4 => Self(self.0 + u64::from(addr.v4_bits())),
            Family::V6 => Self(self.0 + sum_v6(addr.bits())),
        }
    }

    /// This sum without an address.
    #[must_use]
    pub fn minus_addr(self, addr: Addr) -> Self {
        match addr.family() {
            Family::V4 => Self(self.0 + u64::from(!addr.v4_bits())),
            Family::V6 => Self(self.0 + sum_v6(!addr.bits())),
        }
    }

    /// Folded to sixteen bits, not complemented: what an unfinished checksum field holds.
    pub fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// Folded and complemented: what a complete checksum field holds.
    pub fn checksum(self) -> u16 {
        !self.folded()
    }
}

fn sum_v6(bits: u128) -> u64 {
    (0..4).map(|word| u64::from((bits >> (word * 32)) as u32)).sum()
}

/// The checksum field after the sum of what it covers changed by `change`.
///
/// **Source** — RFC 1624 §3, equation 3: `HC' = ~(~HC + ~m + m')`.
pub fn updated(checksum: u16, change: Sum) -> u16 {
    change.plus_word(!checksum).checksum()
}

/// The field of an unfinished checksum after its pseudo-header changed by `change`.
pub fn updated_unfinished(partial: u16, change: Sum) -> u16 {
    change.plus_word(partial).folded()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071_holds() {
        let sum = Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), 0xddf2);
    }

    #[test]
    fn the_corner_case_of_rfc_1624_holds() {
        // Section 4: HC 0xdd2f, m 0x5555, m' 0x3285 gives 0x0000, where RFC 1141 gave 0xffff.
        let change = Sum::default().minus_word(0x5555).plus_word(0x3285);
        assert_eq!(updated(0xdd2f, change), 0x0000);
    }

    proptest! {
        #[test]
        fn an_update_equals_a_recomputation(
            mut bytes in proptest::collection::vec(any::<u8>(), 8..200),
            at in 0usize..3,
            word in any::<u16>(),
        ) {
            // The field itself is the last word; a sum of zero cannot be told from 0xffff.
            prop_assume!(bytes.iter().any(|byte| *byte != 0));
            let even = bytes.len() & !1;
            bytes.truncate(even);
            let before = Sum::of(&bytes).checksum();
            let old = u16::from_be_bytes([bytes[2 * at], bytes[2 * at + 1]]);
            bytes[2 * at..2 * at + 2].copy_from_slice(&word.to_be_bytes());
            let change = Sum::default().minus_word(old).plus_word(word);
            let (incremental, whole) = (updated(before, change), Sum::of(&bytes).checksum());
            prop_assert!(incremental == whole || bytes.iter().all(|byte| *byte == 0));
        }
    }
}
