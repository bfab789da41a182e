//! Cutting a packet into fragments.

use super::{
    FRAGMENT, Placement, UNIT, Unfragmentable, V4_HEADER, V4_MORE, V4_OFFSET, V6_FRAGMENT_HEADER,
    V6_HEADER, v4_header_len,
};
use crate::packet::checksum::Sum;
use crate::packet::headers::{Malformed, set_word, word};
use crate::packet::segment::{Cut, Uncuttable};
use crate::packet::{PacketBuf, SegmentKind};

/// How a packet is cut.
#[derive(Clone, Copy, Debug)]
pub struct Cutting<'a> {
    /// The longest fragment, in bytes from its IP header on.
    pub limit: usize,
    /// The lengths of the fragments' payloads, if they fit the packet and the limit; else they are
    /// as long as the limit allows.
    pub lengths: &'a [u16],
    /// The identification of an IPv6 datagram. IPv4 has one in its header.
    pub id: u32,
    /// Bytes free in front of each fragment.
    pub headroom: usize,
}

impl Cutting<'static> {
    /// How a packet is cut for a link that takes `mtu` bytes: into fragments no longer than those
    /// it came in, or than its sender asks for.
    pub fn for_link(packet: &PacketBuf<'_>, mtu: usize, id: u32, headroom: usize) -> Self {
        let size = usize::from(packet.offload.segmentation.size_bytes);
        let limit = match packet.offload.segmentation.kind {
            SegmentKind::Fragments => size.min(mtu),
            SegmentKind::UdpFragments => (header_room(packet.bytes()) + size).min(mtu),
            SegmentKind::None | SegmentKind::TcpV4 | SegmentKind::TcpV6 | SegmentKind::UdpL4 => mtu,
        };
        Self { limit, lengths: &[], id, headroom }
    }
}

/// What every fragment of a packet has beside its payload.
fn header_room(packet: &[u8]) -> usize {
    match packet.first().map_or(0, |first| first >> 4) {
        4 => v4_header_len(packet),
        _ => {
            Unfragmentable::of(packet, true).map_or(V6_HEADER, |part| part.end) + V6_FRAGMENT_HEADER
        }
    }
}

/// The fragments of one packet, in memory that is used again for the next.
///
/// **Shape** — fragments lie one behind the other, each with its headroom in front.
#[derive(Debug, Default)]
pub struct Fragments {
    storage: Vec<u8>,
    /// Where each ends in the storage.
    ends: Vec<usize>,
    headroom: usize,
}

impl Fragments {
    /// Cuts the packet, whose checksums are complete, in place of what was there.
    ///
    /// The first fragment of an IPv4 packet has all of its options; the others have those that are
    /// to be copied, and padding for the rest. All are marked "don't fragment" if the packet is.
    ///
    /// **Errors** — there are no fragments; the limit leaves no room for eight bytes of payload, or
    /// the packet is malformed.
    ///
    /// **Source** — RFC 791 §3.2, RFC 8200 §4.5; padding and "don't fragment" as Linux has them.
    pub fn cut(&mut self, packet: &[u8], cutting: &Cutting<'_>) -> Result<(), Uncuttable> {
        self.storage.clear();
        self.ends.clear();
        self.headroom = cutting.headroom;
        match packet.first().ok_or(Malformed::Truncated)? >> 4 {
            4 => self.cut_v4(packet, cutting),
            6 => self.cut_v6(packet, cutting),
            _ => Err(Malformed::Version.into()),
        }
    }

    /// Takes a packet that need not be cut, as the only piece.
    pub fn keep(&mut self, packet: &[u8], headroom: usize) {
        self.storage.clear();
        self.ends.clear();
        self.headroom = headroom;
        self.add(&[packet]);
    }

