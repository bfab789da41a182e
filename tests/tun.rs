//! End to end over a TUN device: a real director process to which the kernel routes, between the
//! kernel's own clients and servers.

mod bed;

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use bed::{Bed, Director, PATIENCE, ROUND_ROBIN, service};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nix::sys::socket::{setsockopt, sockopt};
use ulvs::driver::af_packet::{AfPacket, AfPacketConfig};
use ulvs::driver::{Receiver, wait};
use ulvs::lab::net::{Route, sandbox};
use ulvs::lab::services::ping::{self, EchoWatch};
use ulvs::lab::topology::nat;
use ulvs::lab::web::{self, Site, WebServer};

/// Runs a test that needs a TUN device.
fn run(name: &str, body: impl FnOnce()) {
    sandbox::run(name, || match OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => body(),
        Err(error) => println!("skipped: {name}: /dev/net/tun cannot be opened ({error})"),
    });
}

fn over_tun(options: &[&str]) -> Bed {
    Bed::with_director_options(&[&["--tun"], options].concat())
}

#[test]
fn pages_come_from_both_servers_though_the_host_does_not_forward() {
    run("pages_come_from_both_servers_though_the_host_does_not_forward", || {
        let bed = over_tun(&[]);
        bed.configure(&ROUND_ROBIN);
        assert_eq!(bed.servers(6), ["real2", "real1", "real2", "real1", "real2", "real1"]);
        assert_eq!(bed.host("director").sysctl("net.ipv4.ip_forward").unwrap(), "0");
        let listing = bed.ipvsadm("-Lnc");
        assert!(listing.contains("12.0.0.1:80        192.168.200.110:80"), "{listing}");
    });
}

#[test]
fn strict_source_filters_of_the_host_do_not_matter() {
    run("strict_source_filters_of_the_host_do_not_matter", || {
        let bed = over_tun(&[]);
        for interface in ["all", "in", "out"] {
            let key = format!("net.ipv4.conf.{interface}.rp_filter");
            bed.host("director").set_sysctl(&key, "1").unwrap();
        }
        bed.configure(&ROUND_ROBIN);
        assert_eq!(bed.servers(2), ["real2", "real1"]);
    });
}

#[test]
fn a_hundred_mebibytes_arrive_unharmed_both_ways() {
    run("a_hundred_mebibytes_arrive_unharmed_both_ways", || {
        let bed = over_tun(&[]);
        bed.configure(&ROUND_ROBIN);
        bed.transfer_both_ways();
    });
}

#[test]
fn a_hundred_mebibytes_arrive_unharmed_by_two_queues_without_offloads() {
    run("a_hundred_mebibytes_arrive_unharmed_by_two_queues_without_offloads", || {
        let bed = over_tun(&["--workers", "2"]);
        bed.disable_offloads(&[
            ("client", "eth0"),
            ("director", "out"),
            ("director", "in"),
            ("real1", "eth0"),
        ]);
        bed.configure(&ROUND_ROBIN);
        bed.transfer_both_ways();
    });
}

#[test]
fn super_frames_cross_the_device_whole() {
    run("super_frames_cross_the_device_whole", || {
        let bed = over_tun(&[]);
        bed.configure(&ROUND_ROBIN);
        const LENGTH: u64 = 20 << 20;
        let client = bed.host("client");
        client.run(|| web::download(service(), LENGTH, PATIENCE)).unwrap().unwrap();
        let received = total(&bed, "received");
        // One by one the segments would be 14,500, without those that acknowledge them.
        assert!(received < 8000, "{received} packets for {LENGTH} bytes");
    });
}

#[test]
fn packets_of_a_flow_come_to_the_queue_of_the_worker_that_owns_it() {
    run("packets_of_a_flow_come_to_the_queue_of_the_worker_that_owns_it", || {
        let bed = over_tun(&["--workers", "2"]);
        bed.configure(&ROUND_ROBIN);
        let client = bed.host("client");
        for _ in 0..6 {
            client.run(|| web::download(service(), 5 << 20, PATIENCE)).unwrap().unwrap();
        }
        let (received, handed_over) = (total(&bed, "received"), total(&bed, "handed-over"));
        assert!(handed_over * 20 < received, "{handed_over} of {received} packets handed over");
    });
}

