//! Super-frames cut into the frames that go on a wire, and unfinished checksums finished.
//!
//! For links that take neither: capture files, devices that refuse the metadata, tunnels. Datagrams
//! that are to be cut into IP fragments are the business of [`fragment`](super::fragment).

use super::checksum::Sum;
use super::encap::{self, OuterHeaders};
use super::headers::{Headers, Malformed, protocol, set_word, word};
use super::sctp;
use super::{Checksum, Family, Fragment, Offload, PacketBuf, SegmentKind, Segmentation};

/// Why a packet cannot be brought onto a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncuttable {
    /// It is not a packet.
    Malformed(Malformed),
    /// Its metadata contradicts its headers.
    Contradiction,
    /// It is to be cut into IP fragments, not into segments.
    Fragments,
    /// It is too long for the link and must not be fragmented.
    DontFragment,
    /// The link is too small for any fragment.
    Limit,
}

impl From<Malformed> for Uncuttable {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Hands what has to be sent for `packet` to `send`: itself with its checksum finished, or its
/// segments in order. The IP header starts `network` bytes into the packet.
///
/// **Shape** — each segment has at least `headroom` bytes in front and needs nothing finished.
///
/// **Errors** — nothing was sent.
pub fn to_wire(
    packet: &mut PacketBuf<'_>,
    network: usize,
    headroom: usize,
    mut send: impl FnMut(&mut PacketBuf<'_>),
) -> Result<(), Uncuttable> {
    if packet.offload.segmentation.kind == SegmentKind::None {
        finish_checksum(packet)?;
        send(packet);
        return Ok(());
    }
    let cut = Cut::plan(packet, network)?;
    let mut storage = Vec::with_capacity(headroom + cut.longest());
    for number in 0..cut.count() {
        storage.clear();
        storage.resize(headroom, 0);
        cut.append(number, packet, &mut storage);
        let len = storage.len();
        let mut segment = PacketBuf::new(&mut storage, headroom, len);
        segment.offload.segmentation = cut.fragmentation();
        send(&mut segment);
    }
    Ok(())
}

/// The length of the longest packet that a packet becomes once its super-frame is segmented, in
/// bytes from the IP header on, at which the packet starts.
pub fn longest_segment(packet: &PacketBuf<'_>, headers: &Headers) -> usize {
    let segmentation = packet.offload.segmentation;
    let transport_header = match segmentation.kind {
        SegmentKind::None | SegmentKind::UdpFragments | SegmentKind::Fragments => {
            return headers.len;
        }
        SegmentKind::UdpL4 => UDP_HEADER,
        SegmentKind::TcpV4 | SegmentKind::TcpV6 => {
            let offset = packet.bytes().get(headers.transport + TCP_OFFSET);
            usize::from(offset.copied().unwrap_or(0x50) >> 4) * 4
        }
    };
    (headers.transport + transport_header + usize::from(segmentation.size_bytes)).min(headers.len)
}

/// Sums what an unfinished checksum has left out, and writes the result.
///
/// **Errors** — the checksum lies outside the packet, which is unchanged.
pub fn finish_checksum(packet: &mut PacketBuf<'_>) -> Result<(), Uncuttable> {
    let Checksum::Unfinished { offset, .. } = packet.offload.checksum else { return Ok(()) };
    let (start, field) = packet.unfinished_checksum().ok_or(Uncuttable::Contradiction)?;
    if usize::from(offset) == SCTP_CHECKSUM {
        let sctp = packet.bytes_mut().get_mut(start..).filter(|sctp| sctp.len() >= SCTP_HEADER);
        sctp::write_checksum(sctp.ok_or(Uncuttable::Contradiction)?);
        packet.offload.checksum = Checksum::Complete;
        return Ok(());
    }
    let sum = Sum::of(&packet.bytes()[start..]).checksum();
    // Zero means "no checksum" in UDP, and is never sent by TCP: both are right with its twin.
    let sum = if usize::from(offset) == UDP_CHECKSUM && sum == 0 { 0xffff } else { sum };
    set_word(packet.bytes_mut(), field, sum);
    packet.offload.checksum = Checksum::Complete;
    Ok(())
}

/// How a super-frame is cut.
///
/// One in a tunnel is cut as what it is inside, and every segment gets outer headers of its own.
///
/// **Shape** — offsets are bytes from the packet's start.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    headers: Headers,
    /// Where the outer headers start, and what they are like.
    outer: Option<(usize, OuterHeaders)>,
    network: usize,
    transport: usize,
    /// Where the payload starts, and how long every segment's headers are.
    payload: usize,
    /// Where it ends.
    end: usize,
    /// Bytes of payload per segment.
    size: usize,
    /// Whether segments carry a transport checksum at all.
    checksummed: bool,
}

impl Cut {
    /// Finds out how to cut `packet`, whose first IP header starts `network` bytes into it.
    pub fn plan(packet: &PacketBuf<'_>, network: usize) -> Result<Self, Uncuttable> {
        let Offload { segmentation, checksum, outer, .. } = packet.offload;
        let outer = outer.map(|outer| (network, outer));
        let network = network + outer.map_or(0, |(_, outer)| usize::from(outer.len));
        let ip = packet.bytes().get(network..).ok_or(Malformed::Truncated)?;
        let headers = Headers::parse(ip)?;
        let (family, number) = match segmentation.kind {
            SegmentKind::TcpV4 => (Some(Family::V4), protocol::TCP),
            SegmentKind::TcpV6 => (Some(Family::V6), protocol::TCP),
            SegmentKind::UdpL4 => (None, protocol::UDP),
            SegmentKind::UdpFragments | SegmentKind::Fragments | SegmentKind::None => {
                return Err(Uncuttable::Fragments);
            }
        };
        // Of a fragment it is not even known whether there is a transport header.
        let is_whole = matches!(headers.fragment, Fragment::Whole | Fragment::Atomic);
        let is_of_family = family.is_none_or(|family| family == headers.family);
        if headers.protocol != number || !is_of_family || !is_whole {
            return Err(Uncuttable::Contradiction);
        }
        let transport = network + headers.transport;
        let end = network + headers.len;
        let header_len = if number == protocol::TCP {
            usize::from(packet.bytes()[transport + TCP_OFFSET] >> 4) * 4
        } else {
            UDP_HEADER
        };
        let (payload, size) = (transport + header_len, usize::from(segmentation.size_bytes));
        if size == 0 || payload >= end || header_len < UDP_HEADER {
            return Err(Uncuttable::Contradiction);
        }
        let checksummed = number == protocol::TCP
            || checksum != Checksum::Complete
            || word(packet.bytes(), transport + UDP_CHECKSUM) != 0;
        Ok(Self { headers, outer, network, transport, payload, end, size, checksummed })
    }

