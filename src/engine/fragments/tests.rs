use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::packet::checksum::Sum;
use crate::packet::fragment::{Cutting, Fragments, UNIT};
use crate::packet::headers::set_word;
use crate::packet::{Malformed, PacketBuf, SegmentKind};

const START: Moment = Moment::from_ms(1000);
const LIMIT: usize = 1 << 20;

fn bench() -> Reassembly {
    Reassembly::new(LIMIT)
}

fn after(ms: u64) -> Moment {
    Moment::from_ms(START.as_ms() + ms)
}

/// A UDP datagram of this many bytes of payload.
fn datagram(v6: bool, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|at| (at * 31 / 7) as u8).collect();
    let ip = match v6 {
        false => PacketBuilder::ipv4([192, 0, 2, 9], [192, 0, 2, 1], 64),
        true => PacketBuilder::ipv6([0x20; 16], [0x21; 16], 64),
    };
    let mut bytes = Vec::new();
    ip.udp(1000, 53).write(&mut bytes, &payload).unwrap();
    if !v6 {
        set_word(&mut bytes, 6, 0);
        mend(&mut bytes);
    }
    bytes
}

fn mend(bytes: &mut [u8]) {
    let header_len = usize::from(bytes[0] & 15) * 4;
    set_word(bytes, 10, 0);
    let checksum = Sum::of(&bytes[..header_len]).checksum();
    set_word(bytes, 10, checksum);
}

fn cut(packet: &[u8], limit: usize, lengths: &[u16]) -> Vec<Vec<u8>> {
    let mut fragments = Fragments::default();
    fragments.cut(packet, &Cutting { limit, lengths, id: 7, headroom: 0 }).unwrap();
    fragments.packets().map(|piece| piece.bytes().to_vec()).collect()
}

fn add(bench: &mut Reassembly, fragment: &[u8], now: Moment) -> Gathered {
    let headers = Headers::parse(fragment).unwrap();
    bench.add(fragment, &headers, true, now)
}

/// Adds fragments of which only the last may make a datagram whole, and returns that.
fn add_all<'a>(
    bench: &mut Reassembly,
    fragments: impl IntoIterator<Item = &'a Vec<u8>>,
) -> Option<Datagram> {
    let mut whole = None;
    for fragment in fragments {
        assert!(whole.is_none(), "it was whole before");
        if let Gathered::Whole(datagram) = add(bench, fragment, START) {
            whole = Some(datagram);
        }
    }
    whole
}

fn refused(gathered: Gathered) -> Option<DropReason> {
    match gathered {
        Gathered::Refused(reason) => Some(reason),
        Gathered::Held | Gathered::Whole(_) => None,
    }
}

/// A fragment of an IPv4 datagram, from the end of a network.
fn piece(from: u32, id: u16, offset: usize, len: usize, more: bool) -> Vec<u8> {
    let mut bytes = vec![0; 20 + len];
    bytes[0] = 0x45;
    set_word(&mut bytes, 2, 20 + len as u16);
    set_word(&mut bytes, 4, id);
    set_word(&mut bytes, 6, (offset / UNIT) as u16 | if more { 0x2000 } else { 0 });
    bytes[8] = 64;
    bytes[9] = 99;
    bytes[12..16].copy_from_slice(&from.to_be_bytes());
    bytes[16..20].copy_from_slice(&[192, 0, 2, 1]);
    for (at, byte) in bytes[20..].iter_mut().enumerate() {
        *byte = content(offset + at);
    }
    mend(&mut bytes);
    bytes
}

fn content(at: usize) -> u8 {
    (at * 13 / 5) as u8
}

