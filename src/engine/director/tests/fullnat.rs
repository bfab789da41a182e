//! Full NAT: local endpoints, answers, errors, exhausted pools, several workers.

use super::*;
use crate::engine::local::{DEFAULT_LOCAL_PORTS, Locals};
use crate::engine::shard::owner;
use crate::packet::headers::protocol::{TCP, UDP};

const INSIDE: &str = "192.168.200.1";
/// An address that nobody has but the director's pools.
const LOCAL: &str = "192.168.200.9";

fn full_nat(server: &str, port: u16) -> RealSpec {
    RealSpec { method: ForwardingMethod::FullNat, ..RealSpec::new(addr(server), port) }
}

impl Fixture {
    /// One server reached by full NAT, its service with these local addresses.
    fn full_nat(local_addresses: &[&str]) -> Self {
        Self::full_nat_of(1, local_addresses)
    }

    /// The same for several workers, of which this is the first.
    fn full_nat_of(workers: usize, local_addresses: &[&str]) -> Self {
        let mut fixture = Self::of(Arc::new(ServiceTable::new(workers)), 0);
        for (protocol, port, server_port) in [(Protocol::Tcp, 80, 8080), (Protocol::Udp, 53, 53)] {
            let key = key(protocol, port);
            let spec = ServiceSpec {
                scheduler: "rr".into(),
                local_addresses: local_addresses.iter().map(|text| addr(text)).collect(),
                ..ServiceSpec::new(key)
            };
            fixture.services.add_service(spec, fixture.now).unwrap();
            fixture.services.add_real(&key, &full_nat(ACCP, server_port)).unwrap();
        }
        fixture.director.refresh();
        fixture
    }

    /// Only these TCP ports may be used at [`LOCAL`].
    fn limit(&mut self, ports: std::ops::RangeInclusive<u16>) {
        let ports = [((addr(LOCAL), TCP), ports.collect())].into_iter().collect();
        self.services.set_locals(Locals { ports, ..Locals::default() });
        self.director.refresh();
    }

    /// The local endpoint that a client's SYN gets.
    fn open(&mut self, port: u16) -> Result<Endpoint, Verdict> {
        let mut request = tcp((CLIENT, port), (VIP, 80), SYN);
        match self.send(&mut request) {
            Verdict::Forward(_) => Ok(Headers::parse(&request).unwrap().source),
            other => Err(other),
        }
    }
}

fn text(endpoint: Endpoint) -> String {
    endpoint.addr.to_string()
}

#[test]
fn both_addresses_and_ports_are_translated_both_ways() {
    let mut lab = Fixture::full_nat(&[]);
    let mut request = tcp((CLIENT, 1000), (VIP, 80), SYN);
    assert_eq!(lab.send(&mut request), Verdict::Forward(Hop { to: addr(ACCP) }));
    let local = Headers::parse(&request).unwrap().source;
    assert_eq!(text(local), INSIDE, "the director's address on the way to the server");
    assert!(DEFAULT_LOCAL_PORTS.contains(&local.port), "{local}");
    assert_eq!(ends(&request).1, "192.168.200.110:8080");
    assert!(checksum_is_right(&request));
    let mut reply = tcp((ACCP, 8080), (INSIDE, local.port), SYN_ACK);
    assert_eq!(lab.send(&mut reply), Verdict::Forward(Hop { to: addr(CLIENT) }));
    assert_eq!(ends(&reply), ("12.0.0.1:80".into(), "12.0.0.12:1000".into()));
    assert!(checksum_is_right(&reply));
    let mut ack = tcp((CLIENT, 1000), (VIP, 80), ACK);
    lab.send(&mut ack);
    assert_eq!(Headers::parse(&ack).unwrap().source, local, "the endpoint stays");
    assert_eq!(lab.states(), ["ESTABLISHED"]);
    let totals = lab.services.view(&key(Protocol::Tcp, 80)).unwrap().totals;
    assert_eq!((totals.connections, totals.in_packets, totals.out_packets), (1, 2, 1));
}

#[test]
fn datagrams_go_and_come_as_segments_do() {
    let mut lab = Fixture::full_nat(&[]);
    let mut question = udp((CLIENT, 1000), (VIP, 53), 10);
    lab.send(&mut question);
    let local = Headers::parse(&question).unwrap().source;
    assert!(checksum_is_right(&question) && text(local) == INSIDE);
    let mut answer = udp((ACCP, 53), (INSIDE, local.port), 20);
    assert_eq!(lab.send(&mut answer), Verdict::Forward(Hop { to: addr(CLIENT) }));
    assert_eq!(ends(&answer), ("12.0.0.1:53".into(), "12.0.0.12:1000".into()));
    assert!(checksum_is_right(&answer));
}

#[test]
fn the_services_own_addresses_are_used_and_no_endpoint_twice() {
    let mut lab = Fixture::full_nat(&[LOCAL, "192.168.200.10"]);
    let endpoints: Vec<_> = (1000..1200).map(|port| lab.open(port).unwrap()).collect();
    let distinct: std::collections::HashSet<_> = endpoints.iter().collect();
    assert_eq!(distinct.len(), 200);
    let at_first = endpoints.iter().filter(|endpoint| text(**endpoint) == LOCAL).count();
    assert!((60..140).contains(&at_first), "{at_first} of 200 at the first of two");
    assert!(endpoints.iter().all(|at| [LOCAL, "192.168.200.10"].contains(&text(*at).as_str())));
}

