//! Sequence numbers of a stream in which a payload changed its length on the way.

use std::ops::Range;

use crate::packet::checksum::{Sum, updated};
use crate::packet::headers::{protocol, set_word, word};
use crate::packet::options::{self, kind};
use crate::packet::{Family, Headers, PacketBuf};

/// How far one direction of a TCP connection is shifted.
///
/// What lies before the latest change is shifted as it was before, so that segments sent again keep
/// their numbers.
///
/// **Source** — IPVS `struct ip_vs_seq`; RFC 9293 §3.4 for the arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shift {
    /// The number of the first byte of the segment that changed last.
    changed_at: u32,
    /// How far the sender has been acknowledged by whoever has part of what was added.
    floor: u32,
    before: u32,
    after: u32,
}

impl Shift {
    /// Notes that the segment that begins with number `sequence` grew by `change` bytes.
    ///
    /// The same segment sent again changes nothing.
    pub fn resize(&mut self, sequence: u32, change: i32) {
        if self.is_anything() && !is_after(sequence, self.changed_at) {
            return;
        }
        *self = Self {
            changed_at: sequence,
            floor: sequence,
            before: self.after,
            after: self.after.wrapping_add_signed(change),
        };
    }

    /// Shifts all numbers alike.
    pub fn all(by: u32) -> Self {
        Self { before: by, after: by, ..Self::default() }
    }

    /// Notes that `count` bytes are put in front of the byte with number `sequence`, in the place of
    /// all changes before.
    pub fn insert(&mut self, sequence: u32, count: u32) {
        *self = Self {
            changed_at: sequence.wrapping_sub(1),
            floor: sequence,
            before: self.before,
            after: self.before.wrapping_add(count),
        };
    }

    /// Shifts also what lies before the latest change as what lies behind it: nobody asks for it
    /// any more. Numbers wrap around, and a gigabyte later it could not be told apart.
    pub fn settle(&mut self) {
        self.before = self.after;
    }

    /// Whether any number changes.
    pub fn is_anything(&self) -> bool {
        self.before != 0 || self.after != 0
    }

    /// What a sequence number of the sender becomes.
    pub fn sequence(&self, number: u32) -> u32 {
        let shift = if is_after(number, self.changed_at) { self.after } else { self.before };
        number.wrapping_add(shift)
    }

    /// What the receiver's acknowledgement was before the shift. Of what was added no part is the
    /// sender's.
    pub fn acknowledgement(&self, number: u32) -> u32 {
        let unchanged = number.wrapping_sub(self.before);
        if self.before == self.after || !is_after(unchanged, self.changed_at) {
            return unchanged;
        }
        let changed = number.wrapping_sub(self.after);
        if is_after(changed, self.changed_at) { changed } else { self.floor }
    }

    /// Shifts the sequence number of a segment of the sender.
    pub fn shift_sequence(&self, packet: &mut PacketBuf<'_>, headers: &Headers) {
        if self.is_anything() {
            let mut segment = Segment::new(packet, headers);
            segment.change(SEQUENCE_AT, |number| self.sequence(number));
        }
    }

    /// Shifts the acknowledgement and the selective ones of a segment of the receiver.
    ///
    /// **Source** — RFC 2018 §3 for the option.
    pub fn shift_acknowledgements(&self, packet: &mut PacketBuf<'_>, headers: &Headers) {
        if !self.is_anything() {
            return;
        }
        let mut segment = Segment::new(packet, headers);
        if segment.bytes[FLAGS_AT] & ACK != 0 {
            segment.change(ACKNOWLEDGEMENT_AT, |number| self.acknowledgement(number));
        }
        if let Some(blocks) = segment.selective() {
            for at in blocks.clone().step_by(4) {
                segment.change(at, |number| self.acknowledgement(number));
            }
            segment.drop_empty(blocks);
        }
    }
}

const SEQUENCE_AT: usize = 4;
const ACKNOWLEDGEMENT_AT: usize = 8;
const FLAGS_AT: usize = 13;
const CHECKSUM_AT: usize = 16;
const ACK: u8 = 0x10;
/// Bytes of a block of a selective acknowledgement.
const BLOCK: usize = 8;

