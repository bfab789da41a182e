//! Translation of ICMP errors: the outer addresses, and the packet they quote.

use crate::packet::checksum::Sum;
use crate::packet::headers::{carries_ports, protocol, set_word};
use crate::packet::{Addr, Endpoint, Family, Headers, PacketBuf};

/// What to change in an ICMP error.
#[derive(Clone, Copy, Debug)]
pub struct ErrorTranslation {
    /// The new outer source or destination, whichever side is not the client's.
    pub outer: Addr,
    /// What stands in its place in the quoted packet.
    pub quoted: Endpoint,
    /// Whether the error goes to the client (its outer source and quoted destination change) or to
    /// the server (its outer destination and quoted source change).
    pub to_client: bool,
}

/// Translates an ICMP error whose quoted packet was read as `quoted`, `start` bytes into the packet.
///
/// The quoted IP header is mended even if its checksum was wrong; the quoted transport checksum is
/// left alone. **Source** — IPVS `ip_vs_nat_icmp`, and its recordings.
pub fn translate_error(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    quoted: &Headers,
    start: usize,
    translation: ErrorTranslation,
) {
    let bytes = &mut packet.bytes_mut()[..headers.len];
    write_side(bytes, headers.family, translation.to_client, translation.outer);
    let inner = &mut bytes[start..];
    write_side(inner, quoted.family, !translation.to_client, translation.quoted.addr);
    if quoted.has_ports() && carries_ports(quoted.protocol) {
        let at = quoted.transport + if translation.to_client { 2 } else { 0 };
        set_word(inner, at, translation.quoted.port);
    } else if quoted.has_ports() && matches!(quoted.protocol, protocol::ICMP | protocol::ICMP6) {
        write_echo_id(inner, quoted, translation.quoted.port);
    }
    mend_header(inner, quoted);
    super::nat::write_ttl(bytes, headers);
    mend_header(bytes, headers);
    mend_icmp(bytes, headers, translation);
}

fn write_echo_id(inner: &mut [u8], quoted: &Headers, id: u16) {
    if let Some(field) = inner.get_mut(quoted.transport + 4..quoted.transport + 6) {
        field.copy_from_slice(&id.to_be_bytes());
    }
}

fn write_side(bytes: &mut [u8], family: Family, source: bool, addr: Addr) {
    match family {
        Family::V4 => {
            let at = if source { 12 } else { 16 };
            bytes[at..at + 4].copy_from_slice(&addr.v4_bits().to_be_bytes());
        }
        Family::V6 => {
            let at = if source { 8 } else { 24 };
            bytes[at..at + 16].copy_from_slice(&addr.bits().to_be_bytes());
        }
    }
}

fn mend_header(bytes: &mut [u8], headers: &Headers) {
    if headers.family == Family::V4 {
        set_word(bytes, 10, 0);
        let checksum = Sum::of(&bytes[..headers.transport]).checksum();
        set_word(bytes, 10, checksum);
    }
}

fn mend_icmp(bytes: &mut [u8], headers: &Headers, translation: ErrorTranslation) {
    let pseudo = match headers.family {
        Family::V4 => Sum::default(),
        Family::V6 => {
            let (from, to) = (headers.source.addr, headers.destination.addr);
            let (from, to) = if translation.to_client {
                (translation.outer, to)
            } else {
                (from, translation.outer)
            };
            Sum::pseudo_header(from, to, protocol::ICMP6, headers.transport_len())
        }
    };
    let at = headers.transport + 2;
    set_word(bytes, at, 0);
    let checksum = pseudo.plus(Sum::of(&bytes[headers.transport..])).checksum();
    set_word(bytes, at, checksum);
}