/// A counter's total over all workers.
fn total(bed: &Bed, name: &str) -> u64 {
    let stats = bed.ulvs("stats --json");
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    let mut counters = stats["counters"].as_array().unwrap().iter();
    let counter = counters.find(|each| each["name"] == name);
    counter.and_then(|each| each["total"].as_u64()).unwrap_or(0)
}

#[test]
fn udp_super_frames_arrive_datagram_by_datagram() {
    run("udp_super_frames_arrive_datagram_by_datagram", || {
        let bed = over_tun(&[]);
        bed.configure(&["-A -u 12.0.0.1:53 -s rr", "-a -u 12.0.0.1:53 -r 192.168.200.110:53 -m"]);
        let server = bed.datagrams("real1", (nat::ACCP, 53));
        let client = bed.datagrams("client", (nat::CLIENT, 0));
        // So that the connection is there, and packets of it are alike.
        client.send_to(b"first", (nat::OUTSIDE, 53)).unwrap();
        let mut datagram = [0; 2000];
        server.recv_from(&mut datagram).unwrap();
        let before = total(&bed, "received");
        setsockopt(&client, sockopt::UdpGsoSegment, &1000).unwrap();
        let sent: Vec<u8> = (0..30_000).map(|at| (at / 1000) as u8).collect();
        client.send_to(&sent, (nat::OUTSIDE, 53)).unwrap();
        for number in 0..30 {
            let (length, _) = server.recv_from(&mut datagram).unwrap();
            assert_eq!((length, datagram[0], datagram[999]), (1000, number, number));
        }
        if bed.director.log().contains("TCP and UDP") {
            assert_eq!(total(&bed, "received") - before, 1);
        }
    });
}

#[test]
fn two_queues_serve_many_connections_in_the_order_of_round_robin() {
    const COUNT: usize = 300;
    run("two_queues_serve_many_connections_in_the_order_of_round_robin", || {
        let bed = over_tun(&["--workers", "2"]);
        bed.configure(&ROUND_ROBIN);
        let servers = bed.servers(20);
        assert!(servers.windows(2).all(|pair| pair[0] != pair[1]), "{servers:?}");
        let open = || -> Vec<TcpStream> {
            let one = |_| TcpStream::connect_timeout(&service(), PATIENCE).unwrap();
            (0..COUNT).map(one).collect()
        };
        let mut streams = bed.host("client").run(open).unwrap();
        let mut from_accp = 0;
        for stream in &mut streams {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        }
        for stream in &mut streams {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            from_accp += usize::from(answer.contains("this is accp web"));
        }
        assert_eq!(from_accp, COUNT / 2);
    });
}

#[test]
fn udp_goes_to_the_server_and_back_under_the_services_address() {
    run("udp_goes_to_the_server_and_back_under_the_services_address", || {
        let bed = over_tun(&[]);
        bed.configure(&["-A -u 12.0.0.1:53 -s rr", "-a -u 12.0.0.1:53 -r 192.168.200.110:5353 -m"]);
        bed.ask();
    });
}

#[test]
fn a_killed_director_leaves_nothing_and_its_successor_serves() {
    run("a_killed_director_leaves_nothing_and_its_successor_serves", || {
        let mut bed = over_tun(&["--workers", "2"]);
        bed.director.kill();
        let before = bed.traces();
        bed.director = Director::start(bed.host("director"), &["--tun=balance"]);
        bed.configure(&ROUND_ROBIN);
        bed.configure(&["-A -t 203.0.113.5:80 -s rr", "-A -t 12.0.0.5:80 -s rr"]);
        bed.ulvs("snat -t nat -A POSTROUTING -s 192.168.200.0/24 -j SNAT --to-source 12.0.0.9");
        assert_eq!(bed.servers(2), ["real2", "real1"]);
        let during = bed.traces();
        assert!(during.contains(&"balance".to_owned()), "{during:?}");
        assert!(during.iter().any(|trace| trace.contains("203.0.113.5")), "{during:?}");

        let client = bed.host("client").clone();
        let download =
            client.spawn(move || web::download(service(), u64::MAX >> 8, Duration::from_secs(5)));
        let download = download.unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(!download.is_finished(), "the download was to be under way");
        bed.director.kill();
        assert_eq!(bed.traces(), before);
        assert!(download.join().unwrap().unwrap().is_err(), "nobody forwards any more");

        bed.director = Director::start(bed.host("director"), &["--tun=balance"]);
        bed.configure(&ROUND_ROBIN);
        assert_eq!(bed.servers(2), ["real2", "real1"]);
    });
}