/// Whether `number` comes after `other`, as the numbers wrap around.
fn is_after(number: u32, other: u32) -> bool {
    (other.wrapping_sub(number) as i32) < 0
}

/// The bytes of a TCP segment, with its checksum kept up.
struct Segment<'a> {
    bytes: &'a mut [u8],
    is_unfinished: bool,
}

impl<'a> Segment<'a> {
    fn new(packet: &'a mut PacketBuf<'_>, headers: &Headers) -> Self {
        debug_assert_eq!(headers.protocol, protocol::TCP);
        // An unfinished checksum covers the pseudo-header only, which does not change.
        let is_unfinished = packet.unfinished_checksum().is_some();
        Self { bytes: &mut packet.bytes_mut()[headers.transport..headers.len], is_unfinished }
    }

    fn change(&mut self, at: usize, new: impl Fn(u32) -> u32) {
        let Some(field) = self.bytes.get_mut(at..at + 4) else { return };
        let old = Sum::of(field);
        let number = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
        field.copy_from_slice(&new(number).to_be_bytes());
        if !self.is_unfinished {
            // Options may lie at odd places, where the bytes of a word change sides.
            let change = old.negated().plus(Sum::of(&self.bytes[at..at + 4]));
            let change = if at.is_multiple_of(2) { change } else { change.swapped() };
            let checksum = updated(word(self.bytes, CHECKSUM_AT), change);
            set_word(self.bytes, CHECKSUM_AT, checksum);
        }
    }

    /// Where the edges of selective acknowledgements stand.
    fn selective(&self) -> Option<Range<usize>> {
        let found = options::find(self.bytes, kind::SELECTIVE_ACK)?;
        Some(found.at + 2..found.at + 2 + (found.len - 2) / BLOCK * BLOCK)
    }

    /// Takes out blocks of selective acknowledgements that spoke only of what was added and so are
    /// empty now.
    fn drop_empty(&mut self, blocks: Range<usize>) {
        let is_empty = |block: &[u8]| block[..BLOCK / 2] == block[BLOCK / 2..];
        if !self.bytes[blocks.clone()].chunks_exact(BLOCK).any(is_empty) {
            return;
        }
        let len = options::header_len(self.bytes).unwrap_or(blocks.end);
        let old = Sum::of(&self.bytes[..len]);
        let mut kept = blocks.start;
        for at in blocks.clone().step_by(BLOCK) {
            if !is_empty(&self.bytes[at..at + BLOCK]) {
                self.bytes.copy_within(at..at + BLOCK, kept);
                kept += BLOCK;
            }
        }
        if kept == blocks.start {
            kept -= 2;
        } else {
            self.bytes[blocks.start - 1] = (kept - blocks.start + 2) as u8;
        }
        self.bytes[kept..blocks.end].fill(kind::NOTHING);
        if !self.is_unfinished {
            let change = old.negated().plus(Sum::of(&self.bytes[..len]));
            let checksum = updated(word(self.bytes, CHECKSUM_AT), change);
            set_word(self.bytes, CHECKSUM_AT, checksum);
        }
    }
}

/// Puts `new` in the place of `old`, a range of bytes of the packet, and mends lengths and checksum.
///
/// Returns what the headers say of the packet then; `None` and unchanged if there is no room.
pub fn replace(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    old: Range<usize>,
    new: &[u8],
) -> Option<Headers> {
    let len = headers.len - old.len() + new.len();
    let (most, tail) = (usize::from(u16::MAX), headers.len - old.end);
    if len > most || !packet.resize(len.max(headers.len)) {
        return None;
    }
    let is_unfinished = packet.unfinished_checksum().is_some();
    let bytes = packet.bytes_mut();
    bytes.copy_within(old.end..headers.len, old.start + new.len());
    bytes[old.start..old.start + new.len()].copy_from_slice(new);
    debug_assert_eq!(old.start + new.len() + tail, len);
    let _shrunk = packet.resize(len);
    let after = Headers { len, ..*headers };
    write_len(packet.bytes_mut(), &after);
    write_checksum(packet.bytes_mut(), &after, is_unfinished);
    Some(after)
}

