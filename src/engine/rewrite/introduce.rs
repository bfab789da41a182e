//! Telling a real server who its client is: a TCP option, or a header in front of the payload.

use arrayvec::ArrayVec;

use super::sequence::write_len;
use crate::packet::checksum::{Sum, updated, updated_unfinished};
use crate::packet::headers::{protocol, set_word, word};
use crate::packet::options::{self, Found, kind};
use crate::packet::{Endpoint, Family, Headers, PacketBuf};

/// Bytes that tell of a client.
pub type Telling = ArrayVec<u8, MOST_LEN>;

/// The longest of them, a PROXY header of IPv6.
const MOST_LEN: usize = 52;

/// The TCP option that says `client`.
///
/// **Shape** — kind, length, port and address, 8 bytes for IPv4 and 20 for IPv6. **Source** — the
/// TOA kernel module of LVS's full NAT, as kept by DPVS (`struct toa_data`, `struct toa_v6_data`).
pub fn address_option(client: Endpoint) -> Telling {
    let mut option = Telling::new();
    extend(&mut option, &[kind::ADDRESS, 0]);
    extend(&mut option, &client.port.to_be_bytes());
    push_addr(&mut option, client);
    option[1] = option.len() as u8;
    option
}

/// The PROXY header of a connection of `client` to `virtual_endpoint`.
///
/// **Source** — The PROXY protocol, versions 1 and 2, §2.2.
pub fn proxy_header(number: u8, client: Endpoint, virtual_endpoint: Endpoint) -> Telling {
    let family = match client.addr.family() {
        Family::V4 => 0x10,
        Family::V6 => 0x20,
    };
    let transport = if number == protocol::UDP { 2 } else { 1 };
    let mut header = Telling::new();
    extend(&mut header, &SIGNATURE);
    extend(&mut header, &[VERSION_2_PROXY, family | transport, 0, 0]);
    push_addr(&mut header, client);
    push_addr(&mut header, virtual_endpoint);
    extend(&mut header, &client.port.to_be_bytes());
    extend(&mut header, &virtual_endpoint.port.to_be_bytes());
    let len = (header.len() - FIXED_LEN) as u16;
    set_word(&mut header, FIXED_LEN - 2, len);
    header
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_2_PROXY: u8 = 0x21;
/// Bytes of a PROXY header before its addresses.
const FIXED_LEN: usize = 16;

fn push_addr(to: &mut Telling, endpoint: Endpoint) {
    match endpoint.addr.family() {
        Family::V4 => extend(to, &endpoint.addr.v4_bits().to_be_bytes()),
        Family::V6 => extend(to, &endpoint.addr.bits().to_be_bytes()),
    }
}

fn extend(to: &mut Telling, bytes: &[u8]) {
    to.try_extend_from_slice(bytes).expect("there is room for the longest");
}

/// Puts an option in front of a TCP segment's others; `false` and unchanged if the header, the
/// packet or its memory has no room for it.
pub fn insert_option(packet: &mut PacketBuf<'_>, headers: &Headers, option: &[u8]) -> bool {
    let Some(len) = options::header_len(&packet.bytes()[headers.transport..]) else { return false };
    let longer = len + option.len();
    let at = headers.transport + options::FIXED_LEN;
    if longer > options::MOST_LEN || !insert(packet, headers, at, option) {
        return false;
    }
    let flags_at = headers.transport + 12;
    let bytes = packet.bytes_mut();
    let old = word(bytes, flags_at);
    bytes[flags_at] = (bytes[flags_at] & 0x0f) | (longer * 4) as u8;
    let change = Sum::default().minus_word(old).plus_word(word(bytes, flags_at));
    mend(packet, headers, change);
    let segmentation = &mut packet.offload.segmentation;
    segmentation.header_len_bytes =
        segmentation.header_len_bytes.saturating_add(option.len() as u16);
    true
}

/// Puts bytes into a TCP segment or UDP datagram, in front of its payload or its options; `false`
/// and unchanged if the packet or its memory has no room.
///
/// **Panics** if `at` is an odd number of bytes after the transport header's start, or outside.
pub fn insert(packet: &mut PacketBuf<'_>, headers: &Headers, at: usize, new: &[u8]) -> bool {
    assert!((at - headers.transport).is_multiple_of(2) && new.len().is_multiple_of(2));
    let len = headers.len + new.len();
    if len > usize::from(u16::MAX) {
        return false;
    }
    let Some(room) = packet.insert(at, new.len()) else { return false };
    room.copy_from_slice(new);
    write_len(packet.bytes_mut(), &Headers { len, ..*headers });
    let grown = Sum::default().plus_word(new.len() as u16);
    let mut change = Sum::of(new);
    if headers.protocol == protocol::UDP {
        let at = headers.transport + 4;
        let old = word(packet.bytes(), at);
        set_word(packet.bytes_mut(), at, old.wrapping_add(new.len() as u16));
        change = change.plus(grown);
    }
    // The pseudo-header has the length as well.
    mend_pseudo(packet, headers, grown);
    mend(packet, headers, change);
    true
}

/// Makes options of a TCP segment mean nothing.
pub fn blank_options(packet: &mut PacketBuf<'_>, headers: &Headers, kinds: &[u8]) {
    for kind in kinds {
        let segment = &mut packet.bytes_mut()[headers.transport..];
        let Some(Found { at, len, .. }) = options::find(segment, *kind) else { continue };
        let (first, last) = (at & !1, (at + len).next_multiple_of(2));
        let old = Sum::of(&segment[first..last]);
        segment[at..at + len].fill(kind::NOTHING);
        let change = old.negated().plus(Sum::of(&segment[first..last]));
        mend(packet, headers, change);
    }
}

/// Lowers the largest segment that a SYN allows, by `bytes`.
///
/// **Source** — RFC 6691 §2: the sender of segments allows for options itself.
pub fn lower_largest_segment(packet: &mut PacketBuf<'_>, headers: &Headers, bytes: u16) {
    let segment = &mut packet.bytes_mut()[headers.transport..];
    let found = options::find(segment, kind::LARGEST_SEGMENT);
    let Some(at) = found.filter(|found| found.len == 4).map(|found| found.at + 2) else { return };
    let old = u16::from_be_bytes([segment[at], segment[at + 1]]);
    if old <= LEAST_SEGMENT {
        return;
    }
    let (first, last) = (at & !1, (at + 2).next_multiple_of(2));
    let before = Sum::of(&segment[first..last]);
    let new = old.saturating_sub(bytes).max(LEAST_SEGMENT);
    segment[at..at + 2].copy_from_slice(&new.to_be_bytes());
    let change = before.negated().plus(Sum::of(&segment[first..last]));
    mend(packet, headers, change);
}

/// Segments are not made smaller than that. **Source** — Linux `TCP_MIN_MSS`.
const LEAST_SEGMENT: u16 = 88;

/// Carries a change of what a transport checksum covers along. What is still to be summed up will
/// cover it.
fn mend(packet: &mut PacketBuf<'_>, headers: &Headers, change: Sum) {
    let Some(at) = checksum_at(headers) else { return };
    if packet.unfinished_checksum().is_none() {
        let checksum = updated(word(packet.bytes(), at), change);
        write_checksum(packet.bytes_mut(), headers, at, checksum);
    }
}

/// The same for a change of the pseudo-header, which an unfinished checksum covers already.
fn mend_pseudo(packet: &mut PacketBuf<'_>, headers: &Headers, change: Sum) {
    let Some(at) = checksum_at(headers) else { return };
    let old = word(packet.bytes(), at);
    match packet.unfinished_checksum() {
        Some(_) => set_word(packet.bytes_mut(), at, updated_unfinished(old, change)),
        None => write_checksum(packet.bytes_mut(), headers, at, updated(old, change)),
    }
}

/// **Source** — RFC 768: zero would mean that there is none.
fn write_checksum(bytes: &mut [u8], headers: &Headers, at: usize, checksum: u16) {
    let udp_zero = headers.protocol == protocol::UDP && checksum == 0;
    set_word(bytes, at, if udp_zero { 0xffff } else { checksum });
}

fn checksum_at(headers: &Headers) -> Option<usize> {
    match headers.protocol {
        protocol::TCP => Some(headers.transport + 16),
        protocol::UDP => Some(headers.transport + 6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Addr;
    use etherparse::{PacketBuilder, TcpOptionElement};
    use proptest::prelude::*;

    const CLIENT: Endpoint = Endpoint::new(Addr::v4(0x0c00_000c), 0x1234);
    const VIRTUAL: Endpoint = Endpoint::new(Addr::v4(0x0c00_0001), 80);

    #[test]
    fn the_option_is_that_of_the_module() {
        assert_eq!(address_option(CLIENT)[..], [254, 8, 0x12, 0x34, 12, 0, 0, 12]);
        let v6 = Endpoint::new(Addr::v6(0x2001_0db8 << 96 | 9), 1);
        let option = address_option(v6);
        assert_eq!((option.len(), &option[..6]), (20, &[254, 20, 0, 1, 0x20, 1][..]));
    }

    #[test]
    fn the_header_is_that_of_the_specification() {
        let header = proxy_header(protocol::TCP, CLIENT, VIRTUAL);
        assert_eq!(
            header[..12],
            [0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a]
        );
        assert_eq!(header[12..16], [0x21, 0x11, 0, 12]);
        assert_eq!(header[16..], [12, 0, 0, 12, 12, 0, 0, 1, 0x12, 0x34, 0, 80]);
        assert_eq!(proxy_header(protocol::UDP, CLIENT, VIRTUAL)[13], 0x12);
        let v6 = Endpoint::new(Addr::v6(0x2001_0db8 << 96 | 9), 1);
        let header = proxy_header(protocol::UDP, v6, v6);
        assert_eq!((header.len(), &header[13..16]), (52, &[0x22, 0, 36][..]));
    }

    fn build(udp: bool, v6: bool, options: &[TcpOptionElement], payload: &[u8]) -> Vec<u8> {
        let ip = match v6 {
            false => PacketBuilder::ipv4([192, 0, 2, 9], [192, 0, 2, 1], 64),
            true => PacketBuilder::ipv6([0x20; 16], [0x21; 16], 64),
        };
        let mut bytes = vec![0xa5; 64];
        match udp {
            true => ip.udp(1000, 80).write(&mut bytes, payload),
            false => ip.tcp(1000, 80, 5, 9).options(options).unwrap().write(&mut bytes, payload),
        }
        .unwrap();
        bytes
    }

    /// The sum over everything the transport checksum covers: 0xffff if it is right.
    fn covered(bytes: &[u8]) -> u16 {
        let headers = Headers::parse(bytes).unwrap();
        let (from, to) = (headers.source.addr, headers.destination.addr);
        let transport = &bytes[headers.transport..headers.len];
        let pseudo = Sum::pseudo_header(from, to, headers.protocol, transport.len());
        pseudo.plus(Sum::of(transport)).folded()
    }

    proptest! {
        #[test]
        fn what_is_put_in_equals_what_is_built_anew(
            (udp, v6, unfinished) in (any::<bool>(), any::<bool>(), any::<bool>()),
            payload in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let telling = proxy_header(if udp { protocol::UDP } else { protocol::TCP }, CLIENT, VIRTUAL);
            let mut storage = build(udp, v6, &[], &payload);
            let headers = Headers::parse(&storage[64..]).unwrap();
            let field = headers.transport + if udp { 6 } else { 16 };
            if unfinished {
                let (from, to) = (headers.source.addr, headers.destination.addr);
                let len = headers.transport_len();
                let pseudo = Sum::pseudo_header(from, to, headers.protocol, len);
                set_word(&mut storage[64..], field, pseudo.folded());
            }
            let end = storage.len();
            let mut packet = PacketBuf::new(&mut storage, 64, end);
            if unfinished {
                packet.set_unfinished_checksum(headers.transport, (field - headers.transport) as u16);
            }
            let at = headers.transport + if udp { 8 } else { 20 };
            prop_assert!(insert(&mut packet, &headers, at, &telling));
            if unfinished {
                prop_assert_eq!(packet.unfinished_checksum(), Some((headers.transport, field)));
                let sum = Sum::of(&packet.bytes()[headers.transport..]).checksum();
                set_word(packet.bytes_mut(), field, sum);
            }
            prop_assert_eq!(covered(packet.bytes()), 0xffff);
            let expected = build(udp, v6, &[], &[&telling[..], &payload].concat());
            let skip = field..field + 2;
            let differs = |(at, (a, b)): (usize, (&u8, &u8))| !skip.contains(&at) && a != b;
            prop_assert!(!packet.bytes().iter().zip(&expected[64..]).enumerate().any(differs));
            prop_assert_eq!(packet.len(), expected.len() - 64);
        }

        #[test]
        fn an_option_is_put_in_if_there_is_room(
            words in 0usize..11,
            payload in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let others = vec![TcpOptionElement::Noop; words * 4];
            let mut storage = build(false, false, &others, &payload);
            let before = storage[64..].to_vec();
            let headers = Headers::parse(&before).unwrap();
            let end = storage.len();
            let mut packet = PacketBuf::new(&mut storage, 64, end);
            let inserted = insert_option(&mut packet, &headers, &address_option(CLIENT));
            prop_assert_eq!(inserted, words <= 8);
            if !inserted {
                prop_assert_eq!(packet.bytes(), &before[..]);
                return Ok(());
            }
            prop_assert_eq!(covered(packet.bytes()), 0xffff);
            let segment = &packet.bytes()[20..];
            let found = options::find(segment, kind::ADDRESS);
            prop_assert_eq!(found, Some(Found { kind: 254, at: 20, len: 8 }));
            prop_assert!(packet.bytes().ends_with(&payload));
        }

        #[test]
        fn blanked_and_lowered_options_leave_right_checksums(padding in 0usize..3, mss in any::<u16>()) {
            use TcpOptionElement::{MaximumSegmentSize, Noop, Timestamp};
            let mut all = vec![Noop; padding];
            all.extend([Timestamp(7, 8), Noop, MaximumSegmentSize(mss), Noop, Noop]);
            let mut storage = build(false, true, &all, b"abc");
            let headers = Headers::parse(&storage[64..]).unwrap();
            let end = storage.len();
            let mut packet = PacketBuf::new(&mut storage, 64, end);
            blank_options(&mut packet, &headers, &[kind::TIMESTAMPS, kind::FAST_OPEN]);
            lower_largest_segment(&mut packet, &headers, 20);
            prop_assert_eq!(covered(packet.bytes()), 0xffff);
            let segment = &packet.bytes()[40..];
            prop_assert_eq!(options::find(segment, kind::TIMESTAMPS), None);
            let found = options::find(segment, kind::LARGEST_SEGMENT).unwrap();
            let lowered = if mss <= 88 { mss } else { mss.saturating_sub(20).max(88) };
            prop_assert_eq!(u16::from_be_bytes([segment[found.at + 2], segment[found.at + 3]]), lowered);
        }
    }
}
