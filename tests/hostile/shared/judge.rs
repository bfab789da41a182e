//! What a packet that leaves has to be like, read apart from the library's own code.

use super::build::{ICMP, ICMP6, SCTP, TCP, UDP, checksum, crc32c, pseudo_header};

/// What the headers of a whole IP packet say.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub is_v4: bool,
    pub protocol: u8,
    pub transport: usize,
    pub is_fragment: bool,
}

/// The length that an IP header says.
pub fn total_len(packet: &[u8]) -> Option<usize> {
    let word =
        |at: usize| Some(usize::from(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?])));
    match packet.first()? >> 4 {
        4 => word(2),
        6 => Some(40 + word(4)?),
        _ => None,
    }
}

/// Reads an IP packet that has to be exactly as long as its header says.
pub fn see(packet: &[u8]) -> Result<Seen, String> {
    let len = total_len(packet).ok_or("no IP header")?;
    if len != packet.len() {
        return Err(format!("{} bytes, but its header says {len}", packet.len()));
    }
    if packet[0] >> 4 == 4 { see_v4(packet) } else { see_v6(packet) }
}

fn see_v4(packet: &[u8]) -> Result<Seen, String> {
    let header_len = usize::from(packet[0] & 15) * 4;
    if header_len < 20 || header_len > packet.len() {
        return Err(format!("a header of {header_len} bytes"));
    }
    if checksum(&[&packet[..header_len]]) != 0 {
        return Err("the checksum of its header is wrong".into());
    }
    let is_fragment = packet[6] & 0x3f != 0 || packet[7] != 0;
    let protocol = packet[9];
    Ok(Seen { is_v4: true, protocol, transport: header_len, is_fragment })
}

fn see_v6(packet: &[u8]) -> Result<Seen, String> {
    if packet.len() < 40 {
        return Err("half a header".into());
    }
    let mut seen = Seen { is_v4: false, protocol: packet[6], transport: 40, is_fragment: false };
    loop {
        let rest = packet.get(seen.transport..).ok_or("an extension header leads outside")?;
        let len = match (seen.protocol, rest) {
            (0 | 43 | 60 | 135, [_, len, ..]) => 8 + 8 * usize::from(*len),
            (51, [_, len, ..]) => 8 + 4 * usize::from(*len),
            (44, [_, _, high, low, ..]) => {
                seen.is_fragment |= *high != 0 || low & 0xf9 != 0;
                8
            }
            (0 | 43 | 44 | 51 | 60 | 135, _) => return Err("half an extension header".into()),
            _ => return Ok(seen),
        };
        if rest.len() < len {
            return Err("an extension header leads outside".into());
        }
        seen.protocol = rest[0];
        seen.transport += len;
        if seen.is_fragment {
            return Ok(seen);
        }
    }
}

/// Whether the transport checksum is right; `None` if there is none to be looked at.
pub fn checksum_is_right(packet: &[u8], seen: Seen) -> Option<bool> {
    let Seen { protocol, transport, is_v4, .. } = seen;
    if seen.is_fragment {
        return None;
    }
    let covered = packet.get(transport..)?;
    let least = match protocol {
        TCP => 20,
        SCTP => 12,
        UDP | ICMP | ICMP6 => 8,
        _ => return None,
    };
    if covered.len() < least {
        return None;
    }
    let with_pseudo = || {
        let pseudo = pseudo_header(packet, protocol, covered.len());
        checksum(&[&pseudo, covered]) == 0
    };
    match protocol {
        SCTP => {
            let mut zeroed = covered.to_vec();
            zeroed[8..12].fill(0);
            Some(crc32c(&zeroed).to_le_bytes() == covered[8..12])
        }
        ICMP => is_v4.then(|| checksum(&[covered]) == 0),
        ICMP6 => (!is_v4).then(with_pseudo),
        UDP if covered[6..8] == [0, 0] => None,
        // A datagram may be shorter than its packet; which part the checksum covers is another matter.
        UDP if usize::from(u16::from_be_bytes([covered[4], covered[5]])) != covered.len() => None,
        _ => Some(with_pseudo()),
    }
}

/// Whether the checksum field holds the sum of the pseudo-header, as unfinished ones do.
pub fn holds_pseudo_sum(packet: &[u8], seen: Seen) -> bool {
    let at = seen.transport + if seen.protocol == TCP { 16 } else { 6 };
    let Some(field) = packet.get(at..at + 2) else { return false };
    let pseudo = pseudo_header(packet, seen.protocol, packet.len() - seen.transport);
    let sum = !checksum(&[&pseudo]);
    let field = u16::from_be_bytes([field[0], field[1]]);
    // Zero has two forms.
    field == sum || [field, sum] == [0, 0xffff] || [field, sum] == [0xffff, 0]
}
