use super::cut::V4_DONT_FRAGMENT;
use super::*;
use crate::packet::checksum::Sum;
use crate::packet::headers::set_word;
use crate::packet::segment::Uncuttable;
use crate::packet::{Family, Fragment, Headers, PacketBuf, SegmentKind};
use etherparse::PacketBuilder;
use proptest::prelude::*;

const HEADROOM: usize = 32;

fn datagram(v6: bool, payload: &[u8]) -> Vec<u8> {
    let ip = match v6 {
        false => PacketBuilder::ipv4([192, 0, 2, 9], [192, 0, 2, 1], 64),
        true => PacketBuilder::ipv6([0x20; 16], [0x21; 16], 64),
    };
    let mut bytes = Vec::new();
    ip.udp(1000, 53).write(&mut bytes, payload).unwrap();
    if !v6 {
        set_word(&mut bytes, 4, 0xbeef);
        set_word(&mut bytes, 6, 0);
        mend(&mut bytes, 20);
    }
    bytes
}

fn mend(bytes: &mut [u8], header_len: usize) {
    set_word(bytes, 10, 0);
    let checksum = Sum::of(&bytes[..header_len]).checksum();
    set_word(bytes, 10, checksum);
}

fn cutting(limit: usize, lengths: &[u16]) -> Cutting<'_> {
    Cutting { limit, lengths, id: 0x0102_0304, headroom: HEADROOM }
}

fn cut(packet: &[u8], cutting: &Cutting<'_>) -> Result<Vec<Vec<u8>>, Uncuttable> {
    let mut fragments = Fragments::default();
    fragments.cut(packet, cutting)?;
    let bytes = fragments.packets().map(|piece| {
        assert_eq!(piece.headroom(), HEADROOM);
        piece.bytes().to_vec()
    });
    Ok(bytes.collect())
}

/// What the payloads of the fragments make up, if each begins where the one before ends.
fn joined(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (number, fragment) in fragments.iter().enumerate() {
        let headers = Headers::parse(fragment).unwrap();
        let expected = if number == 0 { Fragment::First } else { Fragment::Later };
        assert_eq!(headers.fragment, expected);
        assert_eq!((headers.len, headers.ttl), (fragment.len(), 64));
        let placed = Placement::read(fragment).unwrap().unwrap();
        assert_eq!((placed.offset, placed.protocol.1), (payload.len(), 17));
        assert_eq!(placed.more, number + 1 < fragments.len());
        let v4 = headers.family == Family::V4;
        assert_eq!(placed.id, if v4 { 0xbeef } else { 0x0102_0304 });
        payload.extend_from_slice(&fragment[placed.payload..]);
    }
    payload
}

proptest! {
    #[test]
    fn fragments_fit_the_link_and_carry_everything(
        v6 in any::<bool>(), len in 0usize..60_000, limit in 68usize..3000,
    ) {
        let payload: Vec<u8> = (0..len).map(|at| at as u8).collect();
        let packet = datagram(v6, &payload);
        prop_assume!(packet.len() > limit);
        let fragments = cut(&packet, &cutting(limit, &[])).unwrap();
        prop_assert!(fragments.iter().all(|fragment| fragment.len() <= limit));
        let (last, first) = fragments.split_last().unwrap();
        prop_assert!(first.iter().all(|fragment| fragment.len() + UNIT > limit));
        let headers = if v6 { 48 } else { 20 };
        prop_assert!(last.len() > headers);
        prop_assert_eq!(&joined(&fragments)[..], &packet[if v6 { 40 } else { 20 }..]);
    }

    #[test]
    fn no_bytes_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        limit in 0usize..300, lengths in prop::collection::vec(any::<u16>(), 0..5),
        version in 3u8..8, kind in 0usize..6, size_bytes in any::<u16>(),
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = version << 4 | (*first & 0x0f);
        }
        let _ = Placement::read(&bytes);
        if let Ok(fragments) = cut(&bytes, &cutting(limit, &lengths)) {
            prop_assert!(fragments.iter().all(|fragment| fragment.len() <= limit));
        }
        let len = bytes.len();
        let mut packet = PacketBuf::new(&mut bytes, 0, len);
        let kinds = [
            SegmentKind::None, SegmentKind::TcpV4, SegmentKind::TcpV6, SegmentKind::UdpL4,
            SegmentKind::UdpFragments, SegmentKind::Fragments,
        ];
        packet.offload.segmentation.kind = kinds[kind];
        packet.offload.segmentation.size_bytes = size_bytes;
        prop_assert!(Cutting::for_link(&packet, limit, 7, 0).limit <= limit);
    }
}

