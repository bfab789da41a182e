//! The receiving half over a ring in ordinary memory, filled by a kernel that may lie.

use libc::{
    PACKET_HOST, PACKET_OUTGOING, TP_STATUS_COPY, TP_STATUS_USER, TP_STATUS_VLAN_TPID_VALID,
    TP_STATUS_VLAN_VALID,
};
use proptest::prelude::*;

use super::config::FRAME_OFFSET_BYTES;
use super::receiver::receive;
use crate::driver::sys::testing::{Filler, Filling};
use crate::driver::sys::{Geometry, Memory, SlotRing};
use crate::driver::{BATCH, HEADROOM, ReceiverCounters};
use crate::packet::{Checksum, PacketBuf, SegmentKind};

const GEOMETRY: Geometry = Geometry { block_bytes: 4096, blocks: 3, slot_bytes: 832 };

/// A ring, the kernel that fills it, and what was counted.
struct Bench {
    ring: SlotRing,
    kernel: Filler,
    long: SlotRing,
    long_kernel: Filler,
    counters: ReceiverCounters,
}

impl Bench {
    fn new() -> Self {
        let ring = || SlotRing::new(Memory::ordinary(GEOMETRY.bytes()), GEOMETRY);
        Self {
            ring: ring(),
            kernel: Filler::new(),
            long: ring(),
            long_kernel: Filler::new(),
            counters: ReceiverCounters::default(),
        }
    }

    fn fill(&mut self, filling: &Filling) -> bool {
        self.kernel.fill(&mut self.ring, filling)
    }

