//! Bytes to packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::wire::{internet_checksum, percent_encode, pseudo_header, to_hex};
use super::{
    Fragment, GUE_PORT, IPV6_EXTENSIONS, IPV6_FRAGMENT, Packet, Payload, Proto, SCTP_CHUNKS, Sum,
    TCP_FLAGS, filler,
};

/// Nested packets beyond this depth stay undissected.
const MAX_DEPTH: usize = 8;

/// Reads a packet from its IP header on; it may be cut short, as when quoted by ICMP.
///
/// Answers `None` where not even the IP header is whole. A transport header that is not gets the
/// kind `short`.
pub fn dissect(data: &[u8]) -> Option<Packet> {
    dissect_nested(data, 0)
}

fn dissect_nested(data: &[u8], depth: usize) -> Option<Packet> {
    let Ip { mut packet, transport, whole_len } = dissect_ip(data)?;
    packet.raw = data.to_vec();
    let frag = packet.fields.frag;
    if frag.is_some_and(|frag| frag.offset != 0) {
        packet.fields.payload = Payload::Filler(whole_len);
    } else {
        let missing = match frag {
            Some(_) => Missing::Unknown,
            None => Missing::Bytes(whole_len - transport.len()),
        };
        let dissected = dissect_transport(&mut packet, transport, missing, depth);
        if dissected.is_none() && packet.kind.is_empty() {
            packet.kind = "short".into();
        }
    }
    if transport.len() < whole_len {
        packet.fields.quote = data.len();
    }
    Some(packet)
}

struct Ip<'a> {
    packet: Packet,
    /// The transport bytes at hand.
    transport: &'a [u8],
    /// How many there once were.
    whole_len: usize,
}

/// How many transport bytes are missing at the end; of a fragment nobody knows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Bytes(usize),
    Unknown,
}

fn dissect_ip(data: &[u8]) -> Option<Ip<'_>> {
    match data.first()? >> 4 {
        6 => dissect_ipv6(data),
        _ => dissect_ipv4(data),
    }
}

fn dissect_ipv4(data: &[u8]) -> Option<Ip<'_>> {
    let header_len = usize::from(data.first()? & 15) * 4;
    // A quote may end within the options.
    let fixed = data.get(..20)?;
    let header = data.get(..header_len.max(20)).unwrap_or(data);
    let addr = |at: usize| IpAddr::V4(Ipv4Addr::from_bits(u32_at(fixed, at)));
    let mut packet = Packet::new(addr(12), addr(16), Proto::from_number(fixed[9]));
    let (fields, flags) = (&mut packet.fields, u16_at(fixed, 6));
    fields.tos = fixed[1];
    fields.ttl = fixed[8];
    fields.id = u16_at(fixed, 4).into();
    fields.df = flags & 0x4000 != 0;
    fields.ipopts = header[20..].to_vec();
    fields.bad_ip_sum = internet_checksum(header) != 0;
    let (offset, more) = ((flags & 0x1fff) << 3, flags & 0x2000 != 0);
    fields.frag = (offset != 0 || more).then_some(Fragment { offset, more });
    let end = usize::from(u16_at(fixed, 2)).max(header.len());
    let transport = &data[header.len()..end.min(data.len())];
    Some(Ip { packet, transport, whole_len: end - header.len() })
}

fn dissect_ipv6(data: &[u8]) -> Option<Ip<'_>> {
    if data.len() == 28 {
        return dissect_cut_ipv6(data);
    }
    let header = data.get(..40)?;
    let addr = |at: usize| {
        let octets: [u8; 16] = header[at..at + 16].try_into().expect("sixteen bytes");
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let mut packet = Packet::new(addr(8), addr(24), Proto::Other(0));
    let fields = &mut packet.fields;
    fields.tos = (u32_at(header, 0) >> 20) as u8;
    fields.ttl = header[7];
    let (mut at, mut number) = (40, header[6]);
    while IPV6_EXTENSIONS.contains(&number) || number == IPV6_FRAGMENT {
        let extension = data.get(at..at + 8)?;
        if number == IPV6_FRAGMENT {
            let place = u16_at(extension, 2);
            fields.frag = Some(Fragment { offset: place & !7, more: place & 1 != 0 });
            fields.id = u32_at(extension, 4);
            at += 8;
        } else {
            fields.ext.push(number);
            at += 8 * (usize::from(extension[1]) + 1);
        }
        number = extension[0];
    }
    packet.proto = Proto::from_number(number);
    let end = (40 + usize::from(u16_at(header, 4))).max(at);
    let transport = data.get(at..end.min(data.len())).unwrap_or_default();
    Some(Ip { packet, transport, whole_len: end - at })
}

