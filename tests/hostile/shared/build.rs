//! Packets, built byte by byte and apart from the library's own code.

use std::net::{IpAddr, SocketAddr};

/// Both ends of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub from: SocketAddr,
    pub to: SocketAddr,
}

/// `"192.0.2.1:80"` to `"[2001:db8::1]:80"` and the like.
pub fn ends(from: &str, to: &str) -> Ends {
    Ends { from: from.parse().unwrap(), to: to.parse().unwrap() }
}

impl Ends {
    /// The other direction.
    pub fn turned(self) -> Self {
        Self { from: self.to, to: self.from }
    }
}

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP6: u8 = 58;
pub const SCTP: u8 = 132;

pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;
pub const FIN: u8 = 1;

/// An IP packet of these addresses' family.
pub fn ip(ends: Ends, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ip_with(ends, protocol, 64, payload)
}

/// The same with a time to live.
pub fn ip_with(ends: Ends, protocol: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
    match (ends.from.ip(), ends.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let len = (20 + payload.len()) as u16;
            let mut bytes = vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, ttl, protocol, 0, 0];
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes.extend(from.octets());
            bytes.extend(to.octets());
            let sum = checksum(&[&bytes]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            bytes.extend(payload);
            bytes
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut bytes = vec![0x60, 0, 0, 0, 0, 0, protocol, ttl];
            bytes[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
            bytes.extend(from.octets());
            bytes.extend(to.octets());
            bytes.extend(payload);
            bytes
        }
        _ => panic!("both ends are of one family"),
    }
}

/// What a TCP segment says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment<'a> {
    pub sequence: u32,
    pub acknowledged: u32,
    pub flags: u8,
    pub options: &'a [u8],
    pub payload: &'a [u8],
}

pub fn tcp(ends: Ends, segment: Segment<'_>) -> Vec<u8> {
    let Segment { sequence, acknowledged, flags, options, payload } = segment;
    assert!(options.len().is_multiple_of(4));
    let mut bytes = ports(ends);
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(acknowledged.to_be_bytes());
    bytes.extend([((5 + options.len() / 4) << 4) as u8, flags, 0x40, 0, 0, 0, 0, 0]);
    bytes.extend(options);
    bytes.extend(payload);
    mended(ip(ends, TCP, &bytes))
}

pub fn udp(ends: Ends, payload: &[u8]) -> Vec<u8> {
    let mut bytes = ports(ends);
    bytes.extend(((8 + payload.len()) as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    mended(ip(ends, UDP, &bytes))
}

/// Chunks behind an SCTP header whose verification tag is 1.
pub fn sctp(ends: Ends, chunks: &[u8]) -> Vec<u8> {
    let mut bytes = ports(ends);
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 0]);
    bytes.extend(chunks);
    mended(ip(ends, SCTP, &bytes))
}

/// An ICMP or ICMPv6 message; the ports do not count.
pub fn icmp(ends: Ends, kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(rest);
    bytes.extend(payload);
    let protocol = if ends.from.is_ipv4() { ICMP } else { ICMP6 };
    mended(ip(ends, protocol, &bytes))
}

/// An IPv4 packet in fragments with these lengths of payload, and the rest in one more.
pub fn fragments(packet: &[u8], lengths: &[usize]) -> Vec<Vec<u8>> {
    let header_len = usize::from(packet[0] & 15) * 4;
    let (header, payload) = packet.split_at(header_len);
    let mut cuts: Vec<usize> = Vec::from([0]);
    lengths.iter().for_each(|len| cuts.push(cuts.last().unwrap() + len));
    cuts.push(payload.len());
    let pieces = cuts.windows(2).map(|cut| {
        let mut piece = header.to_vec();
        piece.extend(&payload[cut[0]..cut[1]]);
        let more = if cut[1] < payload.len() { 0x2000 } else { 0 };
        let placed = more | (cut[0] / 8) as u16;
        piece[6..8].copy_from_slice(&placed.to_be_bytes());
        let len = piece.len() as u16;
        piece[2..4].copy_from_slice(&len.to_be_bytes());
        mended(piece)
    });
    pieces.collect()
}

