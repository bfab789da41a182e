//! ICMP errors about packets that the director put into tunnels.

use super::transit::Transit;
use super::{Director, Identity};
use crate::engine::conn::{ConnId, Connection, Direction};
use crate::engine::network::{Network, Owner};
use crate::engine::service::{ForwardingMethod, TunnelKind};
use crate::engine::verdict::{DropReason, Verdict};
use crate::packet::Family;
use crate::packet::encap::{QuotedTunnel, Wrapping, quoted_tunnel};
use crate::packet::headers::ICMP_HEADER_LEN;
use crate::packet::reply::{IcmpError, icmp_checksum_is_right};

/// What an ICMP error says about a packet in a tunnel.
struct Report {
    kind: u8,
    code: u8,
    /// The second half of the ICMP header.
    rest: u32,
    quoted: QuotedTunnel,
}

impl Report {
    /// Whether the packet was too large for some link.
    fn is_too_big(&self) -> bool {
        (self.kind, self.code) == (UNREACHABLE, FRAGMENTATION_NEEDED)
    }
}

impl Director {
    /// Judges an ICMP error about an outer packet; `None` if it is about none of ours.
    ///
    /// The client is told in its own terms: about the packet that it sent, in the name of the
    /// virtual address. A smaller path MTU is remembered for the packets to come. Nothing of that is
    /// done for IPv6.
    ///
    /// **Source** — IPVS `ip_vs_in_icmp`.
    pub(super) fn judge_tunnelled(
        &mut self,
        transit: &Transit<'_, '_, impl Network>,
    ) -> Option<Verdict> {
        let headers = transit.headers;
        if transit.network.owner(headers.destination.addr) == Owner::Other || !self.balances() {
            return None;
        }
        let report = read(transit)?;
        let identity = Identity::of(&report.quoted.inner);
        let lookup = self.conns.prepare(identity.source, identity.destination, identity.protocol);
        let (id, Direction::ToReal) = self.conns.find(&lookup)? else { return None };
        if !is_end_of(self.conns.get(id), &report.quoted) {
            return None;
        }
        let unfinished = transit.packet.unfinished_checksum().is_some();
        if !unfinished && !icmp_checksum_is_right(transit.transport(), headers) {
            return Some(Verdict::Drop(DropReason::BadChecksum));
        }
        Some(self.relay(transit, &report, id))
    }

    fn relay(
        &mut self,
        transit: &Transit<'_, '_, impl Network>,
        report: &Report,
        id: ConnId,
    ) -> Verdict {
        let mut rest = report.rest;
        if report.is_too_big() {
            let said = (report.rest & 0xffff) as usize;
            let to = report.quoted.outer.destination.addr;
            let mtu = self.paths.learn(to, said, transit.network, transit.now).unwrap_or(said);
            if !report.quoted.inner.dont_fragment {
                return Verdict::Drop(DropReason::PathMtu);
            }
            rest = if mtu > LEAST_MTU + IP_HEADER { mtu - IP_HEADER } else { mtu } as u32;
        }
        let bytes = &transit.packet.bytes()[report.quoted.start..transit.headers.len];
        let error = IcmpError::Relayed { kind: report.kind, code: report.code, rest };
        let source = Some(report.quoted.inner.destination.addr);
        let verdict = self.tell_sender(error, bytes, &report.quoted.inner, source, transit);
        self.count_answer(id, bytes.len());
        self.count_own_error(id, verdict);
        verdict
    }
}

/// Reads what an ICMP error says about a packet in a tunnel. What IPVS looks at is IPv4 in IPv4.
fn read(transit: &Transit<'_, '_, impl Network>) -> Option<Report> {
    let quoted = quoted_tunnel(transit.packet.bytes(), transit.headers)?;
    if (quoted.outer.family, quoted.inner.family) != (Family::V4, Family::V4) {
        return None;
    }
    let header: &[u8; ICMP_HEADER_LEN] = transit.transport().first_chunk()?;
    let rest = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    Some(Report { kind: header[0], code: header[1], rest, quoted })
}

/// Whether a connection's server is at the end of such a tunnel now.
fn is_end_of(conn: &Connection, quoted: &QuotedTunnel) -> bool {
    let Some(real) = conn.real().filter(|real| real.is_available()) else { return false };
    let tunnel = real.tunnel();
    let is_kind = match (tunnel.kind, quoted.wrapping) {
        (TunnelKind::IpIp, Wrapping::IpIp) | (TunnelKind::Gre, Wrapping::Gre { .. }) => true,
        (TunnelKind::Gue, Wrapping::Gue { port, .. }) => port == tunnel.port,
        _ => false,
    };
    is_kind
        && real.method() == ForwardingMethod::Tunnel
        && real.addr() == quoted.outer.destination.addr
}

const UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;

/// What IPVS takes off a path MTU before it tells a client, whatever the tunnel is; and what a link
/// must take at least.
const IP_HEADER: usize = 20;
const LEAST_MTU: usize = 68;