    /// How many segments there are.
    pub fn count(&self) -> usize {
        (self.end - self.payload).div_ceil(self.size)
    }

    /// The length of the longest segment in bytes.
    pub fn longest(&self) -> usize {
        self.payload + self.size.min(self.end - self.payload)
    }

    /// How segments are to be cut into fragments where they are too long for their way.
    fn fragmentation(&self) -> Segmentation {
        match self.outer {
            Some((_, OuterHeaders { fragment_bytes: size_bytes @ 1.., .. })) => {
                let kind = SegmentKind::Fragments;
                Segmentation { kind, size_bytes, ..Segmentation::default() }
            }
            _ => Segmentation::default(),
        }
    }

    /// Appends the segment of this number, complete, to `out`.
    ///
    /// **Panics** if `packet` is not the one that the cut was planned for, or has no such segment.
    pub fn append(&self, number: usize, packet: &PacketBuf<'_>, out: &mut Vec<u8>) {
        let position = number * self.size;
        let start = self.payload + position;
        let end = (start + self.size).min(self.end);
        let front = out.len();
        out.extend_from_slice(&packet.bytes()[..self.payload]);
        out.extend_from_slice(&packet.bytes()[start..end]);
        let segment = &mut out[front..];
        self.complete(segment, position, end == self.end);
        if let Some((at, outer)) = self.outer {
            encap::complete(&mut segment[at..], outer, number as u16);
        }
    }

