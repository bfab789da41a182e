//! Living beside the kernel: whatever the means, captures show that the director's kernel neither
//! answers nor forwards nor redirects what belongs to a virtual service, over IPv4 and IPv6.

mod bed;

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use bed::Bed;
use bed::capture::{Capture, Seen};
use ulvs::lab::net::{Route, sandbox};
use ulvs::lab::topology::{Host, Topology, ipv6, nat, port, switched};

/// The lab's network over one of the address families.
struct Family {
    topology: Topology,
    client: IpAddr,
    service: IpAddr,
    inside: IpAddr,
    servers: [IpAddr; 2],
    /// Makes the director's kernel a router.
    forwarding: &'static str,
    /// What is said about an address that is answered for.
    answering: &'static str,
    /// The ICMP error that says that nobody is at a port.
    unreachable: u8,
}

fn families() -> [Family; 2] {
    [
        Family {
            topology: nat::topology(),
            client: nat::CLIENT.into(),
            service: nat::OUTSIDE.into(),
            inside: nat::INSIDE.into(),
            servers: [nat::ACCP.into(), nat::BENET.into()],
            forwarding: "net.ipv4.ip_forward",
            answering: "answering ARP for",
            unreachable: 3,
        },
        Family {
            topology: ipv6::topology(),
            client: ipv6::CLIENT.into(),
            service: ipv6::OUTSIDE.into(),
            inside: ipv6::INSIDE.into(),
            servers: [ipv6::ACCP.into(), ipv6::BENET.into()],
            forwarding: "net.ipv6.conf.all.forwarding",
            answering: "answering neighbour solicitations for",
            unreachable: 1,
        },
    ]
}

impl Family {
    fn at(&self, addr: IpAddr, port: u16) -> SocketAddr {
        SocketAddr::new(addr, port)
    }

    /// Takes the director's addresses from its kernel.
    fn strip(&mut self) {
        let ends = self.topology.links.iter_mut().flat_map(|link| &mut link.ends);
        ends.filter(|end| end.host == "director").for_each(|end| end.addresses.clear());
    }

    fn bed(&self, options: &[&str]) -> Bed {
        Bed::over(&self.topology, self.servers, self.at(self.service, 80), options)
    }

    /// A web service with both servers, and a UDP service with the first.
    fn configure(&self, bed: &Bed) {
        let web = self.at(self.service, 80);
        bed.ipvsadm(&format!("-A -t {web} -s rr"));
        for server in self.servers {
            bed.ipvsadm(&format!("-a -t {web} -r {} -m", self.at(server, 80)));
        }
        let names = self.at(self.service, 53);
        bed.ipvsadm(&format!("-A -u {names} -s rr"));
        bed.ipvsadm(&format!("-a -u {names} -r {} -m", self.at(self.servers[0], 53)));
    }
}

/// Connections that clients open in [`traffic`].
const CONNECTIONS: usize = 7;