#[test]
fn lengths_that_fit_are_kept_and_others_are_not() {
    let packet = datagram(false, &[7; 82]);
    let lengths = |lengths, limit| -> Vec<usize> {
        let fragments = cut(&packet, &cutting(limit, lengths)).unwrap();
        fragments.iter().map(|fragment| fragment.len() - 20).collect()
    };
    assert_eq!(lengths(&[48, 16, 26], 68), [48, 16, 26]);
    assert_eq!(lengths(&[48, 16, 26], 67), [40, 40, 10], "the first is too long");
    assert_eq!(lengths(&[48, 42], 68), [48, 42]);
    assert_eq!(lengths(&[48, 16, 25], 68), [48, 42], "they are not all");
    assert_eq!(lengths(&[44, 46], 68), [48, 42], "not at multiples of eight");
    assert_eq!(lengths(&[48, 0, 42], 68), [48, 42]);
}

#[test]
fn options_are_in_later_fragments_if_they_are_to_be_copied() {
    let mut packet = datagram(false, &[7; 100]);
    // Record route, router alert, no operation, end.
    let options = [7, 7, 4, 1, 2, 3, 4, 0x94, 4, 0, 0, 1, 7, 3, 4, 0];
    packet.splice(20..20, options);
    packet[0] = 0x49;
    let len = packet.len() as u16;
    set_word(&mut packet, 2, len);
    mend(&mut packet, 36);
    let fragments = cut(&packet, &cutting(76, &[])).unwrap();
    assert_eq!(fragments.len(), 3);
    assert_eq!(fragments[0][20..36], options);
    for later in &fragments[1..] {
        assert_eq!(later[20..36], [1, 1, 1, 1, 1, 1, 1, 0x94, 4, 0, 0, 1, 1, 1, 1, 0]);
    }
    joined(&fragments);
}

#[test]
fn the_fragment_header_comes_behind_routing_and_in_front_of_the_rest() {
    let mut packet = datagram(true, &[7; 100]);
    // Hop-by-hop options, a routing header, destination options.
    let extension = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    packet.splice(40..40, [extension(43), extension(60), extension(17)].concat());
    packet[6] = 0;
    let len = packet.len() as u16 - 40;
    set_word(&mut packet, 4, len);
    let fragments = cut(&packet, &cutting(112, &[])).unwrap();
    assert_eq!(fragments.len(), 3);
    for fragment in &fragments {
        assert_eq!((fragment[40], fragment[48], fragment[56]), (43, 44, 60));
        let placed = Placement::read(fragment).unwrap().unwrap();
        assert_eq!((placed.headers_end, placed.payload, placed.protocol), (56, 64, (48, 60)));
    }
}

#[test]
fn fragments_of_a_fragment_stay_in_its_place() {
    let mut packet = datagram(false, &[7; 92]);
    set_word(&mut packet, 6, 0x2000 | 10);
    mend(&mut packet, 20);
    let fragments = cut(&packet, &cutting(68, &[])).unwrap();
    let placed = fragments.iter().map(|each| Placement::read(each).unwrap().unwrap());
    let placed: Vec<_> = placed.map(|each| (each.offset, each.more)).collect();
    assert_eq!(placed, [(80, true), (128, true), (176, true)]);
    set_word(&mut packet, 6, 0x1fff);
    assert!(cut(&packet, &cutting(68, &[])).is_err(), "beyond the largest datagram");
}

#[test]
fn identifications_do_not_repeat_soon() {
    let mut ids = Identifications::new(1);
    let mut seen: Vec<u32> = (0..1000).map(|_| ids.draw()).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 1000);
    assert_ne!(Identifications::new(2).draw(), Identifications::new(1).draw());
}

/// What a cutter sends of a packet over a link of `mtu` bytes.
fn sent(packet: &mut PacketBuf<'_>, mtu: usize) -> Result<Vec<Vec<u8>>, Uncuttable> {
    let mut sent = Vec::new();
    Cutter::new(HEADROOM, 1).cut(packet, mtu, &[], |pieces| {
        sent.extend(pieces.packets().map(|piece| piece.bytes().to_vec()));
    })?;
    Ok(sent)
}

