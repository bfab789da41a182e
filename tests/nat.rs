//! End to end: a real director process between the kernel's own clients and servers.

mod bed;

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bed::{Bed, Director, PATIENCE, ROUND_ROBIN, WAYS, service};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ulvs::driver::Sender;
use ulvs::driver::af_packet::{AfPacket, AfPacketConfig};
use ulvs::lab::net::sandbox;
use ulvs::lab::services::ping::{self, EchoWatch};
use ulvs::lab::topology::nat;
use ulvs::lab::web;
use ulvs::packet::PacketBuf;

const WAY_OUT: &str = "snat -t nat -A POSTROUTING -o out -s 192.168.200.0/24 \
                       -j SNAT --to-source 12.0.0.1";

#[test]
fn round_robin_alternates_newest_server_first() {
    sandbox::run("round_robin_alternates_newest_server_first", || {
        let bed = Bed::new();
        bed.configure(&ROUND_ROBIN);
        assert_eq!(bed.servers(6), ["real2", "real1", "real2", "real1", "real2", "real1"]);
        let listing = bed.ipvsadm("-Ln");
        assert!(listing.contains("TCP  12.0.0.1:80 rr"), "{listing}");
    });
}

#[test]
fn weighted_round_robin_follows_the_weights() {
    sandbox::run("weighted_round_robin_follows_the_weights", || {
        let bed = Bed::new();
        bed.configure(&[
            "-A -t 12.0.0.1:80 -s wrr",
            "-a -t 12.0.0.1:80 -r 192.168.200.110:80 -m -w 1",
            "-a -t 12.0.0.1:80 -r 192.168.200.120:80 -m -w 2",
        ]);
        let servers = bed.servers(9);
        for three in servers.chunks(3) {
            assert_eq!(three.iter().filter(|name| *name == "real2").count(), 2, "{servers:?}");
        }
        bed.ipvsadm("-e -t 12.0.0.1:80 -r 192.168.200.110:80 -m -w 0");
        assert_eq!(bed.servers(4), ["real2"; 4]);
    });
}

#[test]
fn several_workers_keep_the_order_of_round_robin() {
    sandbox::run("several_workers_keep_the_order_of_round_robin", || {
        let bed = Bed::with_director_options(&["--workers", "2"]);
        bed.configure(&ROUND_ROBIN);
        let servers = bed.servers(20);
        assert!(servers.windows(2).all(|pair| pair[0] != pair[1]), "{servers:?}");
    });
}

#[test]
fn a_hundred_mebibytes_arrive_unharmed_both_ways() {
    sandbox::run("a_hundred_mebibytes_arrive_unharmed_both_ways", || {
        let bed = Bed::new();
        bed.configure(&ROUND_ROBIN);
        bed.transfer_both_ways();
    });
}

#[test]
fn a_hundred_mebibytes_arrive_unharmed_without_offloads() {
    sandbox::run("a_hundred_mebibytes_arrive_unharmed_without_offloads", || {
        let bed = Bed::new();
        bed.disable_offloads(&WAYS);
        bed.configure(&ROUND_ROBIN);
        bed.transfer_both_ways();
    });
}

#[test]
fn a_hundred_mebibytes_arrive_unharmed_when_only_the_client_has_offloads() {
    sandbox::run("a_hundred_mebibytes_arrive_unharmed_when_only_the_client_has_offloads", || {
        let bed = Bed::new();
        bed.disable_offloads(&[("director", "in"), ("real1", "eth0"), ("real2", "eth0")]);
        bed.configure(&ROUND_ROBIN);
        bed.transfer_both_ways();
    });
}

