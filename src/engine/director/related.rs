//! ICMP errors about packets of connections.

use super::Director;
use crate::engine::conn::{ConnId, Connection, Direction};
use crate::engine::network::{Network, Owner};
use crate::engine::rewrite::icmp::{ErrorTranslation, translate_error};
use crate::engine::rewrite::nat::write_ttl;
use crate::engine::service::ForwardingMethod;
use crate::engine::verdict::{DropReason, Hop, Verdict};
use crate::packet::headers::ICMP_HEADER_LEN;
use crate::packet::reply::icmp_checksum_is_right;
use crate::packet::{Checksum, Headers, PacketBuf};

impl Director {
    /// Judges an ICMP error; `None` if it is none, or about no connection.
    ///
    /// Of errors IPVS translates destination unreachable, source quench and time exceeded. One quotes a packet as its sender got it, so it belongs to the connection in whose
    /// other direction the quoted packet went, and goes there. It neither moves the connection's
    /// state nor extends its life.
    ///
    /// **Source** — IPVS `ip_vs_out_icmp`, `ip_vs_in_icmp`.
    pub(super) fn judge_related(
        &mut self,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
        network: &impl Network,
    ) -> Option<Verdict> {
        let quoted = headers.quoted(packet.bytes())?;
        let icmp = &packet.bytes()[headers.transport..headers.len];
        let lookup = self.conns.prepare(quoted.destination, quoted.source, quoted.protocol);
        let (id, direction) = self.conns.find(&lookup)?;
        let conn = self.conns.get(id);
        if !self.balances() && !conn.is_outbound() {
            return None;
        }
        // An error about what went to the server travels to the client, and the other way round.
        let to_client = direction == Direction::ToClient;
        if to_client && network.owner(headers.destination.addr) != Owner::Other {
            return None;
        }
        let is_direct = conn.method() == ForwardingMethod::Direct;
        if conn.method() != ForwardingMethod::Masquerade && (to_client || !is_direct) {
            return None;
        }
        // What is left to a network card to sum up cannot be wrong yet.
        let unfinished = packet.unfinished_checksum().is_some();
        if !unfinished && !icmp_checksum_is_right(icmp, headers) {
            return Some(Verdict::Drop(DropReason::BadChecksum));
        }
        Some(self.translate_related(packet, headers, &quoted, id, to_client, network))
    }

    fn translate_related(
        &mut self,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
        quoted: &Headers,
        id: ConnId,
        to_client: bool,
        network: &impl Network,
    ) -> Verdict {
        let conn = self.conns.get(id);
        if headers.ttl <= 1 {
            return Verdict::Drop(DropReason::TtlExpired);
        }
        let to = if to_client { conn.client().addr } else { conn.real_endpoint().addr };
        if network.mtu(to).is_none() {
            return Verdict::Drop(DropReason::NotForwarded);
        }
        self.count_related(conn, headers, to_client);
        if conn.method() == ForwardingMethod::Direct {
            write_ttl(packet.bytes_mut(), headers);
            return Verdict::Forward(Hop { to });
        }
        let stands_in = if to_client { conn.virtual_endpoint() } else { conn.real_endpoint() };
        let translation = ErrorTranslation { outer: stands_in.addr, quoted: stands_in, to_client };
        let start = headers.transport + ICMP_HEADER_LEN;
        translate_error(packet, headers, quoted, start, translation);
        packet.offload.checksum = Checksum::Complete;
        Verdict::Forward(Hop { to })
    }

    fn count_related(&self, conn: &Connection, headers: &Headers, to_client: bool) {
        let Some(real) = conn.real().filter(|real| real.is_available()) else { return };
        let counters = real.counters(self.worker);
        if to_client {
            counters.count_out(1, headers.len as u64);
        } else {
            counters.count_in(1, headers.len as u64);
        }
    }
}
