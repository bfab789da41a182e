//! A datagram that was put together.

use crate::packet::{PacketBuf, SegmentKind};

/// A datagram that came in fragments.
///
/// **Shape** — the packet from its IP header on, with [`DATAGRAM_HEADROOM`] bytes in front. It is
/// marked to leave in fragments no longer than those that it came in.
#[derive(Debug, Default)]
pub struct Datagram {
    pub(super) storage: Vec<u8>,
    /// The longest fragment, in bytes from its IP header on.
    pub(super) longest: u16,
    pub(super) lengths: Vec<u16>,
}

impl Datagram {
    /// The packet, to judge, to change and to send.
    pub fn packet(&mut self) -> PacketBuf<'_> {
        self.parts().0
    }

    /// The packet, and the lengths of its fragments' payloads in order if they are to be kept. It
    /// can be sent in such fragments if it is no longer than it was.
    pub fn parts(&mut self) -> (PacketBuf<'_>, &[u16]) {
        let end = self.storage.len();
        let mut packet = PacketBuf::new(&mut self.storage, DATAGRAM_HEADROOM, end);
        packet.offload.segmentation.kind = SegmentKind::Fragments;
        packet.offload.segmentation.size_bytes = self.longest;
        (packet, &self.lengths)
    }

    /// Its bytes, from the IP header on.
    pub fn bytes(&self) -> &[u8] {
        &self.storage[DATAGRAM_HEADROOM..]
    }
}

/// Bytes that a datagram has free in front of it, for link headers and tunnels.
pub const DATAGRAM_HEADROOM: usize = 128;
