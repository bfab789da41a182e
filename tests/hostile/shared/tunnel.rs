//! The real server's end of tunnels under hostile payloads.
//!
//! The way of a step is the outer protocol: 0 IPv4 in IP, 1 IPv6 in IP, 2 GRE, 3 GUE; bit 2 an outer
//! IPv6, bit 3 an outer packet that was marked as congested, bit 4 a stranger.

use std::net::IpAddr;

use ulvs::decap::{Policy, open};
use ulvs::driver::raw::{Arrived, Carrier};
use ulvs::packet::{Family, Headers, PacketBuf, Prefix};

use super::build::{Segment, ends, ip, tcp};
use super::director::{VIP, VIP6, addr};
use super::judge;
use super::script::{Script, Step};

const HEADROOM: usize = 64;
const DIRECTOR: &str = "192.168.200.1";
const DIRECTOR6: &str = "2001:db8:2::1";

pub fn play(script: &Script) {
    let network = |text, len| Prefix::new(addr(text), len).unwrap();
    let policy = Policy {
        virtuals: [VIP, VIP6].into_iter().map(addr).collect(),
        senders: vec![network(DIRECTOR, 32), network(DIRECTOR6, 128)],
    };
    for step in &script.steps {
        let Step::Bytes { way, bytes, .. } = step else { continue };
        throw(*way, bytes, &policy);
        check_canary(&policy);
    }
}

fn throw(way: u8, bytes: &[u8], policy: &Policy) {
    let mut storage = vec![0xa5; HEADROOM];
    storage.extend(bytes);
    let packet = PacketBuf::new(&mut storage, HEADROOM, HEADROOM + bytes.len());
    let family = if way & 4 == 0 { Family::V4 } else { Family::V6 };
    let carrier = match way & 3 {
        0 => Carrier::Ip { family, protocol: 4 },
        1 => Carrier::Ip { family, protocol: 41 },
        2 => Carrier::Ip { family, protocol: 47 },
        _ => Carrier::Udp { family, port: 6080 },
    };
    let director = if family == Family::V4 { DIRECTOR } else { DIRECTOR6 };
    let is_stranger = way & 16 != 0;
    let source: IpAddr = if is_stranger { "192.0.2.66" } else { director }.parse().unwrap();
    let tos = if way & 8 != 0 { 3 } else { 0 };
    let mut arrived = Arrived { packet, carrier, source, tos };
    if open(&mut arrived, policy).is_err() {
        return;
    }
    assert!(!is_stranger, "a stranger's packet was opened");
    let packet = &arrived.packet;
    judge::see(packet.bytes()).unwrap_or_else(|why| panic!("{why}"));
    let headers = Headers::parse(packet.bytes()).unwrap();
    assert!(policy.virtuals.contains(&headers.destination.addr), "for no virtual address");
    if let Some((start, field)) = packet.unfinished_checksum() {
        assert!(start <= field && field + 2 <= packet.len());
    } else {
        assert!(packet.offload.checksum == Default::default(), "a checksum outside its packet");
    }
}

/// A good packet comes out as it went in.
fn check_canary(policy: &Policy) {
    let inner = tcp(ends("198.51.100.200:4000", "12.0.0.1:80"), Segment::default());
    let mut gre = vec![0, 0, 8, 0];
    gre.extend(&inner);
    let outer = ip(ends("192.168.200.1:0", "192.168.200.130:0"), 47, &gre);
    let mut storage = outer[20..].to_vec();
    let len = storage.len();
    let packet = PacketBuf::new(&mut storage, 0, len);
    let carrier = Carrier::Ip { family: Family::V4, protocol: 47 };
    let source = DIRECTOR.parse().unwrap();
    let mut arrived = Arrived { packet, carrier, source, tos: 0 };
    open(&mut arrived, policy).unwrap();
    assert_eq!(arrived.packet.bytes(), inner);
}
