//! Which worker owns a packet: both directions of a connection have to meet in one.
//!
//! A connection is known by its client. A packet to a virtual address comes from the client, any
//! other goes to it. The kernel steers frames by a classic BPF program made here; what it cannot
//! see (fragments, ICMP errors, IPv6) goes to any worker, which computes the owner itself and hands
//! the packet over.

use crate::packet::headers::{ISAKMP, carries_ports, protocol};
use crate::packet::{Addr, Endpoint, Family, Headers};

/// The worker that owns the connections of a client, `0..workers`.
pub fn owner(client: Endpoint, number: u8, workers: usize) -> usize {
    if workers <= 1 {
        return 0;
    }
    let port = match number {
        // They follow the ISAKMP exchange between the same hosts.
        protocol::ESP | protocol::AH => ISAKMP.into(),
        _ if carries_ports(number) => client.port.into(),
        _ => 0,
    };
    let addr = client.addr.bits();
    let folded = match client.addr.family() {
        Family::V4 => client.addr.v4_bits(),
        Family::V6 => (0..4).fold(0, |all, word| all ^ (addr >> (32 * word)) as u32),
    };
    mix(folded, port) as usize % workers
}

/// The client of a packet: its source if it goes to a virtual address, else its destination.
pub fn client(headers: &Headers, is_virtual: impl Fn(Addr) -> bool) -> Endpoint {
    if is_virtual(headers.destination.addr) { headers.source } else { headers.destination }
}

/// The client of an ICMP error that quotes this packet: a packet from a virtual address went to the
/// client, any other came from it.
pub fn client_of_error(quoted: &Headers, is_virtual: impl Fn(Addr) -> bool) -> Endpoint {
    if is_virtual(quoted.source.addr) { quoted.destination } else { quoted.source }
}

/// The hash that the BPF program computes as well: one multiplication, the upper half.
fn mix(addr: u32, port: u32) -> u32 {
    (addr ^ port.wrapping_mul(PORT_FACTOR)).wrapping_mul(FACTOR) >> 16
}

/// **Source** — 2^32 divided by the golden ratio (Knuth, TAOCP 6.4), and a prime.
const FACTOR: u32 = 0x9e37_79b1;
const PORT_FACTOR: u32 = 0x85eb_ca77;

/// Virtual addresses that the program compares with; packets to others reach their owner by
/// hand-over.
const MAX_VIRTUALS: usize = 100;

/// The program that steers IPv4 frames, for `PACKET_FANOUT_CBPF`. The kernel takes what it returns
/// modulo the number of workers.
pub fn program(virtuals: impl IntoIterator<Item = Addr>) -> Vec<libc::sock_filter> {
    let virtuals: Vec<u32> = virtuals
        .into_iter()
        .filter(|addr| addr.family() == Family::V4)
        .map(Addr::v4_bits)
        .take(MAX_VIRTUALS)
        .collect();
    let mut program = Assembler::default();
    program.push(LOAD_HALF, ETHER_TYPE_AT, 0, 0);
    program.push(JUMP_EQUAL, 0x0800, 1, 0);
    program.push(RETURN, 0, 0, 0);
    program.push(LOAD_WORD, IP_AT + 16, 0, 0);
    let count = virtuals.len() as u8;
    for (index, addr) in (0..).zip(&virtuals) {
        // To the part for requests, which stands behind the one for replies.
        program.push(JUMP_EQUAL, *addr, count - index - 1 + REPLY_LEN, 0);
    }
    program.client_at(IP_AT + 16, 2);
    program.client_at(IP_AT + 12, 0);
    program.0
}

/// The kernel's name for the frame's EtherType, whatever tags are in front of it.
const ETHER_TYPE_AT: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PROTOCOL) as u32;
/// Where the IP header starts, whatever is in front of it.
const IP_AT: u32 = libc::SKF_NET_OFF as u32;

const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_HALF_INDEXED: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
const LOAD_HEADER_LEN: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
const LOAD_CONSTANT: u32 = libc::BPF_LD | libc::BPF_IMM;
const LOAD_MEMORY_X: u32 = libc::BPF_LDX | libc::BPF_MEM;
const STORE: u32 = libc::BPF_ST;
const JUMP_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const JUMP_BITS: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const JUMP_ALWAYS: u32 = libc::BPF_JMP | libc::BPF_JA;
const MULTIPLY: u32 = libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K;
const XOR_X: u32 = libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X;
const SHIFT_RIGHT: u32 = libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
const RETURN_A: u32 = libc::BPF_RET | libc::BPF_A;

/// Instructions of [`Assembler::client_at`].
const REPLY_LEN: u8 = 22;

#[derive(Default)]
struct Assembler(Vec<libc::sock_filter>);

impl Assembler {
    fn push(&mut self, code: u32, k: u32, jt: u8, jf: u8) {
        self.0.push(libc::sock_filter { code: code as u16, jt, jf, k });
    }

