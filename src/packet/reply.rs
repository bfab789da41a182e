//! Packets that the director itself sends in answer to one: ICMP errors, echo replies, resets.

use super::addr::{Addr, Family};
use super::checksum::Sum;
use super::headers::{Headers, protocol, set_word};

/// Hop count of packets that begin here.
const TTL: u8 = 64;
/// Precedence of ICMP errors in their type of service. **Source** — RFC 1812 §4.3.2.5.
const TOS_ERROR: u8 = 0xc0;
/// What ICMP errors take over of the type of service. **Source** — Linux `IPTOS_TOS_MASK`.
const TOS_KEPT: u8 = 0x1e;
/// The bits of the type of service that tell of congestion. **Source** — RFC 3168 §5.
const ECN: u8 = 0x03;
/// An ICMP error over IPv4 is at most this long. **Source** — RFC 1812 §4.3.2.3.
const MAX_ERROR_V4: usize = 576;
/// An ICMPv6 error is at most this long. **Source** — RFC 4443 §2.4 (c).
const MAX_ERROR_V6: usize = 1280;

/// The ICMP errors that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// No server takes the connection: 3/3, IPv6 1/4.
    PortUnreachable,
    /// Nobody here speaks the protocol: 3/2, IPv6 4/1 with a pointer to the fixed header.
    ProtocolUnreachable,
    /// The next hop cannot be reached: 3/1, IPv6 1/3.
    HostUnreachable,
    /// The packet is larger than the next link and must not be fragmented: 3/4, IPv6 2/0.
    TooBig {
        /// What that link takes.
        mtu: u16,
    },
    /// The time to live ended: 11/0, IPv6 3/0.
    TimeExceeded,
    /// The rest of a fragmented datagram did not come in time: 11/1, IPv6 3/1.
    ReassemblyTimeExceeded,
    /// What somebody else said about the packet.
    Relayed {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The second half of the ICMP header.
        rest: u32,
    },
}

/// Where the fixed header of IPv6 names the next one. **Source** — RFC 8200 §3.
const NEXT_HEADER_AT: u32 = 6;

impl IcmpError {
    fn encode(self, family: Family) -> (u8, u8, u32) {
        match (family, self) {
            (Family::V4, Self::PortUnreachable) => (3, 3, 0),
            (Family::V4, Self::ProtocolUnreachable) => (3, 2, 0),
            (Family::V4, Self::HostUnreachable) => (3, 1, 0),
            (Family::V4, Self::TooBig { mtu }) => (3, 4, u32::from(mtu)),
            (Family::V4, Self::TimeExceeded) => (11, 0, 0),
            (Family::V4, Self::ReassemblyTimeExceeded) => (11, 1, 0),
            (Family::V6, Self::PortUnreachable) => (1, 4, 0),
            (Family::V6, Self::ProtocolUnreachable) => (4, 1, NEXT_HEADER_AT),
            (Family::V6, Self::HostUnreachable) => (1, 3, 0),
            (Family::V6, Self::TooBig { mtu }) => (2, 0, u32::from(mtu)),
            (Family::V6, Self::TimeExceeded) => (3, 0, 0),
            (Family::V6, Self::ReassemblyTimeExceeded) => (3, 1, 0),
            (_, Self::Relayed { kind, code, rest }) => (kind, code, rest),
        }
    }
}

/// Writes an ICMP error about `original`, from `source` to whoever sent it, into `out`.
pub fn write_icmp_error(
    out: &mut Vec<u8>,
    error: IcmpError,
    original: &[u8],
    headers: &Headers,
    source: Addr,
    id: u16,
) {
    let (kind, code, rest) = error.encode(headers.family);
    let (header_len, limit, number) = match headers.family {
        Family::V4 => (20, MAX_ERROR_V4, protocol::ICMP),
        Family::V6 => (40, MAX_ERROR_V6, protocol::ICMP6),
    };
    let quote = &original[..original.len().min(limit - header_len - 8)];
    let tos = match headers.family {
        Family::V4 => TOS_ERROR | type_of_service(original) & TOS_KEPT,
        // ICMPv6 errors carry no precedence in Linux.
        Family::V6 => 0,
    };
    let header = NetworkHeader { tos, id, dont_fragment: false, protocol: number };
    write_network(out, &header, source, headers.source.addr, 8 + quote.len());
    out.extend([kind, code, 0, 0]);
    out.extend(rest.to_be_bytes());
    out.extend(quote);
    finish_icmp(out, header_len, source, headers.source.addr);
}

