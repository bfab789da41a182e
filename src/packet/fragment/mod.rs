//! IP fragments: where one belongs in its datagram, and cutting packets into fragments.

mod cut;
mod cutter;
#[cfg(test)]
mod tests;

pub use cut::{Cutting, Fragments};
pub use cutter::{Cutter, must_be_cut};

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::headers::{Malformed, word};

/// Where a fragment belongs in its datagram.
///
/// **Shape** — offsets are bytes and lie within the fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The datagram's identification.
    pub id: u32,
    /// Bytes of the datagram's payload in front of this fragment's.
    pub offset: usize,
    /// Whether more fragments follow.
    pub more: bool,
    /// Where the headers end that the datagram itself has: the IPv4 header, or what stands in front
    /// of the fragment header of IPv6.
    pub headers_end: usize,
    /// Where the fragment's payload starts.
    pub payload: usize,
    /// Where the number of the protocol stands that follows those headers, and that number.
    pub protocol: (usize, u8),
}

impl Placement {
    /// Reads it from a packet; `None` for an IPv6 packet without a fragment header. An IPv4 packet
    /// that is no fragment is read as the only one of its datagram.
    ///
    /// **Source** — RFC 791 §3.1, RFC 8200 §4.5.
    pub fn read(packet: &[u8]) -> Result<Option<Self>, Malformed> {
        match packet.first().ok_or(Malformed::Truncated)? >> 4 {
            4 => Self::read_v4(packet).map(Some),
            6 => Self::read_v6(packet),
            _ => Err(Malformed::Version),
        }
    }

    fn read_v4(packet: &[u8]) -> Result<Self, Malformed> {
        let header: &[u8; V4_HEADER] = packet.first_chunk().ok_or(Malformed::Truncated)?;
        let headers_end = v4_header_len(packet);
        if headers_end < V4_HEADER || headers_end > packet.len() {
            return Err(Malformed::Truncated);
        }
        let placed = word(header, 6);
        Ok(Self {
            id: word(header, 4).into(),
            offset: usize::from(placed & V4_OFFSET) * UNIT,
            more: placed & V4_MORE != 0,
            headers_end,
            payload: headers_end,
            protocol: (9, header[9]),
        })
    }

    fn read_v6(packet: &[u8]) -> Result<Option<Self>, Malformed> {
        let Unfragmentable { end, protocol_at, protocol } = Unfragmentable::of(packet, false)?;
        if protocol != FRAGMENT {
            return Ok(None);
        }
        let rest = packet.get(end..).ok_or(Malformed::Truncated)?;
        let header: &[u8; V6_FRAGMENT_HEADER] = rest.first_chunk().ok_or(Malformed::Truncated)?;
        let placed = word(header, 2);
        Ok(Some(Self {
            id: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            offset: usize::from(placed & !7),
            more: placed & 1 != 0,
            headers_end: end,
            payload: end + V6_FRAGMENT_HEADER,
            protocol: (protocol_at, header[0]),
        }))
    }
}

/// The headers of an IPv6 packet that come in front of its fragment header.
struct Unfragmentable {
    end: usize,
    /// Where the number of the protocol stands that follows them, and that number.
    protocol_at: usize,
    protocol: u8,
}

impl Unfragmentable {
    /// Walks over hop-by-hop options, routing and destination options. For `cutting`, destination
    /// options behind a routing header are no longer among them.
    fn of(packet: &[u8], cutting: bool) -> Result<Self, Malformed> {
        let header: &[u8; V6_HEADER] = packet.first_chunk().ok_or(Malformed::Truncated)?;
        let mut part = Self { end: V6_HEADER, protocol_at: 6, protocol: header[6] };
        let mut routed = false;
        for _ in 0..MOST_EXTENSIONS {
            match part.protocol {
                DESTINATION_OPTIONS if cutting && routed => return Ok(part),
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {}
                _ => return Ok(part),
            }
            routed |= part.protocol == ROUTING;
            let rest = packet.get(part.end..).ok_or(Malformed::Truncated)?;
            let [next, len, ..] = *rest else { return Err(Malformed::Truncated) };
            part.protocol_at = part.end;
            part.protocol = next;
            part.end += UNIT + UNIT * usize::from(len);
            if part.end > packet.len() {
                return Err(Malformed::Truncated);
            }
        }
        Err(Malformed::Truncated)
    }
}

fn v4_header_len(packet: &[u8]) -> usize {
    packet.first().map_or(0, |first| usize::from(first & 15) * 4)
}

/// Gives IPv6 datagrams identifications that cannot be foretold.
///
/// **Source** — RFC 7739 §5.3: a keyed hash of a counter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identifications {
    key: (u64, u64),
    count: u64,
}

impl Identifications {
    /// A sequence that follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { key: (seed, seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15), count: 0 }
    }

    /// The next one, never 0.
    pub fn draw(&mut self) -> u32 {
        self.count += 1;
        let mut hash = SipHasher13::new_with_keys(self.key.0, self.key.1);
        hash.write_u64(self.count);
        (hash.finish() as u32).max(1)
    }
}

/// Fragments begin at multiples of this many bytes.
pub const UNIT: usize = 8;
const V4_HEADER: usize = 20;
const V4_OFFSET: u16 = 0x1fff;
const V4_MORE: u16 = 0x2000;
const V6_HEADER: usize = 40;
const V6_FRAGMENT_HEADER: usize = 8;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// As many as are walked when a packet is read.
const MOST_EXTENSIONS: usize = 8;
