//! A packet in a borrowed piece of memory, with room in front and the offload state it travels with.

use super::encap::OuterHeaders;

/// Which kind of segments a super-frame is to be cut into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SegmentKind {
    /// Not a super-frame.
    #[default]
    None,
    /// TCP over IPv4 (`VIRTIO_NET_HDR_GSO_TCPV4`).
    TcpV4,
    /// TCP over IPv6 (`VIRTIO_NET_HDR_GSO_TCPV6`).
    TcpV6,
    /// UDP datagrams, each segment with a UDP header (`VIRTIO_NET_HDR_GSO_UDP_L4`).
    UdpL4,
    /// One UDP datagram that is to be cut into IP fragments of `size_bytes` of payload each
    /// (`VIRTIO_NET_HDR_GSO_UDP`).
    UdpFragments,
    /// A datagram that travels in IP fragments of at most `size_bytes`, from the IP header on: it
    /// came in fragments, and may leave in others, over IPv6 too. No device knows this kind.
    Fragments,
}

impl SegmentKind {
    /// Whether a packet of this kind stands for several packets of its transport protocol.
    pub const fn is_super_frame(self) -> bool {
        match self {
            Self::TcpV4 | Self::TcpV6 | Self::UdpL4 => true,
            Self::None | Self::UdpFragments | Self::Fragments => false,
        }
    }
}

/// How a super-frame is to be segmented by whoever puts it on a wire.
///
/// **Source** — `struct virtio_net_hdr`, Virtio 1.2 §5.1.6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segmentation {
    /// What the segments are.
    pub kind: SegmentKind,
    /// Payload bytes per segment (the MSS for TCP).
    pub size_bytes: u16,
    /// Link, network and transport header bytes, as hinted by the sender. Untrusted.
    pub header_len_bytes: u16,
    /// Whether the first segment alone carries CWR (`VIRTIO_NET_HDR_GSO_ECN`).
    pub ecn: bool,
}

/// State of the transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// The checksum in the packet covers everything, as on a wire.
    #[default]
    Complete,
    /// The checksum field holds the folded sum of the pseudo-header only, not complemented; the
    /// rest is summed by the device that sends the packet.
    Unfinished {
        /// Where summing starts, in bytes from the start of the *storage* (not of the packet), so
        /// that headers can come and go in front without touching it.
        start: u32,
        /// Where the result goes, in bytes after `start`.
        offset: u16,
    },
}

/// The offload metadata of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// How to segment it.
    pub segmentation: Segmentation,
    /// What its transport checksum field means.
    pub checksum: Checksum,
    /// The headers of a tunnel in front of a super-frame: a pattern for those of its segments. No
    /// device knows of them, so such a frame is cut before it is sent.
    pub outer: Option<OuterHeaders>,
}

/// A packet as a window into borrowed storage.
///
/// **Shape** — `storage[start..end]` are the packet's bytes; `storage[..start]` is headroom and
/// `storage[end..]` tailroom. Layers strip their header by [`pull`](Self::pull) and put theirs in
/// front by [`push`](Self::push), without copying the payload.
#[derive(Debug)]
pub struct PacketBuf<'a> {
    storage: &'a mut [u8],
    start: usize,
    end: usize,
    /// The offload metadata, to be carried to the sending driver.
    pub offload: Offload,
}

impl<'a> PacketBuf<'a> {
    /// Wraps `storage` with the packet at `start..end`.
    ///
    /// **Panics** if the range is not within the storage; drivers check what a kernel wrote before.
    pub fn new(storage: &'a mut [u8], start: usize, end: usize) -> Self {
        assert!(start <= end && end <= storage.len(), "packet lies outside its storage");
        Self { storage, start, end, offload: Offload::default() }
    }

