//! Commands and answers that name an address.

use std::net::IpAddr;
use std::ops::Range;

use crate::packet::{Addr, Endpoint, Family};

/// What a client asked for that the server is to answer with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// PASV, answered by 227.
    Passive,
    /// EPSV, answered by 229.
    ExtendedPassive,
}

/// An address in a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// What is named.
    pub endpoint: Endpoint,
    /// The bytes that name it.
    pub range: Range<usize>,
    style: Style,
}

/// How an address is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// `h1,h2,h3,h4,p1,p2`.
    Numbers,
    /// `|||port|`.
    PortOnly,
}

impl Mention {
    /// How `endpoint` is written in its place.
    pub fn written(&self, endpoint: Endpoint) -> String {
        let Endpoint { addr, port } = endpoint;
        match (self.style, IpAddr::from(addr)) {
            (Style::Numbers, IpAddr::V4(addr)) => {
                let [a, b, c, d] = addr.octets();
                format!("{a},{b},{c},{d},{},{}", port >> 8, port & 0xff)
            }
            (Style::PortOnly, _) => format!("|||{port}|"),
            // There is no such way to name an IPv6 address, nor a 227 answer that gets here.
            (Style::Numbers, IpAddr::V6(_)) => String::new(),
        }
    }
}

/// Whether a client's payload begins with PASV or EPSV.
pub fn request(payload: &[u8]) -> Option<Mode> {
    match payload.first_chunk::<6>()?.to_ascii_uppercase().as_slice() {
        b"PASV\r\n" => Some(Mode::Passive),
        b"EPSV\r\n" => Some(Mode::ExtendedPassive),
        _ => None,
    }
}

/// The address that a client names by PORT or EPRT.
pub fn active(payload: &[u8], family: Family) -> Option<Endpoint> {
    let port = || {
        let rest = after_word(payload, b"PORT")?;
        let at = skip_to_value(payload, rest, b' ', true)?;
        Some(numbers(payload, at)?.endpoint)
    };
    let extended = || {
        let rest = after_word(payload, b"EPRT")?;
        let at = skip_to_value(payload, rest, b' ', false)?;
        Some(bars(payload, at, family)?.0)
    };
    port().filter(|_| family == Family::V4).or_else(extended)
}

/// The address that a server names in its answer to a request of `mode`; `server` is the server's
/// own, which the answer to EPSV leaves out.
pub fn passive(payload: &[u8], mode: Mode, server: Addr) -> Option<Mention> {
    match mode {
        Mode::Passive if server.family() == Family::V4 => {
            let rest = after_word(payload, b"227 ")?;
            numbers(payload, skip_to_value(payload, rest, b'(', true)?)
        }
        Mode::Passive => None,
        Mode::ExtendedPassive => {
            let rest = after_word(payload, b"229 ")?;
            let at = skip_to_value(payload, rest, b'(', false)?;
            let found = port_between_bars(payload, at, server);
            let (endpoint, end) = found.or_else(|| bars(payload, at, server.family()))?;
            Some(Mention { endpoint, range: at..end, style: Style::PortOnly })
        }
    }
}

fn after_word(payload: &[u8], word: &[u8]) -> Option<usize> {
    payload.get(..word.len())?.eq_ignore_ascii_case(word).then_some(word.len())
}

/// Where the value begins: behind all `skip` after `from`, or at the first digit if that may come
/// without one.
fn skip_to_value(payload: &[u8], from: usize, skip: u8, digit_suffices: bool) -> Option<usize> {
    let mut found = false;
    for (at, byte) in payload.iter().enumerate().skip(from) {
        match byte {
            byte if *byte == skip => found = true,
            _ if found => return Some(at),
            byte if digit_suffices && byte.is_ascii_digit() => return Some(at),
            _ => {}
        }
    }
    None
}

/// Reads `h1,h2,h3,h4,p1,p2`, which something must follow. Numbers beyond 255 wrap around, as they
/// do in IPVS.
fn numbers(payload: &[u8], start: usize) -> Option<Mention> {
    let (mut values, mut index, mut at) = ([0u8; 6], 0, start);
    loop {
        match *payload.get(at)? {
            digit @ b'0'..=b'9' => {
                let value: &mut u8 = &mut values[index];
                *value = value.wrapping_mul(10).wrapping_add(digit - b'0');
            }
            b',' if index < 5 => index += 1,
            _ => break,
        }
        at += 1;
    }
    let [a, b, c, d, high, low] = values;
    let addr = Addr::v4(u32::from_be_bytes([a, b, c, d]));
    let endpoint = Endpoint::new(addr, u16::from_be_bytes([high, low]));
    (index == 5).then_some(Mention { endpoint, range: start..at, style: Style::Numbers })
}

/// Reads `|||port|`, whose address is left out, and where it ends. Any printable character may be
/// the bar.
fn port_between_bars(payload: &[u8], start: usize, server: Addr) -> Option<(Endpoint, usize)> {
    let bar = bar(payload, start)?;
    if !payload[start..].starts_with(&[bar; 3]) {
        return None;
    }
    let (port, end) = port(payload, start + 3, bar)?;
    Some((Endpoint::new(server, port), end))
}

