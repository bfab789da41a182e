//! A TPACKET_V2 receive ring: slots that the kernel fills and the director gives back.
//!
//! Knows slot layout and ownership, not what is in a frame. What the kernel wrote is copied out
//! once and is otherwise untrusted: no length or offset from a slot is used here.

use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{TP_STATUS_KERNEL, TP_STATUS_USER, sockaddr_ll, tpacket2_hdr};

use super::memory::Memory;

/// Bytes at the start of a slot that are the kernel's: `tpacket2_hdr`, then `sockaddr_ll`.
///
/// **Source** — `TPACKET2_HDRLEN`, linux/if_packet.h.
pub const DESCRIPTOR_BYTES: usize = libc::TPACKET2_HDRLEN;

/// How a ring's memory is divided.
///
/// **Shape** — `blocks` pieces of `block_bytes`, each with as many slots of `slot_bytes` as fit
/// whole; the rest of a block is unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes per block, a multiple of the page size.
    pub block_bytes: usize,
    /// Blocks in the ring.
    pub blocks: usize,
    /// Bytes from one slot to the next within a block, a multiple of 16.
    pub slot_bytes: usize,
}

impl Geometry {
    /// Slots in one block.
    pub fn slots_per_block(&self) -> usize {
        self.block_bytes / self.slot_bytes
    }

    /// Slots in the ring.
    pub fn slots(&self) -> usize {
        self.blocks * self.slots_per_block()
    }

    /// Bytes of memory the ring takes.
    pub fn bytes(&self) -> usize {
        self.blocks * self.block_bytes
    }
}

/// When a frame arrived.
///
/// **Shape** — ordered by time; comparable between rings of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970.
    pub seconds: u32,
    /// Nanoseconds after them.
    pub nanoseconds: u32,
}

/// What the kernel wrote into a slot, copied out, and the slot's memory.
#[derive(Debug)]
pub struct Slot<'a> {
    /// Bits of `TP_STATUS_*`.
    pub status: u32,
    /// Bytes the frame had.
    pub len: u32,
    /// Bytes of it that are in the slot.
    pub captured: u32,
    /// Where the frame starts, in bytes from the start of the slot.
    pub mac_offset: u16,
    /// The VLAN tag's control information, if the status says there is one.
    pub vlan_tci: u16,
    /// The VLAN tag's protocol, if the status says there is one.
    pub vlan_tpid: u16,
    /// `PACKET_HOST`, `PACKET_OUTGOING` and so on.
    pub packet_type: u8,
    /// The slot from [`DESCRIPTOR_BYTES`] on.
    pub memory: &'a mut [u8],
}

/// The director's end of a ring.
///
/// **Shape** — [`ready`](Self::ready) claims filled slots in order, [`release`](Self::release)
/// gives back all that were claimed. Borrowing keeps a slot from outliving its release.
#[derive(Debug)]
pub struct SlotRing {
    memory: Memory,
    geometry: Geometry,
    /// The first slot that is not given back.
    head: Position,
    /// Slots from `head` on that were handed out and are not given back.
    claimed: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    block: usize,
    slot: usize,
}

impl SlotRing {
    /// Takes `memory` as a ring of which no slot has been filled yet.
    ///
    /// **Panics** if the geometry does not fit the memory, or slots could not hold a descriptor.
    pub fn new(memory: Memory, geometry: Geometry) -> Self {
        assert!(geometry.slot_bytes > DESCRIPTOR_BYTES && geometry.slot_bytes.is_multiple_of(16));
        assert!(geometry.block_bytes.is_multiple_of(16) && geometry.slots() > 0);
        assert!(geometry.bytes() <= memory.bytes(), "ring is larger than its memory");
        Self { memory, geometry, head: Position::default(), claimed: 0 }
    }

    /// Hands out filled slots that were not handed out before, at most `max`, oldest first.
    pub fn ready(&mut self, max: usize) -> Ready<'_> {
        let position = self.after(self.head, self.claimed);
        let left = max.min(self.geometry.slots() - self.claimed);
        Ready { ring: self, position, left }
    }

    /// Gives every slot that was handed out back to the kernel.
    pub fn release(&mut self) {
        for _ in 0..self.claimed {
            // Release: what was read from and written to the slot happens before the kernel's use.
            self.status(self.head).store(TP_STATUS_KERNEL, Ordering::Release);
            self.head = self.next(self.head);
        }
        self.claimed = 0;
    }

    fn next(&self, mut position: Position) -> Position {
        position.slot += 1;
        if position.slot == self.geometry.slots_per_block() {
            position = Position { block: (position.block + 1) % self.geometry.blocks, slot: 0 };
        }
        position
    }

    fn after(&self, position: Position, count: usize) -> Position {
        if count == 0 {
            return position;
        }
        let per_block = self.geometry.slots_per_block();
        let index = (position.block * per_block + position.slot + count) % self.geometry.slots();
        Position { block: index / per_block, slot: index % per_block }
    }

    fn pointer(&self, position: Position) -> *mut u8 {
        let offset =
            position.block * self.geometry.block_bytes + position.slot * self.geometry.slot_bytes;
        debug_assert!(offset + self.geometry.slot_bytes <= self.memory.bytes());
        // SAFETY: positions stay below `blocks` and `slots_per_block`, so the offset lies within
        // the memory, which `new` checked to be large enough.
        unsafe { self.memory.base().as_ptr().add(offset) }
    }

    fn status(&self, position: Position) -> &AtomicU32 {
        // SAFETY: `tp_status` is the first field of a slot, slots are aligned to 16 bytes, and
        // both sides access it only as this atomic word while the ring lives.
        unsafe { AtomicU32::from_ptr(self.pointer(position).cast()) }
    }
}

