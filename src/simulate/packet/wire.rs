//! Checksums and codecs that building and dissecting share.

use std::net::IpAddr;

/// The Internet checksum of `data`: 0 if it includes a right one.
///
/// **Source** — RFC 1071.
pub fn internet_checksum(data: &[u8]) -> u16 {
    let words = data
        .chunks(2)
        .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let mut sum: u64 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The bytes of an address in network order.
pub fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// What a transport checksum covers besides the transport bytes.
///
/// **Source** — RFC 9293 §3.1, RFC 8200 §8.1.
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let mut header = [octets(src), octets(dst)].concat();
    if src.is_ipv6() {
        header.extend((len as u32).to_be_bytes());
        header.extend(u32::from(protocol).to_be_bytes());
    } else {
        header.extend(u16::from(protocol).to_be_bytes());
        header.extend((len as u16).to_be_bytes());
    }
    header
}

/// Lower-case hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that hexadecimal digits stand for.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Text with everything encoded that could be taken for part of the notation.
pub fn percent_encode(bytes: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-~!$&'()*+,/:;=?@[]".contains(byte);
    bytes
        .iter()
        .map(
            |byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") },
        )
        .collect()
}

/// The bytes of percent-encoded text; a `%` without two digits stands for itself.
pub fn percent_decode(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, tail)) = rest.split_first() {
        let code = (first == b'%').then(|| tail.get(..2)).flatten();
        let decoded = code.and_then(|code| from_hex(std::str::from_utf8(code).ok()?));
        match decoded {
            Some(decoded) => {
                bytes.extend(decoded);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_match_published_vectors() {
        // RFC 1071 §3.
        assert_eq!(internet_checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn percent_coding_round_trips_and_tolerates_stray_signs() {
        let bytes = b"PORT 12,0,0,2,8,1\r\n100%";
        assert_eq!(percent_decode(&percent_encode(bytes)), bytes);
        assert_eq!(percent_decode("5% of %zz%4"), b"5% of %zz%4");
    }
}