#[test]
fn two_thousand_connections_live_at_once() {
    const COUNT: usize = 2000;
    sandbox::run("two_thousand_connections_live_at_once", || {
        let (_, limit) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, limit, limit).unwrap();
        assert!(limit > 3 * COUNT as u64, "this test needs {} descriptors (ulimit -n)", 3 * COUNT);
        let bed = Bed::new();
        bed.configure(&ROUND_ROBIN);
        let client = bed.host("client");
        let open = || -> Vec<TcpStream> {
            let one = |_| TcpStream::connect_timeout(&service(), PATIENCE).unwrap();
            (0..COUNT).map(one).collect()
        };
        let mut streams = client.run(open).unwrap();
        for stream in &mut streams {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        }
        let mut answers = streams.iter_mut().map(|stream| {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        let from_accp = answers.by_ref().filter(|text| text.contains("this is accp web")).count();
        assert_eq!(from_accp, COUNT / 2);
        let entries =
            bed.ipvsadm("-Lnc").lines().filter(|line| line.contains("12.0.0.12:")).count();
        assert_eq!(entries, COUNT);
    });
}

#[test]
fn a_killed_director_leaves_nothing_and_its_successor_serves() {
    sandbox::run("a_killed_director_leaves_nothing_and_its_successor_serves", || {
        let mut bed = Bed::new();
        let before = bed.traces();
        bed.configure(&ROUND_ROBIN);
        let client = bed.host("client").clone();
        let endless = u64::MAX >> 8;
        let download =
            client.spawn(move || web::download(service(), endless, Duration::from_secs(5)));
        let download = download.unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(!download.is_finished(), "the download was to be under way");
        bed.director.kill();
        assert_eq!(bed.traces(), before);
        assert!(download.join().unwrap().unwrap().is_err(), "nobody forwards any more");

        bed.director = Director::start(bed.host("director"), &[]);
        bed.configure(&ROUND_ROBIN);
        assert_eq!(bed.servers(4), ["real2", "real1", "real2", "real1"]);
    });
}

#[test]
fn the_directors_host_keeps_its_other_traffic() {
    sandbox::run("the_directors_host_keeps_its_other_traffic", || {
        let bed = Bed::new();
        bed.configure(&ROUND_ROBIN);
        let ssh: SocketAddr = (nat::OUTSIDE, 22).into();
        let listener = bed.host("director").run(|| TcpListener::bind(ssh)).unwrap().unwrap();
        let mut near = bed.connect("client", ssh).unwrap();
        let (mut far, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), IpAddr::V4(nat::CLIENT));
        assert_eq!(bed.servers(2), ["real2", "real1"]);
        far.write_all(b"SSH-2.0-test\r\n").unwrap();
        let mut heard = [0; 14];
        near.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"SSH-2.0-test\r\n");

        let refused = bed.connect("client", (nat::OUTSIDE, 81)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let pinged = bed.host("client").run(|| ping::ping(nat::OUTSIDE, 1, PATIENCE)).unwrap();
        pinged.unwrap();
    });
}

