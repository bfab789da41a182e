//! More of the same than anybody has memory for: what is limited stays so, and those who send what
//! they should get through.

use super::shared::build::{
    ACK, SYN, Segment, ends, fragments, fragments_v6, icmp, mended, tcp, udp,
};
use super::shared::director::{self, MAX_CONNECTIONS, Remains};
use super::shared::play;
use super::shared::script::{Script, Step, Target};
use super::shared::wire::{CLIENT_MAC, IN_MAC, OUT_MAC};

/// Batches, so that connections which nobody attacks are looked after now and then.
const BATCHES: u16 = 0x10;

fn bytes(bytes: Vec<u8>) -> Step {
    Step::Bytes { way: 0, virtio: None, bytes }
}

fn play_against_director(manner: u16, steps: impl IntoIterator<Item = Step>) -> Remains {
    let steps = steps.into_iter().collect();
    director::play(&Script { target: Target::Director, manner, steps })
}

fn datagram(client: u32, len: usize) -> Vec<u8> {
    let client = std::net::Ipv4Addr::from_bits(0x0a00_0000 + client);
    udp(ends(&format!("{client}:1000"), "12.0.0.1:53"), &vec![7; len])
}

#[test]
fn first_fragments_of_many_senders_take_no_more_memory_than_they_may() {
    let firsts = (0..1500).map(|client| fragments(&datagram(client, 1000), &[800])[0].clone());
    let remains = play_against_director(BATCHES, firsts.map(bytes));
    assert!(remains.fragments.pushed_out > 1000, "{remains:?}");
}

#[test]
fn fragments_of_one_sender_under_many_identifications_leave_room_for_others() {
    let mut steps = Vec::new();
    for id in 0..1000u16 {
        let mut last = fragments(&datagram(1, 1000), &[800])[1].clone();
        last[4..6].copy_from_slice(&id.to_be_bytes());
        steps.push(bytes(mended(last)));
    }
    // Somebody else's datagram still becomes whole.
    steps.extend(fragments(&datagram(2, 1000), &[800]).into_iter().map(bytes));
    let remains = play_against_director(BATCHES, steps);
    assert_eq!(remains.fragments.reassembled, 1, "{remains:?}");
}

/// Eight bytes each: what that takes counts as memory, too.
#[test]
fn datagrams_in_hundreds_of_fragments_become_whole_and_those_in_thousands_are_given_up() {
    let v4 = |len| udp(ends("12.0.0.12:1000", "12.0.0.1:53"), &vec![7; len]);
    let v6 = |len| udp(ends("[2001:db8:1::12]:1000", "[2001:db8:1::1]:53"), &vec![7; len]);
    for (len, whole) in [(2400, 1), (64_500, 0)] {
        let lengths = vec![8; len / 8];
        let backwards = fragments(&v4(len), &lengths).into_iter().rev();
        let remains = play_against_director(BATCHES, backwards.map(bytes));
        assert_eq!(remains.fragments.reassembled, whole, "{remains:?}");
        let pieces = fragments_v6(&v6(len), 7, &lengths);
        let every_other = pieces.iter().step_by(2).chain(pieces.iter().skip(1).step_by(2));
        let remains = play_against_director(BATCHES, every_other.cloned().map(bytes));
        assert_eq!(remains.fragments.reassembled, whole, "{remains:?}");
        assert_eq!(remains.fragments.pushed_out > 0, whole == 0, "{remains:?}");
    }
}

#[test]
fn half_open_connections_fill_the_table_and_nothing_else() {
    let syn = |number: u32| {
        let client = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
        let service = ["12.0.0.1:80", "12.0.0.1:86", "12.0.0.3:99"][number as usize % 3];
        let ends = ends(&format!("{client}:1000"), service);
        bytes(tcp(ends, Segment { flags: SYN, ..Segment::default() }))
    };
    // With and without only a few local ports for full NAT.
    for manner in [BATCHES, BATCHES | 0x80] {
        let remains = play_against_director(manner, (0..1000).map(syn));
        assert_eq!(remains.connections, MAX_CONNECTIONS);
    }
}

#[test]
fn a_client_of_ftp_announces_only_so_many_connections() {
    let control = ends("12.0.0.12:1000", "12.0.0.1:21");
    let answer = ends("192.168.200.110:21", "12.0.0.12:1000");
    let mut steps = vec![
        bytes(tcp(control, segment(SYN, 0, b""))),
        bytes(tcp(answer, segment(SYN | ACK, 0, b""))),
        bytes(tcp(control, segment(ACK, 1, b""))),
    ];
    for port in 0..2000u16 {
        let text = format!("PORT 12,0,0,12,{},{}\r\n", port >> 8, port & 255);
        steps.push(bytes(tcp(control, segment(ACK, 1, text.as_bytes()))));
    }
    let remains = play_against_director(BATCHES, steps);
    assert_eq!(remains.expected, 64);
}

fn segment(flags: u8, sequence: u32, payload: &[u8]) -> Segment<'_> {
    Segment { flags, sequence, acknowledged: 1, payload, ..Segment::default() }
}

/// Neighbours that are not there are asked for, and packets for them wait; not all of them.
#[test]
fn neighbours_without_end_are_not_all_remembered() {
    let link =
        |to: [u8; 6], from: [u8; 6], kind: u16| [&to[..], &from, &kind.to_be_bytes()].concat();
    let mut steps = Vec::new();
    for number in 0..1500u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let mac = [0x0a, 9, 9, 9, high, low];
        let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
        arp.extend(mac);
        arp.extend([12, 0, high, low, 0, 0, 0, 0, 0, 0, 12, 0, 0, 1]);
        steps.push(bytes([link([0xff; 6], mac, 0x0806), arp].concat()));
        // An answer to somebody on the link whom nobody has heard of.
        let client = format!("12.0.0.{}:{}", low.max(2), 1000 + number);
        let ping = icmp(ends(&client, "12.0.0.1:0"), 8, 0, [0; 4], b"");
        let syn = tcp(ends(&client, "12.0.0.1:85"), Segment { flags: SYN, ..Segment::default() });
        for packet in [ping, syn] {
            steps.push(bytes([link(OUT_MAC, CLIENT_MAC, 0x0800), packet].concat()));
        }
        let ends = ends(&format!("[2001:db8:2::{number:x}]:0"), "[2001:db8:1::1]:0");
        let mut question = icmp(ends, 135, 0, [0; 4], &[0x20; 16]);
        question[7] = 255;
        let frame = [link(IN_MAC, mac, 0x86dd), question].concat();
        steps.push(Step::Bytes { way: 1, virtio: None, bytes: frame });
    }
    play(&Script { target: Target::Wire, manner: 2, steps });
}

/// A clock that stands still, leaps, and leaps again while much is on its way.
#[test]
fn leaps_in_time_end_what_has_to_end() {
    let mut steps = Vec::new();
    for round in 0..12u32 {
        for client in 0..20 {
            let first = fragments(&datagram(round * 100 + client, 1000), &[800])[0].clone();
            steps.push(bytes(first));
            steps.push(bytes(datagram(round * 100 + client, 10)));
        }
        steps.push(Step::Wait([0, 1, 999, 29_999, 60_001, 3_600_000, 1 << 27][round as usize % 7]));
    }
    play_against_director(0, steps);
}
