//! What goes out arrives, and what arrives is what was sent.

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};

use ulvs::driver::af_packet::{AfPacket, AfPacketConfig, RingConfig};
use ulvs::driver::{Receiver, Sender};
use ulvs::lab::net::sandbox;
use ulvs::packet::{Checksum, SegmentKind};

use super::support::*;

#[test]
fn frames_cross_the_link_both_ways_and_are_not_heard_by_their_sender() {
    sandbox::run(
        "frames::frames_cross_the_link_both_ways_and_are_not_heard_by_their_sender",
        || {
            let (director, peer) = hosts();
            let config = AfPacketConfig::default();
            let (mut near, mut far) = (open(&director, &config), open(&peer, &config));
            for (mark, headroom) in [(1, 0), (2, 10), (3, 128)] {
                send(&mut near.sender, &frame(DIRECTOR_MAC, PEER_MAC, mark, 60), headroom);
                send(&mut far.sender, &frame(PEER_MAC, DIRECTOR_MAC, mark + 10, 1514), headroom);
            }
            let heard = receive_all(&mut far.receiver);
            assert_eq!(heard, [1, 2, 3].map(|mark| frame(DIRECTOR_MAC, PEER_MAC, mark, 60)));
            let heard = receive_all(&mut near.receiver);
            assert_eq!(heard, [11, 12, 13].map(|mark| frame(PEER_MAC, DIRECTOR_MAC, mark, 1514)));
            assert_eq!(near.receiver.counters().frames, 3);
            assert_eq!(near.sender.counters().frames, 3);
        },
    );
}

#[test]
fn a_frame_that_is_too_long_is_skipped_and_the_rest_arrives() {
    sandbox::run("frames::a_frame_that_is_too_long_is_skipped_and_the_rest_arrives", || {
        let (director, peer) = hosts();
        let config = AfPacketConfig::default();
        let (mut near, mut far) = (open(&director, &config), open(&peer, &config));
        let lengths = [60, 9000, 61, 13, 62];
        let mut storage = lengths.map(|len| {
            let mut bytes = vec![0; 32];
            bytes.extend(frame(DIRECTOR_MAC, PEER_MAC, 7, len.max(14)));
            bytes.truncate(32 + len);
            bytes
        });
        let mut packets: Vec<_> = storage
            .iter_mut()
            .map(|bytes| {
                let end = bytes.len();
                ulvs::packet::PacketBuf::new(bytes, 32, end)
            })
            .collect();
        near.sender.send(&mut packets.iter_mut().collect::<Vec<_>>());
        let heard: Vec<usize> = receive_all(&mut far.receiver).iter().map(Vec::len).collect();
        assert_eq!(heard, [60, 61, 62]);
        let counters = near.sender.counters();
        assert_eq!((counters.frames, counters.rejected), (3, 2));
    });
}

#[test]
fn vlan_tags_are_kept() {
    sandbox::run("frames::vlan_tags_are_kept", || {
        let (director, peer) = hosts();
        let config = AfPacketConfig::default();
        let (mut near, mut far) = (open(&director, &config), open(&peer, &config));
        let mut tagged = frame(PEER_MAC, DIRECTOR_MAC, 9, 100);
        tagged[12..16].copy_from_slice(&[0x81, 0, 0x60, 0x07]);
        let mut twice = tagged.clone();
        twice[12] = 0x88;
        twice[13] = 0xa8;
        twice[16..20].copy_from_slice(&[0x81, 0, 0x60, 0x08]);
        for sent in [&tagged, &twice] {
            send(&mut far.sender, sent, 64);
        }
        assert_eq!(receive_all(&mut near.receiver), [tagged, twice]);
    });
}

#[test]
fn super_frames_of_the_kernels_tcp_arrive_whole() {
    sandbox::run("frames::super_frames_of_the_kernels_tcp_arrive_whole", || {
        let (director, peer) = hosts();
        director.add_address("eth0", "192.0.2.1/24".parse().unwrap()).unwrap();
        let mut near = open(&director, &AfPacketConfig::default());
        let listener = director.run(|| TcpListener::bind("192.0.2.1:8080")).unwrap().unwrap();
        let mut client =
            peer.run(|| std::net::TcpStream::connect("192.0.2.1:8080")).unwrap().unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let writer = std::thread::spawn(move || client.write_all(&vec![5; 8 << 20]).unwrap());
        let reader = std::thread::spawn(move || server.read_to_end(&mut Vec::new()).unwrap());
        let (mut supers, mut unfinished) = (0, 0);
        receive_all_packets(&mut near.receiver, |packet| {
            let segmentation = packet.offload.segmentation;
            if packet.len() > 1514 {
                assert_eq!(segmentation.kind, SegmentKind::TcpV4);
                assert!((1000..1500).contains(&segmentation.size_bytes));
                supers += 1;
            }
            if let Checksum::Unfinished { offset, .. } = packet.offload.checksum {
                let (start, field) = packet.unfinished_checksum().unwrap();
                assert_eq!((start, field, offset), (34, 50, 16));
                unfinished += 1;
            }
        });
        writer.join().unwrap();
        assert_eq!(reader.join().unwrap(), 8 << 20);
        assert!(supers > 50 && unfinished >= supers, "{supers} super-frames, {unfinished}");
        assert_eq!(near.receiver.counters().damaged, 0);
    });
}

