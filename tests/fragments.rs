//! End to end: packets that are longer than a link, between the kernel's own clients and servers.

#[allow(dead_code, reason = "other tests use the rest")]
mod bed;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use bed::{Bed, PATIENCE};
use ulvs::lab::net::sandbox;
use ulvs::lab::topology::nat;

const DNS: [&str; 2] = ["-A -u 12.0.0.1:53 -s rr", "-a -u 12.0.0.1:53 -r 192.168.200.110:5353 -m"];

#[test]
fn a_datagram_is_fragmented_for_a_smaller_link() {
    sandbox::run("a_datagram_is_fragmented_for_a_smaller_link", || {
        let bed = Bed::new();
        bed.configure(&DNS);
        bed.host("client").set_sysctl("net.ipv4.ip_no_pmtu_disc", "1").unwrap();
        bed.host("director").set_mtu("in", 600).unwrap();
        let server = bed.datagrams("real1", (nat::ACCP, 5353));
        let client = bed.datagrams("client", (nat::CLIENT, 0));
        wait_until_known(&client, &server);
        let before = counter(&bed, "too-long");
        for len in [100, 572, 573, 1472] {
            let question = contents(len);
            client.send_to(&question, (nat::OUTSIDE, 53)).unwrap();
            let (heard, from) = receive(&server);
            assert!(heard == question, "{len} bytes");
            server.send_to(b"answer", from).unwrap();
            assert_eq!(receive(&client), (b"answer".to_vec(), (nat::OUTSIDE, 53).into()));
        }
        assert_eq!(counter(&bed, "too-long"), before);
    });
}

#[test]
fn long_datagrams_go_both_ways() {
    sandbox::run("long_datagrams_go_both_ways", || exchange_long_datagrams(&Bed::new()));
}

/// Fragments meet in one worker, and what they make goes to the connection's.
#[test]
fn long_datagrams_go_both_ways_through_several_workers() {
    sandbox::run("long_datagrams_go_both_ways_through_several_workers", || {
        let bed = Bed::with_director_options(&["--workers", "2"]);
        exchange_long_datagrams(&bed);
        assert!(counter(&bed, "handed-over") > 0, "{}", bed.ulvs("stats"));
    });
}

#[test]
fn long_datagrams_go_both_ways_without_offloads() {
    sandbox::run("long_datagrams_go_both_ways_without_offloads", || {
        let bed = Bed::new();
        bed.disable_offloads(&[
            ("client", "eth0"),
            ("director", "out"),
            ("director", "in"),
            ("real1", "eth0"),
        ]);
        exchange_long_datagrams(&bed);
    });
}

/// Questions and answers of the same length, from clients that many workers own.
fn exchange_long_datagrams(bed: &Bed) {
    bed.configure(&DNS);
    let server = bed.datagrams("real1", (nat::ACCP, 5353));
    // All are kept, so that each has a port of its own.
    let clients: Vec<_> = (0..8).map(|_| bed.datagrams("client", (nat::CLIENT, 0))).collect();
    for client in &clients {
        for len in [1472, 1473, 2953, 20_000, 60_000] {
            let question = contents(len);
            client.send_to(&question, (nat::OUTSIDE, 53)).unwrap();
            let (heard, from) = receive(&server);
            assert!(heard == question && from == client.local_addr().unwrap(), "{len} bytes");
            server.send_to(&heard, from).unwrap();
            let (answer, from) = receive(client);
            assert!(answer == question && from == (nat::OUTSIDE, 53).into(), "{len} bytes");
        }
    }
    assert_eq!(counter(bed, "reassembled"), 8 * 4 * 2);
    let entries = bed.ipvsadm("-Lnc");
    assert_eq!(entries.lines().filter(|line| line.starts_with("UDP")).count(), 8, "{entries}");
}

/// Super-frames are cut into segments, and those into fragments.
#[test]
fn tcp_without_path_mtu_discovery_crosses_a_smaller_link() {
    sandbox::run("tcp_without_path_mtu_discovery_crosses_a_smaller_link", || {
        let bed = Bed::new();
        bed.configure(&[
            "-A -t 12.0.0.1:8000 -s rr",
            "-a -t 12.0.0.1:8000 -r 192.168.200.110:8000 -m",
        ]);
        bed.host("client").set_sysctl("net.ipv4.ip_no_pmtu_disc", "1").unwrap();
        let at: SocketAddr = (nat::ACCP, 8000).into();
        let listener = bed.host("real1").run(|| TcpListener::bind(at)).unwrap().unwrap();
        let mut client = bed.connect("client", (nat::OUTSIDE, 8000)).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        // Only now, so that the segments' size was agreed on for larger links.
        bed.host("director").set_mtu("in", 1000).unwrap();
        let sent = contents(4 << 20);
        let copy = sent.clone();
        let sender = std::thread::spawn(move || client.write_all(&copy));
        let mut heard = vec![0; sent.len()];
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        server.read_exact(&mut heard).unwrap();
        assert!(heard == sent);
        sender.join().unwrap().unwrap();
    });
}

/// Waits until the director has heard of the new MTU.
fn wait_until_known(client: &UdpSocket, server: &UdpSocket) {
    let start = Instant::now();
    server.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    loop {
        client.send_to(&contents(1000), (nat::OUTSIDE, 53)).unwrap();
        if server.recv(&mut [0; 1000]).is_ok() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "no fragments arrive");
    }
    while server.recv(&mut [0; 1000]).is_ok() {}
    server.set_read_timeout(Some(PATIENCE)).unwrap();
}

/// A counter of the director, over all workers.
fn counter(bed: &Bed, name: &str) -> u64 {
    let stats: serde_json::Value = serde_json::from_str(&bed.ulvs("stats --json")).unwrap();
    let counters = stats["counters"].as_array().unwrap();
    let counter = counters.iter().find(|counter| counter["name"] == name);
    counter.unwrap_or_else(|| panic!("{name} is not counted"))["total"].as_u64().unwrap()
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut datagram = vec![0; 1 << 16];
    let (len, from) = socket.recv_from(&mut datagram).unwrap();
    datagram.truncate(len);
    (datagram, from)
}

fn contents(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 256) as u8).collect()
}
