//! Sharing what arrives by a raw socket: every socket of a protocol gets a copy of each packet, so
//! each has a filter that takes its share.
//!
//! The share is found by the inner packet's source address and, where there are no options in front
//! of them, its ports.

use socket2::SockFilter;

use crate::driver::bpf::{
    A_TO_X, ADD, AND, JUMP_ALWAYS, JUMP_BITS, JUMP_EQUAL, LOAD_BYTE_INDEXED, LOAD_CONSTANT_X,
    LOAD_HEADER_LEN_X, LOAD_MEMORY, LOAD_MEMORY_X, LOAD_WORD_INDEXED, MODULO, MULTIPLY, RETURN,
    SHIFT_RIGHT, STORE, X_TO_A, XOR_X, instruction,
};
use crate::packet::Family;
use crate::packet::headers::protocol;

/// The filter of socket `number` out of `sharers`.
pub fn program(family: Family, outer: u8, number: u32, sharers: u32) -> Vec<SockFilter> {
    let mut program = Vec::new();
    let mut push = |code: u32, k: u32, jt: u8, jf: u8| {
        program.push(instruction(code, k, jt, jf));
    };
    // X: where the inner packet starts. Over IPv6 the kernel filters what is behind the header.
    match family {
        Family::V4 => push(LOAD_HEADER_LEN_X, 0, 0, 0),
        Family::V6 => push(LOAD_CONSTANT_X, 0, 0, 0),
    }
    if outer == protocol::GRE {
        // Four bytes, and four more for each of checksum, key and sequence number.
        push(LOAD_BYTE_INDEXED, 0, 0, 0);
        push(STORE, 0, 0, 0);
        for flag in [0x80, 0x20, 0x10] {
            push(LOAD_MEMORY, 0, 0, 0);
            push(JUMP_BITS, flag, 0, 3);
            push(X_TO_A, 0, 0, 0);
            push(ADD, 4, 0, 0);
            push(A_TO_X, 0, 0, 0);
        }
        push(X_TO_A, 0, 0, 0);
        push(ADD, 4, 0, 0);
        push(A_TO_X, 0, 0, 0);
    }
    // The low word of the source address and the ports, by the inner version.
    push(LOAD_BYTE_INDEXED, 0, 0, 0);
    push(AND, 0xf0, 0, 0);
    push(JUMP_EQUAL, 0x60, 4, 0);
    push(LOAD_WORD_INDEXED, 12, 0, 0);
    push(STORE, 1, 0, 0);
    push(LOAD_WORD_INDEXED, 20, 0, 0);
    push(JUMP_ALWAYS, 3, 0, 0);
    push(LOAD_WORD_INDEXED, 20, 0, 0);
    push(STORE, 1, 0, 0);
    push(LOAD_WORD_INDEXED, 40, 0, 0);
    push(LOAD_MEMORY_X, 1, 0, 0);
    push(XOR_X, 0, 0, 0);
    push(MULTIPLY, FACTOR, 0, 0);
    push(SHIFT_RIGHT, 16, 0, 0);
    push(MODULO, sharers, 0, 0);
    push(JUMP_EQUAL, number, 0, 1);
    push(RETURN, u32::MAX, 0, 0);
    push(RETURN, 0, 0, 0);
    program
}

/// **Source** — 2^32 divided by the golden ratio (Knuth, TAOCP 6.4).
const FACTOR: u32 = 0x9e37_79b1;

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::net::UnixDatagram;

    use etherparse::PacketBuilder;
    use socket2::SockRef;

    use super::*;
    use crate::packet::encap::{Envelope, Wrapping};
    use crate::packet::{Addr, PacketBuf};

    const SHARERS: u32 = 3;

    /// A connection's packet in a tunnel, as the kernel shows it to a filter.
    fn wrapped(outer: Family, wrapping: Wrapping, v6: bool, port: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        let ip = match v6 {
            false => PacketBuilder::ipv4([12, 0, 0, 2], [12, 0, 0, 1], 63),
            true => PacketBuilder::ipv6([0x20; 16], [0x21; 16], 63),
        };
        ip.tcp(port, 80, 5, 1024).write(&mut bytes, payload).unwrap();
        let end = bytes.len();
        let mut packet = PacketBuf::new(&mut bytes, 64, end);
        let of = |bits| match outer {
            Family::V4 => Addr::v4(bits),
            Family::V6 => Addr::v6(1 << 124 | u128::from(bits)),
        };
        let (source, destination) = (of(0xc0a8_c801), of(0xac10_0505));
        let envelope = Envelope {
            source,
            destination,
            ttl: 63,
            tos: 0,
            dont_fragment: false,
            id: 1,
            wrapping,
        };
        assert!(envelope.push(&mut packet, if v6 { Family::V6 } else { Family::V4 }));
        assert!(outer == Family::V4 || packet.pull(40));
        packet.bytes().to_vec()
    }

    /// The sharers that take a packet, by their numbers.
    fn takers(family: Family, number: u8, packet: &[u8]) -> Vec<u32> {
        let takes = |sharer: &u32| {
            let (sender, receiver) = UnixDatagram::pair().unwrap();
            receiver.set_nonblocking(true).unwrap();
            let program = program(family, number, *sharer, SHARERS);
            SockRef::from(&receiver).attach_filter(&program).unwrap();
            sender.send(packet).unwrap();
            match receiver.recv(&mut [0; 2000]) {
                Ok(len) => len == packet.len(),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    false
                }
            }
        };
        (0..SHARERS).filter(takes).collect()
    }

    #[test]
    fn each_connection_has_one_taker_and_all_take_some() {
        let gre = |checksum| Wrapping::Gre { checksum };
        for outer in [Family::V4, Family::V6] {
            for (wrapping, v6) in [
                (Wrapping::IpIp, false),
                (Wrapping::IpIp, true),
                (gre(false), false),
                (gre(true), false),
                (gre(true), true),
            ] {
                let number = match wrapping {
                    Wrapping::IpIp if v6 => protocol::IPV6,
                    Wrapping::IpIp => protocol::IPV4,
                    _ => protocol::GRE,
                };
                let mut all = std::collections::BTreeSet::new();
                for port in 1000..1030 {
                    let packet = wrapped(outer, wrapping, v6, port, b"");
                    let first = takers(outer, number, &packet);
                    assert_eq!(first.len(), 1, "{outer:?} {wrapping:?} {port}");
                    let longer = wrapped(outer, wrapping, v6, port, b"longer");
                    assert_eq!(takers(outer, number, &longer), first);
                    all.extend(first);
                }
                assert_eq!(all.len() as u32, SHARERS, "{outer:?} {wrapping:?}");
            }
        }
    }
}
