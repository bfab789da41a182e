//! Options of TCP headers, one by one.

/// Kinds of options that are told apart.
pub mod kind {
    /// Nothing, one byte (RFC 9293).
    pub const NOTHING: u8 = 1;
    /// Largest segment (RFC 9293).
    pub const LARGEST_SEGMENT: u8 = 2;
    /// Selective acknowledgement (RFC 2018).
    pub const SELECTIVE_ACK: u8 = 5;
    /// Timestamps (RFC 7323).
    pub const TIMESTAMPS: u8 = 8;
    /// Fast open (RFC 7413).
    pub const FAST_OPEN: u8 = 34;
    /// An experiment (RFC 4727), which is what "TCP option address" (TOA) is to IANA.
    pub const ADDRESS: u8 = 254;
}

/// Bytes of a TCP header without options, and at most.
pub const FIXED_LEN: usize = 20;
/// See [`FIXED_LEN`].
pub const MOST_LEN: usize = 60;

/// The length of the TCP header at the front of `segment`, options included; `None` if it is not
/// all there.
pub fn header_len(segment: &[u8]) -> Option<usize> {
    let len = usize::from(*segment.get(12)? >> 4) * 4;
    (len >= FIXED_LEN && len <= segment.len()).then_some(len)
}

/// The options of the TCP header at the front of `segment`: where each starts and how long it is.
/// What follows a malformed option is left out.
///
/// **Shape** — offsets are bytes from the start of the TCP header; every option lies within it.
pub fn options(segment: &[u8]) -> impl Iterator<Item = Found> + '_ {
    let end = header_len(segment).unwrap_or(0);
    let mut at = FIXED_LEN;
    std::iter::from_fn(move || {
        loop {
            let kind = *segment.get(..end)?.get(at)?;
            if kind == kind::NOTHING {
                at += 1;
                continue;
            }
            // The end of the list is kind 0.
            let len = usize::from(*segment[..end].get(at + 1).filter(|_| kind != 0)?);
            if len < 2 || at + len > end {
                return None;
            }
            let found = Found { kind, at, len };
            at += len;
            return Some(found);
        }
    })
}

/// An option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its kind.
    pub kind: u8,
    /// Where it starts.
    pub at: usize,
    /// How long it is, kind and length included.
    pub len: usize,
}

/// The first option of a kind.
pub fn find(segment: &[u8], kind: u8) -> Option<Found> {
    options(segment).find(|found| found.kind == kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED_LEN];
        bytes.extend(options);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes[12] = ((bytes.len() / 4) << 4) as u8;
        bytes.extend(b"payload");
        bytes
    }

    #[test]
    fn a_usual_syn_is_taken_apart() {
        let bytes = segment(&[2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7]);
        let found: Vec<_> = options(&bytes).map(|each| (each.kind, each.at, each.len)).collect();
        assert_eq!(found, [(2, 20, 4), (4, 24, 2), (8, 26, 10), (3, 37, 3)]);
        assert_eq!(find(&bytes, kind::TIMESTAMPS).map(|each| each.at), Some(26));
    }

    #[test]
    fn what_follows_a_malformed_option_is_left_out() {
        for options_bytes in
            [&[2, 4, 5, 180, 8, 1, 1, 1][..], &[2, 4, 5, 180, 8, 99], &[2, 4, 5, 180, 0, 4, 2]]
        {
            let bytes = segment(options_bytes);
            assert_eq!(options(&bytes).count(), 1, "{options_bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_options_stay_inside(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let end = header_len(&bytes).unwrap_or(0);
            for found in options(&bytes) {
                prop_assert!(found.len >= 2 && found.at >= FIXED_LEN && found.at + found.len <= end);
            }
        }
    }
}