/// Filled slots, each handed out once.
#[derive(Debug)]
pub struct Ready<'a> {
    ring: &'a mut SlotRing,
    position: Position,
    left: usize,
}

impl<'a> Iterator for Ready<'a> {
    type Item = Slot<'a>;

    fn next(&mut self) -> Option<Slot<'a>> {
        let status = self.filled()?;
        let slot = self.claim(status);
        self.position = self.ring.next(self.position);
        self.left -= 1;
        self.ring.claimed += 1;
        Some(slot)
    }
}

impl<'a> Ready<'a> {
    /// When the frame that is next arrived; `None` if there is none (yet).
    pub fn next_arrival(&self) -> Option<Timestamp> {
        self.filled()?;
        let header = self.header();
        Some(Timestamp { seconds: header.tp_sec, nanoseconds: header.tp_nsec })
    }

    /// The status of the next slot if it is filled and may be handed out.
    fn filled(&self) -> Option<u32> {
        if self.left == 0 {
            return None;
        }
        // Acquire: what the kernel wrote before it set the status is visible after.
        let status = self.ring.status(self.position).load(Ordering::Acquire);
        (status & TP_STATUS_USER != 0).then_some(status)
    }

    fn header(&self) -> tpacket2_hdr {
        let start = self.ring.pointer(self.position);
        // SAFETY: the slot has room for a descriptor, is aligned for it, and is the director's
        // while its status says so; any bit pattern is a valid header.
        unsafe { ptr::read(start.cast()) }
    }

    fn claim(&self, status: u32) -> Slot<'a> {
        let start = self.ring.pointer(self.position);
        let header = self.header();
        // SAFETY: the address follows the header, within the descriptor's bytes.
        let address = unsafe { start.add(ADDRESS_OFFSET) };
        // SAFETY: the slot is the director's, any bit pattern is a valid address, and unaligned
        // reading asks nothing of the offset.
        let address: sockaddr_ll = unsafe { ptr::read_unaligned(address.cast()) };
        // SAFETY: a slot is longer than its descriptor.
        let rest = unsafe { start.add(DESCRIPTOR_BYTES) };
        let len = self.ring.geometry.slot_bytes - DESCRIPTOR_BYTES;
        // SAFETY: the bytes belong to this slot alone, which is handed out once until it is
        // released; releasing needs the ring, which is borrowed for as long as the slice lives.
        // The kernel does not write to a slot whose status is the director's.
        let memory = unsafe { std::slice::from_raw_parts_mut(rest, len) };
        Slot {
            status,
            len: header.tp_len,
            captured: header.tp_snaplen,
            mac_offset: header.tp_mac,
            vlan_tci: header.tp_vlan_tci,
            vlan_tpid: header.tp_vlan_tpid,
            packet_type: address.sll_pkttype,
            memory,
        }
    }
}

const ADDRESS_OFFSET: usize = DESCRIPTOR_BYTES - size_of::<sockaddr_ll>();

/// The kernel's end of a ring, for tests over ordinary memory.
#[cfg(test)]
pub(in crate::driver) mod testing {
    use super::*;

    /// Fills slots as the kernel does.
    pub struct Filler {
        position: Position,
    }

    /// What to write into a slot, true or not.
    #[derive(Clone, Debug)]
    pub struct Filling {
        pub status: u32,
        pub len: u32,
        pub captured: u32,
        pub mac_offset: u16,
        pub vlan_tci: u16,
        pub vlan_tpid: u16,
        pub packet_type: u8,
        pub seconds: u32,
        /// Bytes and where to put them, from the start of the slot.
        pub content: Vec<(usize, Vec<u8>)>,
    }

    impl Filler {
        pub fn new() -> Self {
            Self { position: Position::default() }
        }

        /// Fills the next slot; `false` if the ring is full.
        pub fn fill(&mut self, ring: &mut SlotRing, filling: &Filling) -> bool {
            if ring.status(self.position).load(Ordering::Acquire) & TP_STATUS_USER != 0 {
                return false;
            }
            let start = ring.pointer(self.position);
            let header = tpacket2_hdr {
                tp_status: TP_STATUS_KERNEL,
                tp_len: filling.len,
                tp_snaplen: filling.captured,
                tp_mac: filling.mac_offset,
                tp_net: filling.mac_offset.wrapping_add(14),
                tp_sec: filling.seconds,
                tp_nsec: 0,
                tp_vlan_tci: filling.vlan_tci,
                tp_vlan_tpid: filling.vlan_tpid,
                tp_padding: [0; 4],
            };
            // SAFETY: the slot has room for a descriptor and is the kernel's, which is this test.
            unsafe { ptr::write(start.cast(), header) };
            // SAFETY: `sll_pkttype` is the eleventh byte of the address, within the descriptor.
            unsafe { ptr::write(start.add(ADDRESS_OFFSET + 10), filling.packet_type) };
            for (offset, bytes) in &filling.content {
                assert!(offset + bytes.len() <= ring.geometry.slot_bytes);
                // SAFETY: the range was just checked to lie within the slot.
                unsafe { ptr::copy(bytes.as_ptr(), start.add(*offset), bytes.len()) };
            }
            ring.status(self.position).store(filling.status, Ordering::Release);
            self.position = ring.next(self.position);
            true
        }
    }
}
