//! The link header of a received frame: whom it is for, and taking it off.

use pnet_base::MacAddr;

use super::nd;
use crate::packet::{Addr, PacketBuf};

/// One of the interfaces the director works on, by its place in the list of ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u16);

/// Most interfaces a director works on: a worker waits for all of them, and for messages.
pub const MAX_PORTS: usize = 63;

/// The port behind all others by which packets go into the director's own host, and come from it.
pub const DOOR: PortId = PortId(MAX_PORTS as u16);

/// The link address of that port's device. **Shape** — locally administered, unicast.
pub const DOOR_ADDRESS: MacAddr = MacAddr(0x02, 0x75, 0x6c, 0x76, 0x73, 0x00);

/// The VLAN tags of a frame, without priorities.
///
/// **Shape** — outer tag first; each is the tag's EtherType in the high half and the VLAN's number
/// in the low half, 0 where there is none. Priority tags (VLAN 0) are no tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tags([u32; 2]);

impl Tags {
    /// No tag.
    pub const NONE: Self = Self([0; 2]);

    /// One 802.1Q tag.
    pub const fn vlan(number: u16) -> Self {
        Self([(TPID_8021Q as u32) << 16 | (number & VLAN_MASK) as u32, 0])
    }

    /// Bytes these tags take in a frame.
    pub fn len_bytes(self) -> usize {
        4 * self.0.iter().filter(|tag| **tag != 0).count()
    }

    /// Number of the outermost VLAN, if there is any.
    pub fn outer_vlan(self) -> Option<u16> {
        (self.0[0] != 0).then_some(self.0[0] as u16)
    }

    fn write(self, out: &mut [u8]) {
        for (tag, bytes) in self.0.iter().filter(|tag| **tag != 0).zip(out.chunks_exact_mut(4)) {
            bytes.copy_from_slice(&tag.to_be_bytes());
        }
    }
}

/// A broadcast domain as the director sees it: a port and the tags of its frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Segment {
    /// The port.
    pub port: PortId,
    /// The tags.
    pub tags: Tags,
}

/// Where a frame came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Port and tags.
    pub segment: Segment,
    /// Its source on the link.
    pub source: MacAddr,
    /// Which of our addresses it was sent to.
    pub to: Addressee,
}

/// Which address a frame was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// The interface's own address: the kernel handles the frame as well.
    Kernel,
    /// The director's virtual address: the kernel takes the frame for somebody else's.
    Virtual,
    /// Everybody, or a group; only what neighbours say to each other is taken from such frames.
    Everybody,
}

/// What is to become of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// An IP packet for the director; the link header is off.
    Packet(Arrival),
    /// An ARP packet; the link header is off.
    Arp(Arrival),
    /// A message of IPv6's neighbour discovery, or one for listeners of groups; the link header is
    /// off.
    Discovery(Arrival),
    /// Not for the director. The frame is unchanged.
    Ignored(Ignored),
}

/// Why a frame was ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// Shorter than its link header.
    Truncated,
    /// Sent to a link address that is not ours.
    OtherHost,
    /// IP to a link broadcast or multicast address.
    Broadcast,
    /// Neither IP nor ARP.
    OtherProtocol,
    /// In a VLAN that the kernel has an interface of its own for.
    ForeignVlan,
}

/// Frames ignored, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IgnoredCounters {
    counts: [u64; IgnoredCounters::NAMES.len()],
}

impl IgnoredCounters {
    /// Display names in the order of [`iter`](Self::iter).
    pub const NAMES: [&'static str; 5] =
        ["truncated", "other-host", "broadcast", "other-protocol", "foreign-vlan"];

    /// Counts one frame.
    pub fn count(&mut self, reason: Ignored) {
        self.counts[reason as usize] += 1;
    }

    /// Names and counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::NAMES.into_iter().zip(self.counts)
    }
}

/// What decides about the frames of one port. Small and read for every frame.
#[derive(Clone, Debug)]
pub struct Classifier {
    port: PortId,
    /// Whether packets come without link headers.
    headless: bool,
    /// Whether all frames come from the host itself, whomever they are to on their link.
    is_door: bool,
    kernel: u64,
    own: u64,
    foreign_vlans: Box<[u16]>,
}

impl Classifier {
    /// A classifier for a port with these two link addresses, that leaves frames of
    /// `foreign_vlans` to the kernel's own interfaces for them.
    pub fn new(port: PortId, kernel: MacAddr, own: MacAddr, foreign_vlans: &[u16]) -> Self {
        let foreign_vlans = foreign_vlans.into();
        let (kernel, own) = (bits(kernel), bits(own));
        Self { port, headless: false, is_door: false, kernel, own, foreign_vlans }
    }

