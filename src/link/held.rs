//! Packets that wait for their next hop's link address, copied out of the driver's memory.

use crate::driver::HEADROOM;
use crate::packet::{Checksum, Offload, PacketBuf};

/// A packet in memory of its own.
#[derive(Debug)]
pub struct OwnedPacket {
    storage: Box<[u8]>,
    start: usize,
    offload: Offload,
}

impl OwnedPacket {
    /// Copies a packet, with headroom for headers in front.
    pub fn copy(packet: &PacketBuf<'_>) -> Self {
        let unfinished = packet.unfinished_checksum();
        let mut storage = vec![0; HEADROOM + packet.len()].into_boxed_slice();
        storage[HEADROOM..].copy_from_slice(packet.bytes());
        let mut offload = packet.offload;
        offload.checksum = match (offload.checksum, unfinished) {
            (Checksum::Unfinished { offset, .. }, Some((start, _))) => {
                Checksum::Unfinished { start: (HEADROOM + start) as u32, offset }
            }
            _ => Checksum::Complete,
        };
        Self { storage, start: HEADROOM, offload }
    }

    /// A complete frame.
    pub fn frame(bytes: Box<[u8]>) -> Self {
        Self { storage: bytes, start: 0, offload: Offload::default() }
    }

    /// The packet, to change and to send.
    pub fn packet(&mut self) -> PacketBuf<'_> {
        let end = self.storage.len();
        let mut packet = PacketBuf::new(&mut self.storage, self.start, end);
        packet.offload = self.offload;
        packet
    }

    /// Puts a link header in front for good; `false` without the headroom.
    #[must_use]
    pub fn prepend(&mut self, hop: &super::frame::Hop) -> bool {
        let mut packet = self.packet();
        let written = hop.write(&mut packet);
        let start = packet.headroom();
        self.start = start;
        written
    }

    /// Bytes of memory it takes.
    pub fn len_bytes(&self) -> usize {
        self.storage.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_checksum_keeps_its_place() {
        let mut storage: Vec<u8> = (0..100).collect();
        let mut packet = PacketBuf::new(&mut storage, 30, 90);
        packet.set_unfinished_checksum(20, 6);
        let mut copy = OwnedPacket::copy(&packet);
        let copied = copy.packet();
        assert_eq!(copied.bytes(), packet.bytes());
        assert_eq!(copied.unfinished_checksum(), Some((20, 26)));
    }
}
