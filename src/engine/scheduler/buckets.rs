//! The 256 buckets of `sh` and `dh`.

use std::fmt::Display;

use super::{Explanation, Reals};

/// Number of bits of a bucket's number.
///
/// **Source** — IPVS `IP_VS_SH_TAB_BITS`, `IP_VS_DH_TAB_BITS`: 8 unless the kernel was built
/// otherwise.
pub(super) const BITS: u32 = 8;

/// Number of buckets.
pub(super) const COUNT: usize = 1 << BITS;

/// Which server a bucket belongs to.
///
/// **Shape** — indexes of servers; all 0 while there are no servers.
#[derive(Debug)]
pub(super) struct Buckets {
    servers: [u8; COUNT],
    is_empty: bool,
}

impl Buckets {
    /// Deals the buckets to servers that get `shares` of them in their turn, over and over.
    pub(super) fn deal(shares: impl ExactSizeIterator<Item = usize> + Clone) -> Self {
        let is_empty = shares.len() == 0;
        // No server beyond the 256th has a turn, so that a byte holds every index.
        let turns = shares.enumerate().cycle();
        let mut hands = turns.flat_map(|(index, share)| std::iter::repeat_n(index as u8, share));
        let servers = std::array::from_fn(|_| hands.next().unwrap_or(0));
        Self { servers, is_empty }
    }

    /// Index of the server that has a bucket.
    pub(super) fn server(&self, bucket: usize) -> Option<usize> {
        (!self.is_empty).then(|| usize::from(self.servers[bucket % COUNT]))
    }

    /// Tells people how many buckets each server has, and who has this one, which `hashed` fell
    /// into.
    pub(super) fn explain(
        &self,
        rule: &'static str,
        hashed: impl Display,
        bucket: usize,
        reals: &Reals,
    ) -> Explanation {
        let note = format!("{hashed} falls into bucket {bucket} of {COUNT}");
        Explanation::new(rule, note, reals, |index, _| {
            let owned = self.servers.iter().filter(|&&owner| usize::from(owner) == index).count();
            let this = if self.server(bucket) == Some(index) { ", this one too" } else { "" };
            format!("{owned} buckets{this}")
        })
    }
}