    /// A classifier for a device without link headers, to which the kernel routes packets.
    pub fn headless(port: PortId) -> Self {
        let foreign_vlans = Box::default();
        Self { port, headless: true, is_door: false, kernel: 0, own: 0, foreign_vlans }
    }

    /// A classifier for what the host itself sends.
    pub fn door() -> Self {
        Self { is_door: true, headless: false, ..Self::headless(DOOR) }
    }

    /// Decides about a frame, and takes the link header off if it is ours.
    pub fn classify(&self, frame: &mut PacketBuf<'_>) -> Class {
        if self.headless {
            return self.classify_packet(frame.bytes());
        }
        let Some(header) = Header::parse(frame.bytes()) else {
            return Class::Ignored(Ignored::Truncated);
        };
        let to = match header.destination {
            _ if self.is_door => return self.classify_own(frame, &header),
            mac if mac == self.kernel => Addressee::Kernel,
            mac if mac == self.own => Addressee::Virtual,
            mac if mac & GROUP_BIT != 0 => Addressee::Everybody,
            _ => return Class::Ignored(Ignored::OtherHost),
        };
        let is_link_message = || {
            let packet = frame.bytes().get(header.len..);
            header.ether_type == ETHER_TYPE_IPV6 && packet.is_some_and(nd::is_link_message)
        };
        let class: fn(Arrival) -> Class = match (header.ether_type, to) {
            (ETHER_TYPE_ARP, _) => Class::Arp,
            (ETHER_TYPE_IPV4 | ETHER_TYPE_IPV6, _) if is_link_message() => Class::Discovery,
            (ETHER_TYPE_IPV4 | ETHER_TYPE_IPV6, Addressee::Everybody) => {
                return Class::Ignored(Ignored::Broadcast);
            }
            (ETHER_TYPE_IPV4 | ETHER_TYPE_IPV6, _) => Class::Packet,
            _ => return Class::Ignored(Ignored::OtherProtocol),
        };
        if header.tags.outer_vlan().is_some_and(|vlan| self.foreign_vlans.contains(&vlan)) {
            return Class::Ignored(Ignored::ForeignVlan);
        }
        let segment = Segment { port: self.port, tags: header.tags };
        let arrival = Arrival { segment, source: mac(header.source), to };
        if !frame.pull(header.len) {
            return Class::Ignored(Ignored::Truncated);
        }
        class(arrival)
    }

    /// Decides about a frame of the host itself: whatever it is to on the link, it is here for its
    /// packet.
    fn classify_own(&self, frame: &mut PacketBuf<'_>, header: &Header) -> Class {
        if !matches!(header.ether_type, ETHER_TYPE_IPV4 | ETHER_TYPE_IPV6) {
            return Class::Ignored(Ignored::OtherProtocol);
        }
        if !frame.pull(header.len) {
            return Class::Ignored(Ignored::Truncated);
        }
        self.classify_packet(frame.bytes())
    }

    /// Decides about a packet without a link header. What is for a group of hosts was sent by the
    /// kernel to whoever it takes to be at the other end of the device.
    fn classify_packet(&self, packet: &[u8]) -> Class {
        let destination = match packet.first().map(|first| first >> 4) {
            Some(4) => packet.get(16).map(|first| (224..=255).contains(first)),
            Some(6) => packet.get(24).map(|first| *first == 0xff),
            Some(_) => return Class::Ignored(Ignored::OtherProtocol),
            None => None,
        };
        match destination {
            None => Class::Ignored(Ignored::Truncated),
            Some(true) => Class::Ignored(Ignored::Broadcast),
            Some(false) => {
                let segment = Segment { port: self.port, tags: Tags::NONE };
                let source = MacAddr::zero();
                Class::Packet(Arrival { segment, source, to: Addressee::Kernel })
            }
        }
    }
}

/// A parsed link header; addresses as the low 48 bits of a number.
struct Header {
    destination: u64,
    source: u64,
    tags: Tags,
    ether_type: u16,
    len: usize,
}

impl Header {
    fn parse(frame: &[u8]) -> Option<Self> {
        let fixed: &[u8; ETHERNET_LEN] = frame.first_chunk()?;
        let destination = u64::from_be_bytes(*fixed.first_chunk()?) >> 16;
        let source = u64::from_be_bytes(*fixed.last_chunk()?) >> 16 & MAC_MASK;
        let ether_type = u16::from_be_bytes([fixed[12], fixed[13]]);
        let mut header = Self { destination, source, tags: Tags::NONE, ether_type, len: 14 };
        if matches!(ether_type, TPID_8021Q | TPID_8021AD) {
            header.parse_tags(frame)?;
        }
        Some(header)
    }