#[test]
fn a_service_without_servers_refuses_at_once() {
    sandbox::run("a_service_without_servers_refuses_at_once", || {
        let bed = Bed::new();
        bed.ipvsadm("-A -t 12.0.0.1:80 -s rr");
        let start = Instant::now();
        let error = bed.connect("client", service()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    });
}

#[test]
fn udp_goes_to_the_server_and_back_under_the_services_address() {
    sandbox::run("udp_goes_to_the_server_and_back_under_the_services_address", || {
        let bed = Bed::new();
        bed.configure(&["-A -u 12.0.0.1:53 -s rr", "-a -u 12.0.0.1:53 -r 192.168.200.110:5353 -m"]);
        bed.ask();
    });
}

#[test]
fn real_servers_go_out_under_the_directors_address() {
    sandbox::run("real_servers_go_out_under_the_directors_address", || {
        let bed = Bed::new();
        bed.configure(&ROUND_ROBIN);
        bed.ulvs(WAY_OUT);
        let mut watch = bed.host("client").run(|| EchoWatch::open(nat::CLIENT)).unwrap().unwrap();
        let ping = || ping::ping(nat::CLIENT, 1, PATIENCE);
        bed.host("real1").run(ping).unwrap().unwrap();
        assert_eq!(watch.sources().unwrap(), [IpAddr::V4(nat::OUTSIDE)]);

        let address: SocketAddr = (nat::CLIENT, 8080).into();
        let listener = bed.host("client").run(|| TcpListener::bind(address)).unwrap().unwrap();
        let _stream = bed.connect("real1", address).unwrap();
        assert_eq!(listener.accept().unwrap().1.ip(), IpAddr::V4(nat::OUTSIDE));
        assert_eq!(bed.servers(2), ["real2", "real1"]);
    });
}

#[test]
fn hostile_frames_move_nothing_but_counters() {
    sandbox::run("hostile_frames_move_nothing_but_counters", || {
        let mut bed = Bed::new();
        bed.configure(&ROUND_ROBIN);
        let target = bed.host("director").mac("out").unwrap();
        let source = bed.host("client").mac("eth0").unwrap();
        bed.host("client").run(|| inject(&frames(source, target))).unwrap();
        let target = bed.host("director").mac("in").unwrap();
        let source = bed.host("real1").mac("eth0").unwrap();
        bed.host("real1").run(|| inject(&frames(source, target))).unwrap();
        assert!(bed.director.is_alive());
        assert_eq!(bed.servers(4), ["real2", "real1", "real2", "real1"]);
        let listing = bed.ipvsadm("-Ln");
        assert_eq!(listing.matches("Masq    1      ").count(), 2, "{listing}");
    });
}

/// Sends frames as they are.
fn inject(frames: &[Vec<u8>]) {
    let mut sender = AfPacket::open("eth0", &AfPacketConfig::default()).unwrap().sender;
    for frame in frames {
        let headroom = 64;
        let mut storage = vec![0; headroom];
        storage.extend_from_slice(frame);
        let end = storage.len();
        let mut packet = PacketBuf::new(&mut storage, headroom, end);
        sender.send(&mut [&mut packet]);
    }
    assert!(sender.counters().frames > 0, "{:?}", sender.counters());
}

/// Frames that no honest host sends: a SYN to the service cut off at every length and with every
/// header byte at its extremes, and random bytes behind an Ethernet header.
fn frames(source: [u8; 6], target: [u8; 6]) -> Vec<Vec<u8>> {
    let syn = segment(source, target);
    // The kernel takes no frame that is shorter than its Ethernet header.
    let mut frames: Vec<Vec<u8>> = (14..syn.len()).map(|length| syn[..length].to_vec()).collect();
    for place in 14..syn.len() {
        for value in [0x00, 0x01, 0x0f, 0x40, 0x4f, 0x60, 0x80, 0xff, syn[place] ^ 0x80] {
            let mut frame = syn.clone();
            frame[place] = value;
            // A frame that happens to be right would open a connection, and take a turn.
            if is_damaged(&frame, &syn) {
                frames.push(frame);
            }
        }
    }
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    for kind in [[0x08, 0x00], [0x86, 0xdd], [0x08, 0x06], [0x81, 0x00], [0x00, 0x05]] {
        for length in (0..1400).step_by(7) {
            let mut frame = [target.as_slice(), &source, &kind].concat();
            frame.extend(std::iter::repeat_with(&mut random).take(length));
            frames.push(frame);
        }
    }
    frames
}

/// A TCP ACK-less, FIN-only segment to the service, with valid checksums: even undamaged it opens
/// no connection.
fn segment(source: [u8; 6], target: [u8; 6]) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2(source, target)
        .ipv4(nat::CLIENT.octets(), nat::OUTSIDE.octets(), 64)
        .tcp(40_000, 80, 1, 1024)
        .fin();
    let mut bytes = Vec::new();
    builder.write(&mut bytes, b"hello").unwrap();
    bytes
}

/// Whether the one changed byte is no flag of TCP: those could make it a SYN.
fn is_damaged(frame: &[u8], from: &[u8]) -> bool {
    const TCP_FLAGS: usize = 14 + 20 + 13;
    frame[TCP_FLAGS] == from[TCP_FLAGS]
}
