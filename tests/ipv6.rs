//! End to end over IPv6: a real director process between the kernel's own clients and servers.

mod bed;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bed::capture::Capture;
use bed::{Bed, PATIENCE, WAYS};
use ulvs::driver::Sender;
use ulvs::driver::af_packet::{AfPacket, AfPacketConfig};
use ulvs::lab::net::{Namespace, Route, sandbox};
use ulvs::lab::services::ping;
use ulvs::lab::topology::{Host, Topology, ipv6, link, port, switched};
use ulvs::lab::web;
use ulvs::packet::PacketBuf;

const MIB: u64 = 1 << 20;

const ROUND_ROBIN: [&str; 3] = [
    "-A -t [2001:db8:12::1]:80 -s rr",
    "-a -t [2001:db8:12::1]:80 -r [2001:db8:200::110]:80 -m",
    "-a -t [2001:db8:12::1]:80 -r [2001:db8:200::120]:80 -m",
];

fn service() -> SocketAddr {
    (ipv6::OUTSIDE, 80).into()
}

fn bed(topology: &Topology, options: &[&str]) -> Bed {
    Bed::over(topology, [ipv6::ACCP.into(), ipv6::BENET.into()], service(), options)
}

/// The topology with a director whose kernel has no addresses but those that it makes by itself.
fn without_addresses() -> Topology {
    let mut topology = ipv6::topology();
    let ends = topology.links.iter_mut().flat_map(|link| &mut link.ends);
    ends.filter(|end| end.host == "director").for_each(|end| end.addresses.clear());
    topology
}

#[test]
fn pages_come_in_turn_and_whole() {
    sandbox::run("pages_come_in_turn_and_whole", || {
        let bed = bed(&ipv6::topology(), &[]);
        bed.configure(&ROUND_ROBIN);
        assert_eq!(bed.servers(4), ["real2", "real1", "real2", "real1"]);
        bed.transfer_both_ways();
        let listing = bed.ipvsadm("-Lnc");
        assert!(listing.contains("[2001:db8:12::12]:"), "{listing}");
    });
}

#[test]
fn a_hundred_mebibytes_arrive_without_offloads() {
    sandbox::run("a_hundred_mebibytes_arrive_without_offloads", || {
        let bed = bed(&ipv6::topology(), &[]);
        bed.disable_offloads(&WAYS);
        bed.configure(&ROUND_ROBIN);
        bed.transfer_both_ways();
    });
}

#[test]
fn a_hundred_mebibytes_arrive_when_only_the_client_has_offloads() {
    sandbox::run("a_hundred_mebibytes_arrive_when_only_the_client_has_offloads", || {
        let bed = bed(&ipv6::topology(), &[]);
        bed.disable_offloads(&[("director", "in"), ("real1", "eth0"), ("real2", "eth0")]);
        bed.configure(&ROUND_ROBIN);
        bed.transfer_both_ways();
    });
}

#[test]
fn several_workers_keep_the_order_and_the_bytes() {
    sandbox::run("several_workers_keep_the_order_and_the_bytes", || {
        let bed = bed(&ipv6::topology(), &["--workers", "2"]);
        bed.configure(&ROUND_ROBIN);
        let servers = bed.servers(20);
        assert!(servers.windows(2).all(|pair| pair[0] != pair[1]), "{servers:?}");
        bed.transfer(10 * MIB);
        // The kernel finds the worker of most packets.
        let stats = bed.ulvs("stats");
        let counted = |word: &str| -> u64 {
            let lines = stats.lines().filter(|line| line.contains(word));
            let numbers = lines.flat_map(|line| line.split_whitespace());
            numbers.filter_map(|each| each.replace(',', "").parse::<u64>().ok()).sum()
        };
        let (handed, forwarded) = (counted("handed-over"), counted("forwarded"));
        assert!(handed * 20 < forwarded, "{handed} of {forwarded} handed over\n{stats}");
    });
}