    /// Returns the hash of the client whose address is at `addr_at` and whose port is `port_at`
    /// bytes into the transport header.
    fn client_at(&mut self, addr_at: u32, port_at: u32) {
        let before = self.0.len();
        self.push(LOAD_WORD, addr_at, 0, 0);
        self.push(STORE, 0, 0, 0);
        // Fragments, the first included, are known by their addresses alone.
        self.push(LOAD_HALF, IP_AT + 6, 0, 0);
        self.push(JUMP_BITS, 0x3fff, 11, 0);
        self.push(LOAD_BYTE, IP_AT + 9, 0, 0);
        self.push(JUMP_EQUAL, u32::from(protocol::TCP), 4, 0);
        self.push(JUMP_EQUAL, u32::from(protocol::UDP), 3, 0);
        self.push(JUMP_EQUAL, u32::from(protocol::SCTP), 2, 0);
        self.push(JUMP_EQUAL, u32::from(protocol::ESP), 4, 0);
        self.push(JUMP_EQUAL, u32::from(protocol::AH), 3, 5);
        self.push(LOAD_HEADER_LEN, IP_AT, 0, 0);
        self.push(LOAD_HALF_INDEXED, IP_AT + port_at, 0, 0);
        self.push(JUMP_ALWAYS, 3, 0, 0);
        self.push(LOAD_CONSTANT, ISAKMP.into(), 0, 0);
        self.push(JUMP_ALWAYS, 1, 0, 0);
        self.push(LOAD_CONSTANT, 0, 0, 0);
        self.push(MULTIPLY, PORT_FACTOR, 0, 0);
        self.push(LOAD_MEMORY_X, 0, 0, 0);
        self.push(XOR_X, 0, 0, 0);
        self.push(MULTIPLY, FACTOR, 0, 0);
        self.push(SHIFT_RIGHT, 16, 0, 0);
        self.push(RETURN_A, 0, 0, 0);
        debug_assert_eq!(self.0.len() - before, usize::from(REPLY_LEN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::checksum::Sum;
    use crate::packet::headers::{set_word, word};
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    /// A classic BPF machine with the instructions that the program uses.
    fn run(program: &[libc::sock_filter], frame: &[u8]) -> Option<u32> {
        let (mut a, mut x, mut memory, mut at) = (0u32, 0u32, [0u32; 16], 0);
        let load = |at: u32, len: usize| {
            let at = if at == ETHER_TYPE_AT { 12 } else { at.wrapping_sub(IP_AT) as usize + 14 };
            let bytes = frame.get(at..at + len)?;
            Some(bytes.iter().fold(0, |all, byte| all << 8 | u32::from(*byte)))
        };
        loop {
            let libc::sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { jt } else { jf });
            match u32::from(code) {
                LOAD_WORD => a = load(k, 4)?,
                LOAD_HALF => a = load(k, 2)?,
                LOAD_BYTE => a = load(k, 1)?,
                LOAD_HALF_INDEXED => a = load(x.wrapping_add(k), 2)?,
                LOAD_HEADER_LEN => x = 4 * (load(k, 1)? & 15),
                LOAD_CONSTANT => a = k,
                LOAD_MEMORY_X => x = memory[k as usize],
                STORE => memory[k as usize] = a,
                JUMP_EQUAL => at += jump(a == k),
                JUMP_BITS => at += jump(a & k != 0),
                JUMP_ALWAYS => at += k as usize,
                MULTIPLY => a = a.wrapping_mul(k),
                XOR_X => a ^= x,
                SHIFT_RIGHT => a >>= k,
                RETURN => return Some(k),
                RETURN_A => return Some(a),
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    proptest! {
        #[test]
        fn the_program_agrees_with_the_owner(
            from in any::<[u8; 4]>(),
            to in any::<[u8; 4]>(),
            (sport, dport) in (any::<u16>(), any::<u16>()),
            kind in 0u8..6,
            others in proptest::collection::vec(any::<u32>(), 0..5),
            is_request in any::<bool>(),
            workers in 1usize..9,
        ) {
            let mut frame = Vec::new();
            let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(from, to, 9);
            match kind {
                0 => builder.tcp(sport, dport, 1, 1).write(&mut frame, b"x"),
                1 | 3..6 => builder.udp(sport, dport).write(&mut frame, b"x"),
                _ => builder.icmpv4_echo_request(7, 1).write(&mut frame, b"x"),
            }.unwrap();
            if let 4.. = kind {
                // The same bytes under another protocol's number.
                frame[14 + 9] = [protocol::ESP, protocol::AH][usize::from(kind - 4)];
                let checksum = Sum::of(&frame[14..34]).minus_word(word(&frame, 24)).checksum();
                set_word(&mut frame, 24, checksum);
            }
            let mut virtuals: Vec<_> = others.into_iter().map(Addr::v4).collect();
            if is_request {
                virtuals.insert(virtuals.len() / 2, Addr::v4(u32::from_be_bytes(to)));
            }
            let headers = Headers::parse(&frame[14..]).unwrap();
            let client = client(&headers, |addr| virtuals.contains(&addr));
            let program = program(virtuals);
            let steered = run(&program, &frame).unwrap() as usize % workers;
            prop_assert_eq!(steered, owner(client, headers.protocol, workers));
        }
    }

    #[test]
    fn what_is_not_ipv4_goes_to_the_first_worker() {
        let program = program([Addr::v4(1)]);
        let mut arp = [0; 60];
        arp[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(run(&program, &arp), Some(0));
    }

    #[test]
    fn clients_spread_over_the_workers() {
        let mut counts = [0; 4];
        for port in 1024..5120 {
            let client = Endpoint::new(Addr::v4(0x0c00_000c), port);
            counts[owner(client, protocol::TCP, 4)] += 1;
        }
        assert!(counts.iter().all(|count| (900..1150).contains(count)), "{counts:?}");
    }
}