fn receive_all_packets(
    receiver: &mut dyn Receiver,
    mut look: impl FnMut(&ulvs::packet::PacketBuf<'_>),
) {
    let mut bytes = 0;
    let seen = std::cell::Cell::new(0);
    receive_until(
        receiver,
        |packet| {
            look(packet);
            bytes += packet.len().saturating_sub(66);
            seen.set(bytes);
        },
        || seen.get() >= 8 << 20,
    );
}

#[test]
fn a_full_ring_counts_what_it_drops() {
    sandbox::run("frames::a_full_ring_counts_what_it_drops", || {
        let (director, peer) = hosts();
        let ring = RingConfig { bytes: 1, ..Default::default() };
        let mut near = open(&director, &AfPacketConfig { ring, ..Default::default() });
        let mut far = open(&peer, &AfPacketConfig::default());
        for _ in 0..2000 {
            send(&mut far.sender, &frame(PEER_MAC, DIRECTOR_MAC, 1, 60), 64);
        }
        let kept = receive_all(&mut near.receiver).len() as u64;
        let counters = near.receiver.counters();
        assert_eq!(kept + counters.ring_drops, 2000);
        assert!(counters.ring_drops > 1000 && near.receiver.counters() == counters);
    });
}

#[test]
fn frames_longer_than_a_slot_are_damaged() {
    sandbox::run("frames::frames_longer_than_a_slot_are_damaged", || {
        let (director, peer) = hosts();
        let ring = RingConfig { longest_frame_bytes: 3000, ..Default::default() };
        let mut near = open(&director, &AfPacketConfig { ring, ..Default::default() });
        let mut far = open(&peer, &AfPacketConfig::default());
        director.set_mtu("eth0", 9000).unwrap();
        peer.set_mtu("eth0", 9000).unwrap();
        for len in [1514, 3300, 9000, 3000] {
            send(&mut far.sender, &frame(PEER_MAC, DIRECTOR_MAC, 1, len), 64);
        }
        let lengths: Vec<usize> = receive_all(&mut near.receiver).iter().map(Vec::len).collect();
        assert_eq!(lengths, [1514, 3000]);
        assert_eq!(near.receiver.counters().damaged, 2);
    });
}

#[test]
fn a_group_of_workers_shares_the_frames_as_its_program_says() {
    sandbox::run("frames::a_group_of_workers_shares_the_frames_as_its_program_says", || {
        let (director, peer) = hosts();
        let config = AfPacketConfig::default();
        let open = || AfPacket::open_group("eth0", &config, 3, &by_source());
        let mut group = director.run(open).unwrap().unwrap();
        let mut far = super::support::open(&peer, &config);
        let mut heard = |group: &mut [AfPacket]| -> Vec<Vec<u8>> {
            for worker in [0, 1, 2, 2, 1, 2] {
                let mut mac = PEER_MAC;
                mac[5] = worker;
                send(&mut far.sender, &frame(mac, DIRECTOR_MAC, worker, 60), 64);
            }
            let marks = |frames: Vec<Vec<u8>>| frames.iter().map(|frame| frame[59]).collect();
            group.iter_mut().map(|half| marks(receive_all(&mut half.receiver))).collect()
        };
        assert_eq!(heard(&mut group.workers), [vec![0], vec![1, 1], vec![2, 2, 2]]);
        group.steering.set(&[instruction(0x06, 1)]).unwrap();
        assert_eq!(heard(&mut group.workers), [vec![], vec![0, 1, 2, 2, 1, 2], vec![]]);
        send(&mut group.workers[0].sender, &frame(DIRECTOR_MAC, PEER_MAC, 1, 60), 64);
        assert_eq!(heard(&mut group.workers)[1].len(), 6, "the group hears its own frames");
    });
}

#[test]
fn a_virtual_mac_is_received() {
    sandbox::run("frames::a_virtual_mac_is_received", || {
        let (director, peer) = hosts();
        let virtual_mac = [2, 0, 0, 0, 0xff, 1];
        let config = AfPacketConfig { virtual_mac: Some(virtual_mac), ..Default::default() };
        let mut near = open(&director, &config);
        let mut far = open(&peer, &AfPacketConfig::default());
        let sent = frame(PEER_MAC, virtual_mac, 1, 60);
        send(&mut far.sender, &sent, 64);
        assert_eq!(receive_all(&mut near.receiver), [sent]);
    });
}

#[test]
fn unfinished_checksums_and_segments_are_finished_by_the_kernel() {
    sandbox::run("frames::unfinished_checksums_and_segments_are_finished_by_the_kernel", || {
        let (director, peer) = hosts();
        let mut near = open(&director, &AfPacketConfig::default());
        // Nothing is left to the receiving end, so that what arrives is as on a wire.
        director.disable_offloads("eth0").unwrap();
        let socket = peer.run(|| UdpSocket::bind("192.0.2.2:9")).unwrap().unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let payload: Vec<u8> = (0..3000u32).map(|n| n as u8).collect();
        let mut storage = vec![0; 64];
        storage.extend(udp_frame(&payload));
        let end = storage.len();
        let mut packet = ulvs::packet::PacketBuf::new(&mut storage, 64, end);
        packet.set_unfinished_checksum(34, 6);
        packet.offload.segmentation = ulvs::packet::Segmentation {
            kind: SegmentKind::UdpL4,
            size_bytes: 1200,
            header_len_bytes: 42,
            ecn: false,
        };
        near.sender.send(&mut [&mut packet]);
        let mut heard = [0; 2000];
        for part in payload.chunks(1200) {
            let len = socket.recv(&mut heard).unwrap();
            assert_eq!(&heard[..len], part);
        }
    });
}

/// A UDP super-frame from 192.0.2.1:7 to 192.0.2.2:9 whose checksum is the pseudo-header's.
fn udp_frame(payload: &[u8]) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2(DIRECTOR_MAC, PEER_MAC)
        .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
        .udp(7, 9);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    let len = (payload.len() + 8) as u64;
    let words = [0xc000u64, 0x0201, 0xc000, 0x0202, 17, len];
    let mut sum: u64 = words.iter().sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[40..42].copy_from_slice(&(sum as u16).to_be_bytes());
    frame
}