/// A quote of so many bytes, the usual number for IPv4, ends four bytes into the destination, which
/// scenarios take for an IPv4 address.
fn dissect_cut_ipv6(data: &[u8]) -> Option<Ip<'_>> {
    let source: [u8; 16] = data.get(8..24)?.try_into().ok()?;
    let destination = Ipv4Addr::from_bits(u32_at(data, 24));
    let proto = Proto::from_number(data[6]);
    let mut packet = Packet::new(Ipv6Addr::from(source).into(), destination.into(), proto);
    packet.fields.tos = (u32_at(data, 0) >> 20) as u8;
    packet.fields.ttl = data[7];
    Some(Ip { packet, transport: &[], whole_len: usize::from(u16_at(data, 4)) })
}

fn dissect_transport(
    packet: &mut Packet,
    data: &[u8],
    missing: Missing,
    depth: usize,
) -> Option<()> {
    match packet.proto {
        Proto::Tcp => dissect_tcp(packet, data, missing),
        Proto::Udp => dissect_udp(packet, data, missing, depth),
        Proto::Icmp | Proto::Icmp6 => dissect_icmp(packet, data, missing, depth),
        Proto::Sctp => dissect_sctp(packet, data, missing),
        Proto::Esp => {
            (packet.fields.spi, packet.fields.seq) = two_words(data.get(..8)?);
            packet.set_payload(&data[8..], missing);
            Some(())
        }
        Proto::Ah => {
            (packet.fields.spi, packet.fields.seq) = two_words(data.get(4..12)?);
            packet.set_payload(data.get(24..).unwrap_or_default(), missing);
            Some(())
        }
        Proto::IpIp => packet.set_inner(data, depth),
        Proto::Gre => dissect_gre(packet, data, missing, depth),
        Proto::Igmp | Proto::Other(_) => {
            packet.set_payload(data, missing);
            Some(())
        }
    }
}

fn dissect_tcp(packet: &mut Packet, data: &[u8], missing: Missing) -> Option<()> {
    let start = data.get(..8)?;
    packet.ports = Some((u16_at(start, 0), u16_at(start, 2)));
    packet.fields.seq = u32_at(start, 4);
    let Some(header) = data.get(..20) else { return Some(()) };
    packet.fields.ack = u32_at(header, 8);
    packet.fields.win = u16_at(header, 14);
    let flags = header[13];
    packet.kind = TCP_FLAGS
        .chars()
        .enumerate()
        .filter(|(bit, _)| flags >> bit & 1 == 1)
        .map(|(_, letter)| letter)
        .collect();
    if packet.kind.is_empty() {
        packet.kind = "0".into();
    }
    let payload_at = (usize::from(header[12] >> 4) * 4).min(data.len());
    packet.fields.opts = data.get(20..payload_at).unwrap_or_default().to_vec();
    packet.set_payload(&data[payload_at..], missing);
    packet.verify(data, missing, true);
    Some(())
}

fn dissect_udp(packet: &mut Packet, data: &[u8], missing: Missing, depth: usize) -> Option<()> {
    let header = data.get(..8)?;
    let (payload, dport) = (&data[8..], u16_at(header, 2));
    packet.ports = Some((u16_at(header, 0), dport));
    if dport == GUE_PORT && payload.len() >= 24 {
        let options = usize::from(payload[0] & 31) * 4;
        packet.kind = "gue".into();
        if options != 0 {
            packet.kind += &format!("+{}", to_hex(payload.get(2..4 + options)?));
        }
        packet.set_inner(payload.get(4 + options..)?, depth)?;
    } else {
        packet.set_payload(payload, missing);
    }
    if u16_at(header, 6) == 0 {
        packet.fields.sum = Sum::Absent;
    } else {
        packet.verify(data, missing, true);
    }
    Some(())
}

