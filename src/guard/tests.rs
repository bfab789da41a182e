use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::*;
use crate::control::marks;
use crate::engine::Moment;
use crate::engine::mark::{Match, Side};
use crate::engine::service::{
    ClientAddress, ForwardingMethod, RealSpec, ServiceSpec, ServiceTable, Tunnel,
};
use crate::engine::{MarkRule, SnatRule};
use crate::host::look;
use crate::lab::net::{Namespace, Route, connect, sandbox};
use crate::packet::Endpoint;
use crate::packet::headers::protocol;

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

/// A director at 12.0.0.1 and 2001:db8:12::1, and a client with 12 at the end.
fn pair() -> (Namespace, Namespace) {
    let director = Namespace::new("director").unwrap();
    let client = Namespace::new("client").unwrap();
    connect(&director.end("out"), &client.end("eth0")).unwrap();
    director.add_address("out", "12.0.0.1/24".parse().unwrap()).unwrap();
    client.add_address("eth0", "12.0.0.12/24".parse().unwrap()).unwrap();
    director.add_address("out", "2001:db8:12::1/64".parse().unwrap()).unwrap();
    client.add_address("eth0", "2001:db8:12::12/64".parse().unwrap()).unwrap();
    (director, client)
}

fn services(keys: &[(Protocol, &str, u16)]) -> ServiceTable {
    let table = ServiceTable::new(1);
    for (protocol, at, port) in keys {
        let key = ServiceKey::Address { protocol: *protocol, addr: addr(at), port: *port };
        let mut spec = ServiceSpec::new(key);
        spec.persistence_timeout_s = (*port == 0).then_some(300);
        table.add_service(spec, Moment::default()).unwrap();
    }
    table
}

fn update(guard: &mut Guard, director: &Namespace, table: &ServiceTable) -> Vec<Problem> {
    director.run(|| guard.update(&table.snapshot(), &look().unwrap(), None)).unwrap()
}

/// What becomes of a connection attempt.
fn attempt(client: &Namespace, at: &str) -> Result<(), ErrorKind> {
    attempt_for(client, at, ANSWER)
}

fn attempt_for(client: &Namespace, at: &str, patience: Duration) -> Result<(), ErrorKind> {
    let to = at.parse().unwrap();
    let connect = || TcpStream::connect_timeout(&to, patience);
    client.run(connect).unwrap().map(drop).map_err(|error| error.kind())
}

fn is_silent(client: &Namespace, at: &str) -> bool {
    attempt_for(client, at, SILENCE) == Err(ErrorKind::TimedOut)
}

/// What becomes of a datagram that nobody answers.
fn ask(client: &Namespace, at: &str, patience: Duration) -> ErrorKind {
    let ask = || {
        let any = if at.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any)?;
        socket.connect(at)?;
        socket.set_read_timeout(Some(patience))?;
        socket.send(b"hello")?;
        socket.recv(&mut [0; 8])
    };
    client.run(ask).unwrap().unwrap_err().kind()
}

/// How long to wait for an answer that comes, on a busy machine, and for one that does not.
const ANSWER: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_millis(400);

