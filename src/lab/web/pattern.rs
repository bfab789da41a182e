//! Bytes that both ends can make up: what a download has to consist of.

use std::sync::LazyLock;

use super::sum::Sum;

/// After how many bytes the pattern repeats: a prime, so that no exchange, loss or repetition of
/// segments or pages of memory can go unnoticed.
const PERIOD: usize = 65_521;

/// Copies of the period behind each other; enough that [`at`] always returns much.
const COPIES: usize = 5;

static PATTERN: LazyLock<Box<[u8]>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let period: Vec<u8> = std::iter::repeat_with(|| next(&mut state)).take(PERIOD).collect();
    period.repeat(COPIES).into_boxed_slice()
});

/// The bytes that the pattern has from `offset` on.
///
/// **Shape** — at least 256 KiB minus a few bytes, and at most `limit`.
pub fn at(offset: u64, limit: u64) -> &'static [u8] {
    let start = (offset % PERIOD as u64) as usize;
    let rest = &PATTERN[start..];
    let length = usize::try_from(limit).unwrap_or(usize::MAX).min(rest.len());
    &rest[..length]
}

/// Where `bytes`, taken as what follows `offset`, first differ from the pattern.
pub fn first_difference(offset: u64, bytes: &[u8]) -> Option<u64> {
    let mut position = offset;
    let mut rest = bytes;
    while !rest.is_empty() {
        let expected = at(position, rest.len() as u64);
        let (head, tail) = rest.split_at(expected.len());
        if head != expected {
            let same = head.iter().zip(expected).take_while(|(a, b)| a == b).count();
            return Some(position + same as u64);
        }
        position += head.len() as u64;
        rest = tail;
    }
    None
}

/// The SHA-256 of the pattern's first `length` bytes, in hexadecimal.
pub fn sha256(length: u64) -> String {
    let mut sum = Sum::default();
    let mut offset = 0;
    while offset < length {
        let piece = at(offset, length - offset);
        sum.add(piece);
        offset += piece.len() as u64;
    }
    sum.text()
}

/// One step of xorshift64.
fn next(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 32) as u8
}
