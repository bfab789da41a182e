//! The checksum of SCTP: a CRC32c over the packet from its common header on.
//!
//! **Source** — RFC 9260 §6.8 and appendix A. Unlike the Internet checksum it covers no
//! pseudo-header, and cannot be updated by difference in a way that pays.

/// Bytes of the common header.
pub const COMMON_HEADER_LEN: usize = 12;

/// Where the checksum stands.
const FIELD: std::ops::Range<usize> = 8..12;

/// Writes the checksum of the packet in `sctp`, its common header on.
///
/// **Panics** if it is shorter than the common header; callers have checked the length.
pub fn write_checksum(sctp: &mut [u8]) {
    sctp[FIELD].fill(0);
    let checksum = crc32c::crc32c(sctp);
    sctp[FIELD].copy_from_slice(&checksum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis_in_little_endian_order() {
        // The check value of CRC-32C, of the ASCII digits 1 to 9, is 0xe3069283.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        let mut packet = [0u8; COMMON_HEADER_LEN + 4];
        packet[FIELD].fill(0xa5);
        write_checksum(&mut packet);
        let field = packet[FIELD].to_vec();
        packet[FIELD].fill(0);
        assert_eq!(field, crc32c::crc32c(&packet).to_le_bytes());
    }
}