/// Writes the reply to the echo request `request`, which went to an address of the director.
pub fn write_echo_reply(out: &mut Vec<u8>, request: &[u8], headers: &Headers, id: u16) {
    let (kind, number) = match headers.family {
        Family::V4 => (0, protocol::ICMP),
        Family::V6 => (129, protocol::ICMP6),
    };
    let body = &request[headers.transport..headers.len];
    let tos = type_of_service(request);
    let header = NetworkHeader { tos, id, dont_fragment: false, protocol: number };
    let (from, to) = (headers.destination.addr, headers.source.addr);
    write_network(out, &header, from, to, body.len());
    let start = out.len();
    out.extend(body);
    out[start] = kind;
    finish_icmp(out, start, from, to);
}

/// Writes the reset that answers the TCP segment `segment`, for which there is no connection.
///
/// **Source** — RFC 9293 §3.10.7.1.
pub fn write_reset(out: &mut Vec<u8>, segment: &[u8], headers: &Headers) {
    let tcp = &segment[headers.transport..headers.len];
    let flags = tcp[13];
    let has_ack = flags & 0x10 != 0;
    let header_len = usize::from(tcp[12] >> 4) * 4;
    let taken = tcp.len().saturating_sub(header_len) as u32
        + u32::from(flags & 0x02 != 0)
        + u32::from(flags & 0x01 != 0);
    let read = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
    let (seq, ack, answer) =
        if has_ack { (read(8), 0, 0x04) } else { (0, read(4).wrapping_add(taken), 0x14) };
    let tos = type_of_service(segment) & !ECN;
    let header = NetworkHeader { tos, id: 0, dont_fragment: true, protocol: protocol::TCP };
    let (from, to) = (headers.destination, headers.source);
    write_network(out, &header, from.addr, to.addr, 20);
    let start = out.len();
    out.extend(from.port.to_be_bytes());
    out.extend(to.port.to_be_bytes());
    out.extend(seq.to_be_bytes());
    out.extend(ack.to_be_bytes());
    out.extend([0x50, answer, 0, 0, 0, 0, 0, 0]);
    let pseudo = Sum::pseudo_header(from.addr, to.addr, protocol::TCP, 20);
    let checksum = pseudo.plus(Sum::of(&out[start..])).checksum();
    set_word(out, start + 16, checksum);
}

/// The type of service, or traffic class, of a packet whose header was parsed.
fn type_of_service(packet: &[u8]) -> u8 {
    match packet[0] >> 4 {
        6 => packet[0] << 4 | packet[1] >> 4,
        _ => packet[1],
    }
}

struct NetworkHeader {
    tos: u8,
    id: u16,
    dont_fragment: bool,
    protocol: u8,
}

fn write_network(
    out: &mut Vec<u8>,
    header: &NetworkHeader,
    source: Addr,
    destination: Addr,
    payload_len: usize,
) {
    out.clear();
    match source.family() {
        Family::V4 => {
            out.extend([0x45, header.tos]);
            out.extend((20 + payload_len as u16).to_be_bytes());
            out.extend(header.id.to_be_bytes());
            out.extend([if header.dont_fragment { 0x40 } else { 0 }, 0]);
            out.extend([TTL, header.protocol, 0, 0]);
            out.extend(source.v4_bits().to_be_bytes());
            out.extend(destination.v4_bits().to_be_bytes());
            let checksum = Sum::of(&out[..20]).checksum();
            set_word(out, 10, checksum);
        }
        Family::V6 => {
            out.extend([0x60 | header.tos >> 4, header.tos << 4, 0, 0]);
            out.extend((payload_len as u16).to_be_bytes());
            out.extend([header.protocol, TTL]);
            out.extend(source.bits().to_be_bytes());
            out.extend(destination.bits().to_be_bytes());
        }
    }
}

