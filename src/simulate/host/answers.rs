//! What the host's own stack sends in answer to a packet, as Linux does.

use std::net::IpAddr;

use crate::simulate::packet::{Packet, Proto, Sum, dissect};

/// Type of service of an ICMP error: internetwork control. **Source** — RFC 1812 §4.3.2.5.
const TOS_CONTROL: u8 = 0xc0;
/// The bits of the original type of service that an ICMP error keeps.
const TOS_KEPT: u8 = 0x1e;
/// Bytes that an error quotes at most, if it has no options. **Source** — RFC 1812 §4.3.2.3, RFC 4443
/// §2.4 (c).
pub const QUOTE_V4: usize = 576 - 28;
const QUOTE_V6: usize = 1280 - 48;

/// The errors that the stack reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The hop count ended.
    TimeExceeded,
    /// The packet is larger than the next link, which takes this many bytes.
    TooBig(usize),
    /// The byte at this place of the header makes no sense.
    BadHeader(u8),
    /// A route refuses the destination.
    HostUnreachable,
    /// Nobody listens on the port.
    PortUnreachable,
    /// Nobody knows the protocol.
    ProtocolUnreachable,
}

impl Trouble {
    /// Type and code, and the rest of the ICMP header.
    fn encode(self, original: &Packet) -> (&'static str, u32) {
        match (self, original.src.is_ipv6()) {
            (Self::TimeExceeded, false) => ("11/0", 0),
            (Self::TimeExceeded, true) => ("3/0", 0),
            (Self::TooBig(mtu), false) => ("3/4", mtu as u32),
            (Self::TooBig(mtu), true) => ("2/0", mtu as u32),
            (Self::BadHeader(at), false) => ("12/0", u32::from(at) << 24),
            (Self::BadHeader(at), true) => ("4/0", at.into()),
            (Self::HostUnreachable, false) => ("3/1", 0),
            (Self::HostUnreachable, true) => ("1/3", 0),
            (Self::PortUnreachable, false) => ("3/3", 0),
            (Self::PortUnreachable, true) => ("1/4", 0),
            (Self::ProtocolUnreachable, false) => ("3/2", 0),
            (Self::ProtocolUnreachable, true) => ("4/1", next_header_at(original)),
        }
    }
}

/// Where the field is that names what an IPv6 packet carries: in the fixed header, or in the last
/// extension header.
fn next_header_at(packet: &Packet) -> u32 {
    match packet.fields.ext.len() as u32 {
        0 => 6,
        // Those of the notation have eight bytes each.
        extensions => 40 + 8 * (extensions - 1),
    }
}

/// The ICMP error about `original` from `source`; `None` where none may be sent.
///
/// **Source** — RFC 1122 §3.2.2, RFC 4443 §2.4 (e).
pub fn icmp_error(original: &Packet, trouble: Trouble, source: IpAddr) -> Option<Packet> {
    let later_fragment = original.fields.frag.is_some_and(|frag| frag.offset != 0);
    if later_fragment
        || is_icmp_error(original)
        || !is_somebody(original.src)
        || original.dst.is_multicast()
    {
        return None;
    }
    let ipv6 = original.src.is_ipv6();
    let (kind, rest) = trouble.encode(original);
    let proto = if ipv6 { Proto::Icmp6 } else { Proto::Icmp };
    let limit = if ipv6 { QUOTE_V6 } else { QUOTE_V4 };
    let quoted = &original.raw[..original.raw.len().min(limit)];
    let mut error = Packet::new(source, original.src, proto);
    error.kind = kind.into();
    error.fields.mtu = rest;
    error.fields.tos = if ipv6 { 0 } else { original.fields.tos & TOS_KEPT | TOS_CONTROL };
    error.inner = Some(Box::new(dissect(quoted)?));
    Some(error)
}

/// Whether ICMP says that something went wrong; no error is sent about these.
fn is_icmp_error(packet: &Packet) -> bool {
    match (packet.proto, packet.icmp_type(), packet.src.is_ipv6()) {
        (Proto::Icmp, kind, false) => {
            !kind.is_some_and(|kind| matches!(kind, 0 | 8 | 9 | 10 | 13..=18))
        }
        (Proto::Icmp6, kind, true) => kind.is_none_or(|kind| kind < 128),
        _ => false,
    }
}

fn is_somebody(addr: IpAddr) -> bool {
    let broadcast = matches!(addr, IpAddr::V4(addr) if addr.is_broadcast());
    !(addr.is_unspecified() || addr.is_multicast() || addr.is_loopback() || broadcast)
}

/// The reply to an echo or timestamp request; `None` for anything else, or if it is damaged.
pub fn icmp_reply(request: &Packet) -> Option<Packet> {
    let (kind, code) = request.kind.split_once('/')?;
    let kind = match (request.proto, kind) {
        (Proto::Icmp, "8") => "0",
        (Proto::Icmp6, "128") => "129",
        _ => return None,
    };
    if request.fields.sum != Sum::Good {
        return None;
    }
    let mut reply = Packet::new(request.dst, request.src, request.proto);
    reply.kind = format!("{kind}/{code}");
    reply.fields.ident = request.fields.ident;
    reply.fields.seq = request.fields.seq;
    reply.fields.payload = request.fields.payload.clone();
    reply.fields.tos = request.fields.tos;
    Some(reply)
}

/// The bits of the type of service that tell of congestion, which resets do not repeat.
const ECN: u8 = 0x03;

/// The reset that answers a segment for which there is no socket.
///
/// **Source** — RFC 9293 §3.10.7.1.
pub fn tcp_reset(segment: &Packet) -> Option<Packet> {
    let (flags, fields) = (&segment.kind, &segment.fields);
    if flags.contains('R') {
        return None;
    }
    let mut reset = Packet::new(segment.dst, segment.src, Proto::Tcp);
    reset.ports = segment.ports.map(|(sport, dport)| (dport, sport));
    if flags.contains('A') {
        reset.kind = "R".into();
        reset.fields.seq = fields.ack;
    } else {
        let flagged = u32::from(flags.contains('S')) + u32::from(flags.contains('F'));
        let len = fields.payload.bytes().len() as u32;
        reset.kind = "RA".into();
        reset.fields.ack = fields.seq.wrapping_add(len).wrapping_add(flagged);
    }
    reset.fields.win = 0;
    reset.fields.df = true;
    reset.fields.id = 0;
    reset.fields.tos = fields.tos & !ECN;
    Some(reset)
}