/// That all tables tell of the same datagrams, and their memory adds up.
fn check(bench: &Reassembly) {
    let count = bench.waiting.len();
    assert_eq!(bench.by_age.iter().map(BTreeMap::len).sum::<usize>(), count);
    assert_eq!(bench.by_source.len(), count);
    assert_eq!(bench.sources.values().map(|source| source.datagrams).sum::<usize>(), count);
    let cost: usize = bench.waiting.values().map(|waiting| waiting.cost_bytes).sum();
    assert_eq!(bench.used_bytes, cost);
    assert_eq!(bench.sources.values().map(|source| source.cost_bytes).sum::<usize>(), cost);
    assert!(bench.sources.values().all(|source| source.datagrams > 0));
    assert!(bench.used_bytes <= LIMIT || count == 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn fragments_in_any_order_and_twice_make_the_same_packet(
        v6 in any::<bool>(), len in 100usize..60_000, limit in 100usize..2000,
        order in any::<u64>(), keep in any::<bool>(),
    ) {
        let packet = datagram(v6, len);
        prop_assume!(packet.len() > limit);
        let fragments = cut(&packet, limit, &[]);
        let mut order = SeededOrder(order);
        let mut dealt: Vec<&Vec<u8>> = fragments.iter().collect();
        order.shuffle(&mut dealt);
        // Repetitions of what has come before, and still incomplete.
        for at in (1..dealt.len()).rev().step_by(3) {
            let earlier = dealt[order.below(at)];
            dealt.insert(at, earlier);
        }
        let mut bench = bench();
        let mut whole = None;
        for fragment in dealt {
            let headers = Headers::parse(fragment).unwrap();
            match bench.add(fragment, &headers, keep, START) {
                Gathered::Held => {}
                Gathered::Whole(datagram) => whole = Some(datagram),
                Gathered::Refused(reason) => prop_assert_eq!(reason, DropReason::RepeatedFragment),
            }
            check(&bench);
        }
        let mut whole = whole.expect("all fragments have come");
        prop_assert_eq!(whole.bytes(), &packet[..]);
        prop_assert!(bench.is_empty() && bench.sources.is_empty() && bench.used_bytes == 0);
        let (packet, lengths) = whole.parts();
        let again = cut(packet.bytes(), usize::from(packet.offload.segmentation.size_bytes), lengths);
        prop_assert_eq!(again, fragments);
    }

    #[test]
    fn whatever_comes_memory_is_bounded_and_every_byte_in_its_place(
        pieces in prop::collection::vec(
            (0u32..6, 0u16..4, 0usize..40, 0usize..100, any::<bool>(), any::<bool>()), 0..300),
        wait_ms in 0u64..500,
    ) {
        let mut bench = bench();
        for (at, (from, id, offset, len, more, aligned)) in pieces.into_iter().enumerate() {
            let len = if aligned { len / UNIT * UNIT } else { len };
            let fragment = piece(from, id, offset * UNIT, len, more);
            let now = after(at as u64 * wait_ms);
            if let Gathered::Whole(datagram) = add(&mut bench, &fragment, now) {
                let payload = &datagram.bytes()[20..];
                prop_assert!(payload.iter().enumerate().all(|(at, byte)| *byte == content(at)));
                bench.recycle(datagram);
            }
            while bench.expire(now).is_some() {}
            check(&bench);
        }
        while bench.expire(after(1 << 30)).is_some() {}
        prop_assert!(bench.is_empty() && bench.sources.is_empty() && bench.used_bytes == 0);
    }

    #[test]
    fn no_bytes_panic(
        all in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
        v6 in any::<bool>(),
    ) {
        let mut bench = bench();
        for mut bytes in all {
            // Plausible enough to be taken for fragments with a few identifications.
            if v6 && bytes.len() > 48 {
                let len = bytes.len() as u16 - 40;
                set_word(&mut bytes, 4, len);
                (bytes[0], bytes[6]) = (0x60, 44);
                let network = bytes[8] & 1;
                bytes[8..40].fill(network);
                bytes[44..48].fill(0);
                bytes[42] &= 1;
            } else if bytes.len() > 20 {
                let len = bytes.len() as u16;
                set_word(&mut bytes, 2, len);
                set_word(&mut bytes, 4, 1);
                (bytes[0], bytes[6], bytes[9]) = (0x45 | bytes[0] & 7, bytes[6] & 0x60, 17);
                bytes[12..20].fill(7);
                if usize::from(bytes[0] & 15) * 4 <= bytes.len() {
                    mend(&mut bytes);
                }
            }
            if let Ok(headers) = Headers::parse(&bytes)
                && let Gathered::Whole(mut datagram) = bench.add(&bytes, &headers, true, START)
            {
                let whole = Headers::parse(datagram.bytes()).map(|whole| whole.len);
                let damaged = Err(Malformed::Transport);
                prop_assert!(whole == damaged || whole == Ok(datagram.bytes().len()));
                let _ = datagram.parts();
            }
            check(&bench);
        }
    }
}

/// A sequence of choices that follows from a number.
struct SeededOrder(u64);

impl SeededOrder {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % bound
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

#[test]
fn a_datagram_remembers_how_it_came() {
    let packet = datagram(false, 82);
    let fragments = cut(&packet, 1500, &[48, 16, 26]);
    let mut whole = add_all(&mut bench(), [&fragments[2], &fragments[0], &fragments[1]]).unwrap();
    let (packet, lengths) = whole.parts();
    assert_eq!(lengths, [48, 16, 26]);
    assert_eq!(packet.offload.segmentation.kind, SegmentKind::Fragments);
    assert_eq!(packet.offload.segmentation.size_bytes, 68);
    assert!(packet.headroom() >= DATAGRAM_HEADROOM);
}

#[test]
fn the_first_fragments_headers_count_and_congestion_of_any() {
    let packet = datagram(false, 82);
    let mut fragments = cut(&packet, 68, &[]);
    (fragments[0][1], fragments[0][8]) = (0x2e, 33);
    (fragments[1][1], fragments[1][8]) = (0x47, 44);
    fragments.iter_mut().for_each(|fragment| mend(fragment));
    let whole = add_all(&mut bench(), fragments.iter().rev()).unwrap();
    assert_eq!((whole.bytes()[1], whole.bytes()[8]), (0x2f, 33));
    assert!(Headers::parse(whole.bytes()).is_ok());
}

#[test]
fn what_must_not_be_fragmented_is_marked_if_it_was_the_longest() {
    for (marked, expected) in [([true, false], true), ([false, true], false)] {
        let mut fragments = cut(&datagram(false, 82), 68, &[48, 42]);
        for (fragment, marked) in fragments.iter_mut().zip(marked) {
            fragment[6] |= if marked { 0x40 } else { 0 };
            mend(fragment);
        }
        let whole = add_all(&mut bench(), &fragments).unwrap();
        assert_eq!(Headers::parse(whole.bytes()).unwrap().dont_fragment, expected);
    }
}

#[test]
fn an_overlap_discards_everything() {
    let mut bench = bench();
    assert_eq!(refused(add(&mut bench, &piece(1, 1, 0, 48, true), START)), None);
    let overlap = add(&mut bench, &piece(1, 1, 40, 48, true), START);
    assert_eq!(refused(overlap), Some(DropReason::OverlappingFragment));
    assert!(bench.is_empty());
}

#[test]
fn a_datagram_of_more_than_64_kibibytes_is_impossible() {
    let mut bench = bench();
    assert_eq!(refused(add(&mut bench, &piece(1, 1, 0, 1480, true), START)), None);
    let ping_of_death = add(&mut bench, &piece(1, 1, 65_528, 40, false), START);
    assert_eq!(refused(ping_of_death), Some(DropReason::BadFragment));
    assert!(bench.is_empty());
    // The longest that there is.
    for offset in (0..65_512).step_by(8) {
        let fragment = piece(1, 2, offset, 8, true);
        assert_eq!(refused(add(&mut bench, &fragment, START)), None);
    }
    let Gathered::Whole(longest) = add(&mut bench, &piece(1, 2, 65_512, 3, false), START) else {
        panic!("it is complete");
    };
    assert_eq!(longest.bytes().len(), 65_535);
}

#[test]
fn an_atomic_fragment_is_whole_whatever_else_has_its_identification() {
    let mut bench = bench();
    let waiting = cut(&datagram(true, 82), 104, &[]);
    assert!(add_all(&mut bench, &waiting[..1]).is_none());
    let packet = datagram(true, 20);
    let mut atomic = packet.clone();
    atomic[6] = 44;
    let len = packet.len() as u16 - 40 + 8;
    set_word(&mut atomic, 4, len);
    atomic.splice(40..40, [17, 0, 0, 0, 0, 0, 0, 7]);
    let Gathered::Whole(whole) = add(&mut bench, &atomic, START) else { panic!("it is whole") };
    assert_eq!(whole.bytes(), packet);
    assert!(add_all(&mut bench, &waiting[1..]).is_some());
}

#[test]
fn datagrams_expire_with_their_first_fragment_if_it_came() {
    let mut bench = bench();
    let v4 = cut(&datagram(false, 182), 68, &[]);
    let v6 = cut(&datagram(true, 82), 104, &[]);
    add(&mut bench, &v6[0], START);
    add(&mut bench, &v4[1], after(10));
    add(&mut bench, &v4[0], after(20_000));
    add(&mut bench, &piece(1, 1, 8, 8, true), after(30));
    assert!(bench.expire(after(30_009)).is_none());
    // As it came, without what followed it.
    assert_eq!(bench.expire(after(30_010)).unwrap().first.unwrap(), v4[0]);
    assert!(bench.expire(after(30_029)).is_none());
    assert_eq!(bench.expire(after(30_030)).unwrap().first, None);
    assert!(bench.expire(after(59_999)).is_none());
    assert_eq!(bench.expire(after(60_000)).unwrap().first.unwrap(), v6[0]);
    assert!(bench.expire(after(1 << 40)).is_none());
    assert_eq!(bench.counters().timed_out, 3);
    check(&bench);
}

#[test]
fn a_datagram_begins_anew_after_too_many_others_of_its_sender() {
    let mut bench = bench();
    let held = |bench: &mut Reassembly, fragment: Vec<u8>| {
        assert!(matches!(add(bench, &fragment, START), Gathered::Held));
    };
    held(&mut bench, piece(1, 1, 0, 8, true));
    (0..64).for_each(|at| held(&mut bench, piece(1, 2, at * 8, 8, true)));
    (0..200).for_each(|at| held(&mut bench, piece(2, 2, at * 8, 8, true)));
    held(&mut bench, piece(1, 1, 8, 8, false));
    assert_eq!(bench.counters().restarted, 1);
    check(&bench);
    let first = add(&mut bench, &piece(1, 1, 0, 8, true), START);
    assert!(matches!(first, Gathered::Whole(_)));
}

#[test]
fn a_flood_of_one_sender_does_not_push_others_out() {
    let mut bench = bench();
    add(&mut bench, &piece(1, 1, 0, 8, true), START);
    for at in 0..20_000 {
        add(&mut bench, &piece(2, at, 0, 1480, true), START);
    }
    assert!(bench.counters().pushed_out > 1000);
    check(&bench);
    let last = add(&mut bench, &piece(1, 1, 8, 8, false), START);
    assert!(matches!(last, Gathered::Whole(_)));
}

#[test]
fn a_flood_of_many_senders_leaves_everybody_a_moment() {
    let mut bench = bench();
    for from in 0..20_000 {
        add(&mut bench, &piece(from, 1, 0, 8, true), START);
        if from % 1000 == 0 {
            check(&bench);
        }
        // What came before a hundred others is still there.
        if let Some(earlier) = from.checked_sub(100).filter(|from| from % 2 == 0) {
            let last = add(&mut bench, &piece(earlier, 1, 8, 8, false), START);
            assert!(matches!(last, Gathered::Whole(_)));
        }
    }
    assert!(bench.counters().pushed_out > 1000);
}

#[test]
fn a_datagrams_memory_is_used_again() {
    let mut bench = bench();
    let fragments = cut(&datagram(false, 3000), 1500, &[]);
    let whole = add_all(&mut bench, &fragments).unwrap();
    let place = whole.bytes().as_ptr();
    bench.recycle(whole);
    let shorter = cut(&datagram(false, 2000), 1500, &[]);
    let mut whole = add_all(&mut bench, &shorter).unwrap();
    assert_eq!(whole.bytes().as_ptr(), place);
    let packet: PacketBuf<'_> = whole.packet();
    assert_eq!(packet.bytes(), datagram(false, 2000));
}
