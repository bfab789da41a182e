//! Which worker owns a packet: both directions of a connection have to meet in one.
//!
//! A connection is known by its client. A packet to a virtual address comes from the client, any
//! other goes to it. By full NAT a server takes a local endpoint of the director for the client; the
//! worker that owns the client chooses one that belongs to it as well. The kernel steers frames by a
//! classic BPF program made here; what it cannot see (ICMP errors, IPv6 extension headers) goes to any
//! worker, which computes the owner itself and hands the packet over. Fragments meet where their
//! addresses alone lead them, and go on as a whole.

use crate::driver::bpf::{
    A_TO_X, JUMP_ALWAYS, JUMP_AT_LEAST, JUMP_BITS, JUMP_EQUAL, LOAD_BYTE, LOAD_CONSTANT,
    LOAD_CONSTANT_X, LOAD_HALF, LOAD_HALF_INDEXED, LOAD_HEADER_LEN_X, LOAD_MEMORY_X, LOAD_WORD,
    MULTIPLY, RETURN, RETURN_A, SHIFT_RIGHT, STORE, XOR_X,
};
use crate::engine::local::{FIRST_LOCAL_PORT, Locals};
use crate::engine::shard::{FACTOR, PORT_FACTOR, fold};
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

/// The client of a fragment, as far as its addresses tell it: all fragments of a datagram have the
/// same, and meet in the worker that owns it.
pub fn client_of_fragment(headers: &Headers, is_virtual: impl Fn(Addr) -> bool) -> Endpoint {
    let Headers { source, destination, .. } = headers;
    let client = if is_virtual(destination.addr) { source } else { destination };
    Endpoint::new(client.addr, 0)
}

/// The protocol of a fragment, as far as all fragments of its datagram tell it.
pub fn protocol_of_fragment(headers: &Headers) -> u8 {
    match headers.family {
        Family::V4 => headers.protocol,
        Family::V6 => protocol::NONE,
    }
}

/// Virtual addresses of a family that the program compares with; packets to others reach their
/// owner by hand-over.
const MAX_VIRTUALS: usize = 100;

/// The program that steers frames, for `PACKET_FANOUT_CBPF`. The kernel takes what it returns modulo
/// the number of workers.
///
/// IPv6 addresses are compared by their [`fold`]s: packets to a client whose address folds like a
/// virtual one reach their owner by hand-over.
///
/// `shared` says that a virtual address is a local one as well: what goes to local ports there is
/// taken for answers.
pub fn program(virtuals: impl IntoIterator<Item = Addr>, shared: bool) -> Vec<libc::sock_filter> {
    let (v4, v6): (Vec<Addr>, Vec<Addr>) =
        virtuals.into_iter().partition(|addr| addr.family() == Family::V4);
    let v4 = Assembler::of_family(&v4, &V4, shared);
    let mut program = Assembler::default();
    program.push(LOAD_HALF, ETHER_TYPE_AT, 0, 0);
    program.push(JUMP_EQUAL, 0x0800, 3, 0);
    program.push(JUMP_EQUAL, 0x86dd, 1, 0);
    program.push(RETURN, 0, 0, 0);
    program.push(JUMP_ALWAYS, v4.0.len() as u32, 0, 0);
    program.0.extend(v4.0);
    program.0.extend(Assembler::of_family(&v6, &V6, shared).0);
    program.0
}

/// The kernel's name for the frame's EtherType, whatever tags are in front of it.
const ETHER_TYPE_AT: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PROTOCOL) as u32;
/// Where the IP header starts, whatever is in front of it.
const IP_AT: u32 = libc::SKF_NET_OFF as u32;

/// Where a family's IP header has what the program looks at.
struct Layout {
    source: u32,
    destination: u32,
    /// Words of an address.
    words: u32,
    protocol: u32,
    /// Where fragments are told from others, if that is not by their protocol.
    fragment: Option<u32>,
    /// Length of the header, if it is always the same.
    len: Option<u32>,
}

const V4: Layout =
    Layout { source: 12, destination: 16, words: 1, protocol: 9, fragment: Some(6), len: None };
const V6: Layout =
    Layout { source: 8, destination: 24, words: 4, protocol: 6, fragment: None, len: Some(40) };

#[derive(Default)]
struct Assembler(Vec<libc::sock_filter>);

impl Assembler {
    fn push(&mut self, code: u32, k: u32, jt: u8, jf: u8) {
        self.0.push(libc::sock_filter { code: code as u16, jt, jf, k });
    }

    /// The part for one family.
    fn of_family(virtuals: &[Addr], layout: &Layout, shared: bool) -> Self {
        let (mut program, mut reply) = (Self::default(), Self::default());
        reply.client_at(layout, layout.destination, 2);
        program.load_fold(layout, layout.destination);
        let compared = &virtuals[..virtuals.len().min(MAX_VIRTUALS)];
        for (index, addr) in compared.iter().enumerate() {
            // To the part for requests, which stands behind the one for replies.
            let distance = compared.len() - index - 1 + reply.0.len();
            program.push(JUMP_EQUAL, fold(*addr), distance as u8, 0);
        }
        program.0.extend_from_slice(&reply.0);
        if shared {
            program.unless_local(layout, reply.0.len() as u8);
            program.0.extend(reply.0);
        }
        program.client_at(layout, layout.source, 0);
        program
    }

