//! Packets of known connections.

use super::Director;
use crate::engine::conn::tcp::{Seen, TcpFlags, TcpState, next};
use crate::engine::conn::{ConnId, Connection, Direction, State};
use crate::engine::network::Network;
use crate::engine::rewrite::nat::{Translation, translate, write_ttl};
use crate::engine::service::ForwardingMethod;
use crate::engine::time::Moment;
use crate::engine::verdict::{DropReason, Hop, Verdict};
use crate::packet::headers::protocol;
use crate::packet::reply::IcmpError;
use crate::packet::{Addr, Headers, PacketBuf, SegmentKind};

impl Director {
    /// Judges a packet of the client.
    ///
    /// **Source** — IPVS `ip_vs_in_hook`: a SYN may take the connection's place, a removed server
    /// swallows, then counters, state, transmission.
    pub(super) fn forward_to_real(
        &mut self,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
        id: ConnId,
        network: &impl Network,
        now: Moment,
    ) -> Verdict {
        let flags = tcp_flags(packet, headers);
        let conn = self.conns.get(id);
        if flags.is_some_and(TcpFlags::syn) && self.is_reused(conn) {
            self.conns.remove(id);
            return self.judge_unknown(packet, headers, network, now);
        }
        if conn.real().is_some_and(|real| !real.is_available()) {
            if !self.snapshot.settings.expire_nodest_conn {
                return Verdict::Drop(DropReason::ServerRemoved);
            }
            self.conns.remove(id);
            return self.judge_unknown(packet, headers, network, now);
        }
        self.pass_to_real(packet, headers, id, network, now)
    }

    /// Counts, moves the state and transmits a packet of the client.
    pub(super) fn pass_to_real(
        &mut self,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
        id: ConnId,
        network: &impl Network,
        now: Moment,
    ) -> Verdict {
        let flags = tcp_flags(packet, headers);
        let worker = self.worker;
        let conn = self.conns.get_mut(id);
        if let Some(real) = conn.real() {
            real.counters(worker).count_in(1, headers.len as u64);
        }
        conn.count_in();
        let is_first = conn.in_packets() == 1;
        self.advance(id, flags, Direction::ToReal, now);
        let conn = self.conns.get(id);
        match conn.method() {
            ForwardingMethod::Masquerade => {
                let real = conn.real_endpoint();
                let virtual_addr = conn.virtual_endpoint().addr;
                if let Err(error) = check_way(packet, headers, real.addr, is_first, network) {
                    return self.refuse_request(error, packet, headers, virtual_addr, network, now);
                }
                let translation = Translation { destination: Some(real), ..Default::default() };
                translate(packet, headers, translation);
                Verdict::Forward(Hop { to: real.addr })
            }
            ForwardingMethod::Direct => {
                let (to, virtual_addr) = (conn.real_endpoint().addr, conn.virtual_endpoint().addr);
                if let Err(error) = check_way(packet, headers, to, is_first, network) {
                    return self.refuse_request(error, packet, headers, virtual_addr, network, now);
                }
                write_ttl(packet.bytes_mut(), headers);
                Verdict::Forward(Hop { to })
            }
            ForwardingMethod::Local => Verdict::Pass,
            ForwardingMethod::Tunnel | ForwardingMethod::FullNat | ForwardingMethod::Bypass => {
                Verdict::Drop(DropReason::UnsupportedMethod)
            }
        }
    }

    /// Judges a packet of the real server.
    ///
    /// **Source** — Linux `ip_forward`, which looks at the time to live and the size before IPVS
    /// translates, and IPVS `handle_response`.
    pub(super) fn forward_to_client(
        &mut self,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
        id: ConnId,
        network: &impl Network,
        now: Moment,
    ) -> Verdict {
        let conn = self.conns.get(id);
        let (client, virtual_endpoint) = (conn.client().addr, conn.virtual_endpoint());
        if !matches!(conn.method(), ForwardingMethod::Masquerade) {
            return self.see_answer(packet, headers, id, now);
        }
        if let Err(error) = check_way(packet, headers, client, false, network) {
            return self.refuse(error, packet.bytes(), headers, None, network, now);
        }
        if let Some(real) = conn.real().filter(|real| real.is_available()) {
            real.counters(self.worker).count_out(1, headers.len as u64);
        }
        let flags = tcp_flags(packet, headers);
        self.advance(id, flags, Direction::ToClient, now);
        let translation = Translation { source: Some(virtual_endpoint), ..Default::default() };
        translate(packet, headers, translation);
        Verdict::Forward(Hop { to: client })
    }