    /// Takes the segments of a super-frame, none of which need be cut.
    pub fn segment(&mut self, packet: &PacketBuf<'_>, cut: &Cut, headroom: usize) {
        self.storage.clear();
        self.ends.clear();
        self.headroom = headroom;
        for number in 0..cut.count() {
            self.storage.resize(self.storage.len() + headroom, 0);
            cut.append(number, packet, &mut self.storage);
            self.ends.push(self.storage.len());
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The fragments in order.
    pub fn packets(&mut self) -> impl Iterator<Item = PacketBuf<'_>> {
        let (mut rest, mut taken, headroom) = (self.storage.as_mut_slice(), 0, self.headroom);
        self.ends.iter().map(move |end| {
            let (piece, following) = std::mem::take(&mut rest).split_at_mut(end - taken);
            rest = following;
            taken = *end;
            let len = piece.len();
            PacketBuf::new(piece, headroom, len)
        })
    }

    fn cut_v4(&mut self, packet: &[u8], cutting: &Cutting<'_>) -> Result<(), Uncuttable> {
        let placed = Placement::read_v4(packet)?;
        let end = usize::from(word(packet, 2));
        let payload = packet.get(placed.payload..end).ok_or(Malformed::Truncated)?;
        let lengths = &encapsulated(cutting.lengths, payload.len());
        let cutting = &Cutting { lengths, ..*cutting };
        let flags = word(packet, 6) & V4_DONT_FRAGMENT;
        let mut header = [0; V4_LONGEST_HEADER];
        let header = &mut header[..placed.headers_end];
        header.copy_from_slice(&packet[..placed.headers_end]);
        for (offset, part) in parts(payload, cutting, header.len())? {
            let more = placed.more || offset + part.len() < payload.len();
            let at = (placed.offset + offset) / UNIT;
            if at > usize::from(V4_OFFSET) {
                return Err(Malformed::Truncated.into());
            }
            set_word(header, 2, (header.len() + part.len()) as u16);
            set_word(header, 6, flags | if more { V4_MORE } else { 0 } | at as u16);
            set_word(header, 10, 0);
            let checksum = Sum::of(header).checksum();
            set_word(header, 10, checksum);
            self.add(&[header, part]);
            if offset == 0 {
                pad_options(&mut header[V4_HEADER..]);
            }
        }
        Ok(())
    }

    fn cut_v6(&mut self, packet: &[u8], cutting: &Cutting<'_>) -> Result<(), Uncuttable> {
        let part = Unfragmentable::of(packet, true)?;
        if part.protocol == FRAGMENT {
            return Err(Uncuttable::Contradiction);
        }
        let end = V6_HEADER + usize::from(word(packet, 4));
        let payload = packet.get(part.end..end).ok_or(Malformed::Truncated)?;
        let lengths = &encapsulated(cutting.lengths, payload.len());
        let cutting = &Cutting { lengths, ..*cutting };
        let mut headers = packet[..part.end].to_vec();
        headers[part.protocol_at] = FRAGMENT;
        let room = part.end + V6_FRAGMENT_HEADER;
        for (offset, piece) in parts(payload, cutting, room)? {
            let more = offset + piece.len() < payload.len();
            let mut header = [0; V6_FRAGMENT_HEADER];
            header[0] = part.protocol;
            set_word(&mut header, 2, offset as u16 | u16::from(more));
            header[4..].copy_from_slice(&cutting.id.to_be_bytes());
            set_word(&mut headers, 4, (room - V6_HEADER + piece.len()) as u16);
            self.add(&[&headers, &header, piece]);
        }
        Ok(())
    }

    fn add(&mut self, parts: &[&[u8]]) {
        self.storage.resize(self.storage.len() + self.headroom, 0);
        parts.iter().for_each(|part| self.storage.extend_from_slice(part));
        self.ends.push(self.storage.len());
    }
}

/// The lengths of fragments whose datagram has become part of a payload of `len` bytes: what was put
/// in front of it goes with the first.
///
/// **Source** — Linux `ip6_fragment` and `ip_do_fragment`, which send the buffers that a datagram came
/// in.
fn encapsulated(lengths: &[u16], len: usize) -> Vec<u16> {
    let mut lengths = lengths.to_vec();
    let before: usize = lengths.iter().map(|len| usize::from(*len)).sum();
    if let (Some(first), Some(growth)) = (lengths.first_mut(), len.checked_sub(before)) {
        *first = first.saturating_add(growth.try_into().unwrap_or(u16::MAX));
    }
    lengths
}

/// The payload in parts with their offsets; headers of `room` bytes come in front of each.
fn parts<'a>(
    payload: &'a [u8],
    cutting: &Cutting<'a>,
    room: usize,
) -> Result<impl Iterator<Item = (usize, &'a [u8])>, Uncuttable> {
    let most = cutting.limit.saturating_sub(room);
    let regular = most / UNIT * UNIT;
    if regular == 0 {
        return Err(Uncuttable::Limit);
    }
    let lengths = if fit(cutting.lengths, payload.len(), most) { cutting.lengths } else { &[] };
    let lengths = lengths.iter().map(|len| usize::from(*len)).chain(std::iter::repeat(regular));
    Ok(lengths.scan(0, |offset, len| {
        let start = *offset;
        *offset = (start + len).min(payload.len());
        (start < payload.len()).then(|| (start, &payload[start..*offset]))
    }))
}

/// Whether fragments of these lengths make up a payload of `len` bytes, none longer than `most`.
fn fit(lengths: &[u16], len: usize, most: usize) -> bool {
    let mut all = lengths.iter().map(|len| usize::from(*len));
    let regular = lengths.split_last().is_none_or(|(_, first)| {
        first.iter().all(|len| *len != 0 && usize::from(*len).is_multiple_of(UNIT))
    });
    regular && all.clone().sum::<usize>() == len && all.all(|each| each <= most)
}

/// Overwrites the options of IPv4 that are in the first fragment only. What is malformed is passed
/// on as it is.
fn pad_options(options: &mut [u8]) {
    let mut at = 0;
    while at < options.len() && options[at] != OPTION_END {
        let len = match (options[at], options.get(at + 1)) {
            (OPTION_PADDING, _) => 1,
            (_, Some(len)) if *len >= 2 => usize::from(*len),
            _ => return,
        };
        let Some(option) = options.get_mut(at..at + len) else { return };
        if option[0] & OPTION_COPIED == 0 {
            option.fill(OPTION_PADDING);
        }
        at += len;
    }
}

const V4_LONGEST_HEADER: usize = 60;
pub(super) const V4_DONT_FRAGMENT: u16 = 0x4000;
const OPTION_END: u8 = 0;
const OPTION_PADDING: u8 = 1;
/// The flag of options that every fragment has.
const OPTION_COPIED: u8 = 0x80;
