//! Tunnels: the packet goes to the real server inside another.

use crate::engine::conn::ConnId;
use crate::engine::director::Director;
use crate::engine::director::transit::Transit;
use crate::engine::network::Network;
use crate::engine::rewrite::nat::write_ttl;
use crate::engine::rewrite::tunnel::{Passage, encapsulate, wrapping};
use crate::engine::verdict::{DropReason, Hop, Verdict};
use crate::packet::encap::Wrapping;
use crate::packet::fragment::UNIT;
use crate::packet::headers::protocol;
use crate::packet::reply::IcmpError;
use crate::packet::{Addr, Family, PacketBuf, SegmentKind};

/// Why a packet does not enter a tunnel.
enum Obstacle {
    /// Its sender is to be told.
    Tell(IcmpError),
    /// Nobody is to be told.
    Drop(DropReason),
}

impl Director {
    /// **Source** — IPVS `ip_vs_tunnel_xmit`, `ip_vs_tunnel_xmit_v6`.
    pub(in crate::engine::director) fn transmit_tunnel(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        id: ConnId,
    ) -> Verdict {
        let conn = self.conns.get(id);
        // What programs send by UDP Linux numbers though it may not be fragmented.
        let numbers_all = conn.host().client && transit.headers.protocol == protocol::UDP;
        let (to, virtual_addr) = (conn.real_endpoint().addr, conn.virtual_endpoint().addr);
        let Some(tunnel) = conn.real().map(|real| real.tunnel()) else {
            return Verdict::Drop(DropReason::UnsupportedMethod);
        };
        let wrapping = wrapping(tunnel, transit.packet, transit.headers);
        match self.enter_tunnel(transit, to, wrapping, numbers_all) {
            Ok(()) => Verdict::Forward(Hop { to }),
            Err(Obstacle::Tell(error)) => self.refuse_request(error, transit, virtual_addr),
            Err(Obstacle::Drop(reason)) => Verdict::Drop(reason),
        }
    }

    fn enter_tunnel(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        to: Addr,
        wrapping: Wrapping,
        numbers_all: bool,
    ) -> Result<(), Obstacle> {
        if transit.headers.ttl <= 1 {
            return Err(Obstacle::Tell(IcmpError::TimeExceeded));
        }
        let path = self.paths.towards(to, transit.network, transit.now);
        let path = path.ok_or(Obstacle::Tell(IcmpError::HostUnreachable))?;
        let ip_len = if to.family() == Family::V4 { 20 } else { 40 };
        let room = path.inner_mtu(ip_len + wrapping.len());
        let room = room.ok_or(Obstacle::Drop(DropReason::TunnelTooNarrow))?;
        let largest = transit.longest();
        if largest > room {
            self.judge_size(transit, room)?;
        }
        let crossed = to.family() != transit.headers.family;
        let pieces = came_in_fragments_of(transit.packet).filter(|_| crossed);
        let passage = Passage {
            source: path.source,
            destination: to,
            marks_df: to.family() == Family::V4
                && pieces.is_some_and(|size| size & FRAG_PMTU != 0)
                && !wrapping.len().is_multiple_of(UNIT)
                && transit.headers.len + ip_len + wrapping.len() > path.mtu,
            keeps_df: self.snapshot.settings.pmtu_disc != 0,
            id: self.take_ids(transit),
            numbers_all,
        };
        write_ttl(transit.packet.bytes_mut(), transit.headers);
        if !encapsulate(transit.packet, transit.headers, wrapping, passage) {
            return Err(Obstacle::Drop(DropReason::TooLong));
        }
        if pieces.is_some() {
            let must_not = to.family() == Family::V6 && transit.headers.dont_fragment;
            let longest = if must_not { FRAG_PMTU } else { u16::MAX };
            transit.packet.offload.segmentation.size_bytes = longest;
        }
        if largest > room || pieces.is_some() {
            leave_in_fragments(transit.packet, path.mtu);
        }
        Ok(())
    }

    /// Judges a packet that is larger than the tunnel takes in one piece.
    ///
    /// **Source** — IPVS `ensure_mtu_is_adequate`: IPv4 is fragmented where it may be, where nobody
    /// wants to know of path MTUs, and where it is an ICMP error itself.
    fn judge_size(
        &self,
        transit: &Transit<'_, '_, impl Network>,
        room: usize,
    ) -> Result<(), Obstacle> {
        let headers = transit.headers;
        let is_kept_whole = match headers.family {
            Family::V4 => {
                self.snapshot.settings.pmtu_disc != 0 && headers.dont_fragment && !headers.is_icmp()
            }
            Family::V6 => true,
        };
        if !is_kept_whole {
            return Ok(());
        }
        let mtu = room.min(usize::from(u16::MAX)) as u16;
        Err(Obstacle::Tell(IcmpError::TooBig { mtu }))
    }

    /// The first of as many identifications as the packet becomes packets.
    fn take_ids(&mut self, transit: &Transit<'_, '_, impl Network>) -> u16 {
        let segmentation = transit.packet.offload.segmentation;
        let count = match segmentation.kind {
            SegmentKind::None => 1,
            _ => transit.headers.len.div_ceil(usize::from(segmentation.size_bytes).max(1)),
        };
        let first = self.ip_id.wrapping_add(1).max(1);
        self.ip_id = first.wrapping_add((count - 1) as u16);
        first
    }
}

/// The longest fragment that a packet came in, if it came in some. Into a tunnel of the other family
/// Linux does not take along how long they were.
///
/// **Source** — Linux `inet_skb_parm` and `inet6_skb_parm`, which have it in different places.
fn came_in_fragments_of(packet: &PacketBuf<'_>) -> Option<u16> {
    let segmentation = packet.offload.segmentation;
    (segmentation.kind == SegmentKind::Fragments).then_some(segmentation.size_bytes)
}

/// Where IPv6 has the size of the longest fragment, IPv4 has flags: this one says that the fragments
/// made of a packet must not be fragmented. Where IPv4 has flags, IPv6 has that size: what came in such
/// fragments leaves over IPv6 in the shortest that there are, and be it one.
///
/// **Source** — Linux `IPSKB_FRAG_PMTU`, `ip_do_fragment`: not if those can be used that came.
const FRAG_PMTU: u16 = 1 << 6;

/// Has an outer packet cut for a way that takes packets of `mtu` bytes, over IPv6 too: the tunnel
/// begins here.
fn leave_in_fragments(packet: &mut PacketBuf<'_>, mtu: usize) {
    let mtu = mtu.min(usize::from(u16::MAX)) as u16;
    if let Some(outer) = &mut packet.offload.outer {
        outer.fragment_bytes = mtu;
    }
    let segmentation = &mut packet.offload.segmentation;
    match segmentation.kind {
        SegmentKind::TcpV4 | SegmentKind::TcpV6 | SegmentKind::UdpL4 => {}
        SegmentKind::Fragments => segmentation.size_bytes = segmentation.size_bytes.min(mtu),
        SegmentKind::None | SegmentKind::UdpFragments => {
            segmentation.kind = SegmentKind::Fragments;
            segmentation.size_bytes = mtu;
        }
    }
}
