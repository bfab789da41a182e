//! Tunnels: what the recordings cannot show.

use super::*;
use crate::engine::service::{Tunnel, TunnelChecksum, TunnelKind};
use crate::packet::encap::open;
use crate::packet::fragment::Cutter;
use crate::packet::{Checksum, SegmentKind, Segmentation};

/// Room in front of the packets, as drivers give it.
const FRONT: usize = 128;

fn tunnelled(kind: TunnelKind, checksum: TunnelChecksum) -> Fixture {
    let fixture = Fixture::empty();
    for (protocol, port) in [(Protocol::Tcp, 80), (Protocol::Udp, 53)] {
        let key = key(protocol, port);
        let spec = ServiceSpec { scheduler: "rr".into(), ..ServiceSpec::new(key) };
        fixture.services.add_service(spec, fixture.now).unwrap();
        let real = RealSpec {
            method: ForwardingMethod::Tunnel,
            tunnel: Tunnel { kind, port: 6080, checksum },
            ..RealSpec::new(addr(ACCP), port)
        };
        fixture.services.add_real(&key, &real).unwrap();
    }
    let mut fixture = fixture;
    fixture.director.refresh();
    fixture
}

/// Sends a packet that has room in front, and hands what became of it to `look`.
fn send_with_room(
    fixture: &mut Fixture,
    bytes: &[u8],
    offload: crate::packet::Offload,
    network: &Lab,
    look: impl FnOnce(Verdict, &mut PacketBuf<'_>),
) {
    let mut storage = [vec![0xa5; FRONT], bytes.to_vec()].concat();
    let end = storage.len();
    let mut packet = PacketBuf::new(&mut storage, FRONT, end);
    packet.offload = offload;
    let verdict = fixture.director.handle_packet(&mut packet, network, fixture.now);
    look(verdict, &mut packet);
}

/// A request of `len` payload bytes, all of it one packet, with a complete checksum.
fn long_request(len: usize, dont_fragment: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
    let ip = PacketBuilder::ipv4(octets(CLIENT), octets(VIP), 64);
    ip.tcp(1000, 80, 1000, 1024).ack(7).write(&mut bytes, &payload).unwrap();
    set_word(&mut bytes, 6, if dont_fragment { 0x4000 } else { 0 });
    set_word(&mut bytes, 10, 0);
    let sum = Sum::of(&bytes[..20]).checksum();
    set_word(&mut bytes, 10, sum);
    bytes
}

fn super_frame(size_bytes: u16) -> crate::packet::Offload {
    let kind = SegmentKind::TcpV4;
    let segmentation = Segmentation { kind, size_bytes, ..Segmentation::default() };
    crate::packet::Offload { segmentation, ..Default::default() }
}

/// The packets inside those that a super-frame becomes, each checked.
fn inside(packet: &mut PacketBuf<'_>, mtu: usize) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut cutter = Cutter::new(FRONT, 1);
    let cut = cutter.cut(packet, mtu, &[], |pieces| {
        for piece in pieces.packets() {
            let headers = Headers::parse(piece.bytes()).unwrap();
            assert_eq!((headers.len, headers.ttl), (piece.len(), 63));
            assert!(piece.len() <= mtu);
            let opened = open(piece.bytes(), &headers).unwrap();
            let inner = piece.bytes()[opened.start..].to_vec();
            assert_eq!(Headers::parse(&inner).unwrap().ttl, 63);
            assert!(checksum_is_right(&inner));
            found.push(inner);
        }
    });
    cut.unwrap();
    found
}

#[test]
fn a_super_frame_becomes_segments_each_in_its_own_envelope() {
    let kinds = [
        (TunnelKind::IpIp, TunnelChecksum::Off),
        (TunnelKind::Gre, TunnelChecksum::On),
        (TunnelKind::Gue, TunnelChecksum::Remote),
    ];
    for (kind, checksum) in kinds {
        let mut lab = tunnelled(kind, checksum);
        let mut syn = [vec![0; FRONT], tcp((CLIENT, 1000), (VIP, 80), SYN)].concat();
        let end = syn.len();
        let opening = &mut PacketBuf::new(&mut syn, FRONT, end);
        lab.director.handle_packet(opening, &LAB, lab.now);
        let request = long_request(60_000, true);
        send_with_room(&mut lab, &request, super_frame(1400), &LAB, |verdict, packet| {
            assert_eq!(verdict, Verdict::Forward(Hop { to: addr(ACCP) }));
            let segments = inside(packet, 1500);
            assert_eq!(segments.len(), 60_000_usize.div_ceil(1400));
            let payload: Vec<u8> = segments.iter().flat_map(|s| s[40..].to_vec()).collect();
            assert_eq!(payload, request[40..]);
        });
        let too_large = long_request(60_000, true);
        send_with_room(&mut lab, &too_large, super_frame(1460), &LAB, |verdict, _| {
            assert_eq!(verdict, Verdict::Reply, "its segments do not fit");
        });
        let error = lab.director.poll_output().unwrap().bytes;
        let expected = match kind {
            TunnelKind::IpIp => 1480,
            TunnelKind::Gre => 1472,
            TunnelKind::Gue => 1468,
        };
        assert_eq!((&error[20..22], word(&error, 26)), (&[3, 4][..], expected));
    }
}

#[test]
fn a_super_frame_that_may_be_fragmented_leaves_in_fragments_of_its_segments() {
    let mut lab = tunnelled(TunnelKind::IpIp, TunnelChecksum::Off);
    send_with_room(
        &mut lab,
        &tcp((CLIENT, 1000), (VIP, 80), SYN),
        Default::default(),
        &LAB,
        |_, _| {},
    );
    let request = long_request(4380, false);
    send_with_room(&mut lab, &request, super_frame(1460), &LAB, |verdict, packet| {
        assert!(matches!(verdict, Verdict::Forward(_)));
        let (mut pieces, mut first) = (0, 0);
        let mut cutter = Cutter::new(FRONT, 1);
        let count = |fragments: &mut crate::packet::fragment::Fragments| {
            for piece in fragments.packets() {
                assert!(piece.len() <= 1500);
                let headers = Headers::parse(piece.bytes()).unwrap();
                first += usize::from(headers.fragment == Fragment::First);
                pieces += 1;
            }
        };
        cutter.cut(packet, 1500, &[], count).unwrap();
        assert_eq!((pieces, first), (6, 3));
    });
}

#[test]
fn what_a_card_was_to_sum_up_is_complete_inside_a_tunnel() {
    let mut lab = tunnelled(TunnelKind::Gre, TunnelChecksum::On);
    let mut request = tcp((CLIENT, 1000), (VIP, 80), SYN);
    let headers = Headers::parse(&request).unwrap();
    let (from, to) = (headers.source.addr, headers.destination.addr);
    let partial = Sum::pseudo_header(from, to, 6, headers.transport_len()).folded();
    set_word(&mut request, 36, partial);
    let checksum = Checksum::Unfinished { start: (FRONT + 20) as u32, offset: 16 };
    let offload = crate::packet::Offload { checksum, ..Default::default() };
    send_with_room(&mut lab, &request, offload, &LAB, |verdict, packet| {
        assert!(matches!(verdict, Verdict::Forward(_)));
        assert_eq!(packet.offload, Default::default());
        assert_eq!(inside(packet, 1500).len(), 1);
    });
}

#[test]
fn a_packet_without_room_in_front_is_counted_and_dropped() {
    let mut lab = tunnelled(TunnelKind::IpIp, TunnelChecksum::Off);
    let mut request = tcp((CLIENT, 1000), (VIP, 80), SYN);
    assert_eq!(lab.send(&mut request), Verdict::Drop(DropReason::TooLong));
    let narrow = Lab { mtu: 87, ..LAB };
    let narrow_way = lab.send_into(&mut tcp((CLIENT, 1001), (VIP, 80), SYN), &narrow);
    assert_eq!(
        narrow_way,
        Verdict::Drop(DropReason::TooLong),
        "the way is asked about once a second"
    );
    lab.sleep(1);
    let narrow_way = lab.send_into(&mut tcp((CLIENT, 1001), (VIP, 80), SYN), &narrow);
    assert_eq!(narrow_way, Verdict::Drop(DropReason::TunnelTooNarrow));
}

#[test]
fn a_path_mtu_is_forgotten_after_ten_minutes() {
    let mut lab = tunnelled(TunnelKind::IpIp, TunnelChecksum::Off);
    let room = |lab: &mut Fixture| {
        let request = long_request(1460, true);
        send_with_room(lab, &request, Default::default(), &LAB, |verdict, _| {
            assert_eq!(verdict, Verdict::Reply);
        });
        word(&lab.director.poll_output().unwrap().bytes, 26)
    };
    let syn = tcp((CLIENT, 1000), (VIP, 80), SYN);
    send_with_room(&mut lab, &syn, Default::default(), &LAB, |_, _| {});
    assert_eq!(room(&mut lab), 1480);
    let mut quoted = Vec::new();
    let request = long_request(1400, true);
    send_with_room(&mut lab, &request, Default::default(), &LAB, |_, packet| {
        quoted = packet.bytes().to_vec();
    });
    let mut error = Vec::new();
    let ip = PacketBuilder::ipv4(octets("192.168.200.254"), octets("192.168.200.1"), 64);
    ip.icmpv4_raw(3, 4, [0, 0, 5, 20]).write(&mut error, &quoted[..548]).unwrap();
    assert_eq!(lab.send(&mut error), Verdict::Reply);
    let told = lab.director.poll_output().unwrap().bytes;
    assert_eq!((ends(&told).0, word(&told, 26)), ("12.0.0.1:0".into(), 1480));
    assert_eq!(room(&mut lab), 1280);
    lab.sleep(599);
    assert_eq!(room(&mut lab), 1280);
    lab.sleep(2);
    assert_eq!(room(&mut lab), 1480);
}

proptest! {
    #[test]
    fn damaged_errors_about_tunnels_are_harmless(
        kind in prop_oneof![
            Just(TunnelKind::IpIp), Just(TunnelKind::Gre), Just(TunnelKind::Gue)
        ],
        flips in proptest::collection::vec((20usize..110, any::<u8>()), 0..6),
        cut in 0usize..100,
    ) {
        let mut lab = tunnelled(kind, TunnelChecksum::On);
        let mut quoted = Vec::new();
        let syn = tcp((CLIENT, 1000), (VIP, 80), SYN);
        send_with_room(&mut lab, &syn, Default::default(), &LAB, |_, packet| {
            quoted = packet.bytes().to_vec();
        });
        let len = quoted.len();
        for (at, value) in flips {
            quoted[at % len] ^= value;
        }
        quoted.truncate(len.saturating_sub(cut));
        let mut error = Vec::new();
        let ip = PacketBuilder::ipv4(octets(ACCP), octets("192.168.200.1"), 64);
        ip.icmpv4_raw(3, 4, [0, 0, 4, 0]).write(&mut error, &quoted).unwrap();
        let verdict = lab.send(&mut error);
        let told = lab.director.poll_output();
        prop_assert_eq!(verdict == Verdict::Reply, told.is_some());
        if let Some(told) = told {
            prop_assert_eq!(ends(&told.bytes).0, "12.0.0.1:0");
        }
    }
}
