//! Translation of addresses and ports in place, with checksums carried along.

use crate::packet::checksum::{Sum, updated, updated_unfinished};
use crate::packet::headers::{carries_ports, protocol, set_word, word};
use crate::packet::sctp::write_checksum;
use crate::packet::{Addr, Endpoint, Family, Headers, PacketBuf};

/// What a packet's endpoints become. `None` stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Translation {
    /// The new source.
    pub source: Option<Endpoint>,
    /// The new destination.
    pub destination: Option<Endpoint>,
}

/// Translates a packet and takes one from its time to live. See [`rewrite`].
pub fn translate(packet: &mut PacketBuf<'_>, headers: &Headers, translation: Translation) {
    rewrite(packet, headers, translation);
    write_ttl(packet.bytes_mut(), headers);
}

/// Translates a packet that is not forwarded, so that its time to live stays.
///
/// Checksums are updated by difference, so a wrong one stays wrong by as much. An unfinished
/// checksum stays unfinished. A UDP checksum of zero (none) over IPv4 becomes a correct one, and so
/// does SCTP's when a port changes.
///
/// **Source** — RFC 1624 §3, RFC 3022 §4.1; for UDP's zero, IPVS `udp_dnat_handler`, for
/// SCTP `sctp_nat_csum`.
pub fn rewrite(packet: &mut PacketBuf<'_>, headers: &Headers, translation: Translation) {
    let addresses = write_addresses(packet.bytes_mut(), headers, translation);
    if !headers.has_ports() {
        return;
    }
    let ports = write_ports(packet.bytes_mut(), headers, translation);
    if headers.protocol == protocol::SCTP {
        let is_new =
            |new: Option<Endpoint>, old: Endpoint| new.is_some_and(|new| new.port != old.port);
        if is_new(translation.source, headers.source)
            || is_new(translation.destination, headers.destination)
        {
            write_checksum(&mut packet.bytes_mut()[headers.transport..headers.len]);
        }
        return;
    }
    let Some(field) = checksum_field(headers) else { return };
    let unfinished = packet.unfinished_checksum() == Some((headers.transport, field));
    let pseudo = if has_pseudo_header(headers) { addresses } else { Sum::default() };
    let bytes = &mut packet.bytes_mut()[..headers.len];
    let old = word(bytes, field);
    let new = if unfinished {
        updated_unfinished(old, pseudo)
    } else if headers.protocol == protocol::UDP && old == 0 {
        let translated = endpoints(headers, translation);
        whole_udp(bytes, headers, translated)
    } else {
        let new = updated(old, pseudo.plus(ports));
        if headers.protocol == protocol::UDP { udp_checksum(new) } else { new }
    };
    set_word(bytes, field, new);
}

/// Writes the new addresses and, for IPv4, mends the header checksum. Returns the change.
fn write_addresses(bytes: &mut [u8], headers: &Headers, translation: Translation) -> Sum {
    let mut change = Sum::default();
    let (source_at, destination_at) = match headers.family {
        Family::V4 => (12, 16),
        Family::V6 => (8, 24),
    };
    let sides = [
        (translation.source, headers.source, source_at),
        (translation.destination, headers.destination, destination_at),
    ];
    for (new, old, at) in sides {
        if let Some(new) = new {
            write_addr(bytes, at, new.addr);
            change = change.minus_addr(old.addr).plus_addr(new.addr);
        }
    }
    if headers.family == Family::V4 {
        let checksum = updated(word(bytes, 10), change);
        set_word(bytes, 10, checksum);
    }
    change
}

fn write_addr(bytes: &mut [u8], at: usize, addr: Addr) {
    match addr.family() {
        Family::V4 => bytes[at..at + 4].copy_from_slice(&addr.v4_bits().to_be_bytes()),
        Family::V6 => bytes[at..at + 16].copy_from_slice(&addr.bits().to_be_bytes()),
    }
}