    fn receive(&mut self, mut look: impl FnMut(&mut PacketBuf<'_>)) -> usize {
        let rings = [&mut self.ring, &mut self.long];
        receive(rings, &mut self.counters, &mut |batch| batch.iter_mut().for_each(&mut look))
    }

    fn only(&mut self, filling: &Filling) -> Option<(Vec<u8>, usize, crate::packet::Offload)> {
        assert!(self.fill(filling));
        let mut seen = None;
        self.receive(|p| seen = Some((p.bytes().to_vec(), p.headroom(), p.offload)));
        seen
    }
}

/// What an honest kernel writes for a frame.
fn honest(frame: &[u8], header: [u8; 10]) -> Filling {
    Filling {
        status: TP_STATUS_USER,
        len: frame.len() as u32,
        captured: frame.len() as u32,
        mac_offset: FRAME_OFFSET_BYTES as u16,
        vlan_tci: 0,
        vlan_tpid: 0,
        packet_type: PACKET_HOST,
        seconds: 0,
        content: vec![
            (FRAME_OFFSET_BYTES - header.len(), header.to_vec()),
            (FRAME_OFFSET_BYTES, frame.to_vec()),
        ],
    }
}

fn numbered(number: u8) -> Filling {
    honest(&[number; 60], [0; 10])
}

/// A TCPv4 super-frame's header: segments of 1448 bytes, checksum at 34 + 16.
const SUPER: [u8; 10] = {
    let ([h0, h1], [s0, s1]) = (66u16.to_ne_bytes(), 1448u16.to_ne_bytes());
    let ([c0, c1], [o0, o1]) = (34u16.to_ne_bytes(), 16u16.to_ne_bytes());
    [1, 1, h0, h1, s0, s1, c0, c1, o0, o1]
};

#[test]
fn frames_arrive_in_order_around_the_ring_many_times() {
    let mut bench = Bench::new();
    assert_eq!(GEOMETRY.slots(), 12);
    let (mut sent, mut seen) = (0u8, Vec::new());
    for burst in (0..40).map(|round| round % 13) {
        for _ in 0..burst.min(GEOMETRY.slots()) {
            assert!(bench.fill(&numbered(sent)));
            sent = sent.wrapping_add(1);
        }
        bench.receive(|packet| seen.push(packet.bytes()[0]));
    }
    assert!(seen.len() > 200 && seen.len() as u64 == bench.counters.frames);
    assert!(seen.iter().enumerate().all(|(at, number)| *number == at as u8));
}

#[test]
fn a_full_ring_takes_nothing_until_it_was_emptied() {
    let mut bench = Bench::new();
    for number in 0..12 {
        assert!(bench.fill(&numbered(number)));
    }
    assert!(!bench.fill(&numbered(99)));
    assert_eq!(bench.receive(|_| ()), 12);
    assert!(bench.fill(&numbered(12)));
    assert_eq!(bench.receive(|packet| assert_eq!(packet.bytes()[0], 12)), 1);
    assert_eq!(bench.receive(|_| panic!("nothing has come")), 0);
}

#[test]
fn a_packet_is_changed_in_place_with_headroom_in_front() {
    let mut bench = Bench::new();
    bench.fill(&numbered(7));
    bench.receive(|packet| {
        assert!(packet.headroom() >= HEADROOM + 10);
        packet.push(HEADROOM).unwrap().fill(0xa5);
        packet.bytes_mut()[HEADROOM..].fill(0x5a);
    });
    let (bytes, ..) = bench.only(&numbered(8)).unwrap();
    assert_eq!(bytes, [8; 60]);
}

#[test]
fn a_super_frame_keeps_its_metadata() {
    let (bytes, headroom, offload) = Bench::new().only(&honest(&[1; 500], SUPER)).unwrap();
    assert_eq!(bytes.len(), 500);
    assert_eq!(offload.segmentation.kind, SegmentKind::TcpV4);
    assert_eq!(offload.segmentation.size_bytes, 1448);
    assert_eq!(offload.segmentation.header_len_bytes, 66);
    let start = headroom as u32 + 34;
    assert_eq!(offload.checksum, Checksum::Unfinished { start, offset: 16 });
}

#[test]
fn a_stripped_vlan_tag_is_back_and_the_checksum_position_still_right() {
    let frame: Vec<u8> = (0..100).collect();
    let mut filling = honest(&frame, SUPER);
    filling.status |= TP_STATUS_VLAN_VALID | TP_STATUS_VLAN_TPID_VALID;
    (filling.vlan_tci, filling.vlan_tpid) = (0x2007, 0x88a8);
    let mut bench = Bench::new();
    assert!(bench.fill(&filling));
    bench.receive(|packet| {
        assert!(packet.headroom() >= HEADROOM);
        assert_eq!(packet.bytes()[..12], frame[..12]);
        assert_eq!(packet.bytes()[12..16], [0x88, 0xa8, 0x20, 0x07]);
        assert_eq!(packet.bytes()[16..], frame[12..]);
        assert_eq!(packet.unfinished_checksum(), Some((38, 54)));
    });
    filling.status &= !TP_STATUS_VLAN_TPID_VALID;
    let (bytes, ..) = bench.only(&filling).unwrap();
    assert_eq!(bytes[12..16], [0x81, 0x00, 0x20, 0x07]);
}

#[test]
fn the_hosts_own_frames_are_no_packets() {
    let mut bench = Bench::new();
    let filling = Filling { packet_type: PACKET_OUTGOING, ..numbered(1) };
    assert!(bench.only(&filling).is_none());
    assert_eq!(bench.counters, ReceiverCounters::default());
}

#[test]
fn damaged_frames_are_counted_and_do_not_stop_the_next() {
    let good = honest(&[1; 60], [0; 10]);
    let end = (GEOMETRY.slot_bytes - FRAME_OFFSET_BYTES) as u32;
    let header = |at: usize, value: u8| {
        let mut header = SUPER;
        header[at] = value;
        honest(&[1; 60], header)
    };
    let damaged = [
        Filling { len: 61, ..good.clone() },
        Filling { captured: 0, len: 0, ..good.clone() },
        Filling { captured: 13, len: 13, ..good.clone() },
        Filling { captured: end + 1, len: end + 1, ..good.clone() },
        Filling { captured: u32::MAX, len: u32::MAX, ..good.clone() },
        Filling { mac_offset: 0, ..good.clone() },
        Filling { mac_offset: 61, ..good.clone() },
        Filling { mac_offset: u16::MAX, ..good.clone() },
        Filling { status: TP_STATUS_USER | TP_STATUS_COPY, ..good.clone() },
        header(1, 2),
        header(1, 0x7f),
        header(7, 0xff),
        header(9, 0xff),
        honest(&[1; 60], [0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    let mut bench = Bench::new();
    for (at, filling) in damaged.iter().enumerate() {
        assert!(bench.only(filling).is_none(), "{filling:?}");
        assert_eq!(bench.counters.damaged, at as u64 + 1, "{filling:?}");
        assert!(bench.only(&good).is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_descriptor_leads_outside_its_slot(
        descriptors in prop::collection::vec(
            (any::<[u32; 3]>(), any::<[u16; 3]>(), 0u8..6, any::<[u8; 10]>(), 0u32..900), 1..100),
    ) {
        let mut bench = Bench::new();
        let mut taken = 0;
        for ([status, len, captured], [mac_offset, vlan_tci, vlan_tpid], packet_type, header, near)
            in descriptors
        {
            // Half of them plausible, or the checks behind the first would not be reached.
            let (len, captured) = if len % 2 == 0 { (near, near) } else { (len, captured) };
            let mac_offset = mac_offset % 1024;
            let at = usize::from(mac_offset).clamp(10, 800) - 10;
            let filling = Filling {
                status: status | TP_STATUS_USER, len, captured, mac_offset, vlan_tci, vlan_tpid,
                packet_type, seconds: 0, content: vec![(at.max(64), header.to_vec())],
            };
            if !bench.fill(&filling) {
                bench.receive(|packet| { packet.bytes_mut().fill(0xff); });
                prop_assert!(bench.fill(&filling));
            }
            taken += u64::from(packet_type != PACKET_OUTGOING);
        }
        bench.receive(|packet| {
            let start = packet.headroom();
            packet.push(start).unwrap().fill(1);
        });
        prop_assert_eq!(bench.counters.frames + bench.counters.damaged, taken);
    }
}

#[test]
fn one_call_hands_over_one_batch_at_most() {
    let geometry = Geometry { block_bytes: 65_536, blocks: 2, slot_bytes: 832 };
    let mut ring = SlotRing::new(Memory::ordinary(geometry.bytes()), geometry);
    let mut empty = SlotRing::new(Memory::ordinary(geometry.bytes()), geometry);
    let (mut kernel, mut counters) = (Filler::new(), ReceiverCounters::default());
    while kernel.fill(&mut ring, &numbered(0)) {}
    let mut left = geometry.slots();
    while left > 0 {
        let rings = [&mut ring, &mut empty];
        let count = receive(rings, &mut counters, &mut |batch| assert!(batch.len() <= BATCH));
        assert_eq!(count, left.min(BATCH));
        left -= count;
    }
}

#[test]
fn frames_of_two_rings_are_taken_in_order_of_arrival() {
    let mut bench = Bench::new();
    let arrivals = [0, 1, 1, 0, 0, 0, 1, 0, 1, 1, 1, 1, 0];
    for (time, long) in arrivals.iter().enumerate() {
        let filling = Filling { seconds: time as u32, ..numbered(time as u8) };
        if *long == 1 {
            bench.long_kernel.fill(&mut bench.long, &filling);
        } else {
            bench.fill(&filling);
        }
    }
    let mut seen = Vec::new();
    bench.receive(|packet| seen.push(packet.bytes()[0]));
    assert_eq!(seen, (0..13).collect::<Vec<_>>());
    assert!(bench.fill(&numbered(13)));
    assert_eq!(bench.receive(|packet| assert_eq!(packet.bytes()[0], 13)), 1);
}
