//! Outer headers, read.

use super::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, GRE_CHECKSUM_LEN, GRE_HAS_CHECKSUM, GRE_HAS_KEY,
    GRE_HAS_ROUTING, GRE_HAS_SEQUENCE, GRE_LEN, GRE_VERSION, GUE_CONTROL, GUE_HAS_PRIVATE,
    GUE_HAS_REMOTE, GUE_LEN, GUE_OPTION_WORDS, RemoteChecksum, UDP_CHECKSUM, UDP_LEN, Wrapping,
};
use crate::packet::addr::Family;
use crate::packet::checksum::Sum;
use crate::packet::headers::{Headers, ICMP_HEADER_LEN, protocol, word};

/// A packet found within another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What it was wrapped in.
    pub wrapping: Wrapping,
    /// Its family, as the wrapping says.
    pub family: Family,
    /// Where its IP header starts, in bytes from the outer one's start.
    pub start: usize,
}

/// Why there is no packet to be had from an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// No protocol that wraps IP packets.
    #[error("it is no tunnelled packet")]
    NoTunnel,
    /// Shorter than its headers say.
    #[error("the packet is shorter than its headers say")]
    Truncated,
    /// A header of another version, with unknown options, or around something else than IP.
    #[error("the tunnel's header is of an unknown kind")]
    Unknown,
    /// The checksum of GRE or UDP is wrong.
    #[error("the checksum of the tunnel's header is wrong")]
    Checksum,
}

/// Finds the packet in `bytes`, which start with the IP header read as `outer` and are all there.
/// UDP is taken for GUE; callers know the port.
pub fn open(bytes: &[u8], outer: &Headers) -> Result<Opened, Closed> {
    let opened = open_quoted(bytes, outer)?;
    let mut wrapping = bytes.get(outer.transport..outer.len).ok_or(Closed::Truncated)?;
    if outer.protocol == protocol::UDP {
        // A datagram may be shorter than its packet, never longer.
        wrapping = wrapping.get(..usize::from(word(wrapping, 4))).ok_or(Closed::Truncated)?;
    }
    if outer.transport + wrapping.len() <= opened.start {
        return Err(Closed::Truncated);
    }
    if checksum_is_right(wrapping, outer) { Ok(opened) } else { Err(Closed::Checksum) }
}

/// Finds the packet in `bytes` as an ICMP error quotes them: perhaps not whole, so no checksum is
/// looked at.
pub fn open_quoted(bytes: &[u8], outer: &Headers) -> Result<Opened, Closed> {
    let rest = bytes.get(outer.transport..).ok_or(Closed::Truncated)?;
    let (wrapping, family, len) = match outer.protocol {
        protocol::IPV4 => (Wrapping::IpIp, Family::V4, 0),
        protocol::IPV6 => (Wrapping::IpIp, Family::V6, 0),
        protocol::GRE => open_gre(rest)?,
        protocol::UDP => open_gue(rest)?,
        _ => return Err(Closed::NoTunnel),
    };
    let start = outer.transport + len;
    is_of(family, bytes, start).map(|()| Opened { wrapping, family, start })
}

/// A tunnel's packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotedTunnel {
    /// What is around the packet inside.
    pub outer: Headers,
    /// What it is wrapped in.
    pub wrapping: Wrapping,
    /// The packet inside.
    pub inner: Headers,
    /// Where it starts, in bytes from the start of the ICMP error's own IP header.
    pub start: usize,
}

/// Reads the packet inside the one that an ICMP error quotes, if that is a tunnel's and enough of it
/// is there. `headers` are those of the ICMP error, `bytes`.
pub fn quoted_tunnel(bytes: &[u8], headers: &Headers) -> Option<QuotedTunnel> {
    let at = headers.transport + ICMP_HEADER_LEN;
    let quote = headers.quote(bytes)?;
    let outer = Headers::parse_quoted(quote).ok()?;
    let Opened { wrapping, family, start } =
        open_quoted(quote, &outer).ok().filter(|_| outer.has_ports())?;
    let inner = Headers::parse_quoted(&quote[start..]).ok()?;
    (inner.family == family).then_some(QuotedTunnel { outer, wrapping, inner, start: at + start })
}

/// Finds the packet in what a GUE tunnel's UDP datagram carries, whose checksum others have looked at.
///
/// Returns where the packet starts, its family, and what is left to be summed up in it.
pub fn open_datagram(gue: &[u8]) -> Result<(usize, Family, Option<RemoteChecksum>), Closed> {
    let (remote, family, start) = read_gue(gue)?;
    is_of(family, gue, start).map(|()| (start, family, remote))
}

