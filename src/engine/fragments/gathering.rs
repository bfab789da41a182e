//! The fragments of one datagram.

use std::collections::BTreeMap;

use super::datagram::{DATAGRAM_HEADROOM, Datagram};
use crate::engine::verdict::DropReason;
use crate::packet::checksum::Sum;
use crate::packet::fragment::{Placement, UNIT};
use crate::packet::headers::set_word;

/// The fragments of one datagram that have come so far.
#[derive(Debug)]
pub struct Gathering {
    /// By where they begin. Fragments that follow one another without a gap, in this order, are
    /// one run.
    runs: BTreeMap<usize, Run>,
    first: Option<First>,
    /// Where the payload ends, as far as is known.
    end: usize,
    has_last: bool,
    /// Bytes of payload that have come.
    received: usize,
    longest: usize,
    longest_unfragmentable: usize,
    /// Which values of the ECN field occurred, one bit each.
    ecn: u8,
    /// Where the fragments begin and how long their payloads are, if that is to be kept.
    lengths: Option<Vec<(u16, u16)>>,
    cost_bytes: usize,
}

/// Consecutive payload.
#[derive(Debug)]
struct Run {
    bytes: Vec<u8>,
}

/// What is only in the first fragment.
#[derive(Debug)]
struct First {
    /// Everything in front of its payload.
    headers: Vec<u8>,
    place: Placement,
    payload_len: usize,
}

/// What became of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub enum Added {
    /// More are missing.
    Kept,
    /// It was the last one missing.
    Last,
    /// It does not count, but the others do.
    Useless(DropReason),
    /// The datagram is spoilt.
    Fatal(DropReason),
}

impl Gathering {
    /// No fragments yet.
    pub fn new(keep_lengths: bool) -> Self {
        Self {
            runs: BTreeMap::new(),
            first: None,
            end: 0,
            has_last: false,
            received: 0,
            longest: 0,
            longest_unfragmentable: 0,
            ecn: 0,
            lengths: keep_lengths.then(Vec::new),
            cost_bytes: 0,
        }
    }

    /// Whether no fragment has come.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Bytes of memory that the fragments take.
    pub fn cost_bytes(&self) -> usize {
        self.cost_bytes
    }

    /// Takes a fragment, of which `packet` is all.
    ///
    /// What contradicts the others spoils an IPv4 datagram, and is ignored over IPv6.
    pub fn add(&mut self, packet: &[u8], place: &Placement) -> Added {
        let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
        let bad = |reason| if is_v4 { Added::Fatal(reason) } else { Added::Useless(reason) };
        let Some(payload) = packet.get(place.payload..) else {
            return bad(DropReason::BadFragment);
        };
        // Fragments end where others begin. IPv4 forgives what is too much.
        let len = if place.more { payload.len() / UNIT * UNIT } else { payload.len() };
        let end = place.offset + len;
        let is_uneven = len != payload.len();
        if len == 0 || is_uneven && !is_v4 || end > most_payload(place) || !self.may_end(end, place)
        {
            return bad(DropReason::BadFragment);
        }
        let payload = &payload[..len];
        match self.insert(payload, place.offset) {
            Ok(cost) => self.cost_bytes += cost,
            Err(Misfit::Repeated) => return Added::Useless(DropReason::RepeatedFragment),
            Err(Misfit::Overlap) => return Added::Fatal(DropReason::OverlappingFragment),
        }
        self.note(packet, place, len);
        let is_whole = self.has_last && self.first.is_some() && self.received == self.end;
        if is_whole { Added::Last } else { Added::Kept }
    }

    /// The first fragment as it came.
    pub fn into_first(mut self) -> Option<Vec<u8>> {
        let First { mut headers, payload_len, .. } = self.first?;
        headers.extend_from_slice(&self.runs.remove(&0)?.bytes[..payload_len]);
        Some(headers)
    }

    /// Puts the whole datagram together, in place of what `datagram` was.
    ///
    /// **Errors** — the fragments cannot be of one datagram.
    pub fn assemble(self, datagram: &mut Datagram) -> Result<(), DropReason> {
        let ecn = joined_ecn(self.ecn).ok_or(DropReason::BadFragment)?;
        let First { headers, place, .. } = self.first.ok_or(DropReason::BadFragment)?;
        let storage = &mut datagram.storage;
        storage.clear();
        storage.resize(DATAGRAM_HEADROOM, 0);
        storage.extend_from_slice(&headers[..place.headers_end]);
        for run in self.runs.values() {
            storage.extend_from_slice(&run.bytes);
        }
        let packet = &mut storage[DATAGRAM_HEADROOM..];
        // Each fits with its own headers, yet the first one's may be longer.
        let longest = usize::from(u16::MAX) + if packet[0] >> 4 == 4 { 0 } else { V6_HEADER };
        if packet.len() > longest {
            return Err(DropReason::BadFragment);
        }
        if packet[0] >> 4 == 4 {
            // A fragment that must not be fragmented again, if it is as long as any.
            complete_v4(
                packet,
                place.headers_end,
                ecn,
                self.longest == self.longest_unfragmentable,
            );
        } else {
            complete_v6(packet, place.protocol, ecn);
        }
        datagram.longest = self.longest.min(usize::from(u16::MAX)) as u16;
        let mut lengths = self.lengths.unwrap_or_default();
        lengths.sort_unstable();
        datagram.lengths.clear();
        datagram.lengths.extend(lengths.into_iter().map(|(_, len)| len));
        Ok(())
    }

