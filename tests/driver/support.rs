//! Namespaces with a link between them, and waiting for frames.

use std::time::{Duration, Instant};

use ulvs::driver::af_packet::{AfPacket, AfPacketConfig};
use ulvs::driver::{Receiver, Sender, wait};
use ulvs::lab::net::{self, Namespace};
use ulvs::packet::PacketBuf;

/// The host that the packet sockets are on.
pub const DIRECTOR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The host at the other end.
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Two hosts: `director` and `peer`, joined by their `eth0`. The director has no address, so that
/// its kernel sends nothing by itself but what IPv6 wants, which is off.
pub fn hosts() -> (Namespace, Namespace) {
    let director = Namespace::new("director").unwrap();
    let peer = Namespace::new("peer").unwrap();
    for host in [&director, &peer] {
        silence(host);
    }
    let ends = (director.end("eth0").with_mac(DIRECTOR_MAC), peer.end("eth0").with_mac(PEER_MAC));
    net::connect(&ends.0, &ends.1).unwrap();
    peer.add_address("eth0", "192.0.2.2/24".parse().unwrap()).unwrap();
    (director, peer)
}

/// Keeps the host's kernel from speaking IPv6 on its own account.
pub fn silence(host: &Namespace) {
    for scope in ["all", "default"] {
        let _ = host.set_sysctl(&format!("net.ipv6.conf.{scope}.disable_ipv6"), "1");
    }
}

pub fn open(host: &Namespace, config: &AfPacketConfig) -> AfPacket {
    host.run(|| AfPacket::open("eth0", config)).unwrap().unwrap()
}

/// A frame of `len` bytes between the two hosts, of an EtherType for experiments, filled with
/// `mark`.
pub fn frame(from: [u8; 6], to: [u8; 6], mark: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![mark; len];
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame[12..14].copy_from_slice(&EXPERIMENT.to_be_bytes());
    frame
}

/// Local experimental EtherType 1, IEEE 802.
pub const EXPERIMENT: u16 = 0x88b5;

/// Sends one frame without headroom or with some.
pub fn send(sender: &mut dyn Sender, frame: &[u8], headroom: usize) {
    let mut storage = vec![0; headroom];
    storage.extend_from_slice(frame);
    let end = storage.len();
    sender.send(&mut [&mut PacketBuf::new(&mut storage, headroom, end)]);
}

/// Receives until `enough` says so; panics after some seconds.
pub fn receive_until(
    receiver: &mut dyn Receiver,
    mut look: impl FnMut(&mut PacketBuf<'_>),
    mut enough: impl FnMut() -> bool,
) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !enough() {
        assert!(Instant::now() < deadline, "what was waited for did not arrive");
        let count = receiver.receive(&mut |batch| batch.iter_mut().for_each(&mut look)).unwrap();
        if count == 0 {
            let patience = Some(Duration::from_millis(20));
            wait(&receiver.readiness(), patience).unwrap();
        }
    }
}

/// Receives until nothing has come for a moment, and returns the frames.
pub fn receive_all(receiver: &mut dyn Receiver) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    loop {
        let mut look = |batch: &mut [PacketBuf<'_>]| {
            frames.extend(batch.iter().map(|packet| packet.bytes().to_vec()));
        };
        if receiver.receive(&mut look).unwrap() > 0 {
            continue;
        }
        let patience = Some(Duration::from_millis(50));
        if wait(&receiver.readiness(), patience).unwrap().ready == 0 {
            return frames;
        }
    }
}

/// A distribution program that answers with the last byte of a frame's source address.
pub fn by_source() -> [libc::sock_filter; 2] {
    let link_layer = libc::SKF_LL_OFF as u32;
    [instruction(0x30, link_layer + 11), instruction(0x16, 0)]
}

/// One instruction of a classic BPF program, without jumps.
pub fn instruction(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}