#[test]
fn the_kernel_is_silent_on_guarded_ports_and_only_there() {
    sandbox::run("guard::tests::the_kernel_is_silent_on_guarded_ports_and_only_there", || {
        let (director, client) = pair();
        assert_eq!(attempt(&client, "12.0.0.1:80"), Err(ErrorKind::ConnectionRefused));
        assert_eq!(ask(&client, "12.0.0.1:53", ANSWER), ErrorKind::ConnectionRefused);
        let ssh = director.run(|| TcpListener::bind("0.0.0.0:22")).unwrap().unwrap();
        let table = services(&[
            (Protocol::Tcp, "12.0.0.1", 80),
            (Protocol::Udp, "12.0.0.1", 53),
            (Protocol::Tcp, "12.0.0.99", 80),
            (Protocol::Tcp, "2001:db8:12::1", 80),
            (Protocol::Udp, "2001:db8:12::1", 53),
            (Protocol::Tcp, "2001:db8:12::99", 80),
        ]);
        let mut guard = Guard::new();
        assert_eq!(update(&mut guard, &director, &table), []);
        assert_eq!(guard.held(), 4, "12.0.0.99 and 2001:db8:12::99 are not the kernel's");
        assert!(is_silent(&client, "12.0.0.1:80"));
        assert_eq!(ask(&client, "12.0.0.1:53", SILENCE), ErrorKind::WouldBlock);
        assert!(is_silent(&client, "[2001:db8:12::1]:80"));
        assert_eq!(ask(&client, "[2001:db8:12::1]:53", SILENCE), ErrorKind::WouldBlock);
        assert_eq!(attempt(&client, "[2001:db8:12::1]:81"), Err(ErrorKind::ConnectionRefused));
        let refused = ErrorKind::ConnectionRefused;
        assert_eq!(ask(&client, "[2001:db8:12::1]:54", ANSWER), refused);
        assert_eq!(attempt(&client, "12.0.0.1:22"), Ok(()));
        assert_eq!(attempt(&client, "12.0.0.1:81"), Err(ErrorKind::ConnectionRefused));
        drop(ssh);
        // What no service needs any more is as it was.
        table.flush();
        assert_eq!(update(&mut guard, &director, &table), []);
        assert_eq!(attempt(&client, "12.0.0.1:80"), Err(ErrorKind::ConnectionRefused));
        assert_eq!(attempt(&client, "[2001:db8:12::1]:80"), Err(ErrorKind::ConnectionRefused));
    });
}

#[test]
fn a_link_local_address_is_guarded_on_its_link() {
    sandbox::run("guard::tests::a_link_local_address_is_guarded_on_its_link", || {
        let (director, client) = pair();
        director.add_address("out", "fe80::1/64".parse().unwrap()).unwrap();
        client.add_address("eth0", "fe80::12/64".parse().unwrap()).unwrap();
        let at = format!("[fe80::1%{}]:80", client.index("eth0").unwrap());
        assert_eq!(attempt(&client, &at), Err(ErrorKind::ConnectionRefused));
        let table = services(&[(Protocol::Tcp, "fe80::1", 80)]);
        let mut guard = Guard::new();
        assert_eq!(update(&mut guard, &director, &table), []);
        assert!(is_silent(&client, &at));
    });
}

/// By each means alone, as not every kernel allows every one of them without privilege.
#[test]
fn each_means_silences_a_port_for_ordinary_clients() {
    sandbox::run("guard::tests::each_means_silences_a_port_for_ordinary_clients", || {
        let (director, client) = pair();
        for means in socket::Means::ALL {
            for at in ["12.0.0.1:80", "[2001:db8:12::1]:80"] {
                let addr: std::net::SocketAddr = at.parse().unwrap();
                let endpoint = Endpoint::new(addr.ip().into(), 80);
                let guarded = Guarded { protocol: protocol::TCP, at: endpoint, interface: 0 };
                let open = || GuardSocket::open_by(guarded, &[*means]);
                let _held = match director.run(open).unwrap() {
                    Err(error) if *means == socket::Means::Signature => {
                        println!("skipped: this kernel has no TCP-MD5 ({error})");
                        continue;
                    }
                    held => held.unwrap(),
                };
                assert!(is_silent(&client, at), "{at} by {means:?}");
            }
        }
    });
}

#[test]
fn a_port_in_use_is_reported_once_and_taken_when_it_is_free() {
    sandbox::run("guard::tests::a_port_in_use_is_reported_once_and_taken_when_it_is_free", || {
        let (director, client) = pair();
        let daemon = director.run(|| TcpListener::bind("0.0.0.0:80")).unwrap().unwrap();
        let table = services(&[(Protocol::Tcp, "12.0.0.1", 80)]);
        let mut guard = Guard::new();
        let problems = update(&mut guard, &director, &table);
        let [Problem::InUse { guarded, holder: Some(holder) }] = &problems[..] else {
            panic!("{problems:?}")
        };
        assert_eq!(guarded.to_string(), "TCP 12.0.0.1:80");
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
        assert_eq!(update(&mut guard, &director, &table), []);
        drop(daemon);
        assert_eq!(update(&mut guard, &director, &table), []);
        assert!(is_silent(&client, "12.0.0.1:80"));
    });
}