/// Reads `|1|address|port|`, or with 2 for IPv6, and where it ends.
fn bars(payload: &[u8], start: usize, family: Family) -> Option<(Endpoint, usize)> {
    let bar = bar(payload, start)?;
    let number = match family {
        Family::V4 => b'1',
        Family::V6 => b'2',
    };
    if !payload[start..].starts_with(&[bar, number, bar]) {
        return None;
    }
    let rest = &payload[start + 3..];
    let len = rest.iter().position(|byte| *byte == bar)?;
    let addr: IpAddr = std::str::from_utf8(&rest[..len]).ok()?.parse().ok()?;
    let addr = Addr::from(addr);
    let (port, end) = port(payload, start + 3 + len + 1, bar)?;
    (addr.family() == family).then_some((Endpoint::new(addr, port), end))
}

fn bar(payload: &[u8], at: usize) -> Option<u8> {
    payload.get(at).copied().filter(u8::is_ascii_graphic)
}

/// A port with a bar behind it, and where that ends.
fn port(payload: &[u8], start: usize, bar: u8) -> Option<(u16, usize)> {
    let digits = payload.get(start..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let text = std::str::from_utf8(&payload[start..start + digits]).ok()?;
    let port = text.parse().ok().filter(|port| *port != 0)?;
    let end = start + digits;
    (payload.get(end) == Some(&bar)).then_some((port, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SERVER: Addr = Addr::v4(0xc0a8_c86e);

    fn named_by(command: &str) -> Option<String> {
        active(command.as_bytes(), Family::V4).map(|endpoint| endpoint.to_string())
    }

    #[test]
    fn commands_of_active_mode_are_read_as_ip_vs_ftp_reads_them() {
        let recorded = [
            ("PORT 12,0,0,2,8,1\r\n", Some("12.0.0.2:2049")),
            ("port 12,0,0,2,8,4\r\n", Some("12.0.0.2:2052")),
            ("PORT 12,0,0,2,8,300\r\n", Some("12.0.0.2:2092")),
            ("PORT 12,0,0,2,8,7\n", Some("12.0.0.2:2055")),
            ("PORT12,0,0,2,8,8\r\n", Some("12.0.0.2:2056")),
            ("PORT 12,0,0,2,8,6", None),
            ("PORT 12.0.0.2.8.9\r\n", None),
            ("NOOP\r\nPORT 12,0,0,2,8,5\r\n", None),
            ("EPRT |1|12.0.0.2|2049|\r\n", Some("12.0.0.2:2049")),
            ("eprt |1|12.0.0.2|2061|\r\n", Some("12.0.0.2:2061")),
            ("EPRT !1!12.0.0.2!2060!\r\n", Some("12.0.0.2:2060")),
            ("EPRT |2|12.0.0.2|2062|\r\n", None),
            ("EPRT |1|12.0.0.2|2063\r\n", None),
        ];
        for (command, endpoint) in recorded {
            assert_eq!(named_by(command).as_deref(), endpoint, "{command:?}");
        }
        let six = active(b"EPRT |2|2001:db8::2|2049|\r\n", Family::V6).unwrap();
        assert_eq!(six.to_string(), "[2001:db8::2]:2049");
    }

    #[test]
    fn answers_of_passive_mode_are_read_and_written() {
        let answer = b"227 Entering Passive Mode (192,168,200,110,4,1).\r\n";
        let mention = passive(answer, Mode::Passive, SERVER).unwrap();
        assert_eq!(mention.endpoint, Endpoint::new(SERVER, 1025));
        assert_eq!(&answer[mention.range.clone()], b"192,168,200,110,4,1");
        let virtual_endpoint = Endpoint::new(Addr::v4(0x0c00_0001), 1025);
        assert_eq!(mention.written(virtual_endpoint), "12,0,0,1,4,1");
        let answer = b"229 Entering Extended Passive Mode (|||1025|)\r\n";
        let mention = passive(answer, Mode::ExtendedPassive, SERVER).unwrap();
        assert_eq!(mention.endpoint, Endpoint::new(SERVER, 1025));
        assert_eq!(mention.written(virtual_endpoint).as_bytes(), &answer[mention.range]);
    }

    #[test]
    fn requests_are_told_apart() {
        assert_eq!(request(b"PASV\r\n"), Some(Mode::Passive));
        assert_eq!(request(b"epsv\r\nLIST\r\n"), Some(Mode::ExtendedPassive));
        assert_eq!(request(b"EPSV ALL\r\n"), None);
    }

    proptest! {
        #[test]
        fn no_payload_panics(
            word in prop_oneof![
                Just("PORT "), Just("EPRT |1|"), Just("227 ("), Just("229 (|||"), Just("EPRT |2|"),
            ],
            rest in proptest::collection::vec(
                prop_oneof![any::<u8>(), Just(b','), Just(b'|'), b'0'..=b'9'], 0..40),
        ) {
            let payload = [word.as_bytes(), &rest].concat();
            for family in [Family::V4, Family::V6] {
                let _ = active(&payload, family);
            }
            for mode in [Mode::Passive, Mode::ExtendedPassive] {
                if let Some(mention) = passive(&payload, mode, SERVER) {
                    prop_assert!(mention.range.end <= payload.len());
                }
            }
            let _ = request(&payload);
        }
    }
}