/// Writes the length of an IP packet, as `headers` say.
pub fn write_len(bytes: &mut [u8], headers: &Headers) {
    match headers.family {
        Family::V4 => {
            let old = word(bytes, 2);
            set_word(bytes, 2, headers.len as u16);
            let change = Sum::default().minus_word(old).plus_word(headers.len as u16);
            let checksum = updated(word(bytes, 10), change);
            set_word(bytes, 10, checksum);
        }
        Family::V6 => set_word(bytes, 4, (headers.len - 40) as u16),
    }
}

fn write_checksum(bytes: &mut [u8], headers: &Headers, is_unfinished: bool) {
    let (source, destination) = (headers.source.addr, headers.destination.addr);
    let pseudo = Sum::pseudo_header(source, destination, protocol::TCP, headers.transport_len());
    let at = headers.transport + CHECKSUM_AT;
    let checksum = if is_unfinished {
        pseudo.folded()
    } else {
        set_word(bytes, at, 0);
        pseudo.plus(Sum::of(&bytes[headers.transport..headers.len])).checksum()
    };
    set_word(bytes, at, checksum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{PacketBuilder, TcpOptionElement};
    use proptest::prelude::*;

    fn segment(seq: u32, ack: u32, options: &[TcpOptionElement], payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([192, 0, 2, 9], [192, 0, 2, 1], 64)
            .tcp(1000, 21, seq, 9)
            .ack(ack)
            .options(options)
            .unwrap()
            .write(&mut bytes, payload)
            .unwrap();
        bytes
    }

    /// Whether all checksums are right.
    fn is_sound(bytes: &[u8]) -> bool {
        let headers = Headers::parse(bytes).unwrap();
        let (from, to) = (headers.source.addr, headers.destination.addr);
        let pseudo = Sum::pseudo_header(from, to, protocol::TCP, headers.transport_len());
        pseudo.plus(Sum::of(&bytes[headers.transport..headers.len])).folded() == 0xffff
    }

    #[test]
    fn numbers_behind_the_change_are_shifted_and_back_again() {
        let mut shift = Shift::default();
        shift.resize(5001, -7);
        assert_eq!((shift.sequence(5001), shift.sequence(5051)), (5001, 5044));
        assert_eq!((shift.acknowledgement(5001), shift.acknowledgement(5044)), (5001, 5051));
        // The same segment once more.
        shift.resize(5001, -7);
        assert_eq!(shift.sequence(5051), 5044);
        shift.resize(5051, 4);
        assert_eq!((shift.sequence(5051), shift.sequence(5100)), (5044, 5097));
    }

    #[test]
    fn numbers_wrap_around() {
        let mut shift = Shift::default();
        shift.resize(u32::MAX - 3, 9);
        assert_eq!(shift.sequence(6), 15);
        assert_eq!(shift.acknowledgement(15), 6);
        assert_eq!(shift.sequence(u32::MAX - 3), u32::MAX - 3);
    }

    #[test]
    fn selective_acknowledgements_are_shifted() {
        let mut shift = Shift::default();
        shift.resize(1000, 10);
        for padding in 0..3 {
            let mut options = vec![TcpOptionElement::Noop; padding];
            options.push(TcpOptionElement::SelectiveAcknowledgement((2010, 3010), [None; 3]));
            let mut bytes = segment(7, 1010, &options, b"");
            let headers = Headers::parse(&bytes).unwrap();
            let end = bytes.len();
            let mut packet = PacketBuf::new(&mut bytes, 0, end);
            shift.shift_acknowledgements(&mut packet, &headers);
            let mut plain = vec![TcpOptionElement::Noop; padding];
            plain.push(TcpOptionElement::SelectiveAcknowledgement((2000, 3000), [None; 3]));
            assert_eq!(packet.bytes(), segment(7, 1000, &plain, b""));
        }
    }

    #[test]
    fn what_was_put_in_front_is_nobodys() {
        for first in [1000, u32::MAX - 10, 0, 5] {
            let at = |offset: i32| u32::wrapping_add_signed(first, offset);
            let mut shift = Shift::default();
            shift.insert(first, 28);
            assert_eq!([at(-1), first].map(|each| shift.sequence(each)), [at(-1), at(28)]);
            let acknowledged = [-5, 0, 27, 28, 29].map(|offset| shift.acknowledgement(at(offset)));
            assert_eq!(acknowledged, [at(-5), first, first, first, at(1)]);
            shift.settle();
            assert_eq!(shift.sequence(at(-1)), at(27));
            assert_eq!(shift.acknowledgement(at(i32::MIN)), at(i32::MIN).wrapping_sub(28));
        }
    }

    #[test]
    fn blocks_that_speak_of_what_was_added_only_are_taken_out() {
        use TcpOptionElement::{Noop, SelectiveAcknowledgement as Sack};
        let mut shift = Shift::default();
        shift.insert(100, 28);
        let shifted = |options: &[TcpOptionElement]| {
            let mut bytes = segment(7, 128, options, b"");
            let headers = Headers::parse(&bytes).unwrap();
            let end = bytes.len();
            shift.shift_acknowledgements(&mut PacketBuf::new(&mut bytes, 0, end), &headers);
            assert!(is_sound(&bytes));
            bytes
        };
        let bytes = shifted(&[Sack((100, 128), [Some((428, 528)), None, None])]);
        let kept = [Sack((400, 500), [None; 3])].into_iter().chain([const { Noop }; 8]);
        assert_eq!(bytes, segment(7, 100, &kept.collect::<Vec<_>>(), b""));
        assert_eq!(
            shifted(&[Sack((100, 128), [None; 3])]),
            segment(7, 100, &[const { Noop }; 10], b"")
        );
    }

    proptest! {
        /// A stream into which bytes are put at one place: whatever is cut and acknowledged is the
        /// same stream on both sides.
        #[test]
        fn both_sides_agree_on_the_stream(
            start in any::<u32>(),
            (base, added) in (any::<u32>(), 0u32..2000),
            at in 0u32..5000,
            (from, len) in (0u32..10_000, 0u32..3000),
        ) {
            let mut shift = Shift::all(base);
            shift.insert(start.wrapping_add(at), added);
            let sent = start.wrapping_add(from);
            let by_receiver = |from, is_before| {
                base.wrapping_add(start).wrapping_add(from).wrapping_add(if is_before { 0 } else { added })
            };
            prop_assert_eq!(shift.sequence(sent), by_receiver(from, from < at));
            // Everything up to a place is acknowledged: the sender hears of that place.
            let acknowledged = by_receiver(from + len, from + len <= at);
            prop_assert_eq!(shift.acknowledgement(acknowledged), sent.wrapping_add(len));
        }

        #[test]
        fn a_replaced_payload_equals_one_built_anew(
            head in "[a-z]{0,9}", old in "[a-z]{1,9}", new in "[0-9]{0,15}", tail in "[a-z]{0,9}",
        ) {
            let mut storage = segment(1, 2, &[], format!("{head}{old}{tail}").as_bytes());
            let headers = Headers::parse(&storage).unwrap();
            let len = storage.len();
            storage.extend([0; 16]);
            let mut packet = PacketBuf::new(&mut storage, 0, len);
            let at = headers.transport + options::FIXED_LEN + head.len();
            let after = replace(&mut packet, &headers, at..at + old.len(), new.as_bytes()).unwrap();
            let wanted = segment(1, 2, &[], format!("{head}{new}{tail}").as_bytes());
            prop_assert_eq!(packet.bytes(), &wanted[..]);
            prop_assert_eq!(Headers::parse(packet.bytes()).unwrap(), after);
        }

        #[test]
        fn no_segment_panics_and_checksums_stay_right(
            seq in any::<u32>(),
            ack in any::<u32>(),
            change in -40i32..40,
            options in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut bytes = Vec::new();
            let words = options.len() / 4 * 4;
            let tcp = PacketBuilder::ipv4([192, 0, 2, 9], [192, 0, 2, 1], 64).tcp(1, 2, seq, 9);
            tcp.ack(ack).options_raw(&options[..words]).unwrap().write(&mut bytes, b"x").unwrap();
            let headers = Headers::parse(&bytes).unwrap();
            let end = bytes.len();
            let mut packet = PacketBuf::new(&mut bytes, 0, end);
            let mut shift = Shift::default();
            shift.resize(1000, change);
            shift.shift_sequence(&mut packet, &headers);
            shift.shift_acknowledgements(&mut packet, &headers);
            prop_assert!(is_sound(packet.bytes()));
        }
    }
}