/// Finds the packet in what an outer IP packet of a protocol carries, behind all of its headers.
///
/// Returns where the packet starts and its family.
pub fn open_payload(number: u8, payload: &[u8]) -> Result<(usize, Family), Closed> {
    let (start, family) = match number {
        protocol::IPV4 => (0, Family::V4),
        protocol::IPV6 => (0, Family::V6),
        protocol::GRE => {
            let (wrapping, family, len) = open_gre(payload)?;
            if wrapping.is_checksummed() && Sum::of(payload).folded() != 0xffff {
                return Err(Closed::Checksum);
            }
            (len, family)
        }
        _ => return Err(Closed::NoTunnel),
    };
    is_of(family, payload, start).map(|()| (start, family))
}

/// Whether a packet of this family starts there.
fn is_of(family: Family, bytes: &[u8], start: usize) -> Result<(), Closed> {
    match (family, bytes.get(start).ok_or(Closed::Truncated)? >> 4) {
        (Family::V4, 4) | (Family::V6, 6) => Ok(()),
        _ => Err(Closed::Unknown),
    }
}

fn open_gre(gre: &[u8]) -> Result<(Wrapping, Family, usize), Closed> {
    if gre.len() < GRE_LEN {
        return Err(Closed::Truncated);
    }
    let flags = word(gre, 0);
    let known = GRE_HAS_CHECKSUM | GRE_HAS_KEY | GRE_HAS_SEQUENCE;
    if flags & (GRE_VERSION | GRE_HAS_ROUTING) != 0 || flags & !known != 0 {
        return Err(Closed::Unknown);
    }
    let family = match word(gre, 2) {
        ETHERTYPE_IPV4 => Family::V4,
        ETHERTYPE_IPV6 => Family::V6,
        _ => return Err(Closed::Unknown),
    };
    let words = (flags & known).count_ones() as usize;
    let checksum = flags & GRE_HAS_CHECKSUM != 0;
    Ok((Wrapping::Gre { checksum }, family, GRE_LEN + words * GRE_CHECKSUM_LEN))
}

fn open_gue(udp: &[u8]) -> Result<(Wrapping, Family, usize), Closed> {
    if udp.len() < UDP_LEN {
        return Err(Closed::Truncated);
    }
    let (remote, family, len) = read_gue(&udp[UDP_LEN..])?;
    let wrapping = Wrapping::Gue {
        source_port: word(udp, 0),
        port: word(udp, 2),
        checksum: word(udp, UDP_CHECKSUM) != 0,
        remote,
    };
    Ok((wrapping, family, UDP_LEN + len))
}

/// Reads a GUE header: what it leaves to be summed up, what follows it and where.
fn read_gue(gue: &[u8]) -> Result<(Option<RemoteChecksum>, Family, usize), Closed> {
    let header: &[u8; GUE_LEN] = gue.first_chunk().ok_or(Closed::Truncated)?;
    // The first two bits are the version. One means that an IP header follows at once, of which
    // they are the first: draft-ietf-intarea-gue-09 §4.
    match header[0] >> 4 {
        4 => return Ok((None, Family::V4, 0)),
        6 => return Ok((None, Family::V6, 0)),
        0 | 1 if header[0] & GUE_CONTROL == 0 => {}
        _ => return Err(Closed::Unknown),
    }
    let family = match header[1] {
        protocol::IPV4 => Family::V4,
        protocol::IPV6 => Family::V6,
        _ => return Err(Closed::Unknown),
    };
    let end = GUE_LEN + usize::from(header[0] & GUE_OPTION_WORDS) * 4;
    let options = gue.get(GUE_LEN..end).ok_or(Closed::Truncated)?;
    Ok((open_options(word(header, 2), options)?, family, end))
}

/// Reads the options of GUE; those that are not known cannot be ignored, as they may mean that the
/// packet is not what it seems.
fn open_options(flags: u16, options: &[u8]) -> Result<Option<RemoteChecksum>, Closed> {
    if flags == 0 {
        return Ok(None);
    }
    let private = options.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
    match (flags, private) {
        (GUE_HAS_PRIVATE, Some(0)) => Ok(None),
        (GUE_HAS_PRIVATE, Some(GUE_HAS_REMOTE)) if options.len() >= 8 => {
            Ok(Some(RemoteChecksum { start: word(options, 4), field: word(options, 6) }))
        }
        (GUE_HAS_PRIVATE, Some(GUE_HAS_REMOTE) | None) => Err(Closed::Truncated),
        _ => Err(Closed::Unknown),
    }
}

/// Whether the checksum that GRE or UDP carry, if they do, is right.
fn checksum_is_right(wrapping: &[u8], outer: &Headers) -> bool {
    let sum = Sum::of(wrapping);
    match outer.protocol {
        protocol::GRE if word(wrapping, 0) & GRE_HAS_CHECKSUM != 0 => sum.folded() == 0xffff,
        protocol::UDP if word(wrapping, UDP_CHECKSUM) != 0 => {
            let (from, to) = (outer.source.addr, outer.destination.addr);
            let pseudo = Sum::pseudo_header(from, to, protocol::UDP, wrapping.len());
            sum.plus(pseudo).folded() == 0xffff
        }
        _ => true,
    }
}