/// Takes one from the time to live; callers have seen to it that it is at least 2.
pub fn write_ttl(bytes: &mut [u8], headers: &Headers) {
    let ttl = headers.ttl.saturating_sub(1);
    match headers.family {
        Family::V4 => {
            let old = word(bytes, 8);
            bytes[8] = ttl;
            let change = Sum::default().minus_word(old).plus_word(word(bytes, 8));
            let checksum = updated(word(bytes, 10), change);
            set_word(bytes, 10, checksum);
        }
        Family::V6 => bytes[7] = ttl,
    }
}

/// Writes the new ports, or the new identifier of an echo message. Returns the change.
fn write_ports(bytes: &mut [u8], headers: &Headers, translation: Translation) -> Sum {
    let at = headers.transport;
    let sides = if matches!(headers.protocol, protocol::ICMP | protocol::ICMP6) {
        let is_request = matches!(bytes[at], 8 | 128);
        let (asks, answers) = (translation.source, translation.destination);
        [(if is_request { asks } else { answers }, at + 4), (None, 0)]
    } else if carries_ports(headers.protocol) {
        [(translation.source, at), (translation.destination, at + 2)]
    } else {
        [(None, 0), (None, 0)]
    };
    let mut change = Sum::default();
    for (new, at) in sides {
        if let Some(new) = new {
            change = change.minus_word(word(bytes, at)).plus_word(new.port);
            set_word(bytes, at, new.port);
        }
    }
    change
}

fn checksum_field(headers: &Headers) -> Option<usize> {
    let offset = match headers.protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        protocol::ICMP | protocol::ICMP6 => 2,
        _ => return None,
    };
    Some(headers.transport + offset)
}

fn has_pseudo_header(headers: &Headers) -> bool {
    headers.protocol != protocol::ICMP
}

fn endpoints(headers: &Headers, translation: Translation) -> (Addr, Addr) {
    let source = translation.source.unwrap_or(headers.source);
    (source.addr, translation.destination.unwrap_or(headers.destination).addr)
}

fn whole_udp(bytes: &[u8], headers: &Headers, (source, destination): (Addr, Addr)) -> u16 {
    let udp = &bytes[headers.transport..];
    let pseudo = Sum::pseudo_header(source, destination, protocol::UDP, udp.len());
    udp_checksum(pseudo.plus(Sum::of(udp)).checksum())
}

