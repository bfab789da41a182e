//! Translation of ICMP errors: the outer addresses, and the packet they quote.

use super::nat::Translation;
use crate::packet::checksum::Sum;
use crate::packet::headers::{carries_ports, protocol, set_word};
use crate::packet::{Addr, Endpoint, Family, Headers, PacketBuf};

/// What to change in an ICMP error.
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorTranslation {
    /// The addresses of the error itself; ports do not count.
    pub outer: Translation,
    /// The endpoints of the packet that it quotes.
    pub quoted: Translation,
    /// Whether its time to live stays, as it is not forwarded.
    pub keeps_ttl: bool,
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
    write_addresses(bytes, headers.family, translation.outer);
    let inner = &mut bytes[start..];
    write_addresses(inner, quoted.family, translation.quoted);
    write_ports(inner, quoted, translation.quoted);
    mend_header(inner, quoted);
    if !translation.keeps_ttl {
        super::nat::write_ttl(bytes, headers);
    }
    mend_header(bytes, headers);
    mend_icmp(bytes, headers, translation.outer);
}

fn write_addresses(bytes: &mut [u8], family: Family, translation: Translation) {
    let sides = [(translation.source, true), (translation.destination, false)];
    for (new, is_source) in sides {
        if let Some(new) = new {
            write_side(bytes, family, is_source, new.addr);
        }
    }
}

/// Writes the ports of the quoted packet, or the identifier of a quoted echo message, whose sender
/// it belongs to as in [`Headers`].
fn write_ports(inner: &mut [u8], quoted: &Headers, translation: Translation) {
    let is_echo = matches!(quoted.protocol, protocol::ICMP | protocol::ICMP6);
    if !quoted.is_quoted_with_ports() || !is_echo && !carries_ports(quoted.protocol) {
        return;
    }
    for (new, offset) in [(translation.source, 0), (translation.destination, 2)] {
        let Some(Endpoint { port, .. }) = new else { continue };
        if is_echo {
            write_echo_id(inner, quoted, port);
        } else {
            set_word(inner, quoted.transport + offset, port);
        }
    }
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

fn mend_icmp(bytes: &mut [u8], headers: &Headers, outer: Translation) {
    let pseudo = match headers.family {
        Family::V4 => Sum::default(),
        Family::V6 => {
            let from = outer.source.unwrap_or(headers.source);
            let to = outer.destination.unwrap_or(headers.destination);
            Sum::pseudo_header(from.addr, to.addr, protocol::ICMP6, headers.transport_len())
        }
    };
    let at = headers.transport + 2;
    set_word(bytes, at, 0);
    let checksum = pseudo.plus(Sum::of(&bytes[headers.transport..])).checksum();
    set_word(bytes, at, checksum);
}