    /// Loads the [`fold`] of the address at `addr_at`.
    fn load_fold(&mut self, layout: &Layout, addr_at: u32) {
        self.push(LOAD_WORD, IP_AT + addr_at, 0, 0);
        for word in 1..layout.words {
            self.push(A_TO_X, 0, 0, 0);
            self.push(LOAD_WORD, IP_AT + addr_at + 4 * word, 0, 0);
            self.push(XOR_X, 0, 0, 0);
        }
    }

    /// Skips the `reply_len` instructions that follow unless the packet goes to a port that may be
    /// a local one.
    fn unless_local(&mut self, layout: &Layout, reply_len: u8) {
        if let Some(fragment) = layout.fragment {
            self.push(LOAD_HALF, IP_AT + fragment, 0, 0);
            self.push(JUMP_BITS, 0x3fff, 7 + reply_len, 0);
        }
        self.push(LOAD_BYTE, IP_AT + layout.protocol, 0, 0);
        self.push(JUMP_EQUAL, u32::from(protocol::TCP), 2, 0);
        self.push(JUMP_EQUAL, u32::from(protocol::UDP), 1, 0);
        self.push(JUMP_EQUAL, u32::from(protocol::SCTP), 0, 3 + reply_len);
        self.load_header_len(layout);
        self.push(LOAD_HALF_INDEXED, IP_AT + 2, 0, 0);
        self.push(JUMP_AT_LEAST, u32::from(FIRST_LOCAL_PORT), 0, reply_len);
    }

    fn load_header_len(&mut self, layout: &Layout) {
        match layout.len {
            None => self.push(LOAD_HEADER_LEN_X, IP_AT, 0, 0),
            Some(len) => self.push(LOAD_CONSTANT_X, len, 0, 0),
        }
    }

    /// Returns the hash of the client whose address is at `addr_at` and whose port is `port_at`
    /// bytes into the transport header.
    fn client_at(&mut self, layout: &Layout, addr_at: u32, port_at: u32) {
        self.load_fold(layout, addr_at);
        self.push(STORE, 0, 0, 0);
        if let Some(fragment) = layout.fragment {
            // Fragments, the first included, are known by their addresses alone.
            self.push(LOAD_HALF, IP_AT + fragment, 0, 0);
            self.push(JUMP_BITS, 0x3fff, 11, 0);
        }
        self.push(LOAD_BYTE, IP_AT + layout.protocol, 0, 0);
        self.push(JUMP_EQUAL, u32::from(protocol::TCP), 4, 0);
        self.push(JUMP_EQUAL, u32::from(protocol::UDP), 3, 0);
        self.push(JUMP_EQUAL, u32::from(protocol::SCTP), 2, 0);
        self.push(JUMP_EQUAL, u32::from(protocol::ESP), 4, 0);
        self.push(JUMP_EQUAL, u32::from(protocol::AH), 3, 5);
        self.load_header_len(layout);
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
                LOAD_HEADER_LEN_X => x = 4 * (load(k, 1)? & 15),
                LOAD_CONSTANT => a = k,
                LOAD_CONSTANT_X => x = k,
                A_TO_X => x = a,
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

    proptest! {
        #[test]
        fn the_program_agrees_about_ipv6(
            (from, to) in (any::<[u8; 16]>(), any::<[u8; 16]>()),
            (sport, dport) in (any::<u16>(), any::<u16>()),
            kind in 0u8..4,
            others in proptest::collection::vec((any::<u128>(), any::<bool>()), 0..150),
            (is_request, is_server) in (any::<bool>(), any::<bool>()),
            workers in 1usize..9,
        ) {
            let mut frame = Vec::new();
            let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(from, to, 9);
            match kind {
                0 => builder.tcp(sport, dport, 1, 1).write(&mut frame, b"x"),
                1 | 3 => builder.udp(sport, dport).write(&mut frame, b"x"),
                _ => builder.icmpv6_echo_reply(7, 1).write(&mut frame, b"x"),
            }.unwrap();
            if kind == 3 {
                frame[20] = protocol::ESP;
            }
            let addr = |(bits, v4)| if v4 { Addr::v4(bits as u32) } else { Addr::v6(bits) };
            let mut virtuals: Vec<_> = others.into_iter().map(addr).collect();
            if is_request {
                virtuals.insert(0, Addr::v6(u128::from_be_bytes(to)));
            }
            let headers = Headers::parse(&frame[14..]).unwrap();
            let mut locals = Locals::default();
            if is_server {
                locals.servers.insert(headers.source.addr);
                let key = (headers.destination.addr, headers.protocol);
                let ports = (FIRST_LOCAL_PORT..=u16::MAX).filter(|_| matches!(kind, 0 | 1));
                locals.ports.insert(key, ports.collect());
            }
            let client = client(&headers, &locals, |addr| virtuals.contains(&addr));
            let program = program(virtuals, is_server);
            prop_assert!(program.len() <= 4096, "as many as the kernel takes");
            let steered = run(&program, &frame).unwrap() as usize % workers;
            prop_assert_eq!(steered, owner(client, headers.protocol, workers));
        }
    }

    #[test]
    fn what_is_not_ip_goes_to_the_first_worker() {
        let program = program([Addr::v4(1)], true);
        let mut arp = [0; 60];
        arp[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(run(&program, &arp), Some(0));
    }
}