#[test]
fn what_answers_no_connection_is_left_to_the_host() {
    let mut lab = Fixture::full_nat(&[]);
    let local = lab.open(1000).unwrap();
    for (from, port) in [((ACCP, 8081), local.port), ((ACCP, 8080), local.port ^ 1)] {
        assert_eq!(lab.send(&mut tcp(from, (INSIDE, port), SYN_ACK)), Verdict::Pass);
    }
    let mut stray = tcp((ACCP, 8080), (INSIDE, local.port ^ 1), SYN_ACK);
    assert_eq!(lab.send_into(&mut stray, &OWN_MAC), Verdict::Reply, "as a host, it resets");
}

#[test]
fn an_exhausted_pool_drops_and_says_so_and_another_server_is_another_pool() {
    let mut lab = Fixture::full_nat(&[LOCAL]);
    lab.limit(40_000..=40_002);
    let established = |lab: &mut Fixture, port| -> Result<Endpoint, Verdict> {
        let local = lab.open(port)?;
        lab.send(&mut tcp((CLIENT, port), (VIP, 80), ACK));
        Ok(local)
    };
    for port in 1000..1003 {
        established(&mut lab, port).unwrap();
    }
    let exhausted = Verdict::Drop(DropReason::LocalPortsExhausted);
    assert_eq!(lab.open(1003), Err(exhausted));
    assert_eq!(lab.director.verdicts().dropped(DropReason::LocalPortsExhausted), 1);
    lab.services.add_real(&key(Protocol::Tcp, 80), &full_nat(BENET, 8080)).unwrap();
    let opened = (1004..1010).filter(|port| established(&mut lab, *port).is_ok());
    assert_eq!(opened.count(), 3, "every other goes to the new server, which has all ports");
}

#[test]
fn connections_that_are_over_or_half_open_give_their_endpoints_away() {
    let mut lab = Fixture::full_nat(&[LOCAL]);
    lab.limit(40_000..=40_001);
    let living = lab.open(1000).unwrap();
    lab.send(&mut tcp((CLIENT, 1000), (VIP, 80), ACK));
    let half_open = lab.open(1001).unwrap();
    assert_eq!(lab.open(1002), Ok(half_open), "in the place of the first that is half open");
    lab.send(&mut tcp((CLIENT, 1002), (VIP, 80), ACK));
    lab.send(&mut tcp((CLIENT, 1002), (VIP, 80), RST));
    assert_eq!(lab.states(), ["ESTABLISHED", "CLOSE"]);
    assert_eq!(lab.open(1003), Ok(half_open));
    lab.send(&mut tcp((CLIENT, 1003), (VIP, 80), ACK));
    assert!(lab.open(1004).is_err());
    let mut answer = tcp((ACCP, 8080), (LOCAL, living.port), ACK);
    lab.send(&mut answer);
    assert_eq!(ends(&answer).1, "12.0.0.12:1000", "who lives keeps its endpoint");
    assert_eq!(lab.load(ACCP), (2, 0));
}

#[test]
fn ports_that_are_not_kept_from_the_kernel_are_not_used() {
    let mut lab = Fixture::full_nat(&[]);
    lab.services.set_locals(Locals { guarded: true, ..Locals::default() });
    lab.director.refresh();
    assert_eq!(lab.open(1000), Err(Verdict::Drop(DropReason::NoLocalAddress)));
    let mut request = tcp((CLIENT, 1001), (VIP, 80), SYN);
    let forwarded = lab.send_into(&mut request, &OWN_MAC);
    assert_eq!(forwarded, Verdict::Forward(Hop { to: addr(ACCP) }), "its own address is its own");
}

#[test]
fn errors_are_translated_both_ways() {
    let mut lab = Fixture::full_nat(&[]);
    let mut request = tcp((CLIENT, 1000), (VIP, 80), SYN);
    lab.send(&mut request);
    let local = Headers::parse(&request).unwrap().source;
    let mut error = icmp_error("10.9.9.9", INSIDE, &request);
    assert_eq!(lab.send(&mut error), Verdict::Forward(Hop { to: addr(CLIENT) }));
    assert_eq!(ends(&error), ("12.0.0.1:0".into(), "12.0.0.12:0".into()));
    let quoted = Headers::parse_quoted(&error[28..]).unwrap();
    assert_eq!(quoted.source.to_string(), "12.0.0.12:1000");
    assert_eq!(quoted.destination.to_string(), "12.0.0.1:80");
    assert!(checksum_is_right(&error));

    let mut reply = tcp((ACCP, 8080), (INSIDE, local.port), SYN_ACK);
    lab.send(&mut reply);
    let mut error = icmp_error("10.8.8.8", VIP, &reply);
    assert_eq!(lab.send(&mut error), Verdict::Forward(Hop { to: addr(ACCP) }));
    assert_eq!(ends(&error), ("192.168.200.1:0".into(), "192.168.200.110:0".into()));
    let quoted = Headers::parse_quoted(&error[28..]).unwrap();
    assert_eq!(quoted.source.to_string(), "192.168.200.110:8080");
    assert_eq!(quoted.destination, local);
    assert!(checksum_is_right(&error));
}