/// A sum that comes to zero is sent as all ones. **Source** — RFC 768.
fn udp_checksum(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::buf::Checksum;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    enum Kind {
        Tcp,
        Udp,
        Echo,
    }

    fn build(kind: Kind, v6: bool, payload: &[u8]) -> Vec<u8> {
        let ip = match v6 {
            false => PacketBuilder::ipv4([192, 0, 2, 9], [192, 0, 2, 1], 64),
            true => PacketBuilder::ipv6([0x20; 16], [0x21; 16], 64),
        };
        let mut bytes = Vec::new();
        match kind {
            Kind::Tcp => ip.tcp(1000, 80, 5, 9).write(&mut bytes, payload),
            Kind::Udp => ip.udp(1000, 53).write(&mut bytes, payload),
            Kind::Echo if v6 => ip.icmpv6_echo_request(7, 1).write(&mut bytes, payload),
            Kind::Echo => ip.icmpv4_echo_request(7, 1).write(&mut bytes, payload),
        }
        .unwrap();
        bytes
    }

    /// The sum over everything the transport checksum covers: 0xffff if it is right.
    fn covered(bytes: &[u8]) -> u16 {
        let headers = Headers::parse(bytes).unwrap();
        let transport = &bytes[headers.transport..headers.len];
        let (from, to) = (headers.source.addr, headers.destination.addr);
        let sum = Sum::of(transport);
        if has_pseudo_header(&headers) {
            let number = headers.protocol;
            sum.plus(Sum::pseudo_header(from, to, number, transport.len())).folded()
        } else {
            sum.folded()
        }
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Tcp), Just(Kind::Udp), Just(Kind::Echo)]
    }

    fn endpoint(v6: bool, bits: u128, port: u16) -> Endpoint {
        let addr = if v6 { Addr::v6(bits | 1 << 125) } else { Addr::v4(bits as u32) };
        Endpoint::new(addr, port)
    }

    proptest! {
        #[test]
        fn a_translated_packet_equals_one_built_anew(
            kind in kinds(),
            v6 in any::<bool>(),
            payload in proptest::collection::vec(any::<u8>(), 0..100),
            (from, to) in (any::<u128>(), any::<u128>()),
            (sport, dport) in (any::<u16>(), any::<u16>()),
            (source, destination) in (any::<bool>(), any::<bool>()),
        ) {
            let mut bytes = build(kind, v6, &payload);
            let headers = Headers::parse(&bytes).unwrap();
            let translation = Translation {
                source: source.then_some(endpoint(v6, from, sport)),
                destination: destination.then_some(endpoint(v6, to, dport)),
            };
            let len = bytes.len();
            translate(&mut PacketBuf::new(&mut bytes, 0, len), &headers, translation);
            let after = Headers::parse(&bytes).unwrap();
            let expected = translation.source.unwrap_or(headers.source);
            prop_assert_eq!(after.source.addr, expected.addr);
            let wanted = translation.destination.unwrap_or(headers.destination);
            prop_assert_eq!(after.destination.addr, wanted.addr);
            prop_assert_eq!(after.ttl, headers.ttl - 1);
            prop_assert_eq!(after.source.port, expected.port);
            if !matches!(kind, Kind::Echo) {
                prop_assert_eq!(after.destination.port, wanted.port);
            }
            prop_assert_eq!(covered(&bytes), 0xffff);
        }

        #[test]
        fn an_unfinished_checksum_is_right_once_finished(
            udp in any::<bool>(),
            v6 in any::<bool>(),
            payload in proptest::collection::vec(any::<u8>(), 0..100),
            (to, port) in (any::<u128>(), any::<u16>()),
        ) {
            let mut bytes = build(if udp { Kind::Udp } else { Kind::Tcp }, v6, &payload);
            let headers = Headers::parse(&bytes).unwrap();
            let field = checksum_field(&headers).unwrap();
            let (source, target) = (headers.source.addr, headers.destination.addr);
            let pseudo =
                Sum::pseudo_header(source, target, headers.protocol, headers.transport_len());
            set_word(&mut bytes, field, pseudo.folded());
            let len = bytes.len();
            let mut packet = PacketBuf::new(&mut bytes, 0, len);
            packet.set_unfinished_checksum(headers.transport, (field - headers.transport) as u16);
            let destination = Some(endpoint(v6, to, port));
            translate(&mut packet, &headers, Translation { source: None, destination });
            let still_unfinished = matches!(packet.offload.checksum, Checksum::Unfinished { .. });
            prop_assert!(still_unfinished);
            // What a network card does: sum from the start, complement, store.
            let finished = Sum::of(&bytes[headers.transport..]).checksum();
            set_word(&mut bytes, field, finished);
            prop_assert_eq!(covered(&bytes), 0xffff);
        }

        #[test]
        fn a_missing_udp_checksum_becomes_a_right_one(
            payload in proptest::collection::vec(any::<u8>(), 0..100),
            (to, port) in (any::<u128>(), any::<u16>()),
        ) {
            let mut bytes = build(Kind::Udp, false, &payload);
            set_word(&mut bytes, 26, 0);
            let headers = Headers::parse(&bytes).unwrap();
            let destination = Some(endpoint(false, to, port));
            let len = bytes.len();
            let mut packet = PacketBuf::new(&mut bytes, 0, len);
            translate(&mut packet, &headers, Translation { source: None, destination });
            prop_assert_ne!(word(&bytes, 26), 0);
            prop_assert_eq!(covered(&bytes), 0xffff);
        }
    }

    #[test]
    fn a_wrong_checksum_stays_wrong_by_as_much() {
        let mut bytes = build(Kind::Tcp, false, b"abc");
        let wrong = word(&bytes, 36).wrapping_add(3);
        set_word(&mut bytes, 36, wrong);
        let headers = Headers::parse(&bytes).unwrap();
        let destination = Some(endpoint(false, 0x0a00_0001, 8080));
        let len = bytes.len();
        let mut packet = PacketBuf::new(&mut bytes, 0, len);
        translate(&mut packet, &headers, Translation { source: None, destination });
        assert_eq!(covered(&bytes), 3);
    }
}
