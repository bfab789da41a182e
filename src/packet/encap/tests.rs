use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::packet::checksum::Sum;
use crate::packet::segment::to_wire;
use crate::packet::{Addr, Headers, PacketBuf, SegmentKind, Segmentation};

const FRONT: usize = 80;

fn addr(family: Family, last: u8) -> Addr {
    match family {
        Family::V4 => Addr::v4(0xc0a8_c800 | u32::from(last)),
        Family::V6 => Addr::v6(0x2001_0db8 << 96 | u128::from(last)),
    }
}

fn families() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn wrappings() -> impl Strategy<Value = Wrapping> {
    let remote = RemoteChecksum { start: 20, field: 36 };
    prop_oneof![
        Just(Wrapping::IpIp),
        any::<bool>().prop_map(|checksum| Wrapping::Gre { checksum }),
        (any::<u16>(), any::<u16>(), any::<bool>(), prop::option::of(Just(remote))).prop_map(
            |(source_port, port, checksum, remote)| Wrapping::Gue {
                source_port,
                port,
                checksum,
                remote
            }
        ),
    ]
}

fn envelope(outer: Family, wrapping: Wrapping) -> Envelope {
    Envelope {
        source: addr(outer, 1),
        destination: addr(outer, 110),
        ttl: 63,
        tos: 0xb8,
        dont_fragment: false,
        id: 7,
        wrapping,
    }
}

/// A TCP segment with [`FRONT`] bytes in front.
fn segment(family: Family, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xa5; FRONT];
    let ip = match family {
        Family::V4 => PacketBuilder::ipv4([12, 0, 0, 2], [12, 0, 0, 1], 63),
        Family::V6 => PacketBuilder::ipv6([0x20; 16], [0x21; 16], 63),
    };
    ip.tcp(1000, 80, 5, 1024).ack(9).write(&mut bytes, payload).unwrap();
    bytes
}

fn flip(bytes: &mut [u8], flips: &[(usize, u8)]) {
    let len = bytes.len();
    flips.iter().for_each(|(at, value)| bytes[at % len] ^= value);
}

proptest! {
    #[test]
    fn what_is_wrapped_is_found_again(
        outer in families(), inner in families(), wrapping in wrappings(),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut bytes = segment(inner, &payload);
        let plain = bytes[FRONT..].to_vec();
        let end = bytes.len();
        let mut packet = PacketBuf::new(&mut bytes, FRONT, end);
        let envelope = envelope(outer, wrapping);
        prop_assert!(envelope.push(&mut packet, inner));
        prop_assert_eq!(packet.len(), plain.len() + envelope.len());
        let headers = Headers::parse(packet.bytes()).unwrap();
        prop_assert_eq!(headers.len, packet.len());
        prop_assert_eq!((headers.source.addr, headers.ttl), (envelope.source, 63));
        let opened = open(packet.bytes(), &headers).unwrap();
        prop_assert_eq!((opened.wrapping, opened.family), (wrapping, inner));
        prop_assert_eq!(&packet.bytes()[opened.start..], plain.as_slice());
    }

    #[test]
    fn a_wrong_byte_under_a_checksum_is_noticed(
        outer in families(), gre in any::<bool>(), at in 0usize..90, change in 1u8..=255,
    ) {
        let wrapping = if gre {
            Wrapping::Gre { checksum: true }
        } else {
            Wrapping::Gue { source_port: 9, port: 6080, checksum: true, remote: None }
        };
        let mut bytes = segment(Family::V4, &[7; 60]);
        let end = bytes.len();
        let mut packet = PacketBuf::new(&mut bytes, FRONT, end);
        let envelope = envelope(outer, wrapping);
        prop_assert!(envelope.push(&mut packet, Family::V4));
        let covered = packet.bytes().len() - envelope.len();
        let at = envelope.len() + 1 + at % (covered - 1);
        packet.bytes_mut()[at] ^= change;
        let headers = Headers::parse(packet.bytes()).unwrap();
        prop_assert_eq!(open(packet.bytes(), &headers), Err(Closed::Checksum));
    }

    #[test]
    fn hostile_bytes_are_refused_or_lie_inside(
        wrapping in wrappings(), flips in prop::collection::vec((0usize..60, any::<u8>()), 0..6),
        cut in 0usize..80,
    ) {
        let mut bytes = segment(Family::V4, &[]);
        let end = bytes.len();
        let mut packet = PacketBuf::new(&mut bytes, FRONT, end);
        prop_assert!(envelope(Family::V4, wrapping).push(&mut packet, Family::V4));
        let headers = Headers::parse(packet.bytes()).unwrap();
        let mut bytes = packet.bytes().to_vec();
        flip(&mut bytes[20..], &flips);
        bytes.truncate(bytes.len().saturating_sub(cut));
        for opened in [open(&bytes, &headers), open_quoted(&bytes, &headers)].into_iter().flatten() {
            prop_assert!(opened.start < bytes.len());
        }
    }

    #[test]
    fn every_segment_of_a_wrapped_super_frame_is_a_packet_of_its_own(
        outer in families(), inner in families(), wrapping in wrappings(),
        payload in prop::collection::vec(any::<u8>(), 1..9000), size in 300u16..2000,
        dont_fragment in any::<bool>(), link in prop_oneof![Just(0usize), Just(14)],
    ) {
        let mut bytes = segment(inner, &payload);
        let end = bytes.len();
        let mut packet = PacketBuf::new(&mut bytes, FRONT, end);
        let kind = match inner {
            Family::V4 => SegmentKind::TcpV4,
            Family::V6 => SegmentKind::TcpV6,
        };
        packet.offload.segmentation =
            Segmentation { kind, size_bytes: size, ..Default::default() };
        let envelope = Envelope { dont_fragment, ..envelope(outer, wrapping) };
        prop_assert!(envelope.push(&mut packet, inner));
        packet.push(link).unwrap().fill(0xee);
        let (mut carried, mut ids) = (Vec::new(), Vec::new());
        to_wire(&mut packet, link, 0, |frame| {
            assert_eq!(frame.bytes()[..link], vec![0xee; link]);
            let bytes = &frame.bytes()[link..];
            let headers = Headers::parse(bytes).unwrap();
            let opened = open(bytes, &headers).unwrap();
            let inner = &bytes[opened.start..];
            let headers = Headers::parse(inner).unwrap();
            assert_eq!(headers.len, inner.len());
            let (from, to) = (headers.source.addr, headers.destination.addr);
            let pseudo = Sum::pseudo_header(from, to, 6, headers.transport_len());
            assert_eq!(pseudo.plus(Sum::of(&inner[headers.transport..])).folded(), 0xffff);
            carried.extend_from_slice(&inner[headers.transport + 20..]);
            ids.push(u16::from_be_bytes([bytes[4], bytes[5]]));
        }).unwrap();
        prop_assert_eq!(carried, payload);
        if outer == Family::V4 {
            let expected = (0..ids.len() as u16).map(|n| if dont_fragment { 7 } else { 7 + n });
            prop_assert_eq!(ids, expected.collect::<Vec<_>>());
        }
    }
}

