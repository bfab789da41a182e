//! The director packet by packet, with a virtual clock.

mod defence;
mod fragments;
mod fullnat;
mod ipv6;
mod persistence;
mod sync;
mod telling;
mod tunnel;

use std::net::IpAddr;
use std::sync::Arc;

use etherparse::{PacketBuilder, SlicedPacket, TcpHeaderSlice, TransportSlice};
use proptest::prelude::*;

use super::*;
use crate::engine::service::{
    ConfigError, ForwardingMethod, Protocol, RealSpec, ServiceKey, ServiceSpec,
};
use crate::engine::snat::{DEFAULT_PORTS, SnatRule};
use crate::engine::{Hop, Owner};
use crate::packet::checksum::Sum;
use crate::packet::headers::{set_word, word};

const CLIENT: &str = "12.0.0.12";
const VIP: &str = "12.0.0.1";
const ACCP: &str = "192.168.200.110";
const BENET: &str = "192.168.200.120";

/// The 12.0.0.1 lab: the director owns the outside address, everything else is reachable.
struct Lab {
    owner: Owner,
    mtu: usize,
}

impl Network for Lab {
    fn mtu(&self, to: Addr) -> Option<usize> {
        (to != addr("203.0.113.99")).then_some(self.mtu)
    }

    fn address_towards(&self, to: Addr) -> Option<Addr> {
        let inside = to.v4_bits() >> 8 == addr(ACCP).v4_bits() >> 8;
        Some(if inside { addr("192.168.200.1") } else { addr(VIP) })
    }

    fn owner(&self, address: Addr) -> Owner {
        let own = address == addr(VIP) || address == addr("192.168.200.1");
        if own { self.owner } else { Owner::Other }
    }

    fn leaves_by(&self, to: Addr, interface: &str) -> bool {
        let inside = to.v4_bits() >> 8 == addr(ACCP).v4_bits() >> 8;
        interface == if inside { "in" } else { "out" }
    }
}

const LAB: Lab = Lab { owner: Owner::Kernel, mtu: 1500 };
const OWN_MAC: Lab = Lab { owner: Owner::Director, mtu: 1500 };

struct Fixture {
    services: Arc<ServiceTable>,
    director: Director,
    now: Moment,
}

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn key(protocol: Protocol, port: u16) -> ServiceKey {
    ServiceKey::Address { protocol, addr: addr(VIP), port }
}

fn masqueraded(server: &str, port: u16) -> RealSpec {
    RealSpec { method: ForwardingMethod::Masquerade, ..RealSpec::new(addr(server), port) }
}

impl Fixture {
    fn empty() -> Self {
        Self::of(Arc::new(ServiceTable::new(1)), 0)
    }

    /// One of the workers that share a table.
    fn of(services: Arc<ServiceTable>, worker: usize) -> Self {
        let now = Moment::from_ms(1_000_000);
        let config = DirectorConfig::new(worker, 42);
        let director = Director::new(Arc::clone(&services), config, now);
        Self { services, director, now }
    }

    /// `ipvsadm -A -t 12.0.0.1:80 -s rr` with both servers, and the same for UDP port 53.
    fn new() -> Self {
        let mut fixture = Self::empty();
        for (protocol, port, server_port) in [(Protocol::Tcp, 80, 8080), (Protocol::Udp, 53, 53)] {
            let key = key(protocol, port);
            let spec = ServiceSpec { scheduler: "rr".into(), ..ServiceSpec::new(key) };
            fixture.services.add_service(spec, fixture.now).unwrap();
            for server in [ACCP, BENET] {
                fixture.services.add_real(&key, &masqueraded(server, server_port)).unwrap();
            }
        }
        fixture.director.refresh();
        fixture
    }

    fn send(&mut self, bytes: &mut [u8]) -> Verdict {
        self.send_into(bytes, &LAB)
    }

