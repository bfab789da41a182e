//! Which worker owns a packet: both directions of a connection have to meet in one.
//!
//! A connection is known by its client. A packet to a virtual address comes from the client, any
//! other goes to it. By full NAT a server takes a local endpoint of the director for the client; the
//! worker that owns the client chooses one that belongs to it as well. The kernel steers frames by a
//! classic BPF program made here; what it cannot see (fragments, ICMP errors, IPv6) goes to any
//! worker, which computes the owner itself and hands the packet over.

use crate::engine::local::{FIRST_LOCAL_PORT, Locals};
use crate::engine::shard::{FACTOR, PORT_FACTOR};
use crate::packet::headers::{ISAKMP, protocol};
use crate::packet::{Addr, Endpoint, Family, Headers};

/// The client of a packet: its source if it goes to a virtual address, else its destination, which
/// for answers to full NAT is the local endpoint.
pub fn client(headers: &Headers, locals: &Locals, is_virtual: impl Fn(Addr) -> bool) -> Endpoint {
    let is_request = is_virtual(headers.destination.addr) && !locals.is_answer(headers);
    if is_request { headers.source } else { headers.destination }
}

/// The client of an ICMP error that quotes this packet: a packet from a virtual address went to the
/// client, any other came from it.
pub fn client_of_error(
    quoted: &Headers,
    locals: &Locals,
    is_virtual: impl Fn(Addr) -> bool,
) -> Endpoint {
    let is_answer = is_virtual(quoted.source.addr) && !locals.is_request(quoted);
    if is_answer { quoted.destination } else { quoted.source }
}

/// Virtual addresses that the program compares with; packets to others reach their owner by
/// hand-over.
const MAX_VIRTUALS: usize = 100;

/// The program that steers IPv4 frames, for `PACKET_FANOUT_CBPF`. The kernel takes what it returns
/// modulo the number of workers.
///
/// `shared` says that a virtual address is a local one as well: what goes to local ports there is
/// taken for answers.
pub fn program(virtuals: impl IntoIterator<Item = Addr>, shared: bool) -> Vec<libc::sock_filter> {
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
    if shared {
        program.unless_local();
        program.client_at(IP_AT + 16, 2);
    }
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
const JUMP_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
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

    /// Skips the [`client_at`](Self::client_at) that follows unless the packet goes to a port that
    /// may be a local one.
    fn unless_local(&mut self) {
        self.push(LOAD_HALF, IP_AT + 6, 0, 0);
        self.push(JUMP_BITS, 0x3fff, 7 + REPLY_LEN, 0);
        self.push(LOAD_BYTE, IP_AT + 9, 0, 0);
        self.push(JUMP_EQUAL, u32::from(protocol::TCP), 2, 0);
        self.push(JUMP_EQUAL, u32::from(protocol::UDP), 1, 0);
        self.push(JUMP_EQUAL, u32::from(protocol::SCTP), 0, 3 + REPLY_LEN);
        self.push(LOAD_HEADER_LEN, IP_AT, 0, 0);
        self.push(LOAD_HALF_INDEXED, IP_AT + 2, 0, 0);
        self.push(JUMP_AT_LEAST, u32::from(FIRST_LOCAL_PORT), 0, REPLY_LEN);
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
    use crate::engine::shard::owner;
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
                JUMP_AT_LEAST => at += jump(a >= k),
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
            (is_virtual, is_server) in (any::<bool>(), any::<bool>()),
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
            if is_virtual {
                virtuals.insert(virtuals.len() / 2, Addr::v4(u32::from_be_bytes(to)));
            }
            let headers = Headers::parse(&frame[14..]).unwrap();
            let mut locals = Locals::default();
            if is_server {
                locals.servers.insert(headers.source.addr);
                let key = (headers.destination.addr, headers.protocol);
                let ports = (FIRST_LOCAL_PORT..=u16::MAX).filter(|_| matches!(kind, 0 | 1 | 3));
                locals.ports.insert(key, ports.collect());
            }
            let client = client(&headers, &locals, |addr| virtuals.contains(&addr));
            let program = program(virtuals, is_server);
            let steered = run(&program, &frame).unwrap() as usize % workers;
            prop_assert_eq!(steered, owner(client, headers.protocol, workers));
        }
    }

    #[test]
    fn what_is_not_ipv4_goes_to_the_first_worker() {
        let program = program([Addr::v4(1)], true);
        let mut arp = [0; 60];
        arp[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(run(&program, &arp), Some(0));
    }
}