    /// Makes the headers of one segment right; its payload starts `position` bytes into the whole.
    fn complete(&self, segment: &mut [u8], position: usize, last: bool) {
        self.complete_network(segment, position / self.size);
        let len = segment.len() - self.transport;
        if self.headers.protocol == protocol::TCP {
            complete_tcp(&mut segment[self.transport..], position, last);
        } else {
            set_word(segment, self.transport + 4, len as u16);
        }
        if self.checksummed {
            self.checksum(segment, len);
        }
    }

    fn complete_network(&self, segment: &mut [u8], number: usize) {
        let ip = &mut segment[self.network..];
        match self.headers.family {
            Family::V4 => {
                set_word(ip, 2, ip.len() as u16);
                set_word(ip, 4, word(ip, 4).wrapping_add(number as u16));
                set_word(ip, 10, 0);
                let header_len = usize::from(ip[0] & 15) * 4;
                set_word(ip, 10, Sum::of(&ip[..header_len]).checksum());
            }
            Family::V6 => set_word(ip, 4, (ip.len() - V6_HEADER) as u16),
        }
    }

    fn checksum(&self, segment: &mut [u8], len: usize) {
        let Headers { source, destination, protocol: number, .. } = self.headers;
        let udp = number == protocol::UDP;
        let field = self.transport + if udp { UDP_CHECKSUM } else { TCP_CHECKSUM };
        set_word(segment, field, 0);
        let sum = Sum::pseudo_header(source.addr, destination.addr, number, len)
            .plus(Sum::of(&segment[self.transport..]))
            .checksum();
        set_word(segment, field, if udp && sum == 0 { 0xffff } else { sum });
    }
}

/// Moves the sequence number on. FIN and PSH belong to the last segment, CWR to the first.
fn complete_tcp(tcp: &mut [u8], position: usize, last: bool) {
    let sequence = u32::from(word(tcp, 4)) << 16 | u32::from(word(tcp, 6));
    let sequence = sequence.wrapping_add(position as u32);
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    if !last {
        tcp[TCP_FLAGS] &= !(FIN | PSH);
    }
    if position > 0 {
        tcp[TCP_FLAGS] &= !CWR;
    }
}

const V6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
const UDP_CHECKSUM: usize = 6;
const TCP_CHECKSUM: usize = 16;
/// No other protocol that cards sum up has its checksum there. SCTP's is no Internet checksum.
const SCTP_CHECKSUM: usize = 8;
const SCTP_HEADER: usize = 12;
const TCP_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const FIN: u8 = 1;
const PSH: u8 = 8;
const CWR: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    const FRONT: usize = 32;

    /// A frame as it looks before its device finishes it.
    struct Super {
        storage: Vec<u8>,
        offload: Offload,
    }