    /// Takes note of a server's answer that needs no translation and yet came this way.
    fn see_answer(
        &mut self,
        packet: &PacketBuf<'_>,
        headers: &Headers,
        id: ConnId,
        now: Moment,
    ) -> Verdict {
        if let Some(real) = self.conns.get(id).real().filter(|real| real.is_available()) {
            real.counters(self.worker).count_out(1, headers.len as u64);
        }
        self.advance(id, tcp_flags(packet, headers), Direction::ToClient, now);
        Verdict::Pass
    }

    /// Moves a connection's state by a packet and gives it the state's time to live.
    fn advance(&mut self, id: ConnId, flags: Option<TcpFlags>, to: Direction, now: Moment) {
        let conn = self.conns.get_mut(id);
        if let (State::Tcp(state), Some(flags)) = (conn.state(), flags) {
            let seen = match (to, conn.is_one_way()) {
                (Direction::ToReal, false) => Seen::Input,
                (Direction::ToReal, true) => Seen::InputOnly,
                (Direction::ToClient, _) => {
                    conn.set_two_way();
                    Seen::Output
                }
            };
            let secure = self.snapshot.settings.secure_tcp;
            let next = State::Tcp(next(state, flags, seen, secure));
            let was_established = state == TcpState::Established;
            conn.set_state(next);
            if next == ESTABLISHED && !was_established {
                assure(conn);
            }
        } else if to == Direction::ToClient {
            assure(conn);
        }
        let timeout_ms = conn.state().timeout_ms(&self.snapshot.timeouts);
        self.conns.extend(id, timeout_ms, now);
    }

    /// Whether a SYN opens a new connection in the place of this one.
    ///
    /// **Source** — IPVS `ip_vs_in_hook` and `is_new_conn_expected`.
    fn is_reused(&self, conn: &Connection) -> bool {
        let settings = &self.snapshot.settings;
        let quiesced = conn.real().is_some_and(|real| real.weight() == 0);
        if settings.expire_nodest_conn && quiesced {
            return true;
        }
        let mode = settings.conn_reuse_mode;
        mode != 0 && conn.may_be_reused(mode & 2 != 0)
    }

    pub(super) fn refuse_request(
        &mut self,
        error: IcmpError,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
        virtual_addr: Addr,
        network: &impl Network,
        now: Moment,
    ) -> Verdict {
        let mut headers = *headers;
        if matches!(error, IcmpError::TooBig { .. }) {
            // IPVS has taken the hop off by then, and quotes what it has.
            write_ttl(packet.bytes_mut(), &headers);
            headers.ttl = headers.ttl.saturating_sub(1);
        }
        self.refuse(error, packet.bytes(), &headers, Some(virtual_addr), network, now)
    }
}

const ESTABLISHED: State = State::Tcp(TcpState::Established);

/// Tells a connection's template that it was answered.
fn assure(conn: &Connection) {
    if let Some(template) = conn.template() {
        template.assure();
    }
}

/// Whether a packet can go to `to`: hops left, a route, and small enough for it.
///
/// Packets too large that may be fragmented are let through; the link fragments them.
fn check_way(
    packet: &PacketBuf<'_>,
    headers: &Headers,
    to: Addr,
    is_first: bool,
    network: &impl Network,
) -> Result<(), IcmpError> {
    if headers.ttl <= 1 {
        return Err(IcmpError::TimeExceeded);
    }
    if headers.len <= SMALL && !is_first {
        return Ok(());
    }
    let mtu = network.mtu(to).ok_or(IcmpError::HostUnreachable)?;
    let largest = largest_segment(packet, headers);
    if largest > mtu && headers.dont_fragment {
        return Err(IcmpError::TooBig { mtu: mtu.min(usize::from(u16::MAX)) as u16 });
    }
    Ok(())
}

/// Packets up to this size are not asked about once the first of a connection had its way.
/// **Source** — RFC 791 §3.2: every host takes 576 bytes.
const SMALL: usize = 576;

/// The length of the largest packet that a packet becomes once its super-frame is segmented.
fn largest_segment(packet: &PacketBuf<'_>, headers: &Headers) -> usize {
    let segmentation = packet.offload.segmentation;
    let transport_header = match segmentation.kind {
        SegmentKind::None | SegmentKind::UdpFragments => return headers.len,
        SegmentKind::UdpL4 => 8,
        SegmentKind::TcpV4 | SegmentKind::TcpV6 => {
            let offset = packet.bytes().get(headers.transport + 12).copied().unwrap_or(0x50);
            usize::from(offset >> 4) * 4
        }
    };
    (headers.transport + transport_header + usize::from(segmentation.size_bytes)).min(headers.len)
}

/// The flags of a TCP segment; parsing has seen to it that they are there.
pub(super) fn tcp_flags(packet: &PacketBuf<'_>, headers: &Headers) -> Option<TcpFlags> {
    (headers.protocol == protocol::TCP)
        .then(|| TcpFlags(packet.bytes().get(headers.transport + 13).copied().unwrap_or(0)))
}