    /// Reads up to two tags; what has more is of another protocol to us.
    #[cold]
    fn parse_tags(&mut self, frame: &[u8]) -> Option<()> {
        let mut tags = [0; 2];
        let mut count = 0;
        while matches!(self.ether_type, TPID_8021Q | TPID_8021AD) && self.len <= MAX_TAGGED_LEN {
            let tag = frame.get(self.len..self.len + 4)?;
            let vlan = u16::from_be_bytes([tag[0], tag[1]]) & VLAN_MASK;
            if vlan != 0 {
                *tags.get_mut(count)? = u32::from(self.ether_type) << 16 | u32::from(vlan);
                count += 1;
            }
            self.ether_type = u16::from_be_bytes([tag[2], tag[3]]);
            self.len += 4;
        }
        self.tags = Tags(tags);
        Some(())
    }
}

/// A finished link header to put in front of packets to one next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The port to send through.
    pub port: PortId,
    /// The port by which packets leave the host in the end: another where the kernel routes them on.
    pub exit: PortId,
    len: u8,
    header: [u8; MAX_HEADER_LEN],
}

impl Hop {
    /// No header at all, for slots that hold none.
    pub(super) const EMPTY: Self = Self::headless(PortId(0), PortId(0));

    /// No header, for packets that the kernel routes on from `port` to leave by `exit`.
    pub const fn headless(port: PortId, exit: PortId) -> Self {
        Self { port, exit, len: 0, header: [0; MAX_HEADER_LEN] }
    }

    /// The header for packets of `family_of`'s family from one link address to another.
    pub fn new(segment: Segment, from: MacAddr, to: MacAddr, family_of: Addr) -> Self {
        let ether_type = match family_of.family() {
            crate::packet::Family::V4 => ETHER_TYPE_IPV4,
            crate::packet::Family::V6 => ETHER_TYPE_IPV6,
        };
        Self::with_type(segment, from, to, ether_type)
    }

    /// The header for frames of any EtherType.
    pub fn with_type(segment: Segment, from: MacAddr, to: MacAddr, ether_type: u16) -> Self {
        let tags_len = segment.tags.len_bytes();
        let len = ETHERNET_LEN + tags_len;
        let mut header = [0; MAX_HEADER_LEN];
        header[..6].copy_from_slice(&to.octets());
        header[6..12].copy_from_slice(&from.octets());
        segment.tags.write(&mut header[12..12 + tags_len]);
        header[len - 2..len].copy_from_slice(&ether_type.to_be_bytes());
        Self { port: segment.port, exit: segment.port, len: len as u8, header }
    }

    /// The header's bytes.
    pub fn header(&self) -> &[u8] {
        &self.header[..self.len as usize]
    }

    /// Puts the header in front of a packet; `false` and unchanged without the headroom.
    #[must_use]
    pub fn write(&self, packet: &mut PacketBuf<'_>) -> bool {
        let header = self.header();
        let Some(room) = packet.push(header.len()) else { return false };
        room.copy_from_slice(header);
        true
    }
}

fn bits(mac: MacAddr) -> u64 {
    mac.octets().iter().fold(0, |bits, octet| bits << 8 | u64::from(*octet))
}

fn mac(bits: u64) -> MacAddr {
    let [_, _, a, b, c, d, e, f] = bits.to_be_bytes();
    MacAddr(a, b, c, d, e, f)
}