#[test]
fn nothing_but_the_directors_packets_reach_client_and_server() {
    run("nothing_but_the_directors_packets_reach_client_and_server", || {
        let bed = over_tun(&[]);
        // Such a host would forward replies as they are.
        bed.host("director").set_sysctl("net.ipv4.ip_forward", "1").unwrap();
        bed.configure(&ROUND_ROBIN);
        let at_client = Capture::start(&bed, "client");
        let at_server = Capture::start(&bed, "real1");
        assert_eq!(bed.servers(4), ["real2", "real1", "real2", "real1"]);
        let client = bed.host("client");
        client.run(|| web::download(service(), 1 << 20, PATIENCE)).unwrap().unwrap();
        client.run(|| web::upload(service(), 1 << 20, PATIENCE)).unwrap().unwrap();

        let to_client = at_client.finish();
        assert!(to_client.len() > 40, "{to_client:?}");
        let expected = |seen: &Seen| seen.source == nat::OUTSIDE && seen.is_tcp && !seen.is_reset;
        assert!(to_client.iter().all(expected), "{to_client:?}");
        let to_server = at_server.finish();
        assert!(to_server.len() > 10, "{to_server:?}");
        let expected = |seen: &Seen| seen.source == nat::CLIENT && seen.is_tcp && !seen.is_reset;
        assert!(to_server.iter().all(expected), "{to_server:?}");
    });
}

/// What a host receives, frame by frame.
struct Capture {
    stop: crossbeam_channel::Sender<()>,
    thread: std::thread::JoinHandle<io::Result<Vec<Seen>>>,
}

/// An IPv4 packet that a host received.
#[derive(Debug)]
struct Seen {
    source: Ipv4Addr,
    is_tcp: bool,
    is_reset: bool,
}

impl Capture {
    fn start(bed: &Bed, host: &str) -> Self {
        let open = || AfPacket::open("eth0", &AfPacketConfig::default());
        let mut receiver = bed.host(host).run(open).unwrap().unwrap().receiver;
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let thread = bed.host(host).spawn(move || {
            let mut seen = Vec::new();
            let mut last = false;
            while !std::mem::replace(&mut last, stopped.try_recv().is_ok()) {
                wait(&receiver.readiness(), Some(Duration::from_millis(50))).unwrap();
                let look = &mut |frames: &mut [ulvs::packet::PacketBuf<'_>]| {
                    seen.extend(frames.iter().filter_map(|frame| Seen::new(frame.bytes())));
                };
                while receiver.receive(look).unwrap() > 0 {}
            }
            seen
        });
        Self { stop, thread: thread.unwrap() }
    }

    fn finish(self) -> Vec<Seen> {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap().unwrap()
    }
}

impl Seen {
    fn new(frame: &[u8]) -> Option<Self> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let Some(NetSlice::Ipv4(ip)) = packet.net else { return None };
        let tcp = match packet.transport {
            Some(TransportSlice::Tcp(tcp)) => Some(tcp.rst()),
            _ => None,
        };
        // Bridges and hosts talk to groups whenever they like.
        if ip.header().destination_addr().is_multicast() {
            return None;
        }
        let source = ip.header().source_addr();
        Some(Self { source, is_tcp: tcp.is_some(), is_reset: tcp == Some(true) })
    }
}