#[test]
fn a_range_of_ports_is_held_for_connections_that_begin_here() {
    sandbox::run("guard::tests::a_range_of_ports_is_held_for_connections_that_begin_here", || {
        let (director, client) = pair();
        let mut guard = Guard::new();
        let hold = |guard: &mut Guard, range| {
            director.run(|| guard.hold_ports(addr("12.0.0.1"), range)).unwrap().unwrap()
        };
        assert_eq!(hold(&mut guard, 61_000..=61_019), 61_000..=61_019);
        assert!(is_silent(&client, "12.0.0.1:61019"));
        assert_eq!(ask(&client, "12.0.0.1:61000", SILENCE), ErrorKind::WouldBlock);
        assert_eq!(attempt(&client, "12.0.0.1:61020"), Err(ErrorKind::ConnectionRefused));
        // As far as it goes.
        let _taken = director.run(|| UdpSocket::bind("12.0.0.1:62003")).unwrap().unwrap();
        guard.keep_ports(&[]);
        assert_eq!(attempt(&client, "12.0.0.1:61019"), Err(ErrorKind::ConnectionRefused));
        assert_eq!(hold(&mut guard, 62_000..=62_009), 62_000..=62_002);
        // Beside each other, and across what is held.
        assert_eq!(hold(&mut guard, 40_000..=40_009), 40_000..=40_009);
        assert_eq!(hold(&mut guard, 40_005..=40_014), 40_005..=40_014);
        assert!(is_silent(&client, "12.0.0.1:62002"));
        assert!(is_silent(&client, "12.0.0.1:40000"));
        guard.keep_ports(&[(addr("12.0.0.1"), 40_005..=40_014)]);
        assert_eq!(attempt(&client, "12.0.0.1:62002"), Err(ErrorKind::ConnectionRefused));
        assert_eq!(attempt(&client, "12.0.0.1:40000"), Err(ErrorKind::ConnectionRefused));
        assert!(is_silent(&client, "12.0.0.1:40005"));
    });
}

/// A client and a server with a forwarding host between them.
fn routed() -> [Namespace; 3] {
    let (director, client) = pair();
    let server = Namespace::new("server").unwrap();
    connect(&director.end("in"), &server.end("eth0")).unwrap();
    director.add_address("in", "192.168.200.1/24".parse().unwrap()).unwrap();
    server.add_address("eth0", "192.168.200.110/24".parse().unwrap()).unwrap();
    server.add_route(&Route::default_via([192, 168, 200, 1].into())).unwrap();
    client.add_route(&Route::default_via([12, 0, 0, 1].into())).unwrap();
    director.set_sysctl("net.ipv4.ip_forward", "1").unwrap();
    director.add_address("in", "2001:db8:200::1/64".parse().unwrap()).unwrap();
    server.add_address("eth0", "2001:db8:200::110/64".parse().unwrap()).unwrap();
    server.add_route(&Route::default_via("2001:db8:200::1".parse().unwrap())).unwrap();
    client.add_route(&Route::default_via("2001:db8:12::1".parse().unwrap())).unwrap();
    director.set_sysctl("net.ipv6.conf.all.forwarding", "1").unwrap();
    [director, client, server]
}

/// One family of the lab's addresses.
struct Addresses {
    service: &'static str,
    client: &'static str,
    server: &'static str,
}

const BOTH: [Addresses; 2] = [
    Addresses { service: "12.0.0.1", client: "12.0.0.12", server: "192.168.200.110" },
    Addresses { service: "2001:db8:12::1", client: "2001:db8:12::12", server: "2001:db8:200::110" },
];

/// An address and port as they are typed.
fn at(addr: &str, port: u16) -> String {
    std::net::SocketAddr::new(addr.parse().unwrap(), port).to_string()
}