/// The EtherType of ARP.
pub const ETHER_TYPE_ARP: u16 = 0x0806;
/// The EtherType of IPv6.
pub const ETHER_TYPE_IPV6: u16 = 0x86dd;
const ETHER_TYPE_IPV4: u16 = 0x0800;
const TPID_8021Q: u16 = 0x8100;
const TPID_8021AD: u16 = 0x88a8;
const VLAN_MASK: u16 = 0x0fff;
const ETHERNET_LEN: usize = 14;
/// Two tags at most.
const MAX_TAGGED_LEN: usize = 18;
const MAX_HEADER_LEN: usize = 22;
const MAC_MASK: u64 = (1 << 48) - 1;
/// The group bit of the first octet.
const GROUP_BIT: u64 = 1 << 40;

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: MacAddr = MacAddr(0x00, 0x00, 0x5e, 0x00, 0x53, 0x01);
    const OWN: MacAddr = MacAddr(0x02, 0x00, 0x5e, 0x00, 0x53, 0x01);
    const PEER: MacAddr = MacAddr(0x00, 0x00, 0x5e, 0x00, 0x53, 0x99);

    fn classify(frame: &[u8]) -> (Class, Vec<u8>) {
        let mut storage = frame.to_vec();
        let end = storage.len();
        let mut packet = PacketBuf::new(&mut storage, 0, end);
        let class = Classifier::new(PortId(3), KERNEL, OWN, &[7]).classify(&mut packet);
        (class, packet.bytes().to_vec())
    }

    fn frame(to: MacAddr, middle: &[u8]) -> Vec<u8> {
        [&to.octets()[..], &PEER.octets(), middle].concat()
    }

    fn arrival(tags: Tags, to: Addressee) -> Arrival {
        Arrival { segment: Segment { port: PortId(3), tags }, source: PEER, to }
    }

    #[test]
    fn packets_to_either_of_our_addresses_are_ours() {
        let (class, rest) = classify(&frame(KERNEL, &[8, 0, 0x45, 1]));
        assert_eq!(class, Class::Packet(arrival(Tags::NONE, Addressee::Kernel)));
        assert_eq!(rest, [0x45, 1]);
        let (class, _) = classify(&frame(OWN, &[0x86, 0xdd, 0x60]));
        assert_eq!(class, Class::Packet(arrival(Tags::NONE, Addressee::Virtual)));
    }

    #[test]
    fn frames_of_others_are_left_alone() {
        for (to, middle, reason) in [
            (PEER, &[8, 0][..], Ignored::OtherHost),
            (MacAddr::broadcast(), &[8, 0], Ignored::Broadcast),
            (MacAddr(1, 0, 0x5e, 0, 0, 1), &[8, 0], Ignored::Broadcast),
            (KERNEL, &[0x88, 0xcc], Ignored::OtherProtocol),
            (KERNEL, &[0x81, 0, 0, 7, 8, 0], Ignored::ForeignVlan),
            (KERNEL, &[8], Ignored::Truncated),
            (KERNEL, &[0x81, 0, 0, 5, 8], Ignored::Truncated),
        ] {
            let bytes = frame(to, middle);
            assert_eq!(classify(&bytes), (Class::Ignored(reason), bytes.clone()));
        }
    }

    #[test]
    fn tags_are_taken_off_and_put_back() {
        let middle = [0x88, 0xa8, 0x60, 9, 0x81, 0, 0, 5, 8, 0, 0x45];
        let (class, rest) = classify(&frame(KERNEL, &middle));
        let Class::Packet(Arrival { segment, .. }) = class else { panic!("{class:?}") };
        assert_eq!(rest, [0x45]);
        assert_eq!(segment.tags.outer_vlan(), Some(9));
        let hop = Hop::new(segment, OWN, PEER, Addr::v4(1));
        let expected = frame(PEER, &[]);
        assert_eq!(hop.header()[..6], expected[..6]);
        assert_eq!(hop.header()[12..], [0x88, 0xa8, 0, 9, 0x81, 0, 0, 5, 8, 0]);
    }

    #[test]
    fn a_priority_tag_is_no_vlan() {
        let (class, rest) = classify(&frame(OWN, &[0x81, 0, 0xe0, 0, 8, 0, 0x45]));
        assert_eq!(class, Class::Packet(arrival(Tags::NONE, Addressee::Virtual)));
        assert_eq!(rest, [0x45]);
    }

    #[test]
    fn a_third_tag_is_another_protocol() {
        let tags = [0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 8, 0];
        let (class, _) = classify(&frame(KERNEL, &tags));
        assert_eq!(class, Class::Ignored(Ignored::OtherProtocol));
    }

    #[test]
    fn broadcast_arp_is_heard() {
        let (class, _) = classify(&frame(MacAddr::broadcast(), &[8, 6, 0]));
        assert_eq!(class, Class::Arp(arrival(Tags::NONE, Addressee::Everybody)));
    }

    #[test]
    fn neighbour_discovery_is_told_from_packets() {
        let mut ipv6 = [0; 64];
        (ipv6[0], ipv6[6], ipv6[40]) = (0x60, 58, 135);
        let group = MacAddr(0x33, 0x33, 0xff, 0, 0, 1);
        let middle = |packet: &[u8]| [&[0x86, 0xdd], packet].concat();
        let (class, rest) = classify(&frame(group, &middle(&ipv6)));
        assert_eq!(class, Class::Discovery(arrival(Tags::NONE, Addressee::Everybody)));
        assert_eq!(rest, ipv6);
        let (class, _) = classify(&frame(OWN, &middle(&ipv6)));
        assert_eq!(class, Class::Discovery(arrival(Tags::NONE, Addressee::Virtual)));
        ipv6[40] = 128;
        let (class, _) = classify(&frame(OWN, &middle(&ipv6)));
        assert_eq!(class, Class::Packet(arrival(Tags::NONE, Addressee::Virtual)));
        let (class, _) = classify(&frame(group, &middle(&ipv6)));
        assert_eq!(class, Class::Ignored(Ignored::Broadcast));
    }
}
