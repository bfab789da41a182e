//! Addresses, ports and numbers as ipvsadm reads them.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::names::Names;
use crate::engine::service::Protocol;
use crate::packet::{Addr, Family};

/// Reads `host[:port]`. The host is an IPv4 address in any of inet_aton's forms, an IPv6 address
/// (in brackets if a port follows) or a name of an IPv4 host; the port a number or the name of a
/// service of `protocol`.
pub fn endpoint(
    text: &str,
    protocol: Option<Protocol>,
    names: &mut dyn Names,
) -> Option<(Addr, Option<u16>)> {
    if let Some(inner) = text.strip_prefix('[') {
        let (host, rest) = inner.split_once(']')?;
        let port = rest.strip_prefix(':')?;
        return match host.parse::<Ipv6Addr>() {
            Ok(addr) => Some((ipv6(addr)?, Some(self::port(port, protocol, names)?))),
            // What is in brackets is no IPv6 address: the port is forgotten, as by ipvsadm.
            Err(_) => unbracketed(host, protocol, names),
        };
    }
    // ipvsadm takes a plain number for a port without an address.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { None } else { unbracketed(text, protocol, names) }
}

fn unbracketed(
    text: &str,
    protocol: Option<Protocol>,
    names: &mut dyn Names,
) -> Option<(Addr, Option<u16>)> {
    if let Ok(addr) = text.parse::<Ipv6Addr>() {
        return Some((ipv6(addr)?, None));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(self::port(port, protocol, names)?)),
        None => (text, None),
    };
    let addr = inet_aton(host).or_else(|| names.address(host))?;
    Some((addr.into(), port))
}

fn ipv6(addr: Ipv6Addr) -> Option<Addr> {
    Some(Addr::from(addr)).filter(|addr| addr.family() == Family::V6)
}

fn port(text: &str, protocol: Option<Protocol>, names: &mut dyn Names) -> Option<u16> {
    match number(text, 0, u64::from(u16::MAX)) {
        Some(number) => u16::try_from(number).ok(),
        None => names.port(text, protocol?),
    }
}

/// Reads a decimal number between `least` and `most`, with leading spaces and a sign as strtol
/// takes them.
pub fn number(text: &str, least: u64, most: u64) -> Option<u64> {
    let text = text.trim_start_matches(|letter: char| letter.is_ascii_whitespace());
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = digits.parse().ok().filter(|number| (least..=most).contains(number));
    // No number below zero is ever wanted.
    number.filter(|number| *number == 0 || !text.starts_with('-'))
}

/// Reads the decimal number that `text` begins with, as atoi does; `None` if there is none.
pub fn leading_number(text: &str) -> Option<u32> {
    let text = text.trim_start_matches(|letter: char| letter.is_ascii_whitespace());
    let digits = text.strip_prefix('+').unwrap_or(text);
    let end = digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// Reads an IPv4 address as inet_aton does: one to four numbers, decimal, octal (`0…`) or
/// hexadecimal (`0x…`), the last one filling the bytes that are left.
///
/// **Source** — inet_aton(3); anything may follow a space, as in the GNU C library.
pub fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let end = text.find(|letter: char| letter.is_ascii_whitespace()).unwrap_or(text.len());
    let parts = text[..end].split('.').map(inet_number).collect::<Option<Vec<u32>>>()?;
    let (last, bytes) = parts.split_last()?;
    let left = 4_usize.checked_sub(bytes.len())?;
    if left == 0 || bytes.iter().any(|byte| *byte > 0xff) {
        return None;
    }
    if left < 4 && *last >= 1 << (8 * left) {
        return None;
    }
    let high = bytes.iter().zip([24, 16, 8]).map(|(byte, shift)| byte << shift);
    Some(Ipv4Addr::from_bits(high.fold(*last, |bits, byte| bits | byte)))
}

fn inet_number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    if digits.starts_with('+') {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ipvsadm::names::NoNames;

    fn read(text: &str) -> Option<(String, Option<u16>)> {
        let (addr, port) = endpoint(text, Some(Protocol::Tcp), &mut NoNames)?;
        Some((addr.to_string(), port))
    }

    fn found(addr: &str, port: Option<u16>) -> Option<(String, Option<u16>)> {
        Some((addr.into(), port))
    }

    #[test]
    fn addresses_are_read_as_inet_aton_reads_them() {
        assert_eq!(read("12.0.0.1:080"), found("12.0.0.1", Some(80)));
        assert_eq!(read("12:80"), found("0.0.0.12", Some(80)));
        assert_eq!(read("12.1:80"), found("12.0.0.1", Some(80)));
        assert_eq!(read("0x0c.0.0.3:80"), found("12.0.0.3", Some(80)));
        assert_eq!(read("201326596:80"), found("12.0.0.4", Some(80)));
        assert_eq!(read("012.0.0.1:80"), found("10.0.0.1", Some(80)));
        assert_eq!(read("12.0.0.9 x:87"), found("12.0.0.9", Some(87)));
        assert_eq!(read("12.0.0.1: 86"), found("12.0.0.1", Some(86)));
        assert_eq!(read("12.0.0.1:+83"), found("12.0.0.1", Some(83)));
        assert_eq!(read("12.0.0.1:-0"), found("12.0.0.1", Some(0)));
        assert_eq!(read("12.65536"), found("12.1.0.0", None));
    }

    #[test]
    fn brackets_are_for_ipv6_with_a_port() {
        assert_eq!(read("2001:db8::1"), found("2001:db8::1", None));
        assert_eq!(read("[2001:db8::1]:80"), found("2001:db8::1", Some(80)));
        assert_eq!(read("[12.0.0.1]:82"), found("12.0.0.1", None));
        assert_eq!(read("[100]:80"), found("0.0.0.100", None));
        for illegal in ["[2001:db8::1]", "[2001:db8::1]80", "[2001:db8::1", "[2001:db8::1]:"] {
            assert_eq!(read(illegal), None, "{illegal}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let illegal = [
            "",
            ":80",
            "100",
            "201326593",
            "12.0.0.1:",
            "12.0.0.300:80",
            "12.0.0.1:99999",
            "12.0.0.1:-1",
            "12.0.0.1.:85",
            "12.0.0.1:0x51",
            "12.0.0.1.5:85",
            "12.0.0.1:80:80",
            "[fe80::1%eth0]:80",
            " 12.0.0.1:80",
            "4294967296:80",
            "12.0.0.09:80",
            "0x:80",
            "[",
            "[]:80",
        ];
        for text in illegal {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