    impl Super {
        fn new(v6: bool, udp: bool, options: usize, payload: &[u8], size: u16) -> Self {
            let mut storage = vec![0xa5; FRONT];
            let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
            let ip = if v6 {
                ethernet.ipv6([0x20; 16], [0x21; 16], 9)
            } else {
                ethernet.ipv4([192, 0, 2, 1], [198, 51, 100, 2], 9)
            };
            if udp {
                ip.udp(7, 9).write(&mut storage, payload).unwrap();
            } else {
                let tcp = ip.tcp(7, 9, u32::MAX - 3000, 500).ack(8).fin().psh().cwr();
                let options = vec![1; options * 4];
                tcp.options_raw(&options).unwrap().write(&mut storage, payload).unwrap();
            }
            let transport = 14 + if v6 { 40 } else { 20 };
            let field = if udp { UDP_CHECKSUM } else { TCP_CHECKSUM };
            let headers = Headers::parse(&storage[FRONT + 14..]).unwrap();
            let partial = Sum::pseudo_header(
                headers.source.addr,
                headers.destination.addr,
                headers.protocol,
                headers.transport_len(),
            );
            set_word(&mut storage, FRONT + transport + field, partial.folded());
            let kind = match (udp, v6) {
                (true, _) => SegmentKind::UdpL4,
                (false, true) => SegmentKind::TcpV6,
                (false, false) => SegmentKind::TcpV4,
            };
            let segmentation = Segmentation { kind, size_bytes: size, ..Default::default() };
            let checksum =
                Checksum::Unfinished { start: (FRONT + transport) as u32, offset: field as u16 };
            Self { storage, offload: Offload { segmentation, checksum, ..Offload::default() } }
        }

        fn wire(&mut self) -> Result<Vec<Vec<u8>>, Uncuttable> {
            let end = self.storage.len();
            let mut packet = PacketBuf::new(&mut self.storage, FRONT, end);
            packet.offload = self.offload;
            let mut frames = Vec::new();
            to_wire(&mut packet, 14, 64, |frame| {
                assert!(frame.headroom() >= FRONT);
                assert_eq!(frame.offload, Offload::default());
                frames.push(frame.bytes().to_vec());
            })?;
            Ok(frames)
        }
    }