/// The director answers neighbour solicitations and pings for the virtual address, and takes the
/// gateway that the servers ask for, whether the kernel knows IPv6 or not.
#[test]
fn the_kernel_needs_no_address_and_no_ipv6_at_all() {
    sandbox::run("the_kernel_needs_no_address_and_no_ipv6_at_all", || {
        for disabled in ["0", "1"] {
            let mut topology = without_addresses();
            let key = "net.ipv6.conf.all.disable_ipv6";
            topology.hosts[1].sysctls.push((key, disabled));
            let bed = bed(&topology, &[]);
            bed.configure(&ROUND_ROBIN);
            assert_eq!(bed.servers(4), ["real2", "real1", "real2", "real1"]);
            bed.transfer(10 * MIB);
            let ping = |target: Ipv6Addr| {
                bed.host("client").run(|| ping::ping(target, 1, PATIENCE)).unwrap().unwrap();
            };
            ping(ipv6::OUTSIDE);
            let real1 = bed.host("real1");
            real1.run(|| ping::ping(ipv6::INSIDE, 1, PATIENCE)).unwrap().unwrap();
            let log = bed.director.log();
            let took = "answering neighbour solicitations for 2001:db8:200::1 on in";
            assert!(log.contains(took), "{log}");
        }
    });
}

/// A card passes on the questions for the director's addresses only if it was told of their group.
#[test]
fn the_groups_of_own_addresses_are_received() {
    sandbox::run("the_groups_of_own_addresses_are_received", || {
        let bed = bed(&without_addresses(), &["--no-adopt"]);
        let groups = || {
            let read = || std::fs::read_to_string("/proc/thread-self/net/dev_mcast");
            bed.host("director").run(read).unwrap().unwrap()
        };
        let has = |group: &str| groups().lines().any(|line| line.contains(group));
        assert!(!has("3333ff777777"));
        bed.configure(&["-A -t [2001:db8:12::77:7777]:80 -s rr"]);
        assert!(has("3333ff777777"), "{}", groups());
        bed.configure(&["-D -t [2001:db8:12::77:7777]:80"]);
        assert!(!has("3333ff777777"), "{}", groups());
    });
}