/// Whether what a host sends from one port to another's arrives.
fn arrives(from: (&Namespace, String), to: (&Namespace, String)) -> bool {
    let bind = |(host, at): (&Namespace, String)| {
        let start = Instant::now();
        // A program that another test is just about to start has a copy of our last socket for a moment.
        let socket = loop {
            match host.run(|| UdpSocket::bind(&at)).unwrap() {
                Err(error) if error.kind() == ErrorKind::AddrInUse && start.elapsed() < ANSWER => {}
                bound => break bound.unwrap(),
            }
        };
        (socket, at)
    };
    let ((sender, _), (receiver, to)) = (bind(from), bind(to));
    receiver.set_read_timeout(Some(SILENCE)).unwrap();
    sender.send_to(b"answer", to).unwrap();
    receiver.recv(&mut [0; 8]).is_ok()
}

fn masquerade(table: &ServiceTable) {
    for service in table.snapshot().services() {
        let ServiceKey::Address { port, .. } = service.key() else { continue };
        let real = RealSpec {
            addr: addr(match service.key().family() {
                Family::V4 => "192.168.200.110",
                Family::V6 => "2001:db8:200::110",
            }),
            port,
            method: ForwardingMethod::Masquerade,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
            tunnel: Tunnel::default(),
            client_address: ClientAddress::default(),
        };
        table.add_real(&service.key(), &real).unwrap();
    }
}

#[test]
fn a_forwarding_kernel_drops_what_real_servers_reply_and_nothing_else() {
    let name = "guard::tests::a_forwarding_kernel_drops_what_real_servers_reply_and_nothing_else";
    sandbox::run(name, || {
        let [director, client, server] = routed();
        let listen = |at: &str| server.run(|| TcpListener::bind(at)).unwrap().unwrap();
        let _servers = ["[::]:80", "[::]:22"].map(listen);
        for Addresses { service, client: near, server: far } in BOTH {
            let answer = || arrives((&server, at(far, 53)), (&client, at(near, 5353)));
            assert_eq!(attempt(&client, &at(far, 22)), Ok(()));
            assert!(answer(), "the kernel forwards {far}");
            let keys = [(Protocol::Tcp, service, 80), (Protocol::Udp, service, 53)];
            let table = services(&keys);
            masquerade(&table);
            let mut guard = Guard::new();
            assert_eq!(update(&mut guard, &director, &table), []);
            assert!(guard.has_rules());
            assert!(!answer(), "the reply is the director's business");
            assert!(arrives((&server, at(far, 54)), (&client, at(near, 5353))), "others are not");
            assert_eq!(attempt(&client, &at(far, 22)), Ok(()));
            assert_eq!(attempt(&director, &at(far, 80)), Ok(()), "the host's own checks");
            assert!(is_silent(&client, &at(service, 80)));
            drop(guard);
            assert!(answer(), "the rules are gone");
        }
    });
}

/// As a router, the host goes on forwarding what does not go through the service.
#[test]
fn a_balanced_server_can_be_reached_directly() {
    sandbox::run("guard::tests::a_balanced_server_can_be_reached_directly", || {
        let [director, client, server] = routed();
        let _web = server.run(|| TcpListener::bind("[::]:80")).unwrap().unwrap();
        for Addresses { service, client: near, server: far } in BOTH {
            let echo = server.run(|| UdpSocket::bind(at(far, 53))).unwrap().unwrap();
            let answering = echo.try_clone().unwrap();
            std::thread::spawn(move || {
                while let Ok((_, from)) = answering.recv_from(&mut [0; 8]) {
                    let _gone = answering.send_to(b"answer", from);
                }
            });
            let keys = [(Protocol::Tcp, service, 80), (Protocol::Udp, service, 53)];
            let table = services(&keys);
            masquerade(&table);
            let mut guard = Guard::new();
            assert_eq!(update(&mut guard, &director, &table), []);
            assert_eq!(attempt(&client, &at(far, 80)), Ok(()));
            let any = if far.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
            let socket = client.run(|| UdpSocket::bind(any)).unwrap().unwrap();
            socket.set_read_timeout(Some(ANSWER)).unwrap();
            let say = || {
                client.run(|| socket.send_to(b"hello", at(far, 53))).unwrap().unwrap();
                socket.recv(&mut [0; 8]).unwrap()
            };
            say();
            // An edit does not cut off what goes on.
            let more = services(&[keys[0], keys[1], (Protocol::Tcp, service, 81)]);
            masquerade(&more);
            assert_eq!(update(&mut guard, &director, &more), []);
            let port = socket.local_addr().unwrap().port();
            echo.send_to(b"late", at(near, port)).unwrap();
            assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 4);
        }
    });
}