fn finish_icmp(out: &mut [u8], start: usize, source: Addr, destination: Addr) {
    set_word(out, start + 2, 0);
    let len = out.len() - start;
    let pseudo = match source.family() {
        Family::V4 => Sum::default(),
        Family::V6 => Sum::pseudo_header(source, destination, protocol::ICMP6, len),
    };
    let checksum = pseudo.plus(Sum::of(&out[start..])).checksum();
    set_word(out, start + 2, checksum);
}

/// Whether the ICMP message in `icmp` has a right checksum.
pub fn icmp_checksum_is_right(icmp: &[u8], headers: &Headers) -> bool {
    let pseudo = match headers.family {
        Family::V4 => Sum::default(),
        Family::V6 => Sum::pseudo_header(
            headers.source.addr,
            headers.destination.addr,
            protocol::ICMP6,
            icmp.len(),
        ),
    };
    pseudo.plus(Sum::of(icmp)).folded() == 0xffff
}

/// Whether an ICMP error about this packet may be sent.
///
/// **Source** — RFC 1122 §3.2.2, RFC 4443 §2.4 (e): none about ICMP errors, none to nobody.
pub fn may_be_answered(original: &[u8], headers: &Headers) -> bool {
    let is_error = match headers.protocol {
        protocol::ICMP => !matches!(original.get(headers.transport), Some(0 | 8 | 13..=18)),
        protocol::ICMP6 => original.get(headers.transport).is_none_or(|kind| *kind < 128),
        _ => false,
    };
    let source = std::net::IpAddr::from(headers.source.addr);
    let somebody = match source {
        std::net::IpAddr::V4(addr) => !addr.is_broadcast() && !addr.is_loopback(),
        std::net::IpAddr::V6(addr) => !addr.is_loopback(),
    };
    headers.has_ports()
        && !is_error
        && somebody
        && !source.is_multicast()
        && !source.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv4Type, PacketBuilder, SlicedPacket, TransportSlice};

    fn segment(flags: u8) -> (Vec<u8>, Headers) {
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ipv4([192, 0, 2, 9], [192, 0, 2, 1], 64).tcp(1000, 80, 5, 100);
        builder.ack(6).write(&mut bytes, &[7; 700]).unwrap();
        bytes[33] = flags;
        let headers = Headers::parse(&bytes).unwrap();
        (bytes, headers)
    }

    #[test]
    fn an_error_quotes_548_bytes_and_is_valid() {
        let (bytes, headers) = segment(0x10);
        let mut out = vec![0xa5; 9];
        let source = headers.destination.addr;
        let error = IcmpError::TooBig { mtu: 600 };
        write_icmp_error(&mut out, error, &bytes, &headers, source, 77);
        assert_eq!(out.len(), 576);
        let parsed = Headers::parse(&out).unwrap();
        assert!(icmp_checksum_is_right(&out[20..], &parsed));
        let sliced = SlicedPacket::from_ip(&out).unwrap();
        let Some(TransportSlice::Icmpv4(icmp)) = sliced.transport else { panic!("not ICMP") };
        assert!(matches!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(_)));
        assert_eq!(icmp.payload(), &bytes[..548]);
    }

    #[test]
    fn resets_answer_as_rfc_9293_says() {
        for (flags, expected) in [(0x10, (6, 0, 0x04)), (0x03, (0, 5 + 700 + 2, 0x14))] {
            let (bytes, headers) = segment(flags);
            let mut out = Vec::new();
            write_reset(&mut out, &bytes, &headers);
            let sliced = SlicedPacket::from_ip(&out).unwrap();
            let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("not TCP") };
            let found = (tcp.sequence_number(), tcp.acknowledgment_number(), out[33]);
            assert_eq!(found, expected);
            let sum = tcp.calc_checksum_ipv4([192, 0, 2, 1], [192, 0, 2, 9]);
            assert_eq!(sum.unwrap(), tcp.checksum());
        }
    }

    #[test]
    fn no_error_is_sent_about_an_error() {
        let (bytes, headers) = segment(0x02);
        assert!(may_be_answered(&bytes, &headers));
        let mut error = Vec::new();
        let source = headers.destination.addr;
        write_icmp_error(&mut error, IcmpError::PortUnreachable, &bytes, &headers, source, 1);
        assert!(!may_be_answered(&error, &Headers::parse(&error).unwrap()));
    }
}
