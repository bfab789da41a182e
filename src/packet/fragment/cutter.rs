//! Packets that are too long for their link: super-frames cut into segments, packets into fragments.

use super::{Cutting, Fragments, Identifications};
use crate::packet::segment::{Cut, Uncuttable, finish_checksum, longest_segment, to_wire};
use crate::packet::{Headers, PacketBuf, SegmentKind};

/// Cuts packets, in memory that it keeps for the next.
#[derive(Debug, Default)]
pub struct Cutter {
    fragments: Fragments,
    ids: Identifications,
    headroom: usize,
}

impl Cutter {
    /// A cutter whose pieces have this many bytes in front; `seed` is for identifications.
    pub fn new(headroom: usize, seed: u64) -> Self {
        Self { fragments: Fragments::default(), ids: Identifications::new(seed), headroom }
    }

    /// Hands what has to be sent for a packet, from its IP header on, over a link of `mtu` bytes to
    /// `send`, the fragments of one packet together.
    ///
    /// **Errors** — the packet must not be fragmented, or cannot be; of a super-frame some segments
    /// may have been sent.
    pub fn cut(
        &mut self,
        packet: &mut PacketBuf<'_>,
        mtu: usize,
        lengths: &[u16],
        mut send: impl FnMut(&mut Fragments),
    ) -> Result<(), Uncuttable> {
        match packet.offload.segmentation.kind {
            SegmentKind::None | SegmentKind::UdpFragments | SegmentKind::Fragments => {
                finish_checksum(packet)?;
                self.fragment(packet, mtu, lengths)?;
                send(&mut self.fragments);
                Ok(())
            }
            SegmentKind::TcpV4 | SegmentKind::TcpV6 | SegmentKind::UdpL4 => {
                let cut = Cut::plan(packet, 0)?;
                if cut.longest() <= mtu {
                    self.fragments.segment(packet, &cut, self.headroom);
                    send(&mut self.fragments);
                    return Ok(());
                }
                let mut failed = None;
                to_wire(packet, 0, 0, |segment| match self.fragment(segment, mtu, lengths) {
                    Ok(()) => send(&mut self.fragments),
                    Err(error) => failed = Some(error),
                })?;
                failed.map_or(Ok(()), Err)
            }
        }
    }

    fn fragment(
        &mut self,
        packet: &PacketBuf<'_>,
        mtu: usize,
        lengths: &[u16],
    ) -> Result<(), Uncuttable> {
        let mut cutting = Cutting::for_link(packet, mtu, self.ids.draw(), self.headroom);
        if packet.len() <= cutting.limit {
            self.fragments.keep(packet.bytes(), self.headroom);
            return Ok(());
        }
        let kind = packet.offload.segmentation.kind;
        let comes_in_fragments = matches!(kind, SegmentKind::UdpFragments | SegmentKind::Fragments);
        if !comes_in_fragments && Headers::parse(packet.bytes())?.dont_fragment {
            return Err(Uncuttable::DontFragment);
        }
        if kind == SegmentKind::Fragments && packet.bytes().first().is_some_and(|b| b >> 4 == 6) {
            cutting.limit = cutting.limit.max(LEAST_MTU).min(mtu);
        }
        self.fragments.cut(packet.bytes(), &Cutting { lengths, ..cutting })
    }
}

/// Fragments of IPv6 packets need not be shorter. **Source** — RFC 8200 §5, Linux `ip6_fragment`.
const LEAST_MTU: usize = 1280;

/// Whether a packet, from its IP header on, has to be cut before it goes to a link of `mtu` bytes,
/// because it is too long or because no device knows how it is to be cut.
pub fn must_be_cut(packet: &PacketBuf<'_>, mtu: usize) -> bool {
    if packet.offload.outer.is_some() {
        return true;
    }
    match packet.offload.segmentation.kind {
        SegmentKind::None => packet.len() > mtu,
        SegmentKind::UdpFragments | SegmentKind::Fragments => true,
        SegmentKind::TcpV4 | SegmentKind::TcpV6 | SegmentKind::UdpL4 => {
            packet.len() > mtu
                && Headers::parse(packet.bytes())
                    .is_ok_and(|headers| longest_segment(packet, &headers) > mtu)
        }
    }
}