fn super_frame(dont_fragment: bool) -> Vec<u8> {
    let ip = PacketBuilder::ipv4([192, 0, 2, 9], [192, 0, 2, 1], 64);
    let mut bytes = Vec::new();
    ip.tcp(1000, 80, 7, 9).write(&mut bytes, &[7; 3000]).unwrap();
    set_word(&mut bytes, 6, if dont_fragment { V4_DONT_FRAGMENT } else { 0 });
    mend(&mut bytes, 20);
    bytes
}

#[test]
fn segments_that_are_too_long_are_fragmented_unless_they_must_not_be() {
    for (dont_fragment, mtu, expected) in [
        (false, 1500, Ok(vec![1040, 1040, 1040])),
        (true, 1500, Ok(vec![1040, 1040, 1040])),
        (false, 600, Ok(vec![596, 464, 596, 464, 596, 464])),
        (true, 600, Err(Uncuttable::DontFragment)),
    ] {
        let mut bytes = super_frame(dont_fragment);
        let len = bytes.len();
        let mut packet = PacketBuf::new(&mut bytes, 0, len);
        packet.offload.segmentation.kind = SegmentKind::TcpV4;
        packet.offload.segmentation.size_bytes = 1000;
        assert_eq!(must_be_cut(&packet, mtu), mtu < 1040);
        let lengths = sent(&mut packet, mtu).map(|all| all.iter().map(Vec::len).collect());
        assert_eq!(lengths, expected, "{mtu} {dont_fragment}");
    }
}

#[test]
fn what_travels_in_fragments_is_cut_to_their_size_or_the_links() {
    let kinds = [SegmentKind::Fragments, SegmentKind::UdpFragments];
    for (v6, kind, size, mtu, expected) in [
        (false, kinds[0], 500, 1500, vec![500, 500, 68]),
        (false, kinds[0], 1400, 600, vec![596, 452]),
        (true, kinds[0], 500, 1500, vec![1056]),
        (true, kinds[0], u16::MAX, 1500, vec![1048]),
        (false, kinds[1], 480, 1500, vec![500, 500, 68]),
        (true, kinds[1], 448, 1500, vec![496, 496, 160]),
    ] {
        let mut bytes = datagram(v6, &[7; 1000]);
        let len = bytes.len();
        let mut packet = PacketBuf::new(&mut bytes, 0, len);
        packet.offload.segmentation.kind = kind;
        packet.offload.segmentation.size_bytes = size;
        assert!(must_be_cut(&packet, mtu));
        let lengths: Vec<_> = sent(&mut packet, mtu).unwrap().iter().map(Vec::len).collect();
        assert_eq!(lengths, expected, "{v6} {kind:?} {size} {mtu}");
    }
}

#[test]
fn what_was_put_in_front_of_an_ipv6_datagram_goes_with_its_first_fragment() {
    let packet = datagram(true, &[7; 1000]);
    let lengths = |lengths: &[u16]| -> Vec<usize> {
        let fragments = cut(&packet, &cutting(1280, lengths)).unwrap();
        fragments.iter().map(|fragment| fragment.len() - 48).collect()
    };
    assert_eq!(lengths(&[512, 456]), [552, 456], "40 bytes more");
    assert_eq!(lengths(&[512, 452]), [1008], "44 bytes more: not at multiples of eight");
    assert_eq!(lengths(&[512, 496]), [512, 496]);
}

#[test]
fn an_ipv6_packet_of_somebody_else_is_not_fragmented() {
    let mut bytes = datagram(true, &[7; 1400]);
    let len = bytes.len();
    let mut packet = PacketBuf::new(&mut bytes, 0, len);
    assert!(must_be_cut(&packet, 1280) && !must_be_cut(&packet, 1500));
    assert_eq!(sent(&mut packet, 1280), Err(Uncuttable::DontFragment));
}

#[test]
fn an_unfinished_checksum_is_finished_before_the_packet_is_cut() {
    let mut whole = datagram(false, &[7; 1000]);
    let right = whole.clone();
    let pseudo = Sum::of(&whole[12..20]).plus_word(17).plus_word(1008).folded();
    set_word(&mut whole, 26, pseudo);
    let len = whole.len();
    let mut packet = PacketBuf::new(&mut whole, 0, len);
    packet.set_unfinished_checksum(20, 6);
    let fragments = sent(&mut packet, 600).unwrap();
    assert_eq!(joined(&fragments), right[20..]);
}