    fn send_into(&mut self, bytes: &mut [u8], network: &Lab) -> Verdict {
        let before = self.director.verdicts().total();
        let len = bytes.len();
        let mut packet = PacketBuf::new(bytes, 0, len);
        let verdict = self.director.handle_packet(&mut packet, network, self.now);
        assert_eq!(self.director.verdicts().total(), before + 1, "each packet is counted once");
        verdict
    }

    fn sleep(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.now = Moment::from_ms(self.now.as_ms() + 100);
            self.director.handle_timeout(self.now, u32::MAX);
        }
    }

    fn states(&self) -> Vec<&'static str> {
        self.director.connections().iter().map(|conn| conn.state().name()).collect()
    }

    fn load(&self, server: &str) -> (u32, u32) {
        let view = self.services.view(&key(Protocol::Tcp, 80)).unwrap();
        let real = view.reals.iter().find(|real| real.spec.addr == addr(server)).unwrap();
        (real.active, real.inactive)
    }
}

fn octets(text: &str) -> [u8; 4] {
    addr(text).v4_bits().to_be_bytes()
}

fn tcp(from: (&str, u16), to: (&str, u16), flags: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ip = PacketBuilder::ipv4(octets(from.0), octets(to.0), 64);
    ip.tcp(from.1, to.1, 1000, 1024).write(&mut bytes, b"hello").unwrap();
    let old = word(&bytes, 32);
    bytes[33] = flags;
    let change = Sum::default().minus_word(old).plus_word(word(&bytes, 32));
    let sum = crate::packet::checksum::updated(word(&bytes, 36), change);
    set_word(&mut bytes, 36, sum);
    bytes
}

fn udp(from: (&str, u16), to: (&str, u16), len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ip = PacketBuilder::ipv4(octets(from.0), octets(to.0), 64);
    ip.udp(from.1, to.1).write(&mut bytes, &vec![7; len]).unwrap();
    bytes
}

fn ends(bytes: &[u8]) -> (String, String) {
    let headers = Headers::parse(bytes).expect("what the director sends is well-formed");
    (headers.source.to_string(), headers.destination.to_string())
}

fn checksum_is_right(bytes: &[u8]) -> bool {
    let sliced = SlicedPacket::from_ip(bytes).unwrap();
    let (from, to) = (bytes[12..16].try_into().unwrap(), bytes[16..20].try_into().unwrap());
    match sliced.transport.unwrap() {
        TransportSlice::Tcp(tcp) => tcp.calc_checksum_ipv4(from, to).unwrap() == tcp.checksum(),
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            header.calc_checksum_ipv4_raw(from, to, udp.payload()).unwrap() == header.checksum
        }
        _ => Sum::of(&bytes[20..]).folded() == 0xffff,
    }
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const SYN_ACK: u8 = 0x12;
const FIN_ACK: u8 = 0x11;
const RST: u8 = 0x04;

#[test]
fn a_connection_is_translated_both_ways() {
    let mut lab = Fixture::new();
    let mut request = tcp((CLIENT, 1000), (VIP, 80), SYN);
    assert_eq!(lab.send(&mut request), Verdict::Forward(Hop { to: addr(BENET) }));
    assert_eq!(ends(&request), ("12.0.0.12:1000".into(), "192.168.200.120:8080".into()));
    assert!(checksum_is_right(&request));
    let mut reply = tcp((BENET, 8080), (CLIENT, 1000), SYN_ACK);
    assert_eq!(lab.send(&mut reply), Verdict::Forward(Hop { to: addr(CLIENT) }));
    assert_eq!(ends(&reply), ("12.0.0.1:80".into(), "12.0.0.12:1000".into()));
    assert!(checksum_is_right(&reply));
    lab.send(&mut tcp((CLIENT, 1000), (VIP, 80), ACK));
    assert_eq!(lab.states(), ["ESTABLISHED"]);
    assert_eq!(lab.load(BENET), (1, 0));
    let view = lab.services.view(&key(Protocol::Tcp, 80)).unwrap();
    let totals = view.totals;
    assert_eq!((totals.connections, totals.in_packets, totals.out_packets), (1, 2, 1));
    assert_eq!((totals.in_bytes, totals.out_bytes), (90, 45));
}