/// Rules for every port of a server leave alone what it has to do with others through this host: what
/// they begin, what it begins itself, and datagrams in fragments.
#[test]
fn a_server_of_all_ports_has_other_connections_too() {
    let name = "guard::tests::a_server_of_all_ports_has_other_connections_too";
    sandbox::run(name, || {
        let [director, client, server] = routed();
        let _ssh = server.run(|| TcpListener::bind("[::]:22")).unwrap().unwrap();
        let _outside = client.run(|| TcpListener::bind("[::]:80")).unwrap().unwrap();
        for Addresses { service, client: near, server: far } in BOTH {
            let table = services(&[
                (Protocol::Tcp, service, 21),
                (Protocol::Tcp, service, 0),
                (Protocol::Udp, service, 0),
            ]);
            masquerade(&table);
            let mut guard = Guard::new();
            assert_eq!(update(&mut guard, &director, &table), []);
            assert_eq!(attempt(&client, &at(far, 22)), Ok(()));
            assert_eq!(attempt(&server, &at(near, 80)), Ok(()));
            let bind = |host: &Namespace, addr: &str, port: u16| {
                let socket = host.run(|| UdpSocket::bind(at(addr, port))).unwrap().unwrap();
                socket.set_read_timeout(Some(ANSWER)).unwrap();
                socket
            };
            let (asks, answers) = (bind(&client, near, 0), bind(&server, far, 53));
            let mut heard = [0; 5000];
            asks.send_to(&[b'?'; 4000], at(far, 53)).unwrap();
            let (len, from) = answers.recv_from(&mut heard).unwrap();
            assert_eq!(len, 4000);
            answers.send_to(&[b'!'; 4000], from).unwrap();
            assert_eq!(asks.recv(&mut heard).unwrap(), 4000, "{far}");
            // What nobody asked for answers a balanced question.
            let balanced = bind(&client, near, 0);
            balanced.set_read_timeout(Some(SILENCE)).unwrap();
            let port = balanced.local_addr().unwrap().port();
            answers.send_to(b"answer", at(near, port)).unwrap();
            assert_eq!(balanced.recv(&mut heard).unwrap_err().kind(), ErrorKind::WouldBlock);
        }
    });
}

#[test]
fn a_service_of_all_ports_is_kept_from_the_kernel_by_rules() {
    let name = "guard::tests::a_service_of_all_ports_is_kept_from_the_kernel_by_rules";
    sandbox::run(name, || {
        let (director, client) = pair();
        for Addresses { service, .. } in BOTH {
            let table = services(&[(Protocol::Tcp, service, 0)]);
            let mut guard = Guard::new();
            assert_eq!(update(&mut guard, &director, &table), []);
            let at = at(service, 4711);
            assert!(is_silent(&client, &at));
            assert_eq!(ask(&client, &at, ANSWER), ErrorKind::ConnectionRefused);
            table.flush();
            assert_eq!(update(&mut guard, &director, &table), []);
            assert_eq!(attempt(&client, &at), Err(ErrorKind::ConnectionRefused));
        }
    });
}

