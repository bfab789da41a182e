//! The header that carries offload metadata between the kernel and a driver.
//!
//! **Source** — `struct virtio_net_hdr`, Virtio 1.2 §5.1.6; in host byte order where the kernel is
//! the peer.

use crate::packet::{Checksum, Offload, PacketBuf, SegmentKind, Segmentation};

/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 10;

/// Reads the offload metadata of a packet of `len` bytes that lies at `start` in its storage.
///
/// `None` if the header is impossible: an unknown kind of segments, segments of no bytes, or a
/// checksum outside the packet.
pub fn parse(header: &[u8; HEADER_BYTES], start: usize, len: usize) -> Option<Offload> {
    let [flags, kind, ..] = *header;
    let field = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let [header_len_bytes, size_bytes, checksum_start, checksum_offset] = [2, 4, 6, 8].map(field);
    let segmentation = Segmentation {
        kind: segment_kind(kind & !ECN)?,
        size_bytes,
        header_len_bytes,
        ecn: kind & ECN != 0,
    };
    if segmentation.kind != SegmentKind::None && size_bytes == 0 {
        return None;
    }
    if flags & NEEDS_CHECKSUM == 0 {
        return Some(Offload { segmentation, ..Offload::default() });
    }
    if usize::from(checksum_start) + usize::from(checksum_offset) + 2 > len {
        return None;
    }
    let start = u32::try_from(start + usize::from(checksum_start)).ok()?;
    let checksum = Checksum::Unfinished { start, offset: checksum_offset };
    Some(Offload { segmentation, checksum, ..Offload::default() })
}

/// Writes the offload metadata of `packet`.
///
/// `None` if its checksum lies outside the packet, where no device could finish it, or if it is to
/// be cut in a way that no device knows.
pub fn emit(packet: &PacketBuf<'_>) -> Option<[u8; HEADER_BYTES]> {
    let segmentation = packet.offload.segmentation;
    if packet.offload.outer.is_some() {
        return None;
    }
    let (flags, checksum_start, checksum_offset) = match packet.offload.checksum {
        Checksum::Complete => (0, 0, 0),
        Checksum::Unfinished { offset, .. } => {
            let (start, _) = packet.unfinished_checksum()?;
            (NEEDS_CHECKSUM, u16::try_from(start).ok()?, offset)
        }
    };
    let ecn = if segmentation.ecn { ECN } else { 0 };
    let mut header = [0; HEADER_BYTES];
    header[0] = flags;
    if segmentation.kind != SegmentKind::None {
        header[1] = segment_code(segmentation.kind)? | ecn;
        header[2..4].copy_from_slice(&segmentation.header_len_bytes.to_ne_bytes());
        header[4..6].copy_from_slice(&segmentation.size_bytes.to_ne_bytes());
    }
    header[6..8].copy_from_slice(&checksum_start.to_ne_bytes());
    header[8..10].copy_from_slice(&checksum_offset.to_ne_bytes());
    Some(header)
}

fn segment_kind(code: u8) -> Option<SegmentKind> {
    Some(match code {
        0 => SegmentKind::None,
        1 => SegmentKind::TcpV4,
        3 => SegmentKind::UdpFragments,
        4 => SegmentKind::TcpV6,
        5 => SegmentKind::UdpL4,
        _ => return None,
    })
}

fn segment_code(kind: SegmentKind) -> Option<u8> {
    Some(match kind {
        SegmentKind::None => 0,
        SegmentKind::TcpV4 => 1,
        SegmentKind::UdpFragments => 3,
        SegmentKind::TcpV6 => 4,
        SegmentKind::UdpL4 => 5,
        SegmentKind::Fragments => return None,
    })
}

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_ECN`.
const ECN: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_accepted_is_emitted_again(
            flags in 0u8..2,
            kind in any::<u8>(),
            numbers in any::<[u16; 4]>(),
            start in 0usize..300,
            len in 0usize..2000,
        ) {
            let mut header = [flags, kind, 0, 0, 0, 0, 0, 0, 0, 0];
            for (field, number) in header[2..].chunks_mut(2).zip(numbers) {
                field.copy_from_slice(&number.to_ne_bytes());
            }
            let mut storage = vec![0; start + len];
            let Some(offload) = parse(&header, start, len) else { return Ok(()) };
            let mut packet = PacketBuf::new(&mut storage, start, start + len);
            packet.offload = offload;
            let again = emit(&packet).expect("an accepted header can be written");
            prop_assert_eq!(parse(&again, start, len).unwrap().checksum, offload.checksum);
            if kind & !ECN != 0 {
                prop_assert_eq!(&again[..6], &header[..6]);
            }
        }
    }

    #[test]
    fn a_checksum_outside_the_packet_is_refused() {
        let header = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0];
        assert!(parse(&header, 0, 51).is_none());
        assert!(parse(&header, 0, 52).is_some());
        let mut storage = [0; 64];
        let mut packet = PacketBuf::new(&mut storage, 10, 64);
        packet.offload = parse(&header, 10, 54).unwrap();
        assert_eq!(emit(&packet), Some(header));
        assert!(packet.resize(51));
        assert_eq!(emit(&packet), None);
    }
}