#[test]
fn round_robin_begins_with_the_newest_server() {
    let mut lab = Fixture::new();
    let servers: Vec<_> = (1000..1006)
        .map(|port| lab.send(&mut tcp((CLIENT, port), (VIP, 80), SYN)))
        .map(|verdict| match verdict {
            Verdict::Forward(hop) => hop.to.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(servers, [BENET, ACCP, BENET, ACCP, BENET, ACCP]);
    assert_eq!((lab.load(ACCP), lab.load(BENET)), ((3, 0), (3, 0)));
}

#[test]
fn a_closed_connection_expires_and_is_counted_out() {
    let mut lab = Fixture::new();
    lab.send(&mut tcp((CLIENT, 1000), (VIP, 80), SYN));
    lab.send(&mut tcp((BENET, 8080), (CLIENT, 1000), SYN_ACK));
    lab.send(&mut tcp((CLIENT, 1000), (VIP, 80), ACK));
    lab.send(&mut tcp((CLIENT, 1000), (VIP, 80), FIN_ACK));
    assert_eq!((lab.states(), lab.load(BENET)), (vec!["CLOSE_WAIT"], (0, 1)));
    lab.send(&mut tcp((BENET, 8080), (CLIENT, 1000), FIN_ACK));
    assert_eq!(lab.states(), ["TIME_WAIT"]);
    lab.sleep(119);
    assert_eq!(lab.states(), ["TIME_WAIT"]);
    lab.sleep(2);
    assert!(lab.director.connections().is_empty());
    assert_eq!(lab.load(BENET), (0, 0));
}

#[test]
fn packets_keep_a_connection_alive() {
    let mut lab = Fixture::new();
    for _ in 0..5 {
        lab.send(&mut udp((CLIENT, 1000), (VIP, 53), 10));
        lab.sleep(200);
    }
    assert_eq!(lab.states(), ["UDP"]);
    lab.sleep(101);
    assert!(lab.states().is_empty());
}

#[test]
fn without_a_usable_server_the_port_is_unreachable() {
    let mut lab = Fixture::new();
    for server in [ACCP, BENET] {
        let spec = RealSpec { weight: 0, ..masqueraded(server, 8080) };
        lab.services.edit_real(&key(Protocol::Tcp, 80), &spec).unwrap();
    }
    let original = tcp((CLIENT, 1000), (VIP, 80), SYN);
    assert_eq!(lab.send(&mut original.clone()), Verdict::Reply);
    let output = lab.director.poll_output().unwrap();
    assert_eq!(output.to, addr(CLIENT));
    assert_eq!(ends(&output.bytes), ("12.0.0.1:0".into(), "12.0.0.12:0".into()));
    assert_eq!(output.bytes[20..22], [3, 3]);
    assert_eq!(output.bytes[28..], original);
    assert!(checksum_is_right(&output.bytes));
}

#[test]
fn errors_are_limited_under_a_flood() {
    let mut lab = Fixture::new();
    lab.services.delete_real(&key(Protocol::Udp, 53), addr(ACCP), 53).unwrap();
    lab.services.delete_real(&key(Protocol::Udp, 53), addr(BENET), 53).unwrap();
    for _ in 0..1000 {
        lab.send(&mut udp((CLIENT, 1000), (VIP, 53), 10));
        let _ = lab.director.poll_output();
    }
    assert_eq!(lab.director.verdicts().replied, 50);
    assert_eq!(lab.director.verdicts().dropped(DropReason::IcmpLimited), 950);
}

#[test]
fn what_belongs_to_no_service_is_left_to_the_host() {
    let mut lab = Fixture::new();
    for mut packet in [
        tcp((CLIENT, 1000), (VIP, 22), SYN),
        tcp((CLIENT, 1000), (VIP, 80), ACK),
        tcp((CLIENT, 1000), (VIP, 80), RST),
        udp((CLIENT, 1000), (VIP, 80), 1),
        tcp((ACCP, 8080), (CLIENT, 1000), SYN_ACK),
    ] {
        let before = packet.clone();
        assert_eq!(lab.send(&mut packet), Verdict::Pass);
        assert_eq!(packet, before);
    }
    assert!(lab.director.connections().is_empty());
}

#[test]
fn at_an_address_of_its_own_the_director_answers_as_a_host() {
    let mut lab = Fixture::new();
    let mut answer = |mut packet: Vec<u8>| {
        let verdict = lab.send_into(&mut packet, &OWN_MAC);
        (verdict, lab.director.poll_output().map(|output| output.bytes))
    };
    let mut echo = Vec::new();
    let ip = PacketBuilder::ipv4(octets(CLIENT), octets(VIP), 64);
    ip.icmpv4_echo_request(7, 9).write(&mut echo, b"ping").unwrap();
    let (verdict, reply) = answer(echo);
    let reply = reply.unwrap();
    assert_eq!((verdict, reply[20], &reply[28..]), (Verdict::Reply, 0, &b"ping"[..]));
    assert!(checksum_is_right(&reply));
    let (_, reset) = answer(tcp((CLIENT, 1000), (VIP, 22), SYN));
    let reset = reset.unwrap();
    assert_eq!(TcpHeaderSlice::from_slice(&reset[20..]).unwrap().acknowledgment_number(), 1006);
    let (_, unreachable) = answer(udp((CLIENT, 1000), (VIP, 9), 1));
    assert_eq!(unreachable.unwrap()[20..22], [3, 3]);
    let (silent, nothing) = answer(tcp((CLIENT, 1000), (VIP, 22), RST));
    assert_eq!((silent, nothing), (Verdict::Drop(DropReason::NotForUs), None));
}

#[test]
fn a_removed_servers_connections_swallow_requests_and_pass_answers() {
    let mut lab = Fixture::new();
    lab.send(&mut tcp((CLIENT, 1000), (VIP, 80), SYN));
    lab.services.delete_real(&key(Protocol::Tcp, 80), addr(BENET), 8080).unwrap();
    let swallowed = Verdict::Drop(DropReason::ServerRemoved);
    assert_eq!(lab.send(&mut tcp((CLIENT, 1000), (VIP, 80), ACK)), swallowed);
    let answered = lab.send(&mut tcp((BENET, 8080), (CLIENT, 1000), SYN_ACK));
    assert_eq!(answered, Verdict::Forward(Hop { to: addr(CLIENT) }));
    lab.services.add_real(&key(Protocol::Tcp, 80), &masqueraded(BENET, 8080)).unwrap();
    let revived = lab.send(&mut tcp((CLIENT, 1000), (VIP, 80), ACK));
    assert_eq!(revived, Verdict::Forward(Hop { to: addr(BENET) }));
    assert_eq!(lab.load(BENET), (1, 0));
    let view = lab.services.view(&key(Protocol::Tcp, 80)).unwrap();
    assert_eq!(view.totals.connections, 1, "a revived server brings its counters back once");
}

#[test]
fn a_syn_on_a_closed_connection_is_scheduled_anew() {
    let mut lab = Fixture::new();
    lab.send(&mut tcp((CLIENT, 1000), (VIP, 80), SYN));
    lab.send(&mut tcp((BENET, 8080), (CLIENT, 1000), RST));
    assert_eq!(lab.states(), ["CLOSE"]);
    let again = lab.send(&mut tcp((CLIENT, 1000), (VIP, 80), SYN));
    assert_eq!(again, Verdict::Forward(Hop { to: addr(ACCP) }));
    assert_eq!(lab.states(), ["SYN_RECV"]);
}

#[test]
fn a_last_hop_ends_with_time_exceeded() {
    let mut lab = Fixture::new();
    let mut request = tcp((CLIENT, 1000), (VIP, 80), SYN);
    request[8] = 1;
    let sum = word(&request, 10).wrapping_add(63 << 8);
    set_word(&mut request, 10, sum);
    assert_eq!(lab.send(&mut request), Verdict::Reply);
    assert_eq!(lab.director.poll_output().unwrap().bytes[20..22], [11, 0]);
    assert_eq!(lab.states(), ["SYN_RECV"], "the connection is made all the same");
}

#[test]
fn a_packet_too_big_for_the_way_is_refused_in_the_senders_terms() {
    let mut lab = Fixture::new();
    let network = Lab { owner: Owner::Kernel, mtu: 600 };
    let mut request = udp((CLIENT, 1000), (VIP, 53), 573);
    assert_eq!(lab.send_into(&mut request, &network), Verdict::Reply);
    let error = lab.director.poll_output().unwrap().bytes;
    assert_eq!((&error[20..22], word(&error, 26)), (&[3, 4][..], 600));
    assert_eq!(ends(&error), ("12.0.0.1:0".into(), "12.0.0.12:0".into()));
}

#[test]
fn errors_about_a_connection_are_translated_both_ways() {
    let mut lab = Fixture::new();
    let mut request = tcp((CLIENT, 1000), (VIP, 80), SYN);
    lab.send(&mut request);
    let mut error = icmp_error(BENET, CLIENT, &request);
    assert_eq!(lab.send(&mut error), Verdict::Forward(Hop { to: addr(CLIENT) }));
    assert_eq!(ends(&error).0, "12.0.0.1:0");
    let quoted = Headers::parse_quoted(&error[28..]).unwrap();
    assert_eq!(quoted.destination.to_string(), "12.0.0.1:80");
    assert!(checksum_is_right(&error));
    let mut reply = tcp((BENET, 8080), (CLIENT, 1000), SYN_ACK);
    lab.send(&mut reply);
    let mut error = icmp_error(CLIENT, VIP, &reply);
    assert_eq!(lab.send(&mut error), Verdict::Forward(Hop { to: addr(BENET) }));
    let quoted = Headers::parse_quoted(&error[28..]).unwrap();
    assert_eq!(quoted.source.to_string(), "192.168.200.120:8080");
    assert!(checksum_is_right(&error));
    let mut damaged = icmp_error(BENET, CLIENT, &request);
    damaged[22] ^= 1;
    assert_eq!(lab.send(&mut damaged), Verdict::Drop(DropReason::BadChecksum));
}

fn icmp_error(from: &str, to: &str, quoted: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ip = PacketBuilder::ipv4(octets(from), octets(to), 64);
    ip.icmpv4_raw(3, 1, [0; 4]).write(&mut bytes, quoted).unwrap();
    bytes
}

#[test]
fn a_server_reaches_the_outside_under_the_directors_address() {
    let mut lab = Fixture::empty();
    let rule = SnatRule {
        out: Some("out".into()),
        source: Some("192.168.200.0/24".parse().unwrap()),
        destination: None,
        protocol: None,
        to: addr(VIP),
        ports: DEFAULT_PORTS,
    };
    lab.services.set_snat(vec![rule]).unwrap();
    lab.director.refresh();
    let mut syn = tcp((ACCP, 2000), (CLIENT, 80), SYN);
    assert_eq!(lab.send(&mut syn), Verdict::Forward(Hop { to: addr(CLIENT) }));
    let headers = Headers::parse(&syn).unwrap();
    assert_eq!(headers.source.addr, addr(VIP));
    assert!(DEFAULT_PORTS.contains(&headers.source.port) && checksum_is_right(&syn));
    let mut answer = tcp((CLIENT, 80), (VIP, headers.source.port), SYN_ACK);
    assert_eq!(lab.send(&mut answer), Verdict::Forward(Hop { to: addr(ACCP) }));
    assert_eq!(ends(&answer).1, "192.168.200.110:2000");
    assert_eq!(lab.states(), ["ESTABLISHED"]);
    let mut ping = Vec::new();
    let ip = PacketBuilder::ipv4(octets(ACCP), octets(CLIENT), 64);
    ip.icmpv4_echo_request(7, 9).write(&mut ping, b"ping").unwrap();
    assert_eq!(lab.send(&mut ping), Verdict::Forward(Hop { to: addr(CLIENT) }));
    assert!(checksum_is_right(&ping) && word(&ping, 24) >= 61_000);
    let mut pong = Vec::new();
    let ip = PacketBuilder::ipv4(octets(CLIENT), octets(VIP), 64);
    ip.icmpv4_echo_reply(word(&ping, 24), 9).write(&mut pong, b"ping").unwrap();
    assert_eq!(lab.send(&mut pong), Verdict::Forward(Hop { to: addr(ACCP) }));
    assert!(checksum_is_right(&pong) && word(&pong, 24) == 7);
    let elsewhere = lab.send(&mut tcp((ACCP, 2000), (BENET, 80), SYN));
    assert_eq!(elsewhere, Verdict::Pass, "it does not leave by the rule's interface");
}

#[test]
fn a_full_table_refuses_and_says_so() {
    let services = Fixture::new().services;
    let now = Moment::from_ms(5);
    let config = DirectorConfig { max_connections: 2, ..DirectorConfig::new(0, 1) };
    let director = Director::new(Arc::clone(&services), config, now);
    let mut lab = Fixture { services, director, now };
    for port in 0..2 {
        lab.send(&mut udp((CLIENT, port), (VIP, 53), 1));
    }
    let full = lab.send(&mut udp((CLIENT, 2), (VIP, 53), 1));
    assert_eq!(full, Verdict::Drop(DropReason::TableFull));
    lab.sleep(301);
    let again = lab.send(&mut udp((CLIENT, 2), (VIP, 53), 1));
    assert!(matches!(again, Verdict::Forward(_)));
}

#[test]
fn a_refused_edit_changes_nothing() {
    let lab = Fixture::new();
    let service = key(Protocol::Tcp, 80);
    let before = (lab.services.epoch(), lab.services.view(&service));
    let spec = ServiceSpec { scheduler: "nonesuch".into(), ..ServiceSpec::new(service) };
    assert_eq!(lab.services.edit_service(spec, lab.now), Err(ConfigError::NoSuchScheduler));
    let again = ServiceSpec::new(service);
    assert_eq!(lab.services.add_service(again, lab.now), Err(ConfigError::ServiceExists));
    let real = RealSpec { lower_threshold: 1, ..masqueraded(ACCP, 1) };
    assert_eq!(lab.services.add_real(&service, &real), Err(ConfigError::OutOfRange));
    let real = masqueraded("224.0.0.1", 80);
    assert_eq!(lab.services.add_real(&service, &real), Err(ConfigError::Invalid));
    let absent = lab.services.delete_real(&service, addr(ACCP), 80);
    assert_eq!(absent, Err(ConfigError::NoSuchReal));
    assert_eq!(before, (lab.services.epoch(), lab.services.view(&service)));
}

proptest! {
    #[test]
    fn damaged_packets_move_counters_and_nothing_else(
        flips in proptest::collection::vec((0usize..64, any::<u8>()), 1..8),
        cut in 0usize..60,
        kind in 0u8..3,
        fix_checksum in any::<bool>(),
    ) {
        let mut lab = Fixture::new();
        let mut request = tcp((CLIENT, 1000), (VIP, 80), SYN);
        lab.send(&mut request);
        let mut bytes = match kind {
            0 => tcp((CLIENT, 1000), (VIP, 80), ACK),
            1 => udp((CLIENT, 1000), (VIP, 53), 20),
            _ => icmp_error(BENET, CLIENT, &request),
        };
        for (at, value) in flips {
            let len = bytes.len();
            bytes[at % len] = value;
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        if fix_checksum && bytes.len() >= 20 {
            set_word(&mut bytes, 10, 0);
            let header_len = (usize::from(bytes[0] & 15) * 4).clamp(20, bytes.len());
            let sum = Sum::of(&bytes[..header_len]).checksum();
            set_word(&mut bytes, 10, sum);
        }
        let verdict = lab.send(&mut bytes);
        if let Verdict::Forward(_) = verdict {
            prop_assert!(Headers::parse(&bytes).is_ok());
        }
        prop_assert!(lab.director.connections().len() <= 2);
    }
}