/// A switch passes groups on only to those who reported that they listen, as soon as a router asks.
#[test]
fn a_switch_that_snoops_lets_questions_through() {
    sandbox::run("a_switch_that_snoops_lets_questions_through", || {
        let service: SocketAddr = "[2001:db8:5::80]:80".parse().unwrap();
        let mut topology = one_link(false);
        // Nothing but the director's own reports tells the switch of it.
        topology.hosts[1].sysctls.push(("net.ipv6.conf.all.disable_ipv6", "1"));
        let ends = topology.links.iter_mut().flat_map(|link| &mut link.ends);
        ends.filter(|end| end.host == "director").for_each(|end| end.addresses.clear());
        let bed = Bed::over(&topology, [service.ip(); 2], service, &ONE_INTERFACE);
        let querier = ["mcast_querier", "1", "mcast_query_response_interval", "100"];
        let mut ip = bed.host("switch").command("ip");
        ip.args(["link", "set", "br0", "type", "bridge"]).args(querier);
        match ip.status() {
            Ok(status) => assert!(status.success(), "ip: {status}"),
            Err(error) => return println!("skipped: ip is not installed ({error})"),
        }
        bed.configure(&[
            "-A -t [2001:db8:5::80]:80 -s rr",
            "-a -t [2001:db8:5::80]:80 -r [2001:db8:5::110]:80 -g",
        ]);
        // By then the switch believes that it knows all listeners.
        std::thread::sleep(Duration::from_secs(3));
        let heard = || {
            let mut ip = bed.host("switch").command("bridge");
            let output = ip.args(["mdb", "show"]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert!(heard().contains("ff02::1:ff00:80"), "{}", heard());
        assert_eq!(bed.servers(2), ["real1", "real1"]);
    });
}

#[test]
fn a_router_is_found_by_its_link_local_address() {
    sandbox::run("a_router_is_found_by_its_link_local_address", || {
        let mut topology = ipv6::topology();
        // The client moves behind a router.
        topology.links[0].ends[0] = port("router", "eth0", &["fe80::fe/64"]);
        topology.hosts.push(Host::new("router", "router"));
        let far = port("client", "eth0", &["2001:db8:99::12/64"]);
        topology.links.push(link(far, port("router", "eth1", &["2001:db8:99::1/64"])));
        let bed = bed(&topology, &[]);
        bed.host("router").set_sysctl("net.ipv6.conf.all.forwarding", "1").unwrap();
        let route = |via: &str, interface: &str| Route {
            destination: "::/0".parse().unwrap(),
            via: Some(via.parse().unwrap()),
            interface: Some(interface.to_owned()),
        };
        let director = bed.host("director");
        director.add_address("out", "fe80::1/64".parse().unwrap()).unwrap();
        director.add_route(&route("fe80::fe", "out")).unwrap();
        bed.host("router").add_route(&route("fe80::1", "eth0")).unwrap();
        bed.host("client").add_route(&route("2001:db8:99::1", "eth0")).unwrap();
        bed.configure(&ROUND_ROBIN);
        assert_eq!(bed.servers(2), ["real2", "real1"]);
        bed.transfer(10 * MIB);
    });
}

#[test]
fn udp_and_errors_about_it_come_back_under_the_services_address() {
    sandbox::run("udp_and_errors_about_it_come_back_under_the_services_address", || {
        let bed = bed(&ipv6::topology(), &[]);
        bed.configure(&[
            "-A -u [2001:db8:12::1]:53 -s rr",
            "-a -u [2001:db8:12::1]:53 -r [2001:db8:200::110]:5353 -m",
        ]);
        let client = bed.datagrams("client", (ipv6::CLIENT, 0));
        client.connect((ipv6::OUTSIDE, 53)).unwrap();
        // Nobody is there yet: the server's kernel says so, to this very socket.
        client.send(b"anybody").unwrap();
        let error = client.recv(&mut [0; 64]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let server = bed.datagrams("real1", (ipv6::ACCP, 5353));
        client.send(b"question").unwrap();
        let mut datagram = [0; 64];
        let (length, from) = server.recv_from(&mut datagram).unwrap();
        assert_eq!((&datagram[..length], from.ip()), (&b"question"[..], ipv6::CLIENT.into()));
        server.send_to(b"answer", from).unwrap();
        let length = client.recv(&mut datagram).unwrap();
        assert_eq!(&datagram[..length], b"answer");
    });
}

#[test]
fn packets_at_their_last_hop_and_services_without_servers_are_refused() {
    let name = "packets_at_their_last_hop_and_services_without_servers_are_refused";
    sandbox::run(name, || {
        let bed = bed(&ipv6::topology(), &[]);
        bed.configure(&[
            "-A -u [2001:db8:12::1]:53 -s rr",
            "-a -u [2001:db8:12::1]:53 -r [2001:db8:200::110]:53 -m",
            "-A -t [2001:db8:12::1]:80 -s rr",
        ]);
        let capture = Capture::start(bed.host("client"), "eth0");
        let client = bed.datagrams("client", (ipv6::CLIENT, 0));
        socket2::SockRef::from(&client).set_unicast_hops_v6(1).unwrap();
        client.send_to(b"last", (ipv6::OUTSIDE, 53)).unwrap();
        let refused = bed.connect("client", service()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let said: Vec<_> =
            capture.stop().iter().filter_map(|seen| Some((seen.icmp()?, seen.source()))).collect();
        // Time exceeded, and destination unreachable.
        let from = IpAddr::from(ipv6::OUTSIDE);
        assert!(said.contains(&(3, from)) && said.contains(&(1, from)), "{said:?}");
    });
}

/// Who sends packets that are too long for a link behind the director is told so by it.
#[test]
fn longer_packets_than_the_next_link_takes_are_refused_with_its_size() {
    sandbox::run("longer_packets_than_the_next_link_takes_are_refused_with_its_size", || {
        for offloads in [true, false] {
            let bed = bed(&ipv6::topology(), &[]);
            if !offloads {
                for host in ["client", "real1", "real2"] {
                    bed.host(host).disable_offloads("eth0").unwrap();
                }
            }
            bed.host("director").set_mtu("in", 1400).unwrap();
            bed.host("switch").set_mtu("port1", 1400).unwrap();
            bed.configure(&ROUND_ROBIN);
            let client = bed.host("client");
            until_told(client, ipv6::OUTSIDE, 1400, || {
                client.run(|| web::upload(service(), 10 * MIB, PATIENCE)).unwrap().unwrap();
            });

            bed.host("director").set_mtu("in", 1500).unwrap();
            bed.host("switch").set_mtu("port1", 1500).unwrap();
            bed.host("director").set_mtu("out", 1380).unwrap();
            until_told(bed.host("real1"), ipv6::INSIDE, 1380, || {
                client.run(|| web::download(service(), 10 * MIB, PATIENCE)).unwrap().unwrap();
            });
        }
    });
}

/// Transfers until a host was told that its packets are to have a size at most: the director hears of
/// a changed MTU a little later than it is changed.
fn until_told(host: &Namespace, by: Ipv6Addr, mtu: u32, transfer: impl Fn()) {
    let begin = Instant::now();
    loop {
        let capture = Capture::start(host, "eth0");
        // One for each server.
        transfer();
        transfer();
        if is_told_of(&capture.stop(), by, mtu) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{by} never told of {mtu} bytes");
    }
}

/// Whether somebody told that packets are to have a size at most.
fn is_told_of(seen: &[bed::capture::Seen], by: Ipv6Addr, mtu: u32) -> bool {
    const PACKET_TOO_BIG: u8 = 2;
    seen.iter().filter(|seen| seen.icmp() == Some(PACKET_TOO_BIG)).any(|seen| {
        let at = seen.headers.transport + 4;
        seen.source() == IpAddr::from(by) && seen.bytes[at..at + 4] == mtu.to_be_bytes()
    })
}

const ONE_INTERFACE: [&str; 2] = ["--interface", "eth0"];

/// Everybody on one link, the virtual address on the servers' loopback interfaces.
fn one_link(kernel_has_it: bool) -> Topology {
    let director: &[&str] = match kernel_has_it {
        true => &["2001:db8:5::1/64", "2001:db8:5::80/64"],
        false => &["2001:db8:5::1/64"],
    };
    let real = |name| Host::new(name, "server").address("lo", "2001:db8:5::80/128");
    Topology {
        name: "one-link",
        title: "direct routing",
        hosts: vec![
            Host::new("client", "client"),
            Host::new("director", "director"),
            Host::switch("switch"),
            real("real1"),
            real("real2"),
        ],
        links: switched(
            "switch",
            vec![
                port("client", "eth0", &["2001:db8:5::12/64"]),
                port("director", "eth0", director),
                port("real1", "eth0", &["2001:db8:5::110/64"]),
                port("real2", "eth0", &["2001:db8:5::120/64"]),
            ],
        ),
    }
}

#[test]
fn with_direct_routing_answers_do_not_come_back() {
    sandbox::run("with_direct_routing_answers_do_not_come_back", || {
        for kernel_has_it in [true, false] {
            let service: SocketAddr = "[2001:db8:5::80]:80".parse().unwrap();
            let bed =
                Bed::over(&one_link(kernel_has_it), [service.ip(); 2], service, &ONE_INTERFACE);
            bed.configure(&[
                "-A -t [2001:db8:5::80]:80 -s rr",
                "-a -t [2001:db8:5::80]:80 -r [2001:db8:5::110]:80 -g",
                "-a -t [2001:db8:5::80]:80 -r [2001:db8:5::120]:80 -g",
            ]);
            assert_eq!(bed.servers(4), ["real2", "real1", "real2", "real1"]);
            let client = bed.host("client");
            for _ in 0..2 {
                client.run(|| web::download(service, 100 * MIB, PATIENCE)).unwrap().unwrap();
                client.run(|| web::upload(service, 100 * MIB, PATIENCE)).unwrap().unwrap();
            }
            let capture = Capture::start(bed.host("director"), "eth0");
            bed.servers(2);
            let seen = capture.stop();
            assert_eq!(seen.iter().filter(|seen| seen.is_syn()).count(), 2, "{seen:?}");
            let answers = seen.iter().filter(|seen| seen.source() == service.ip()).count();
            assert_eq!(answers, 0);
        }
    });
}

#[test]
fn hostile_frames_move_nothing_but_counters() {
    sandbox::run("hostile_frames_move_nothing_but_counters", || {
        let mut bed = bed(&without_addresses(), &[]);
        bed.configure(&ROUND_ROBIN);
        bed.servers(2);
        let source = bed.host("client").mac("eth0").unwrap();
        bed.host("client").run(|| inject(&frames(source))).unwrap();
        assert!(bed.director.is_alive());
        assert_eq!(bed.servers(4), ["real2", "real1", "real2", "real1"]);
        let stats = bed.ulvs("stats");
        let bad = stats.lines().find(|line| line.contains("bad-nd")).unwrap_or_default();
        assert!(bad.bytes().any(|byte| matches!(byte, b'1'..=b'9')), "{stats}");
    });
}

/// Solicitations for the virtual address, and segments to it, cut off at every length and with
/// every byte at its extremes.
fn frames(source: [u8; 6]) -> Vec<Vec<u8>> {
    let everybody = [0x33, 0x33, 0xff, 0, 0, 1];
    let mut solicitation = [&everybody[..], &source, &[0x86, 0xdd]].concat();
    solicitation.extend([0x60, 0, 0, 0, 0, 32, 58, 255]);
    // Nobody's address: what is said about it changes nothing.
    solicitation.extend("2001:db8:12::bad".parse::<Ipv6Addr>().unwrap().octets());
    solicitation.extend("ff02::1:ff00:1".parse::<Ipv6Addr>().unwrap().octets());
    solicitation.extend([135, 0, 0, 0, 0, 0, 0, 0]);
    solicitation.extend(ipv6::OUTSIDE.octets());
    solicitation.extend([1, 1]);
    solicitation.extend(source);
    let builder = etherparse::PacketBuilder::ethernet2(source, everybody)
        .ipv6("2001:db8:12::bad".parse::<Ipv6Addr>().unwrap().octets(), ipv6::OUTSIDE.octets(), 64)
        .tcp(40_000, 80, 1, 1024)
        .fin();
    let mut segment = Vec::new();
    builder.write(&mut segment, b"hello").unwrap();
    let damaged = |frame: &[u8]| -> Vec<Vec<u8>> {
        let cut = (14..frame.len()).map(|length| frame[..length].to_vec());
        let changed = (14..frame.len()).flat_map(|place| {
            [0x00, 0x01, 0x3a, 0x80, 0xff].map(|value| {
                let mut frame = frame.to_vec();
                frame[place] = value;
                frame
            })
        });
        cut.chain(changed).collect()
    };
    [damaged(&solicitation), damaged(&segment)].concat()
}

/// Sends frames as they are.
fn inject(frames: &[Vec<u8>]) {
    let mut sender = AfPacket::open("eth0", &AfPacketConfig::default()).unwrap().sender;
    for frame in frames {
        let headroom = 64;
        let mut storage = vec![0; headroom];
        storage.extend_from_slice(frame);
        let end = storage.len();
        sender.send(&mut [&mut PacketBuf::new(&mut storage, headroom, end)]);
    }
}
