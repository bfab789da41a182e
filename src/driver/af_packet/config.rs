//! What can be chosen about packet sockets, and the ring geometry that follows from it.

use crate::driver::HEADROOM;
use crate::driver::sys::{DESCRIPTOR_BYTES, Geometry};
use crate::driver::virtio;

/// How an interface is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AfPacketConfig {
    /// The receive ring of each worker.
    pub ring: RingConfig,
    /// A hardware address to receive frames for besides the interface's own.
    pub virtual_mac: Option<[u8; 6]>,
}

/// The size of a receive ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// Memory for the ring in bytes, rounded up to whole blocks of [`BLOCK_BYTES`].
    pub bytes: usize,
    /// The longest frame that fits, in bytes from its Ethernet header on. Longer ones are damaged.
    pub longest_frame_bytes: usize,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self { bytes: 16 << 20, longest_frame_bytes: LONGEST_FRAME_BYTES }
    }
}

impl RingConfig {
    /// How the ring's memory is divided; `None` if a frame would not fit into a block.
    pub(super) fn geometry(&self) -> Option<Geometry> {
        let frame = self.longest_frame_bytes.max(SHORTEST_SLOT_BYTES);
        let lines = FRAME_OFFSET_BYTES.checked_add(frame)?.div_ceil(CACHE_LINE_BYTES);
        // An odd number of cache lines: were the distance a multiple of 4096, the headers of all
        // slots would compete for the same few cache sets.
        let slot_bytes = (lines | 1).checked_mul(CACHE_LINE_BYTES)?;
        let blocks = self.bytes.div_ceil(BLOCK_BYTES).max(1);
        let geometry = Geometry { block_bytes: BLOCK_BYTES, blocks, slot_bytes };
        (geometry.slots_per_block() > 0 && geometry.slots() <= MOST_SLOTS).then_some(geometry)
    }
}

/// Bytes of `PACKET_RESERVE`: with them a frame starts two bytes behind a cache line's start, so
/// that all its headers lie in one line and its IP header is aligned, and a frame whose VLAN tag
/// was put back still has [`HEADROOM`] and its `virtio_net_hdr` in front.
pub(super) const RESERVE_BYTES: u32 = (FRAME_OFFSET_BYTES - UNRESERVED_OFFSET_BYTES) as u32;

/// Where frames start in their slots.
pub(super) const FRAME_OFFSET_BYTES: usize = 3 * CACHE_LINE_BYTES + 2;

/// Where frames start without a reserve: behind the descriptor, at least 16 bytes for the Ethernet
/// header, rounded up to 16, and the `virtio_net_hdr`, less the Ethernet header.
///
/// **Source** — `tpacket_rcv`, net/packet/af_packet.c.
const UNRESERVED_OFFSET_BYTES: usize =
    (DESCRIPTOR_BYTES + 16).next_multiple_of(16) + virtio::HEADER_BYTES - ETHERNET_BYTES;

const _: () = assert!(
    FRAME_OFFSET_BYTES - DESCRIPTOR_BYTES >= HEADROOM + VLAN_TAG_BYTES + virtio::HEADER_BYTES
);

/// Bytes per block of a ring, for which the kernel tries to find contiguous memory.
pub const BLOCK_BYTES: usize = 1 << 20;

/// A full-size IP packet behind an Ethernet header with two VLAN tags. The kernel does not build
/// larger ones unless told to (`ip link set gso_max_size`).
const LONGEST_FRAME_BYTES: usize = 65_535 + ETHERNET_BYTES + 2 * VLAN_TAG_BYTES;

const ETHERNET_BYTES: usize = 14;
const VLAN_TAG_BYTES: usize = 4;
const CACHE_LINE_BYTES: usize = 64;
const SHORTEST_SLOT_BYTES: usize = 256;
const MOST_SLOTS: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_do_not_share_cache_sets() {
        for longest_frame_bytes in [0, 60, 1514, 2048, 9018, LONGEST_FRAME_BYTES] {
            let ring = RingConfig { bytes: 1, longest_frame_bytes };
            let geometry = ring.geometry().unwrap();
            assert_eq!(geometry.slot_bytes % 128, 64);
            assert!(geometry.slot_bytes >= FRAME_OFFSET_BYTES + longest_frame_bytes);
            assert_eq!(geometry.blocks, 1);
        }
    }

    #[test]
    fn a_frame_longer_than_a_block_is_refused() {
        for longest_frame_bytes in [BLOCK_BYTES, usize::MAX] {
            assert_eq!(RingConfig { bytes: 1, longest_frame_bytes }.geometry(), None);
        }
    }
}
