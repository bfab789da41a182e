//! Real TCP through a wire made of packet sockets.

use std::hash::Hasher;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use ulvs::driver::af_packet::AfPacketConfig;
use ulvs::lab::net::{Namespace, sandbox};

use super::forwarder::{CLIENT, Forwarder, Hosts, PORTS, SERVER};

const TOTAL: usize = 100 << 20;

#[test]
fn a_hundred_mebibytes_cross_both_ways_with_offloads() {
    sandbox::run("forward::a_hundred_mebibytes_cross_both_ways_with_offloads", || {
        let hosts = Hosts::new().unwrap();
        let report = transfer_both_ways(&hosts);
        for received in report.received {
            assert!(received.frames < 100_000, "super-frames were cut: {report:?}");
        }
    });
}

#[test]
fn a_hundred_mebibytes_cross_both_ways_without_offloads() {
    sandbox::run("forward::a_hundred_mebibytes_cross_both_ways_without_offloads", || {
        let hosts = Hosts::new().unwrap();
        for host in [&hosts.client, &hosts.server] {
            host.disable_offloads("eth0").unwrap();
        }
        PORTS.iter().for_each(|port| hosts.director.disable_offloads(port).unwrap());
        let report = transfer_both_ways(&hosts);
        for received in report.received {
            assert!(received.frames > 50_000, "super-frames are still there: {report:?}");
        }
    });
}

#[test]
fn super_frames_are_cut_for_a_link_that_cannot_take_them() {
    sandbox::run("forward::super_frames_are_cut_for_a_link_that_cannot_take_them", || {
        let hosts = Hosts::new().unwrap();
        PORTS.iter().for_each(|port| hosts.director.disable_offloads(port).unwrap());
        transfer_both_ways(&hosts);
    });
}

fn transfer_both_ways(hosts: &Hosts) -> super::forwarder::Report {
    let forwarder =
        Forwarder::start(hosts, AfPacketConfig::default(), Duration::from_micros(20)).unwrap();
    transfer(&hosts.client, &hosts.server, SERVER);
    transfer(&hosts.server, &hosts.client, CLIENT);
    let report = forwarder.stop().unwrap();
    assert!(report.busy > Duration::ZERO, "{report:?}");
    for (received, sent) in report.received.iter().zip(report.sent) {
        assert_eq!((received.damaged, sent.rejected, sent.link_down), (0, 0, 0), "{report:?}");
    }
    report
}

/// Sends bytes from one host to another and compares hashes.
fn transfer(from: &Namespace, to: &Namespace, address: &str) {
    let listener = to.run(|| TcpListener::bind((address, 0))).unwrap().unwrap();
    let target = listener.local_addr().unwrap();
    let reader = std::thread::spawn(move || digest_all(listener.accept().unwrap().0));
    let mut stream = from.run(|| TcpStream::connect(target)).unwrap().unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    let (mut hasher, mut state) = (std::hash::DefaultHasher::new(), 1u64);
    let mut chunk = vec![0; 1 << 16];
    for _ in 0..TOTAL / chunk.len() {
        for word in chunk.chunks_mut(8) {
            // xorshift64: no two chunks are alike.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_ne_bytes());
        }
        hasher.write(&chunk);
        stream.write_all(&chunk).unwrap();
    }
    drop(stream);
    assert_eq!(reader.join().unwrap(), (TOTAL, hasher.finish()));
}

fn digest_all(mut stream: TcpStream) -> (usize, u64) {
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let (mut hasher, mut total, mut chunk) = (std::hash::DefaultHasher::new(), 0, vec![0; 1 << 16]);
    loop {
        let count = stream.read(&mut chunk).unwrap();
        if count == 0 {
            return (total, hasher.finish());
        }
        hasher.write(&chunk[..count]);
        total += count;
    }
}
