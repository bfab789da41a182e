//! From a ring's slot to a packet, trusting no number in it.

use libc::{PACKET_OUTGOING, TP_STATUS_COPY, TP_STATUS_VLAN_TPID_VALID, TP_STATUS_VLAN_VALID};

use crate::driver::sys::{DESCRIPTOR_BYTES, Slot};
use crate::driver::virtio;
use crate::packet::PacketBuf;

/// Why a slot holds no packet for the director.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// The host sent it itself.
    Outgoing,
    /// It is cut off, or its numbers are impossible.
    Damaged,
}

/// Takes the frame in a slot as a packet in place, with its VLAN tag put back.
pub fn packet(slot: Slot<'_>) -> Result<PacketBuf<'_>, Reject> {
    if slot.packet_type == PACKET_OUTGOING {
        return Err(Reject::Outgoing);
    }
    in_place(slot).ok_or(Reject::Damaged)
}

fn in_place(slot: Slot<'_>) -> Option<PacketBuf<'_>> {
    let tag = vlan_tag(&slot);
    if slot.captured != slot.len || slot.status & TP_STATUS_COPY != 0 {
        return None;
    }
    let len = usize::try_from(slot.len).ok()?;
    let start = usize::from(slot.mac_offset).checked_sub(DESCRIPTOR_BYTES)?;
    let end = start.checked_add(len)?;
    if len < ETHERNET_BYTES || end > slot.memory.len() {
        return None;
    }
    let header = slot.memory.get(start.checked_sub(virtio::HEADER_BYTES)?..start)?;
    let offload = virtio::parse(header.try_into().ok()?, start, len)?;
    let mut packet = PacketBuf::new(slot.memory, start, end);
    packet.offload = offload;
    if let Some(tag) = tag {
        put_tag_back(&mut packet, tag)?;
    }
    Some(packet)
}

fn vlan_tag(slot: &Slot<'_>) -> Option<[u8; TAG_BYTES]> {
    if slot.status & TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let known = slot.status & TP_STATUS_VLAN_TPID_VALID != 0;
    let [p0, p1] = if known { slot.vlan_tpid } else { ETHERTYPE_VLAN }.to_be_bytes();
    let [t0, t1] = slot.vlan_tci.to_be_bytes();
    Some([p0, p1, t0, t1])
}

/// Inserts a tag behind the addresses, which move down into the headroom.
fn put_tag_back(packet: &mut PacketBuf<'_>, tag: [u8; TAG_BYTES]) -> Option<()> {
    packet.push(TAG_BYTES)?;
    let frame = packet.bytes_mut();
    frame.copy_within(TAG_BYTES..TAG_BYTES + ADDRESSES_BYTES, 0);
    frame[ADDRESSES_BYTES..ADDRESSES_BYTES + TAG_BYTES].copy_from_slice(&tag);
    Some(())
}

const ETHERNET_BYTES: usize = 14;
const ADDRESSES_BYTES: usize = 12;
const TAG_BYTES: usize = 4;
const ETHERTYPE_VLAN: u16 = 0x8100;
