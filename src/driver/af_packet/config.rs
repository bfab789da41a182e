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

/// The size of the receive rings that each worker has on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// Memory in bytes: one half for frames of at most [`SHORT_FRAME_BYTES`], one for longer ones,
    /// each rounded up to whole blocks of [`BLOCK_BYTES`].
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
    /// How the memory for short frames is divided; `None` if it is too large.
    pub(super) fn short(&self) -> Option<Geometry> {
        geometry(self.bytes / 2, SHORT_FRAME_BYTES)
    }

    /// How the memory for long frames is divided; `None` if it is too large, or a frame would not
    /// fit into a block.
    pub(super) fn long(&self) -> Option<Geometry> {
        geometry(self.bytes / 2, self.longest_frame_bytes.max(SHORT_FRAME_BYTES))
    }
}

fn geometry(bytes: usize, frame_bytes: usize) -> Option<Geometry> {
    let lines = FRAME_OFFSET_BYTES.checked_add(frame_bytes)?.div_ceil(CACHE_LINE_BYTES);
    // An odd number of cache lines: were the distance a multiple of 4096, the headers of all
    // slots would compete for the same few cache sets.
    let slot_bytes = (lines | 1).checked_mul(CACHE_LINE_BYTES)?;
    let blocks = bytes.div_ceil(BLOCK_BYTES).max(1);
    let geometry = Geometry { block_bytes: BLOCK_BYTES, blocks, slot_bytes };
    (blocks <= MOST_BLOCKS && geometry.slots_per_block() > 0).then_some(geometry)
}

/// The longest frame, from its Ethernet header on and without a VLAN tag, that is received in the
/// ring for short frames: a full one on Ethernet, with a second tag.
pub const SHORT_FRAME_BYTES: usize = 1518;

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
/// Sixteen gibibytes.
const MOST_BLOCKS: usize = 1 << 14;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_do_not_share_cache_sets() {
        for frame_bytes in [0, 60, 1514, 2048, 9018, LONGEST_FRAME_BYTES] {
            let geometry = geometry(1, frame_bytes).unwrap();
            assert_eq!(geometry.slot_bytes % 128, 64);
            assert!(geometry.slot_bytes >= FRAME_OFFSET_BYTES + frame_bytes);
            assert_eq!(geometry.blocks, 1);
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(geometry(1, BLOCK_BYTES), None);
        assert_eq!(geometry(1, usize::MAX), None);
        assert_eq!(geometry(usize::MAX, 60), None);
    }

    #[test]
    fn the_default_holds_thousands_of_short_frames() {
        let ring = RingConfig::default();
        assert!(ring.short().unwrap().slots() > 4000);
        assert!(ring.long().unwrap().slots() >= 120);
    }
}