/// Marked addresses that no interface has, which a route makes the kernel's all the same.
#[test]
fn marked_networks_that_a_route_makes_local_are_kept_from_the_kernel() {
    let name = "guard::tests::marked_networks_that_a_route_makes_local_are_kept_from_the_kernel";
    sandbox::run(name, || {
        let (director, client) = pair();
        let cases = [
            (Family::V4, "203.0.113.0/24", "203.0.113.200", "203.0.114.5", "203.0.114.6"),
            (
                Family::V6,
                "2001:db8:113::/64",
                "2001:db8:113::c8",
                "2001:db8:114::5",
                "2001:db8:114::6",
            ),
        ];
        for ((family, network, inside, single, other), near) in
            cases.into_iter().zip(BOTH.map(|each| each.service))
        {
            let whole = if family == Family::V4 { "203.0.112.0/22" } else { "2001:db8:110::/45" };
            let local = ["route", "add", "local", whole, "dev", "lo"];
            assert!(director.command("ip").args(local).status().unwrap().success());
            client.add_route(&Route::default_via(near.parse().unwrap())).unwrap();
            let refused = Err(ErrorKind::ConnectionRefused);
            assert_eq!(attempt(&client, &at(inside, 80)), refused);
            let table = ServiceTable::new(1);
            let key = ServiceKey::Mark { mark: 5, family };
            table.add_service(ServiceSpec::new(key), Moment::default()).unwrap();
            let rule = |destination: &str, ports| MarkRule {
                destination: Some(destination.parse::<crate::packet::Prefix>().unwrap().into()),
                protocol: Some(protocol::TCP.into()),
                matches: vec![Match::Multiport(Side::Destination, vec![ports].into())],
                value: 5,
                mask: u32::MAX,
                ..MarkRule::default()
            };
            let rules =
                vec![rule(network, 80..=80), rule(network, 4000..=8000), rule(single, 80..=80)];
            table.set_marks(rules).unwrap();
            let mut guard = Guard::new();
            assert_eq!(update(&mut guard, &director, &table), []);
            for (addr, port) in [(inside, 80), (inside, 4000), (inside, 8000), (single, 80)] {
                assert!(is_silent(&client, &at(addr, port)), "{addr} {port}");
            }
            for (addr, port) in
                [(inside, 81), (inside, 3999), (inside, 8001), (single, 81), (other, 80)]
            {
                assert_eq!(attempt(&client, &at(addr, port)), refused, "{addr} {port}");
            }
            assert_eq!(ask(&client, &at(inside, 80), ANSWER), ErrorKind::ConnectionRefused);
            table.flush();
            assert_eq!(update(&mut guard, &director, &table), []);
            assert_eq!(attempt(&client, &at(inside, 80)), refused);
        }
    });
}

/// A rule of marks for more ports than can be held, at an address of the kernel's own.
#[test]
fn ports_that_a_rule_of_marks_leaves_out_stay_with_the_kernel() {
    let name = "guard::tests::ports_that_a_rule_of_marks_leaves_out_stay_with_the_kernel";
    sandbox::run(name, || {
        let (director, client) = pair();
        let _ssh = director.run(|| TcpListener::bind("[::]:22")).unwrap().unwrap();
        let table = ServiceTable::new(1);
        let mut guard = Guard::new();
        for (family, near) in [Family::V4, Family::V6].into_iter().zip(BOTH) {
            let key = ServiceKey::Mark { mark: 5, family };
            table.add_service(ServiceSpec::new(key), Moment::default()).unwrap();
            let here = near.service;
            let rule = format!("-A PREROUTING -d {here} -p tcp ! --dport 22 -j MARK --or-mark 5");
            marks::edit(&table, &rule).unwrap();
            assert_eq!(update(&mut guard, &director, &table), []);
            assert_eq!(attempt(&client, &at(here, 22)), Ok(()));
            for port in [21, 23, 80, 60_000] {
                assert!(is_silent(&client, &at(here, port)), "{port}");
            }
            assert_eq!(ask(&client, &at(here, 80), ANSWER), ErrorKind::ConnectionRefused);
            marks::edit(&table, "-F").unwrap();
            assert_eq!(update(&mut guard, &director, &table), []);
            assert_eq!(attempt(&client, &at(here, 80)), Err(ErrorKind::ConnectionRefused));
        }
    });
}