/// Pages, a connection that the client breaks off, a question that is answered, and one that is not.
fn traffic(family: &Family, bed: &Bed) {
    for turn in bed.servers(CONNECTIONS - 1).chunks(2) {
        assert_eq!(turn, ["real2", "real1"]);
    }
    let mut broken = bed.connect("client", family.at(family.service, 80)).unwrap();
    broken.write_all(b"GET / HTT").unwrap();
    reset(broken);
    let client = bed.datagrams("client", (family.client, 0));
    client.connect(family.at(family.service, 53)).unwrap();
    let server = bed.datagrams("real1", (family.servers[0], 53));
    client.send(b"question").unwrap();
    let (_, from) = server.recv_from(&mut [0; 64]).unwrap();
    server.send_to(b"answer", from).unwrap();
    client.recv(&mut [0; 64]).unwrap();
    drop(server);
    client.send(b"anybody").unwrap();
    assert_eq!(client.recv(&mut [0; 64]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

/// Ends a connection by a reset.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
}

/// Has traffic under the eyes of everybody, and judges what they saw.
fn watch(family: &Family, bed: &Bed) {
    let hosts = ["client", "real1", "real2"];
    let captures = hosts.map(|host| Capture::start(bed.host(host), "eth0"));
    traffic(family, bed);
    let [client, servers @ ..] = captures.map(Capture::stop);
    let spoken = |seen: &[Seen]| -> Vec<Seen> {
        seen.iter().filter(|seen| !seen.is_housekeeping()).cloned().collect()
    };
    let client = spoken(&client);
    for seen in &client {
        assert_eq!(seen.source(), family.service, "nothing but the service speaks: {seen:?}");
        assert!(!seen.is_reset(), "nobody refuses a segment: {seen:?}");
    }
    assert_eq!(client.iter().filter(|seen| seen.is_syn()).count(), CONNECTIONS);
    let errors: Vec<u8> = client.iter().filter_map(Seen::icmp).collect();
    assert_eq!(errors, [family.unreachable], "the server's error, once, and no redirect");
    let mut connections = 0;
    for (server, addr) in servers.iter().zip(family.servers) {
        let server = spoken(server);
        for seen in &server {
            assert_eq!(seen.source(), family.client, "nobody but the client speaks: {seen:?}");
            assert_eq!(IpAddr::from(seen.headers.destination.addr), addr, "{seen:?}");
            assert_eq!(seen.icmp(), None, "{seen:?}");
        }
        connections += server.iter().filter(|seen| seen.is_syn()).count();
    }
    assert_eq!(connections, CONNECTIONS);
}

#[test]
fn own_link_addresses() {
    sandbox::run("own_link_addresses", || {
        for mut family in families() {
            family.strip();
            let bed = family.bed(&[]);
            family.configure(&bed);
            // The first page has the director find its way.
            bed.servers(2);
            watch(&family, &bed);
            let log = bed.director.log();
            for own in [family.service, family.inside] {
                assert!(log.contains(&format!("{} {own}", family.answering)), "{log}");
            }
            assert!(!log.contains("guard sockets hold") && !log.contains("in force"), "{log}");
        }
    });
}

#[test]
fn guard_sockets() {
    sandbox::run("guard_sockets", || {
        for family in families() {
            let bed = family.bed(&[]);
            family.configure(&bed);
            watch(&family, &bed);
            let log = bed.director.log();
            assert!(log.contains("guard sockets hold") && !log.contains("in force"), "{log}");
            assert!(!log.contains("answering"), "{log}");
        }
    });
}

#[test]
fn guard_rules_on_a_router() {
    sandbox::run("guard_rules_on_a_router", || {
        for family in families() {
            let bed = family.bed(&[]);
            bed.host("director").set_sysctl(family.forwarding, "1").unwrap();
            family.configure(&bed);
            watch(&family, &bed);
            let log = bed.director.log();
            assert!(log.contains("guard rules (nftables) are in force"), "{log}");
            // It goes on being a router: the server answers a direct question as well.
            let direct = family.at(family.servers[0], 80);
            bed.host("client").add_route(&Route::default_via(family.service)).unwrap();
            bed.connect("client", direct).unwrap();
        }
    });
}

/// A marked network that a route makes the host's.
#[test]
fn marked_networks() {
    sandbox::run("marked_networks", || {
        let networks =
            [("203.0.113.0/24", "203.0.113.200"), ("2001:db8:113::/64", "2001:db8:113::c8")];
        for (family, (network, inside)) in families().into_iter().zip(networks) {
            let bed = family.bed(&[]);
            let local = ["route", "add", "local", network, "dev", "lo"];
            assert!(bed.host("director").command("ip").args(local).status().unwrap().success());
            bed.host("client").add_route(&Route::default_via(family.service)).unwrap();
            let rule = format!("-A PREROUTING -p tcp -d {network} --dport 80");
            bed.ulvs(&format!("mark {rule} -j MARK --set-mark 5"));
            let version = if network.contains(':') { "-6 " } else { "" };
            bed.ipvsadm(&format!("-A -f 5 {version}-s rr"));
            for server in family.servers {
                bed.ipvsadm(&format!("-a -f 5 {version}-r {server} -m"));
            }
            let inside = SocketAddr::new(inside.parse().unwrap(), 80);
            // The director hears of the route a little later than it is there.
            let start = std::time::Instant::now();
            while bed.connect("client", inside).is_err() {
                assert!(start.elapsed() < bed::PATIENCE, "{network} is the kernel's for ever");
            }
            let capture = Capture::start(bed.host("client"), "eth0");
            for _ in 0..4 {
                bed.connect("client", inside).unwrap();
            }
            let seen = capture.stop();
            assert!(!seen.iter().any(Seen::is_reset), "nobody refuses a segment: {seen:?}");
        }
    });
}

/// A virtual address that is routed to the director, on a host that forwards: its kernel would send
/// the packets on, and the client elsewhere.
#[test]
fn routed_virtual_addresses() {
    sandbox::run("routed_virtual_addresses", || {
        for (net, len, forwarding) in [
            ("192.0.2.", 24, "net.ipv4.ip_forward"),
            ("2001:db8:5::", 64, "net.ipv6.conf.all.forwarding"),
        ] {
            let addr = |last: &str| -> IpAddr { format!("{net}{last}").parse().unwrap() };
            let ends = ["12", "1", "110", "120"].map(|last| format!("{net}{last}/{len}"));
            let own = |at: usize| [ends[at].as_str()];
            let whole = format!("{net}80/{}", if len == 24 { 32 } else { 128 });
            let real = |name| {
                Host::new(name, "server")
                    .sysctl("net.ipv4.conf.all.arp_ignore", "1")
                    .sysctl("net.ipv4.conf.all.arp_announce", "2")
                    .address("lo", &whole)
            };
            let topology = Topology {
                name: "routed",
                title: "a routed virtual address, direct routing",
                hosts: vec![
                    Host::new("client", "client"),
                    Host::new("director", "director").sysctl(forwarding, "1"),
                    Host::switch("switch"),
                    real("real1"),
                    real("real2"),
                ],
                links: switched(
                    "switch",
                    vec![
                        port("client", "eth0", &own(0)),
                        port("director", "eth0", &own(1)),
                        port("real1", "eth0", &own(2)),
                        port("real2", "eth0", &own(3)),
                    ],
                ),
            };
            let service = SocketAddr::new(addr("80"), 80);
            let bed = Bed::over(&topology, [service.ip(); 2], service, &["--interface", "eth0"]);
            let to_director = Route {
                destination: whole.parse().unwrap(),
                via: Some(addr("1")),
                interface: Some("eth0".to_owned()),
            };
            bed.host("client").add_route(&to_director).unwrap();
            bed.ipvsadm(&format!("-A -t {service} -s rr"));
            for last in ["110", "120"] {
                let server = SocketAddr::new(addr(last), 80);
                bed.ipvsadm(&format!("-a -t {service} -r {server} -g"));
            }
            let captures =
                ["client", "real1", "real2"].map(|host| Capture::start(bed.host(host), "eth0"));
            assert_eq!(bed.servers(4), ["real2", "real1", "real2", "real1"]);
            let [client, servers @ ..] = captures.map(Capture::stop);
            for seen in client.iter().filter(|seen| !seen.is_housekeeping()) {
                assert_eq!(seen.icmp(), None, "no redirect: {seen:?}");
                assert_eq!(seen.source(), service.ip(), "{seen:?}");
                assert!(!seen.is_reset(), "{seen:?}");
            }
            let syns = servers.iter().flatten().filter(|seen| seen.is_syn()).count();
            assert_eq!(syns, 4, "each packet comes once");
        }
    });
}