#[test]
fn each_worker_gets_the_answers_to_its_own_connections() {
    const WORKERS: usize = 4;
    let services = Fixture::full_nat_of(WORKERS, &[]).services;
    let mut taken = std::collections::HashSet::new();
    for worker in 0..WORKERS {
        let mut lab = Fixture::of(Arc::clone(&services), worker);
        for port in 1000..1500 {
            let local = lab.open(port).unwrap();
            assert_eq!(owner(local, TCP, WORKERS), worker);
            assert!(taken.insert(local), "{local} is used by two workers");
        }
    }
}

#[test]
fn a_persistent_client_keeps_its_server() {
    let mut lab = Fixture::full_nat(&[LOCAL]);
    let spec = ServiceSpec {
        scheduler: "rr".into(),
        persistence_timeout_s: Some(60),
        local_addresses: [addr(LOCAL)].into(),
        ..ServiceSpec::new(key(Protocol::Tcp, 80))
    };
    lab.services.edit_service(spec, lab.now).unwrap();
    lab.services.add_real(&key(Protocol::Tcp, 80), &full_nat(BENET, 8080)).unwrap();
    let servers: std::collections::HashSet<_> = (1000..1006)
        .map(|port| lab.send(&mut tcp((CLIENT, port), (VIP, 80), SYN)))
        .map(|verdict| format!("{verdict:?}"))
        .collect();
    assert_eq!(servers.len(), 1, "{servers:?}");
}

#[test]
fn local_addresses_of_another_family_are_refused() {
    let services = ServiceTable::new(1);
    let now = Moment::from_ms(0);
    for wrong in ["2001:db8::1", "224.0.0.1", "0.0.0.0"] {
        let local_addresses = [addr(wrong)].into();
        let spec = ServiceSpec { local_addresses, ..ServiceSpec::new(key(Protocol::Tcp, 80)) };
        assert_eq!(services.add_service(spec, now), Err(ConfigError::Invalid), "{wrong}");
    }
}

#[test]
fn ipv6_goes_as_ipv4_does() {
    struct Lab6;
    impl Network for Lab6 {
        fn mtu(&self, _: Addr) -> Option<usize> {
            Some(1500)
        }
        fn address_towards(&self, _: Addr) -> Option<Addr> {
            Some(addr("2001:db8:2::1"))
        }
        fn owner(&self, address: Addr) -> Owner {
            let own = [addr("2001:db8:1::1"), addr("2001:db8:2::1")].contains(&address);
            if own { Owner::Director } else { Owner::Other }
        }
        fn leaves_by(&self, _: Addr, _: &str) -> bool {
            false
        }
    }
    let mut lab = Fixture::empty();
    let key =
        ServiceKey::Address { protocol: Protocol::Udp, addr: addr("2001:db8:1::1"), port: 53 };
    lab.services.add_service(ServiceSpec::new(key), lab.now).unwrap();
    lab.services.add_real(&key, &full_nat("2001:db8:2::110", 5353)).unwrap();
    lab.director.refresh();
    let octets = |text: &str| addr(text).bits().to_be_bytes();
    let datagram = |from: &str, to: &str, ports: (u16, u16)| {
        let mut bytes = Vec::new();
        let ip = PacketBuilder::ipv6(octets(from), octets(to), 64);
        ip.udp(ports.0, ports.1).write(&mut bytes, b"abc").unwrap();
        bytes
    };
    let mut judge = |bytes: &mut [u8]| {
        let len = bytes.len();
        lab.director.handle_packet(&mut PacketBuf::new(bytes, 0, len), &Lab6, lab.now)
    };
    let mut question = datagram("2001:db8:9::9", "2001:db8:1::1", (1000, 53));
    assert_eq!(judge(&mut question), Verdict::Forward(Hop { to: addr("2001:db8:2::110") }));
    let headers = Headers::parse(&question).unwrap();
    assert_eq!(headers.source.addr, addr("2001:db8:2::1"));
    let sum = |bytes: &[u8]| {
        let headers = Headers::parse(bytes).unwrap();
        let (from, to) = (headers.source.addr, headers.destination.addr);
        let pseudo = Sum::pseudo_header(from, to, UDP, bytes.len() - 40);
        pseudo.plus(Sum::of(&bytes[40..])).folded()
    };
    assert_eq!(sum(&question), 0xffff);
    let mut answer = datagram("2001:db8:2::110", "2001:db8:2::1", (5353, headers.source.port));
    assert_eq!(judge(&mut answer), Verdict::Forward(Hop { to: addr("2001:db8:9::9") }));
    assert_eq!(ends(&answer).0, "[2001:db8:1::1]:53");
    assert_eq!(sum(&answer), 0xffff);
}