    /// Whether a fragment may end there, and if so takes note of it.
    fn may_end(&mut self, end: usize, place: &Placement) -> bool {
        if !place.more {
            let contradicts = end < self.end || self.has_last && end != self.end;
            if !contradicts {
                (self.end, self.has_last) = (end, true);
            }
            return !contradicts;
        }
        if end > self.end {
            if self.has_last {
                return false;
            }
            self.end = end;
        }
        true
    }

    /// Puts payload in its place; returns how much more memory that takes.
    ///
    /// What lies within one run is a repetition, whatever it says. **Source** — Linux
    /// `inet_frag_queue_insert`, and its recordings.
    fn insert(&mut self, payload: &[u8], offset: usize) -> Result<usize, Misfit> {
        let end = offset + payload.len();
        let tail = self.runs.last_entry();
        if let Some(mut tail) = tail {
            let tail_end = tail.key() + tail.get().bytes.len();
            if end > tail_end && offset == tail_end {
                return Ok(tail.get_mut().append(payload));
            }
            if let Some((start, run)) = self.runs.range(..end).next_back() {
                let run_end = start + run.bytes.len();
                if offset < run_end {
                    let within = offset >= *start && end <= run_end;
                    return Err(if within { Misfit::Repeated } else { Misfit::Overlap });
                }
            }
        }
        let mut run = Run { bytes: Vec::new() };
        let cost = RUN_COST_BYTES + run.append(payload);
        self.runs.insert(offset, run);
        Ok(cost)
    }

    fn note(&mut self, packet: &[u8], place: &Placement, len: usize) {
        self.received += len;
        self.ecn |= 1 << (traffic_class(packet) & ECN);
        let size = place.payload + len;
        self.longest = self.longest.max(size);
        if packet[0] >> 4 == 4 && packet[6] & DONT_FRAGMENT != 0 {
            self.longest_unfragmentable = self.longest_unfragmentable.max(size);
        }
        if place.offset == 0 {
            let headers = packet[..place.payload].to_vec();
            self.cost_bytes += headers.capacity();
            self.first = Some(First { headers, place: *place, payload_len: len });
        }
        if let Some(lengths) = &mut self.lengths {
            let before = lengths.capacity();
            lengths.push((place.offset as u16, len as u16));
            self.cost_bytes += (lengths.capacity() - before) * size_of::<(u16, u16)>();
        }
    }
}

impl Run {
    /// Adds payload; returns how much more memory that takes.
    fn append(&mut self, payload: &[u8]) -> usize {
        let before = self.bytes.capacity();
        self.bytes.extend_from_slice(payload);
        self.bytes.capacity() - before
    }
}

/// Why payload has no place.
enum Misfit {
    Repeated,
    Overlap,
}

/// The most payload that a datagram has whose headers are those of this fragment.
fn most_payload(place: &Placement) -> usize {
    let most = usize::from(u16::MAX);
    let has_fragment_header = place.payload != place.headers_end;
    if has_fragment_header {
        most - (place.headers_end - V6_HEADER)
    } else {
        most - place.headers_end
    }
}

fn traffic_class(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 { packet[1] } else { packet[0] << 4 | packet[1] >> 4 }
}

/// What is added to the first fragment's ECN field; `None` if the values do not go together.
///
/// **Source** — RFC 3168 §5.3.
fn joined_ecn(occurred: u8) -> Option<u8> {
    let has = |value: u8| occurred & 1 << value != 0;
    match (has(NOT_ECT), has(ECN)) {
        (true, _) if occurred != 1 << NOT_ECT => None,
        (_, true) => Some(ECN),
        _ => Some(0),
    }
}

fn complete_v4(packet: &mut [u8], header_len: usize, ecn: u8, dont_fragment: bool) {
    let len = packet.len();
    packet[1] |= ecn;
    set_word(packet, 2, len as u16);
    set_word(packet, 6, if dont_fragment { u16::from(DONT_FRAGMENT) << 8 } else { 0 });
    set_word(packet, 10, 0);
    let checksum = Sum::of(&packet[..header_len]).checksum();
    set_word(packet, 10, checksum);
}

fn complete_v6(packet: &mut [u8], (protocol_at, protocol): (usize, u8), ecn: u8) {
    let len = packet.len() - V6_HEADER;
    packet[1] |= ecn << 4;
    set_word(packet, 4, len as u16);
    packet[protocol_at] = protocol;
}

const V6_HEADER: usize = 40;
/// The bits of the traffic class that are for congestion; all of them set are "experienced".
const ECN: u8 = 3;
const NOT_ECT: u8 = 0;
/// In the first byte behind the identification.
const DONT_FRAGMENT: u8 = 0x40;
/// What a run costs beside its bytes.
const RUN_COST_BYTES: usize = 96;