fn dissect_icmp(packet: &mut Packet, data: &[u8], missing: Missing, depth: usize) -> Option<()> {
    let header = data.get(..8)?;
    let kind = header[0];
    packet.kind = format!("{kind}/{}", header[1]);
    let v6 = packet.proto == Proto::Icmp6;
    if if v6 { matches!(kind, 1..=4) } else { matches!(kind, 3 | 4 | 5 | 11 | 12) } {
        packet.set_inner(&data[8..], depth)?;
        if kind == 5 {
            packet.fields.gw = Some(Ipv4Addr::from_bits(u32_at(header, 4)));
        } else {
            packet.fields.mtu = u32_at(header, 4);
        }
    } else {
        packet.fields.ident = u16_at(header, 4);
        packet.fields.seq = u16_at(header, 6).into();
        packet.set_payload(&data[8..], missing);
    }
    packet.verify(data, missing, v6);
    Some(())
}

fn dissect_sctp(packet: &mut Packet, data: &[u8], missing: Missing) -> Option<()> {
    let start = data.get(..8)?;
    packet.ports = Some((u16_at(start, 0), u16_at(start, 2)));
    packet.fields.tag = u32_at(start, 4);
    let Some(header) = data.get(..12) else { return Some(()) };
    let (mut names, mut at) = (Vec::new(), 12);
    while let Some(chunk) = data.get(at..at + 4) {
        let name = SCTP_CHUNKS.get(usize::from(chunk[0])).map(|name| (*name).to_string());
        names.push(name.unwrap_or_else(|| chunk[0].to_string()));
        at += usize::from(u16_at(chunk, 2)).max(4).next_multiple_of(4);
    }
    packet.kind = names.join("+");
    if missing == Missing::Bytes(0) {
        let mut covered = data.to_vec();
        covered[8..12].fill(0);
        let good = crc32c::crc32c(&covered).to_le_bytes() == header[8..12];
        packet.fields.sum = if good { Sum::Good } else { Sum::Bad };
    }
    Some(())
}

fn dissect_gre(packet: &mut Packet, data: &[u8], missing: Missing, depth: usize) -> Option<()> {
    let flags = u16_at(data.get(..2)?, 0);
    packet.fields.csum = flags & 0x8000 != 0;
    if packet.fields.csum {
        packet.verify(data, missing, false);
    }
    packet.set_inner(data.get(if packet.fields.csum { 8 } else { 4 }..)?, depth)
}

impl Packet {
    fn set_inner(&mut self, data: &[u8], depth: usize) -> Option<()> {
        if depth == MAX_DEPTH {
            return None;
        }
        self.inner = Some(Box::new(dissect_nested(data, depth + 1)?));
        Some(())
    }

    fn set_payload(&mut self, payload: &[u8], missing: Missing) {
        let lost = match missing {
            Missing::Bytes(lost) => lost,
            Missing::Unknown => 0,
        };
        let printable = |byte: &u8| matches!(byte, 32..127 | b'\r' | b'\n');
        self.fields.payload = if missing != Missing::Bytes(0) || payload == filler(payload.len()) {
            Payload::Filler(payload.len() + lost)
        } else if payload.iter().all(printable) {
            Payload::Text(percent_encode(payload))
        } else {
            Payload::Data(payload.to_vec())
        };
    }

    /// Says whether the Internet checksum is right, if the whole packet is there.
    fn verify(&mut self, transport: &[u8], missing: Missing, pseudo: bool) {
        if missing != Missing::Bytes(0) {
            return;
        }
        let mut covered = Vec::new();
        if pseudo {
            covered = pseudo_header(self.src, self.dst, self.protocol_number(), transport.len());
        }
        covered.extend(transport);
        self.fields.sum = if internet_checksum(&covered) == 0 { Sum::Good } else { Sum::Bad };
    }
}

/// The callers of these have checked that the bytes are there.
fn u16_at(data: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([data[at], data[at + 1]])
}

fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from(u16_at(data, at)) << 16 | u32::from(u16_at(data, at + 2))
}

fn two_words(data: &[u8]) -> (u32, u32) {
    (u32_at(data, 0), u32_at(data, 4))
}