#[test]
fn the_host_keeps_its_other_traffic_at_the_same_addresses() {
    run("the_host_keeps_its_other_traffic_at_the_same_addresses", || {
        let bed = over_tun(&[]);
        bed.configure(&ROUND_ROBIN);
        let director = bed.host("director");
        let ssh: SocketAddr = (nat::OUTSIDE, 22).into();
        let listener = director.run(|| TcpListener::bind(ssh)).unwrap().unwrap();
        let mut near = bed.connect("client", ssh).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        far.write_all(b"SSH-2.0-test\r\n").unwrap();
        let mut heard = [0; 14];
        near.read_exact(&mut heard).unwrap();
        let refused = bed.connect("client", (nat::OUTSIDE, 81)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        bed.host("client").run(|| ping::ping(nat::OUTSIDE, 1, PATIENCE)).unwrap().unwrap();

        // A health check of the director's own, and a server that talks to its gateway.
        let check = || web::get((nat::ACCP, 80).into(), "/", PATIENCE);
        assert_eq!(director.run(check).unwrap().unwrap().server, "real1");
        bed.host("real1").run(|| ping::ping(nat::INSIDE, 1, PATIENCE)).unwrap().unwrap();
        assert_eq!(bed.servers(2), ["real2", "real1"]);
    });
}

#[test]
fn programs_of_the_directors_host_are_clients_like_others() {
    run("programs_of_the_directors_host_are_clients_like_others", || {
        let bed = over_tun(&[]);
        bed.configure(&ROUND_ROBIN);
        let fetch = || web::get(service(), "/", PATIENCE);
        assert_eq!(bed.host("director").run(fetch).unwrap().unwrap().server, "real2");
        let download = || web::download(service(), 20 << 20, PATIENCE);
        bed.host("director").run(download).unwrap().unwrap();
        assert_eq!(bed.servers(2), ["real2", "real1"]);
    });
}

#[test]
fn servers_stay_reachable_as_themselves_through_a_host_that_forwards() {
    run("servers_stay_reachable_as_themselves_through_a_host_that_forwards", || {
        let bed = over_tun(&[]);
        bed.host("director").set_sysctl("net.ipv4.ip_forward", "1").unwrap();
        route(&bed, "client", "192.168.200.0/24", nat::OUTSIDE);
        bed.configure(&ROUND_ROBIN);
        let direct = || web::get((nat::ACCP, 80).into(), "/", PATIENCE);
        assert_eq!(bed.host("client").run(direct).unwrap().unwrap().server, "real1");
        assert_eq!(bed.servers(2), ["real2", "real1"]);
    });
}

fn route(bed: &Bed, host: &str, to: &str, via: Ipv4Addr) {
    let route = Route { destination: to.parse().unwrap(), via: Some(via.into()), interface: None };
    bed.host(host).add_route(&route).unwrap();
}

#[test]
fn addresses_that_the_host_does_not_have_are_served() {
    run("addresses_that_the_host_does_not_have_are_served", || {
        let bed = over_tun(&[]);
        route(&bed, "client", "203.0.113.0/24", nat::OUTSIDE);
        for addr in ["203.0.113.5", "12.0.0.5"] {
            bed.configure(&[
                &format!("-A -t {addr}:80 -s rr"),
                &format!("-a -t {addr}:80 -r 192.168.200.110:80 -m"),
            ]);
            let addr: Ipv4Addr = addr.parse().unwrap();
            let fetch = || web::get((addr, 80).into(), "/", PATIENCE);
            assert_eq!(bed.host("client").run(fetch).unwrap().unwrap().server, "real1");
            bed.host("client").run(|| ping::ping(addr, 1, PATIENCE)).unwrap().unwrap();
            let refused = bed.connect("client", (addr, 81)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        }
        // The host's own programs, too.
        let fetch = || web::get("203.0.113.5:80".parse().unwrap(), "/", PATIENCE);
        assert_eq!(bed.host("director").run(fetch).unwrap().unwrap().server, "real1");

        let routes = || {
            let read = || std::fs::read_to_string("/proc/thread-self/net/route").unwrap();
            bed.host("director").run(read).unwrap()
        };
        // 203.0.113.5 as that file has it.
        assert!(routes().contains("057100CB"), "{}", routes());
        bed.ipvsadm("-D -t 203.0.113.5:80");
        assert!(!routes().contains("057100CB"), "{}", routes());
    });
}

/// Networks that a rule of marks names and a route makes the host's.
#[test]
fn marked_networks_of_the_host_are_served() {
    run("marked_networks_of_the_host_are_served", || {
        let bed = over_tun(&[]);
        let local = ["route", "add", "local", "203.0.113.0/24", "dev", "lo"];
        assert!(bed.host("director").command("ip").args(local).status().unwrap().success());
        route(&bed, "client", "203.0.113.0/24", nat::OUTSIDE);
        let rule = "-A PREROUTING -d 203.0.113.0/24 -p tcp -m multiport ! --dports 22,81";
        bed.ulvs(&format!("mark {rule} -j MARK --set-mark 5"));
        bed.configure(&["-A -f 5 -s rr", "-a -f 5 -r 192.168.200.110 -m"]);
        let here: Ipv4Addr = "203.0.113.200".parse().unwrap();
        // The director hears of the route a little later than it is there.
        let start = Instant::now();
        while bed.connect("client", (here, 80)).is_err() {
            assert!(start.elapsed() < PATIENCE, "the network is the kernel's for ever");
        }
        let fetch = || web::get((here, 80).into(), "/", PATIENCE);
        for host in ["client", "director"] {
            assert_eq!(bed.host(host).run(fetch).unwrap().unwrap().server, "real1", "{host}");
        }
        let listen = || TcpListener::bind((here, 22)).unwrap();
        let _ssh = bed.host("director").run(listen).unwrap();
        bed.connect("client", (here, 22)).unwrap();
        let refused = bed.connect("client", (here, 81)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn real_servers_go_out_under_the_directors_address() {
    run("real_servers_go_out_under_the_directors_address", || {
        for out_of in [nat::OUTSIDE, Ipv4Addr::new(12, 0, 0, 9)] {
            let bed = over_tun(&[]);
            bed.configure(&ROUND_ROBIN);
            bed.ulvs(&format!(
                "snat -t nat -A POSTROUTING -o out -s 192.168.200.0/24 -j SNAT --to-source {out_of}"
            ));
            let mut watch =
                bed.host("client").run(|| EchoWatch::open(nat::CLIENT)).unwrap().unwrap();
            // A real server, and a host that is none.
            for host in ["real1", "storage"] {
                let ping = || ping::ping(nat::CLIENT, 1, PATIENCE);
                bed.host(host).run(ping).unwrap().unwrap();
                assert_eq!(watch.sources().unwrap(), [IpAddr::V4(out_of)]);
            }
            let address: SocketAddr = (nat::CLIENT, 8080).into();
            let listener = bed.host("client").run(|| TcpListener::bind(address)).unwrap().unwrap();
            let _stream = bed.connect("real1", address).unwrap();
            assert_eq!(listener.accept().unwrap().1.ip(), IpAddr::V4(out_of));
            assert_eq!(bed.servers(2), ["real2", "real1"]);
        }
    });
}

#[test]
fn tunnels_lead_through_the_device_to_servers_that_answer_by_themselves() {
    run("tunnels_lead_through_the_device_to_servers_that_answer_by_themselves", || {
        let virtual_service: SocketAddr = "203.0.113.5:80".parse().unwrap();
        for kind in ["ipip", "gre", "gue --tun-port 6080"] {
            let bed = over_tun(&["--workers", "2"]);
            // It is the router of the server's answers, which are none of the director's business.
            bed.host("director").set_sysctl("net.ipv4.ip_forward", "1").unwrap();
            route(&bed, "client", "203.0.113.0/24", nat::OUTSIDE);
            let mut decap = bed.host("real1").command(env!("CARGO_BIN_EXE_ulvs"));
            let mut decap = decap.args(["decap", "--vip", "203.0.113.5"]).spawn().unwrap();
            let start = Instant::now();
            // The address comes with the device.
            let listeners = loop {
                match bed.host("real1").run(|| web::listen(virtual_service, 1)).unwrap() {
                    Ok(listeners) => break listeners,
                    Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
                }
                std::thread::sleep(Duration::from_millis(20));
            };
            let site = Site::new("real1").page("/", "text/html", "page");
            let _web = WebServer::start(listeners, site).unwrap();
            bed.configure(&[
                "-A -t 203.0.113.5:80 -s rr",
                &format!("-a -t 203.0.113.5:80 -r 192.168.200.110 -i --tun-type {kind}"),
            ]);
            let load = || {
                for _ in 0..4 {
                    assert_eq!(web::get(virtual_service, "/", PATIENCE)?.server, "real1");
                }
                web::download(virtual_service, 20 << 20, PATIENCE)?;
                web::upload(virtual_service, 20 << 20, PATIENCE)
            };
            let loaded = bed.host("client").run(load).unwrap();
            decap.kill().unwrap();
            decap.wait().unwrap();
            loaded.unwrap_or_else(|error| panic!("{kind}: {error}"));
        }
    });
}

#[test]
fn ipv6_services_are_balanced_where_the_kernel_forwards_ipv6() {
    run("ipv6_services_are_balanced_where_the_kernel_forwards_ipv6", || {
        let bed = over_tun(&[]);
        for (host, interface, prefix) in [
            ("client", "eth0", "2001:db8:1::12/64"),
            ("director", "out", "2001:db8:1::1/64"),
            ("director", "in", "2001:db8:2::1/64"),
            ("real1", "eth0", "2001:db8:2::110/64"),
        ] {
            bed.host(host).add_address(interface, prefix.parse().unwrap()).unwrap();
        }
        let default = Route::default_via("2001:db8:2::1".parse().unwrap());
        bed.host("real1").add_route(&default).unwrap();
        let gateway = "2001:db8:1::1".parse().unwrap();
        bed.host("client").add_route(&Route::default_via(gateway)).unwrap();
        let at: SocketAddr = "[2001:db8:2::110]:80".parse().unwrap();
        let listeners = bed.host("real1").run(|| web::listen(at, 1)).unwrap().unwrap();
        let site = Site::new("real1").page("/", "text/html", "page");
        let _web = WebServer::start(listeners, site).unwrap();

        let said = ["[2001:db8:1::1]:80", "[2001:db8:5::5]:80"].map(|virtual_service| {
            let add = format!("ipvsadm -a -t {virtual_service} -r [2001:db8:2::110]:80 -m");
            bed.ipvsadm(&format!("-A -t {virtual_service} -s rr"));
            (complaint(&bed, &add), add)
        });
        bed.host("director").set_sysctl("net.ipv6.conf.all.forwarding", "1").unwrap();
        for (said, add) in said {
            assert!(said.contains("net.ipv6.conf.all.forwarding"), "{said}");
            bed.ulvs(&add);
        }
        for addr in ["[2001:db8:1::1]:80", "[2001:db8:5::5]:80"] {
            let addr: SocketAddr = addr.parse().unwrap();
            let fetch = || web::get(addr, "/", PATIENCE);
            assert_eq!(bed.host("client").run(fetch).unwrap().unwrap().server, "real1");
            let load = || {
                web::download(addr, 20 << 20, PATIENCE)?;
                web::upload(addr, 20 << 20, PATIENCE)
            };
            bed.host("client").run(load).unwrap().unwrap();
        }
        bed.configure(&ROUND_ROBIN);
        assert_eq!(bed.servers(2), ["real2", "real1"]);
    });
}

#[test]
fn firewalls_with_states_and_masquerading_leave_balanced_connections_alone() {
    run("firewalls_with_states_and_masquerading_leave_balanced_connections_alone", || {
        let bed = over_tun(&[]);
        if bed.shown("nft", &["--version"]).is_none() {
            return println!("skipped: nft is not installed");
        }
        bed.host("director").set_sysctl("net.ipv4.ip_forward", "1").unwrap();
        for words in [
            "add table ip other",
            "add chain ip other forwarded { type filter hook forward priority 0; }",
            "add rule ip other forwarded ct state invalid drop",
            "add chain ip other out { type nat hook postrouting priority 100; }",
            "add rule ip other out oifname out masquerade",
        ] {
            let mut nft = bed.host("director").command("nft");
            assert!(nft.arg(words).status().unwrap().success(), "{words}");
        }
        route(&bed, "client", "203.0.113.0/24", nat::OUTSIDE);
        bed.configure(&ROUND_ROBIN);
        bed.configure(&["-A -t 203.0.113.5:80 -s rr"]);
        bed.configure(&["-a -t 203.0.113.5:80 -r 192.168.200.110:80 -m"]);
        assert_eq!(bed.servers(4), ["real2", "real1", "real2", "real1"]);
        let fetch = || web::get("203.0.113.5:80".parse().unwrap(), "/", PATIENCE);
        assert_eq!(bed.host("client").run(fetch).unwrap().unwrap().server, "real1");
        // What a server begins is not the director's, and is masqueraded as ever.
        let address: SocketAddr = (nat::CLIENT, 8080).into();
        let listener = bed.host("client").run(|| TcpListener::bind(address)).unwrap().unwrap();
        let _stream = bed.connect("real1", address).unwrap();
        assert_eq!(listener.accept().unwrap().1.ip(), IpAddr::V4(nat::OUTSIDE));
    });
}

#[test]
fn packets_too_large_for_the_servers_link_are_answered_by_the_service() {
    run("packets_too_large_for_the_servers_link_are_answered_by_the_service", || {
        let bed = over_tun(&[]);
        // The kernel would answer about a packet that the client never sent.
        for host in ["director", "real1", "real2", "storage"] {
            let interface = if host == "director" { "in" } else { "eth0" };
            bed.host(host).set_mtu(interface, 1300).unwrap();
        }
        bed.configure(&["-A -u 12.0.0.1:53 -s rr", "-a -u 12.0.0.1:53 -r 192.168.200.110:53 -m"]);
        let client = bed.host("client").run(|| UdpSocket::bind((nat::CLIENT, 0))).unwrap().unwrap();
        client.connect((nat::OUTSIDE, 53)).unwrap();
        let start = Instant::now();
        let told = loop {
            // Linux sets the bit against fragmentation unless told otherwise.
            match client.send(&[b'x'; 1400]) {
                Ok(_) => assert!(start.elapsed() < PATIENCE, "the client is told nothing"),
                Err(error) => break error,
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(told.raw_os_error(), Some(nix::libc::EMSGSIZE));
    });
}

#[test]
fn a_service_without_servers_refuses_at_once() {
    run("a_service_without_servers_refuses_at_once", || {
        let bed = over_tun(&[]);
        bed.ipvsadm("-A -t 12.0.0.1:80 -s rr");
        let start = Instant::now();
        let error = bed.connect("client", service()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    });
}

#[test]
fn what_a_device_without_link_headers_cannot_do_is_refused() {
    run("what_a_device_without_link_headers_cannot_do_is_refused", || {
        let bed = over_tun(&[]);
        bed.ipvsadm("-A -t 12.0.0.1:80 -s rr");
        let said = complaint(&bed, "ipvsadm -a -t 12.0.0.1:80 -r 192.168.200.110:80 -g");
        assert!(said.contains("direct routing (-g)"), "{said}");
        assert!(!bed.ipvsadm("-Ln").contains("192.168.200.110"));
        // Nor does it take a device that is another's.
        let said = complaint(&bed, "run --tun=ulvs0 --control /nonexistent/control");
        assert!(said.contains("there is an interface of this name already"), "{said}");
        let said = complaint(&bed, "run --tun --interface nosuch --control /nonexistent/control");
        assert!(said.contains("there is no interface nosuch"), "{said}");
        bed.configure(&["-a -t 12.0.0.1:80 -r 192.168.200.110:80 -m"]);
        assert_eq!(bed.servers(1), ["real1"]);
    });
}

/// What a command of ulvs says that must fail.
fn complaint(bed: &Bed, line: &str) -> String {
    let mut command = bed.host("director").command(env!("CARGO_BIN_EXE_ulvs"));
    command.args(line.split_ascii_whitespace()).env("ULVS_CONTROL", bed.director.control());
    let output = command.output().unwrap();
    assert!(!output.status.success(), "ulvs {line} was to fail");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_director_ends_when_its_device_is_taken_away() {
    run("the_director_ends_when_its_device_is_taken_away", || {
        let mut bed = over_tun(&[]);
        bed.configure(&ROUND_ROBIN);
        bed.host("director").remove_link("ulvs0").unwrap();
        let start = Instant::now();
        while bed.director.is_alive() {
            assert!(start.elapsed() < PATIENCE, "it goes on without its device");
            std::thread::sleep(Duration::from_millis(20));
        }
        if let Some(rules) = bed.shown("nft", &["list", "ruleset"]) {
            assert_eq!(rules, "");
        }
    });
}