    /// The packet's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    /// The packet's bytes, to change in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.end]
    }

    /// Packet length in bytes.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether the packet has no bytes.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes free in front of the packet.
    pub fn headroom(&self) -> usize {
        self.start
    }

    /// Bytes free behind the packet.
    pub fn tailroom(&self) -> usize {
        self.storage.len() - self.end
    }

    /// Takes `count` bytes off the front; `false` and unchanged if there are fewer.
    #[must_use]
    pub fn pull(&mut self, count: usize) -> bool {
        let fits = count <= self.len();
        if fits {
            self.start += count;
        }
        fits
    }

    /// Adds `count` bytes in front and returns them to be written; `None` without the headroom.
    #[must_use]
    pub fn push(&mut self, count: usize) -> Option<&mut [u8]> {
        let start = self.start.checked_sub(count)?;
        self.start = start;
        Some(&mut self.storage[start..start + count])
    }

    /// Makes room for `count` bytes `at` bytes into the packet, by moving what lies before towards
    /// the front, and returns it to be written; `None` and unchanged without the headroom.
    ///
    /// **Panics** if `at` lies outside the packet.
    #[must_use]
    pub fn insert(&mut self, at: usize, count: usize) -> Option<&mut [u8]> {
        assert!(at <= self.len(), "room is made inside the packet");
        let (old, new) = (self.start, self.start.checked_sub(count)?);
        self.storage.copy_within(old..old + at, new);
        if let Checksum::Unfinished { start, .. } = &mut self.offload.checksum
            && (old..old + at).contains(&(*start as usize))
        {
            *start -= count as u32;
        }
        self.start = new;
        Some(&mut self.storage[new + at..new + at + count])
    }

    /// Changes the length by moving the end; `false` and unchanged if the storage is too small.
    #[must_use]
    pub fn resize(&mut self, len: usize) -> bool {
        let end = self.start + len;
        let fits = end <= self.storage.len();
        if fits {
            self.end = end;
        }
        fits
    }

    /// Where the checksum of an unfinished packet starts and where its field is, both in bytes
    /// from the packet's first byte. `None` if it is complete or lies outside the packet.
    pub fn unfinished_checksum(&self) -> Option<(usize, usize)> {
        let Checksum::Unfinished { start, offset } = self.offload.checksum else { return None };
        let start = (start as usize).checked_sub(self.start)?;
        let field = start + offset as usize;
        (field + 2 <= self.len()).then_some((start, field))
    }

    /// Declares the transport checksum unfinished, with `start` in bytes from the packet's start.
    pub fn set_unfinished_checksum(&mut self, start: usize, offset: u16) {
        let start = (self.start + start) as u32;
        self.offload.checksum = Checksum::Unfinished { start, offset };
    }

    /// The whole storage and the packet's range in it, for drivers that send header and packet
    /// from one piece of memory.
    pub fn storage_mut(&mut self) -> (&mut [u8], std::ops::Range<usize>) {
        (self.storage, self.start..self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_and_go_in_front() {
        let mut storage = [0xa5; 64];
        let mut packet = PacketBuf::new(&mut storage, 20, 60);
        packet.set_unfinished_checksum(14, 6);
        assert!(packet.pull(14));
        assert_eq!(packet.unfinished_checksum(), Some((0, 6)));
        assert_eq!(packet.push(34).map(|b| b.len()), Some(34));
        assert_eq!(packet.headroom(), 0);
        assert_eq!(packet.unfinished_checksum(), Some((34, 40)));
        assert!(packet.push(1).is_none());
        assert!(!packet.pull(61));
        assert!(packet.resize(64) && !packet.resize(65));
    }

    #[test]
    fn room_is_made_inside_and_a_checksum_that_moves_keeps_its_place() {
        let mut storage: Vec<u8> = (0..40).collect();
        let mut packet = PacketBuf::new(&mut storage, 20, 40);
        packet.set_unfinished_checksum(4, 2);
        packet.insert(10, 8).unwrap().fill(0xa5);
        let expected: Vec<u8> = (20..30).chain([0xa5; 8]).chain(30..40).collect();
        assert_eq!(packet.bytes(), expected);
        assert_eq!(packet.unfinished_checksum(), Some((4, 6)));
        assert!(packet.insert(2, 4).is_some());
        assert_eq!(packet.unfinished_checksum(), Some((8, 10)), "it did not move");
        assert!(packet.insert(0, 9).is_none());
    }
}
