use std::net::IpAddr;

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::driver::raw::Arrived;
use crate::link::{HostView, Interface, KernelAddress};
use crate::packet::checksum::Sum;
use crate::packet::encap::{Envelope, RemoteChecksum, Wrapping};
use crate::packet::headers::{set_word, word};
use crate::packet::{Headers, PacketBuf};

const FRONT: usize = 128;
const TCP_CHECKSUM: usize = 36;

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn policy() -> Policy {
    Policy {
        virtuals: [addr("12.0.0.1")].into_iter().collect(),
        senders: vec!["192.168.200.0/24".parse().unwrap()],
    }
}

/// A segment for the virtual address with the ECN bits `ecn`.
fn segment(ecn: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ip = PacketBuilder::ipv4([12, 0, 0, 2], [12, 0, 0, 1], 63);
    ip.tcp(1000, 80, 5, 1024).write(&mut bytes, b"hello").unwrap();
    bytes[1] = ecn;
    set_word(&mut bytes, 10, 0);
    let sum = Sum::of(&bytes[..20]).checksum();
    set_word(&mut bytes, 10, sum);
    bytes
}

/// What a socket would hand over of a segment in this wrapping, opened by `act`.
fn opened<T>(
    inner: &[u8],
    wrapping: Wrapping,
    tos: u8,
    source: &str,
    act: impl FnOnce(Result<(), Refusal>, &mut PacketBuf<'_>) -> T,
) -> T {
    let mut storage = [vec![0xa5; FRONT], inner.to_vec()].concat();
    let end = storage.len();
    let mut packet = PacketBuf::new(&mut storage, FRONT, end);
    let envelope = Envelope {
        source: addr("192.168.200.1"),
        destination: addr("172.16.5.5"),
        ttl: 63,
        tos: 0,
        dont_fragment: false,
        id: 1,
        wrapping,
    };
    assert!(envelope.push(&mut packet, Family::V4));
    let protocol = packet.bytes()[9];
    let family = Family::V4;
    let (carrier, skipped) = match wrapping {
        Wrapping::Gue { port, .. } => (Carrier::Udp { family, port }, 28),
        _ => (Carrier::Ip { family, protocol }, 20),
    };
    assert!(packet.pull(skipped));
    let mut arrived = Arrived { packet, carrier, source: source.parse().unwrap(), tos };
    let result = open(&mut arrived, &policy());
    act(result, &mut arrived.packet)
}

fn gue(remote: Option<RemoteChecksum>) -> Wrapping {
    Wrapping::Gue { source_port: 40_000, port: 6080, checksum: true, remote }
}

const DIRECTOR: &str = "192.168.200.1";

#[test]
fn what_was_wrapped_comes_out_as_it_was() {
    let wrappings =
        [Wrapping::IpIp, Wrapping::Gre { checksum: false }, Wrapping::Gre { checksum: true }];
    for wrapping in wrappings.into_iter().chain([gue(None)]) {
        let inner = segment(0);
        opened(&inner, wrapping, 0, DIRECTOR, |result, packet| {
            assert_eq!(result, Ok(()), "{wrapping:?}");
            assert_eq!(packet.bytes(), inner);
            assert_eq!(packet.offload, Default::default());
        });
    }
}

#[test]
fn strangers_and_packets_for_others_are_refused() {
    let stranger = opened(&segment(0), Wrapping::IpIp, 0, "203.0.113.9", |result, _| result);
    assert_eq!(stranger, Err(Refusal::Stranger));
    let mut bytes = segment(0);
    bytes[19] = 2;
    let sum = word(&bytes, 10).wrapping_sub(1);
    set_word(&mut bytes, 10, sum);
    let other = opened(&bytes, Wrapping::IpIp, 0, DIRECTOR, |result, _| result);
    assert_eq!(other, Err(Refusal::NotVirtual));
    bytes[19] = 3;
    let damaged = opened(&bytes, Wrapping::IpIp, 0, DIRECTOR, |result, _| result);
    assert_eq!(damaged, Err(Refusal::Inside));
}

#[test]
fn congestion_on_the_way_is_told_to_those_who_agreed() {
    for (inner, outer, expected) in [
        (0, 3, Err(Refusal::Congested)),
        (1, 3, Ok(3)),
        (2, 3, Ok(3)),
        (3, 3, Ok(3)),
        (2, 2, Ok(2)),
        (0, 2, Ok(0)),
        (2, 0, Ok(2)),
    ] {
        opened(&segment(inner), Wrapping::IpIp, outer, DIRECTOR, |result, packet| {
            assert_eq!(result.map(|()| packet.bytes()[1] & 3), expected, "{inner} in {outer}");
            assert!(result.is_err() || Headers::parse(packet.bytes()).is_ok());
        });
    }
}

#[test]
fn checksums_that_others_left_are_known_to_be_unfinished() {
    let mut inner = segment(0);
    let headers = Headers::parse(&inner).unwrap();
    let (from, to) = (headers.source.addr, headers.destination.addr);
    let partial = Sum::pseudo_header(from, to, 6, headers.transport_len()).folded();
    set_word(&mut inner, TCP_CHECKSUM, partial);
    opened(&inner, Wrapping::IpIp, 0, DIRECTOR, |result, packet| {
        assert_eq!((result, packet.unfinished_checksum()), (Ok(()), Some((20, TCP_CHECKSUM))));
    });
    let remote = gue(Some(RemoteChecksum { start: 20, field: 36 }));
    opened(&inner, remote, 0, DIRECTOR, |result, packet| {
        assert_eq!((result, packet.unfinished_checksum()), (Ok(()), Some((20, TCP_CHECKSUM))));
    });
    for (start, field) in [(36, 20), (20, 44), (u16::MAX, u16::MAX)] {
        let outside = gue(Some(RemoteChecksum { start, field }));
        let refused = opened(&inner, outside, 0, DIRECTOR, |result, _| result);
        assert_eq!(refused, Err(Refusal::Envelope));
    }
}

proptest! {
    #[test]
    fn hostile_bytes_are_refused_or_whole_packets_for_a_virtual_address(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        plausible in any::<bool>(), protocol in prop_oneof![Just(4u8), Just(41), Just(47), Just(17)],
        flips in prop::collection::vec((0usize..60, any::<u8>()), 0..4), tos in any::<u8>(),
    ) {
        let mut bytes = bytes;
        if plausible {
            let front = match protocol {
                47 => &[0u8, 0, 8, 0][..],
                17 => &[0, 4, 0, 0],
                _ => &[],
            };
            bytes = [front, &segment(2)].concat();
            let len = bytes.len();
            flips.iter().for_each(|(at, value)| bytes[at % len] ^= value);
        }
        let end = bytes.len();
        let packet = PacketBuf::new(&mut bytes, 0, end);
        let family = Family::V4;
        let carrier = match protocol {
            17 => Carrier::Udp { family, port: 6080 },
            protocol => Carrier::Ip { family, protocol },
        };
        let mut arrived =
            Arrived { packet, carrier, source: DIRECTOR.parse().unwrap(), tos };
        if open(&mut arrived, &policy()).is_ok() {
            let headers = Headers::parse(arrived.packet.bytes()).unwrap();
            prop_assert_eq!(headers.destination.addr, addr("12.0.0.1"));
            prop_assert_eq!(headers.len, arrived.packet.len());
        }
    }
}

#[test]
fn the_kernels_own_tunnels_are_told_of() {
    let interface = |name: &str, kind: &str, up| Interface {
        index: 7,
        name: name.into(),
        kind: Some(kind.into()),
        up,
        ..Interface::default()
    };
    let own = KernelAddress {
        interface: 7,
        addr: addr("203.0.113.5"),
        prefix: "203.0.113.5/24".parse().unwrap(),
    };
    let view = HostView {
        interfaces: vec![
            interface("nonesuch9", "veth", true),
            interface("tunl0", "ipip", true),
            interface("gre0", "gre", true),
            interface("sit0", "sit", false),
        ],
        addresses: vec![own],
        ..HostView::default()
    };
    let advice = look_around(&view, &[Kind::IpIp], &[addr("12.0.0.1")]);
    assert_eq!(advice.len(), 1, "{advice:?}");
    assert!(advice[0].contains("unpacks ipip itself at tunl0"), "{}", advice[0]);
}

#[test]
fn the_summary_names_what_there_was() {
    let counters = Counters::default();
    counters.count(Kind::Gre, 40);
    counters.count(Kind::Gre, 60);
    counters.refuse(Refusal::NotVirtual);
    counters.count_lost(3);
    assert_eq!(
        counters.summary().to_string(),
        "2 packets unpacked (gre 2, 100 bytes); 1 dropped for no virtual address; \
         3 lost because a socket's buffer was full"
    );
}