#[test]
fn what_servers_send_outside_is_left_to_the_director() {
    sandbox::run("guard::tests::what_servers_send_outside_is_left_to_the_director", || {
        let [director, client, server] = routed();
        let _outside = client.run(|| TcpListener::bind("[::]:80")).unwrap().unwrap();
        let _ssh = server.run(|| TcpListener::bind("[::]:22")).unwrap().unwrap();
        for (Addresses { service, client: near, server: far }, network) in
            BOTH.into_iter().zip(["192.168.200.0/24", "2001:db8:200::/64"])
        {
            assert_eq!(attempt(&server, &at(near, 80)), Ok(()));
            let table = services(&[]);
            let rule = SnatRule {
                out: Some("out".into()),
                source: Some(network.parse().unwrap()),
                destination: None,
                protocol: None,
                to: addr(service),
                ports: 61_000..=61_009,
            };
            table.set_snat(vec![rule]).unwrap();
            let mut guard = Guard::new();
            assert_eq!(update(&mut guard, &director, &table), []);
            assert!(is_silent(&server, &at(near, 80)));
            let refused = Err(ErrorKind::ConnectionRefused);
            assert_eq!(attempt(&server, &at(service, 9)), refused, "the host's own");
            assert_eq!(attempt(&client, &at(far, 22)), Ok(()), "answers are no such connections");
            assert_eq!(ask(&client, &at(far, 9), ANSWER), ErrorKind::ConnectionRefused);
        }
    });
}

/// Thousands of services and servers take more than one message.
#[test]
fn rules_for_many_services_are_replaced_as_one() {
    sandbox::run("guard::tests::rules_for_many_services_are_replaced_as_one", || {
        let [director, client, server] = routed();
        let keys: Vec<_> = (1000..4500).map(|port| (Protocol::Udp, "12.0.0.99", port)).collect();
        let table = services(&keys);
        masquerade(&table);
        let mut guard = Guard::new();
        assert_eq!(update(&mut guard, &director, &table), []);
        let answer = |port| {
            arrives((&server, at("192.168.200.110", port)), (&client, at("12.0.0.12", 5353)))
        };
        assert!(answer(4500));
        assert!(!answer(4000) && !answer(1000) && !answer(4499));
    });
}

#[test]
fn local_ports_are_silent_and_nobody_elses() {
    sandbox::run("guard::tests::local_ports_are_silent_and_nobody_elses", || {
        let (director, client) = pair();
        let taken = director.run(|| TcpListener::bind("12.0.0.1:61520")).unwrap().unwrap();
        let mut guard = Guard::new();
        let hold = |guard: &mut Guard, protocol| {
            director.run(|| guard.hold_local_ports(addr("12.0.0.1"), protocol).cloned()).unwrap()
        };
        let ports = hold(&mut guard, Protocol::Tcp).unwrap();
        assert!(ports.contains(61_512) && ports.contains(65_535) && !ports.contains(61_520));
        assert_eq!(guard.held_local_ports(), 4023);
        assert!(is_silent(&client, "12.0.0.1:61600"));
        assert_eq!(attempt(&client, "12.0.0.1:61511"), Err(ErrorKind::ConnectionRefused));
        let udp = hold(&mut guard, Protocol::Udp).unwrap();
        assert!(udp.contains(61_520));
        assert_eq!(ask(&client, "12.0.0.1:61600", SILENCE), ErrorKind::WouldBlock);
        guard.keep_local_ports(|_| false, |_| false);
        assert_eq!(attempt(&client, "12.0.0.1:61600"), Err(ErrorKind::ConnectionRefused));
        drop(taken);
    });
}

#[test]
fn local_ports_that_cannot_be_had_are_told_once() {
    sandbox::run("guard::tests::local_ports_that_cannot_be_had_are_told_once", || {
        let (director, _client) = pair();
        let mut guard = Guard::new();
        let strange = addr("192.0.2.77");
        let mut hold = || {
            let held = director.run(|| guard.hold_local_ports(strange, Protocol::Tcp).err());
            held.unwrap().expect("the address is nobody's")
        };
        assert!(hold().is_some());
        assert!(hold().is_none());
    });
}
