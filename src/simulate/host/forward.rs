//! The host as a router for what the director leaves alone.

use super::answers::Trouble;
use super::routes::Way;
use super::{Consulted, Datagram, DirectorHost, Pieces};
use crate::engine::conn::Direction;
use crate::packet::Headers;
use crate::simulate::packet::{Packet, dissect, internet_checksum};

impl DirectorHost {
    /// Routes a packet on as a router, if the director had nothing to do with it.
    pub(super) fn forward(&mut self, packet: Packet, pieces: Option<&Pieces>) {
        if self.can_forward(&packet, pieces) {
            let dst = packet.dst;
            self.route_out(with_one_hop_less(packet), dst, pieces);
        }
    }

    /// Routes an ICMP error on, which the director looks at on its way.
    ///
    /// **Source** — IPVS `ip_vs_forward_icmp`.
    pub(super) fn forward_error(&mut self, packet: Packet, pieces: Option<Pieces>) {
        if !self.can_forward(&packet, pieces.as_ref()) {
            return;
        }
        let dst = packet.dst;
        // What goes to a client the director takes as it comes, to route it on by itself.
        let tells_client = self.tells_client(&packet);
        let whole = packet.raw.clone();
        let passed_on = with_one_hop_less(packet);
        let bytes = if tells_client { whole } else { passed_on.clone() };
        let left = Datagram { bytes, unfinished: None, pieces };
        if self.consult(&left, None) == Consulted::LeftToHost {
            self.route_out(passed_on, dst, left.pieces.as_ref());
        }
    }

    /// Whether an ICMP error tells a client what became of a packet of a connection.
    fn tells_client(&self, error: &Packet) -> bool {
        let quoted = Headers::parse(&error.raw).ok().and_then(|headers| headers.quoted(&error.raw));
        quoted.is_some_and(|quoted| {
            let conns = self.director.connections();
            let lookup = conns.prepare(quoted.destination, quoted.source, quoted.protocol);
            conns.find(&lookup).is_some_and(|(_, direction)| direction == Direction::ToClient)
        })
    }

    /// Whether a packet can be routed on; whoever sent it is told if not.
    fn can_forward(&mut self, packet: &Packet, pieces: Option<&Pieces>) -> bool {
        let Way::Link(link, _) = self.routes.way(packet.dst) else {
            self.report(packet, Trouble::HostUnreachable);
            return false;
        };
        if packet.fields.ttl <= 1 {
            self.report(packet, Trouble::TimeExceeded);
            return false;
        }
        let mtu = self.routes.link_mtu(link);
        let len = match pieces {
            Some(pieces) if packet.src.is_ipv6() => usize::from(pieces.longest),
            _ => packet.raw.len(),
        };
        let must_not = packet.fields.df || packet.src.is_ipv6();
        if pieces.is_some() && must_not && packet.src.is_ipv4() {
            // However short: it is not told apart from what would have to be cut. Its fragments had
            // their hop taken before they were gathered.
            let routed = dissect(&with_one_hop_less(packet.clone()));
            routed.iter().for_each(|routed| self.report(routed, Trouble::TooBig(mtu)));
            return false;
        }
        if len > mtu && must_not {
            self.report(packet, Trouble::TooBig(mtu));
            return false;
        }
        true
    }
}

/// The bytes of a packet after a router: one hop less to live.
fn with_one_hop_less(packet: Packet) -> Vec<u8> {
    let mut bytes = packet.raw;
    if packet.src.is_ipv6() {
        bytes[7] -= 1;
    } else {
        bytes[8] -= 1;
        let header_len = usize::from(bytes[0] & 15) * 4;
        bytes[10..12].fill(0);
        let sum = internet_checksum(&bytes[..header_len]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}