    /// Checks all checksums and returns sequence number, flags and payload.
    fn examine(frame: &[u8]) -> (u32, [bool; 3], Vec<u8>) {
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        let net = sliced.net.unwrap();
        if let NetSlice::Ipv4(ip) = &net {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
        }
        let (addresses, payload) = match &net {
            NetSlice::Ipv4(ip) => {
                (Ok((ip.header().source(), ip.header().destination())), ip.payload())
            }
            NetSlice::Ipv6(ip) => {
                (Err((ip.header().source(), ip.header().destination())), ip.payload())
            }
            NetSlice::Arp(_) => panic!("no IP packet"),
        };
        assert_eq!(payload.payload.len() + if addresses.is_ok() { 34 } else { 54 }, frame.len());
        match sliced.transport.unwrap() {
            TransportSlice::Tcp(tcp) => {
                let header = tcp.to_header();
                let sum = match addresses {
                    Ok((a, b)) => header.calc_checksum_ipv4_raw(a, b, tcp.payload()).unwrap(),
                    Err((a, b)) => header.calc_checksum_ipv6_raw(a, b, tcp.payload()).unwrap(),
                };
                assert_eq!(sum, header.checksum);
                (tcp.sequence_number(), [tcp.cwr(), tcp.psh(), tcp.fin()], tcp.payload().to_vec())
            }
            TransportSlice::Udp(udp) => {
                let header = udp.to_header();
                let sum = match addresses {
                    Ok((a, b)) => header.calc_checksum_ipv4_raw(a, b, udp.payload()).unwrap(),
                    Err((a, b)) => header.calc_checksum_ipv6_raw(a, b, udp.payload()).unwrap(),
                };
                assert_eq!(if sum == 0 { 0xffff } else { sum }, header.checksum);
                assert_eq!(usize::from(header.length), udp.payload().len() + 8);
                (0, [false; 3], udp.payload().to_vec())
            }
            _ => panic!("neither TCP nor UDP"),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn segments_are_right_and_carry_the_whole_payload(
            v6 in any::<bool>(), udp in any::<bool>(), options in 0usize..=10,
            payload in prop::collection::vec(any::<u8>(), 1..9000), size in 1u16..3000,
        ) {
            let size = size.max(payload.len() as u16 / 40 + 1);
            let frames = Super::new(v6, udp, options, &payload, size).wire().unwrap();
            prop_assert_eq!(frames.len(), payload.len().div_ceil(usize::from(size)));
            let (mut carried, count) = (Vec::new(), frames.len());
            for (number, frame) in frames.iter().enumerate() {
                let (sequence, flags, part) = examine(frame);
                if !udp {
                    let start = u32::MAX - 3000;
                    prop_assert_eq!(sequence, start.wrapping_add(carried.len() as u32));
                    let last = number + 1 == count;
                    prop_assert_eq!(flags, [number == 0, last, last]);
                }
                prop_assert!(part.len() == usize::from(size) || number + 1 == count);
                carried.extend(part);
            }
            prop_assert_eq!(carried, payload);
        }

        #[test]
        fn an_unfinished_checksum_is_finished(
            v6 in any::<bool>(), udp in any::<bool>(),
            payload in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            let mut whole = Super::new(v6, udp, 3, &payload, 1);
            whole.offload.segmentation = Segmentation::default();
            let frames = whole.wire().unwrap();
            prop_assert_eq!(frames.len(), 1);
            prop_assert_eq!(examine(&frames[0]).2, payload);
        }

        #[test]
        fn hostile_metadata_and_bytes_are_refused_or_harmless(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            kind in 0usize..5, size_bytes in any::<u16>(), start in 0u32..300, offset in 0u16..300,
            network in 0usize..40, plausible in any::<bool>(),
        ) {
            if plausible {
                let mut whole = Super::new(false, kind == 3, 0, &bytes, 9);
                let flip = start as usize % whole.storage.len();
                whole.storage[flip] ^= offset as u8;
                bytes = whole.storage.split_off(FRONT);
            }
            let end = bytes.len();
            let mut packet = PacketBuf::new(&mut bytes, 0, end);
            let kinds = [
                SegmentKind::None, SegmentKind::TcpV4, SegmentKind::TcpV6, SegmentKind::UdpL4,
                SegmentKind::UdpFragments,
            ];
            packet.offload = Offload {
                segmentation: Segmentation { kind: kinds[kind], size_bytes, ..Default::default() },
                checksum: Checksum::Unfinished { start, offset },
                ..Offload::default()
            };
            let network = if plausible { 14 } else { network };
            let mut sent = 0;
            let result = to_wire(&mut packet, network, 0, |_| sent += 1);
            prop_assert_eq!(result.is_ok(), sent > 0);
        }
    }

    #[test]
    fn a_fragment_is_no_super_frame() {
        let mut first = Super::new(false, false, 0, &[1; 100], 10);
        let ip = FRONT + 14;
        set_word(&mut first.storage, ip + 6, 0x2000);
        // Eight bytes of TCP, and no more.
        set_word(&mut first.storage, ip + 2, 28);
        first.storage.truncate(ip + 28);
        set_word(&mut first.storage, ip + 10, 0);
        let checksum = Sum::of(&first.storage[ip..ip + 20]).checksum();
        set_word(&mut first.storage, ip + 10, checksum);
        assert_eq!(first.wire(), Err(Uncuttable::Contradiction));
    }

    #[test]
    fn metadata_that_contradicts_the_headers_is_refused() {
        let mut udp = Super::new(false, true, 0, &[1; 100], 10);
        udp.offload.segmentation.kind = SegmentKind::TcpV4;
        assert_eq!(udp.wire(), Err(Uncuttable::Contradiction));
        let mut family = Super::new(false, false, 0, &[1; 100], 10);
        family.offload.segmentation.kind = SegmentKind::TcpV6;
        assert_eq!(family.wire(), Err(Uncuttable::Contradiction));
        let mut size = Super::new(false, false, 0, &[1; 100], 0);
        assert_eq!(size.wire(), Err(Uncuttable::Contradiction));
        size.offload.segmentation.size_bytes = 10;
        size.storage[FRONT + 34 + 12] = 0xf0;
        assert!(size.wire().is_ok());
        size.storage.truncate(FRONT + 60);
        assert_eq!(size.wire(), Err(Uncuttable::Malformed(Malformed::Truncated)));
    }
}