#[test]
fn the_headers_of_rfc_2784_and_of_gue_are_as_linux_writes_them() {
    let mut bytes = segment(Family::V4, &[]);
    let end = bytes.len();
    let remote = Some(RemoteChecksum { start: 20, field: 36 });
    let gue = Wrapping::Gue { source_port: 0x8123, port: 6080, checksum: false, remote };
    let mut packet = PacketBuf::new(&mut bytes, FRONT, end);
    assert!(envelope(Family::V4, gue).push(&mut packet, Family::V4));
    let expected = [0x81, 0x23, 0x17, 0xc0, 0, 60, 0, 0, 2, 4, 0, 1, 0x80, 0, 0, 0, 0, 20, 0, 36];
    assert_eq!(packet.bytes()[20..40], expected);
    let mut bytes = segment(Family::V6, &[]);
    let end = bytes.len();
    let mut packet = PacketBuf::new(&mut bytes, FRONT, end);
    let gre = Wrapping::Gre { checksum: false };
    assert!(envelope(Family::V6, gre).push(&mut packet, Family::V6));
    assert_eq!(packet.bytes()[..8], [0x6b, 0x80, 0, 0, 0, 64, 47, 63]);
    assert_eq!(packet.bytes()[40..44], [0, 0, 0x86, 0xdd]);
}

#[test]
fn what_does_not_fit_is_left_as_it_was() {
    let mut bytes = segment(Family::V4, &[]);
    let end = bytes.len();
    let envelope = envelope(Family::V4, Wrapping::IpIp);
    let mut packet = PacketBuf::new(&mut bytes, 19, end);
    assert!(!envelope.push(&mut packet, Family::V4));
    assert_eq!(packet.len(), end - 19);
    let mut long = vec![0x45; 65_530 + 20];
    let mut packet = PacketBuf::new(&mut long, 20, 65_550);
    assert!(!envelope.push(&mut packet, Family::V4));
    assert_eq!((packet.len(), packet.headroom()), (65_530, 20));
}

#[test]
fn options_that_mean_something_else_are_refused() {
    let mut bytes = segment(Family::V4, &[]);
    let end = bytes.len();
    let mut packet = PacketBuf::new(&mut bytes, FRONT, end);
    let gue = Wrapping::Gue { source_port: 1, port: 6080, checksum: false, remote: None };
    assert!(envelope(Family::V4, gue).push(&mut packet, Family::V4));
    let headers = Headers::parse(packet.bytes()).unwrap();
    let with = |at: usize, value: u8| {
        let mut bytes = packet.bytes().to_vec();
        bytes[at] = value;
        open(&bytes, &headers)
    };
    assert_eq!(with(28, GUE_CONTROL), Err(Closed::Unknown));
    assert_eq!(with(29, protocol::UDP), Err(Closed::Unknown));
    assert_eq!(with(31, 2), Err(Closed::Unknown));
    assert_eq!(with(28, 0x80), Err(Closed::Unknown));
    assert_eq!(with(28, 0x1f), Err(Closed::Truncated));
    assert_eq!(with(24, 0xff), Err(Closed::Truncated));
}
