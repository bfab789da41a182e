//! Who the client is, if a PROXY header says so.

use std::net::SocketAddr;

use ppp::v2::{Addresses, Header, PROTOCOL_PREFIX, ParseError};

/// What a connection begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Bytes that may become a header.
    Partial,
    /// Something else.
    Nothing,
    /// A header of that many bytes, and the client, if it names one.
    Client(Option<SocketAddr>, usize),
}

/// Looks for a PROXY header, version 2.
///
/// **Source** — The PROXY protocol, versions 1 and 2, §2.2.
pub(super) fn parse(bytes: &[u8]) -> Told {
    let common = bytes.len().min(PROTOCOL_PREFIX.len());
    if bytes[..common] != PROTOCOL_PREFIX[..common] {
        return Told::Nothing;
    }
    match Header::try_from(bytes) {
        Ok(header) => Told::Client(client(&header.addresses), header.len()),
        Err(ParseError::Incomplete(_) | ParseError::Partial(..)) => Told::Partial,
        Err(_) => Told::Nothing,
    }
}

fn client(addresses: &Addresses) -> Option<SocketAddr> {
    match addresses {
        Addresses::IPv4(ends) => Some((ends.source_address, ends.source_port).into()),
        Addresses::IPv6(ends) => Some((ends.source_address, ends.source_port).into()),
        Addresses::Unspecified | Addresses::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the specification's example of a structure, for 12.0.0.12:4660 to 12.0.0.1:80.
    const HEADER: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0c\0\0\x0c\x0c\0\0\x01\x12\x34\0\x50";

    #[test]
    fn a_header_tells_who_the_client_is_once_it_is_whole() {
        let client = Some(([12, 0, 0, 12], 4660).into());
        for len in 1..HEADER.len() {
            assert_eq!(parse(&HEADER[..len]), Told::Partial, "{len} bytes");
        }
        let request = [HEADER, b"GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(parse(&request), Told::Client(client, HEADER.len()));
    }

    #[test]
    fn what_is_no_header_is_left_to_others() {
        assert_eq!(parse(b"GET / HTTP/1.1\r\n\r\n"), Told::Nothing);
        assert_eq!(parse(b"\r\nGET / HTTP/1.1\r\n\r\n"), Told::Nothing);
        for at in 12..16 {
            let mut damaged = HEADER.to_vec();
            damaged[at] = 0xff;
            // The length says that there is more to come; nothing else does.
            let wanted = if at >= 14 { Told::Partial } else { Told::Nothing };
            assert_eq!(parse(&damaged), wanted, "byte {at}");
        }
    }
}
