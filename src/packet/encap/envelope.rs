//! Outer headers, written.

use super::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, GRE_CHECKSUM, GRE_HAS_CHECKSUM, GUE_HAS_PRIVATE,
    GUE_HAS_REMOTE, GUE_LEN, GUE_REMOTE_LEN, OuterHeaders, UDP_CHECKSUM, UDP_LEN, Wrapping,
    ip_header_len, ip_protocol,
};
use crate::packet::addr::{Addr, Family};
use crate::packet::buf::PacketBuf;
use crate::packet::checksum::Sum;
use crate::packet::headers::{protocol, set_word, word};

/// The outer headers that a packet travels in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The near end of the tunnel.
    pub source: Addr,
    /// The far end.
    pub destination: Addr,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub tos: u8,
    /// Whether an outer IPv4 packet must not be fragmented.
    pub dont_fragment: bool,
    /// The identification of an outer IPv4 packet.
    pub id: u16,
    /// What stands between the two IP headers.
    pub wrapping: Wrapping,
}

impl Envelope {
    /// The most that any envelope adds, in bytes.
    pub const MAX_LEN: usize = 40 + UDP_LEN + GUE_LEN + GUE_REMOTE_LEN;

    /// What it adds to a packet, in bytes.
    pub const fn len(&self) -> usize {
        ip_header_len(self.source.family()) + self.wrapping.len()
    }

    /// Whether it adds nothing, which is never the case.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Puts the packet, of the given family, into this envelope.
    ///
    /// A super-frame gets its outer headers as a pattern for those of its segments, see
    /// [`Offload::outer`](crate::packet::Offload::outer); any other packet is complete.
    ///
    /// **Shape** — needs [`len`](Self::len) bytes of headroom; without them, or where the whole
    /// would be longer than IP can say, answers `false` and leaves the packet as it was.
    #[must_use]
    pub fn push(&self, packet: &mut PacketBuf<'_>, inner: Family) -> bool {
        let is_super = packet.offload.segmentation.kind.is_super_frame();
        let whole = packet.len() + self.len();
        if !is_super && whole > usize::from(u16::MAX) {
            return false;
        }
        let Some(front) = packet.push(self.len()) else { return false };
        self.write(front, inner);
        let outer = OuterHeaders {
            len: self.len() as u8,
            checksum: self.wrapping.is_checksummed(),
            fragment_bytes: 0,
        };
        if is_super {
            packet.offload.outer = Some(outer);
        } else {
            complete(packet.bytes_mut(), outer, 0);
        }
        true
    }

    /// Writes all but lengths and checksums.
    fn write(&self, out: &mut [u8], inner: Family) {
        let number = self.wrapping.protocol(inner);
        let (ip, rest) = out.split_at_mut(ip_header_len(self.source.family()));
        match self.source.family() {
            Family::V4 => {
                ip[..2].copy_from_slice(&[0x45, self.tos]);
                set_word(ip, 4, self.id);
                set_word(ip, 6, if self.dont_fragment { DONT_FRAGMENT } else { 0 });
                ip[8..10].copy_from_slice(&[self.ttl, number]);
                ip[12..16].copy_from_slice(&self.source.v4_bits().to_be_bytes());
                ip[16..20].copy_from_slice(&self.destination.v4_bits().to_be_bytes());
            }
            Family::V6 => {
                ip[..4].copy_from_slice(&[0x60 | self.tos >> 4, self.tos << 4, 0, 0]);
                ip[6..8].copy_from_slice(&[number, self.ttl]);
                ip[8..24].copy_from_slice(&self.source.bits().to_be_bytes());
                ip[24..40].copy_from_slice(&self.destination.bits().to_be_bytes());
            }
        }
        self.write_wrapping(rest, inner);
    }

    fn write_wrapping(&self, out: &mut [u8], inner: Family) {
        out.fill(0);
        match self.wrapping {
            Wrapping::IpIp => {}
            Wrapping::Gre { checksum } => {
                set_word(out, 0, if checksum { GRE_HAS_CHECKSUM } else { 0 });
                let ethertype = match inner {
                    Family::V4 => ETHERTYPE_IPV4,
                    Family::V6 => ETHERTYPE_IPV6,
                };
                set_word(out, 2, ethertype);
            }
            Wrapping::Gue { source_port, port, remote, .. } => {
                set_word(out, 0, source_port);
                set_word(out, 2, port);
                let gue = &mut out[UDP_LEN..];
                gue[1] = ip_protocol(inner);
                if let Some(remote) = remote {
                    gue[0] = (GUE_REMOTE_LEN / 4) as u8;
                    set_word(gue, 2, GUE_HAS_PRIVATE);
                    gue[4..8].copy_from_slice(&GUE_HAS_REMOTE.to_be_bytes());
                    set_word(gue, 8, remote.start);
                    set_word(gue, 10, remote.field);
                }
            }
        }
    }
}

/// Writes lengths and checksums into the outer headers at the front of `packet`, whose inner packet
/// is complete. `number` counts the packets that one super-frame became, from 0.
pub fn complete(packet: &mut [u8], outer: OuterHeaders, number: u16) {
    let len = packet.len();
    let (number_at, ip_len) = match packet[0] >> 4 {
        4 => (9, ip_header_len(Family::V4)),
        _ => (6, ip_header_len(Family::V6)),
    };
    let (ip, rest) = packet.split_at_mut(ip_len);
    match ip[number_at] {
        protocol::UDP => complete_udp(ip, rest, outer.checksum),
        protocol::GRE if outer.checksum => {
            set_word(rest, GRE_CHECKSUM, 0);
            let sum = Sum::of(rest).checksum();
            set_word(rest, GRE_CHECKSUM, sum);
        }
        _ => {}
    }
    if ip_len == ip_header_len(Family::V6) {
        set_word(ip, 4, (len - ip_len) as u16);
        return;
    }
    set_word(ip, 2, len as u16);
    // A packet that is never fragmented needs no identification: RFC 6864 §4.1.
    if word(ip, 6) & DONT_FRAGMENT == 0 {
        set_word(ip, 4, word(ip, 4).wrapping_add(number));
    }
    set_word(ip, 10, 0);
    let sum = Sum::of(ip).checksum();
    set_word(ip, 10, sum);
}

fn complete_udp(ip: &[u8], udp: &mut [u8], checksum: bool) {
    set_word(udp, 4, udp.len() as u16);
    set_word(udp, UDP_CHECKSUM, 0);
    if checksum {
        // The sum over both addresses as they stand in the header.
        let addresses = if ip.len() == 20 { &ip[12..20] } else { &ip[8..40] };
        let lengths = Sum::default().plus_word(protocol::UDP.into()).plus_word(udp.len() as u16);
        let sum = Sum::of(addresses).plus(lengths).plus(Sum::of(udp)).checksum();
        set_word(udp, UDP_CHECKSUM, if sum == 0 { 0xffff } else { sum });
    }
}

const DONT_FRAGMENT: u16 = 0x4000;