/// The same for an IPv6 packet without extension headers.
pub fn fragments_v6(packet: &[u8], id: u32, lengths: &[usize]) -> Vec<Vec<u8>> {
    let (header, payload) = packet.split_at(40);
    let mut cuts: Vec<usize> = Vec::from([0]);
    lengths.iter().for_each(|len| cuts.push(cuts.last().unwrap() + len));
    cuts.push(payload.len());
    let pieces = cuts.windows(2).map(|cut| {
        let mut piece = header.to_vec();
        piece[6] = 44;
        let more = u16::from(cut[1] < payload.len());
        piece.extend([header[6], 0]);
        piece.extend((cut[0] as u16 | more).to_be_bytes());
        piece.extend(id.to_be_bytes());
        piece.extend(&payload[cut[0]..cut[1]]);
        let len = (piece.len() - 40) as u16;
        piece[4..6].copy_from_slice(&len.to_be_bytes());
        piece
    });
    pieces.collect()
}

fn ports(ends: Ends) -> Vec<u8> {
    [ends.from.port().to_be_bytes(), ends.to.port().to_be_bytes()].concat()
}

/// The packet with its checksums made right, as far as its headers can be understood.
pub fn mended(mut packet: Vec<u8>) -> Vec<u8> {
    mend(&mut packet);
    packet
}

fn mend(packet: &mut [u8]) -> Option<()> {
    let (transport, protocol) = match packet.first()? >> 4 {
        4 => {
            let header_len = usize::from(packet[0] & 15) * 4;
            if header_len < 20 || header_len > packet.len() {
                return None;
            }
            packet[10..12].fill(0);
            let sum = checksum(&[&packet[..header_len]]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            if packet[6] & 0x3f != 0 || packet[7] != 0 {
                return None;
            }
            (header_len, packet[9])
        }
        6 => skip_extensions(packet)?,
        _ => return None,
    };
    let len = super::judge::total_len(packet)?.min(packet.len());
    if protocol == SCTP {
        let covered = packet.get_mut(transport..len).filter(|bytes| bytes.len() >= 12)?;
        covered[8..12].fill(0);
        let sum = crc32c(covered);
        covered[8..12].copy_from_slice(&sum.to_le_bytes());
        return Some(());
    }
    let field = transport
        + match protocol {
            TCP => 16,
            UDP => 6,
            ICMP | ICMP6 => 2,
            _ => return None,
        };
    packet.get_mut(field..field + 2).filter(|_| field + 2 <= len)?.fill(0);
    let sum = match (protocol, packet[0] >> 4) {
        (ICMP, 4) => checksum(&[&packet[transport..len]]),
        _ => {
            checksum(&[&pseudo_header(packet, protocol, len - transport), &packet[transport..len]])
        }
    };
    let sum = if protocol == UDP && sum == 0 { 0xffff } else { sum };
    packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// Where what is behind the extension headers of IPv6 begins, and its protocol.
fn skip_extensions(packet: &[u8]) -> Option<(usize, u8)> {
    let (mut at, mut protocol) = (40, *packet.get(6)?);
    loop {
        let len = match protocol {
            0 | 43 | 60 | 135 => 8 + 8 * usize::from(*packet.get(at + 1)?),
            // Of one that is all of its datagram.
            44 if *packet.get(at + 2)? == 0 && *packet.get(at + 3)? & 0xf9 == 0 => 8,
            44 => return None,
            _ => return Some((at, protocol)),
        };
        protocol = *packet.get(at)?;
        at += len;
    }
}

pub fn pseudo_header(packet: &[u8], protocol: u8, len: usize) -> Vec<u8> {
    let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
    let mut bytes = addresses.to_vec();
    bytes.extend((len as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// The Internet checksum of parts of which all but the last have an even length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum = words.fold(0u64, |sum, word| {
        sum + u64::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]))
    });
    let mut sum = sum;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The checksum of SCTP, bit by bit. **Source** — RFC 9260, appendix A.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}
