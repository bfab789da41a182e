//! ICMP errors about packets of connections.

use super::schedule::{Asked, FTP_DATA};
use super::transit::Transit;
use super::transmit::check_way;
use super::{Director, Identity, service_protocol};
use crate::engine::conn::local::LocalEnd;
use crate::engine::conn::{ConnId, Connection, Direction};
use crate::engine::event::{Event, Sight};
use crate::engine::network::{Network, Owner};
use crate::engine::rewrite::icmp::{ErrorTranslation, translate_error};
use crate::engine::rewrite::nat::{Translation, write_ttl};
use crate::engine::scheduler::Flow;
use crate::engine::service::ForwardingMethod;
use crate::engine::verdict::{DropReason, Hop, Verdict};
use crate::packet::checksum::Sum;
use crate::packet::headers::{ICMP_HEADER_LEN, protocol, set_word, word};
use crate::packet::reply::icmp_checksum_is_right;
use crate::packet::{Checksum, Family, Headers};

impl Director {
    /// Judges an ICMP error; `None` if it is none, or about no connection.
    ///
    /// Of errors IPVS translates destination unreachable, source quench and time exceeded. One
    /// quotes a packet as its sender got it, so it belongs to the connection in whose other
    /// direction the quoted packet went, and goes there. It neither moves the connection's state
    /// nor extends its life.
    ///
    /// **Source** — IPVS `ip_vs_out_icmp`, `ip_vs_in_icmp`.
    pub(super) fn judge_related(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
    ) -> Option<Verdict> {
        let headers = transit.headers;
        if let Some(verdict) = self.judge_tunnelled(transit) {
            return Some(verdict);
        }
        let Some(quoted) = headers.quoted(transit.packet.bytes()) else {
            return self.judge_cut_quote(transit);
        };
        let is_here = transit.network.owner(headers.destination.addr) != Owner::Other;
        if is_here && quoted.protocol == protocol::UDP && !quoted.has_ports() {
            // It might be a part of a tunnel's datagram, and goes no further.
            return None;
        }
        let lookup = {
            let identity = Identity::of(&quoted);
            self.conns.prepare(identity.destination, identity.source, identity.protocol)
        };
        let Some((id, direction)) = self.conns.find(&lookup) else {
            return self.schedule_related(transit, &quoted);
        };
        if !self.balances() && !self.conns.get(id).is_outbound() {
            return None;
        }
        self.judge_error(transit, &quoted, id, direction)
    }

    /// Drops an error that might have opened a connection, but does not quote the ports.
    ///
    /// **Source** — IPVS `tcp_conn_schedule` and its like, about errors.
    fn judge_cut_quote(&self, transit: &Transit<'_, '_, impl Network>) -> Option<Verdict> {
        let quoted = transit.headers.quoted_without_ports(transit.packet.bytes())?;
        let might_open = self.balances()
            && self.snapshot.settings.schedule_icmp != 0
            && service_protocol(&quoted).is_some();
        might_open.then_some(Verdict::Drop(DropReason::Truncated))
    }

    /// Opens a connection for an error about a packet that none is known of, and sends it there;
    /// `None` if such errors open none.
    ///
    /// **Source** — IPVS `ip_vs_in_icmp`, `ip_vs_try_to_schedule`: the connection stays as it was
    /// made, until a packet of its own comes.
    fn schedule_related(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        quoted: &Headers,
    ) -> Option<Verdict> {
        if self.snapshot.settings.schedule_icmp == 0 || quoted.destination.port == FTP_DATA {
            return None;
        }
        let protocol = service_protocol(quoted)?;
        let flow = Flow { client: quoted.destination, destination: quoted.source };
        let asked = Asked { protocol, flow };
        let service = self.service_of(asked, transit)?;
        let id = match self.open(transit, &service, asked) {
            Ok(id) => id,
            Err(reason) => return Some(Verdict::Drop(reason)),
        };
        let verdict = self.judge_error(transit, quoted, id, Direction::ToReal);
        self.end_one_packet(id);
        verdict
    }

    /// Judges an error about a packet that came from the other end of a connection.
    fn judge_error(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        quoted: &Headers,
        id: ConnId,
        direction: Direction,
    ) -> Option<Verdict> {
        let (headers, conn) = (transit.headers, self.conns.get(id));
        // An error about what went to the server travels to the client, and the other way round.
        let to_client = direction == Direction::ToClient;
        transit.tell(|| Event::Related { connection: Sight::of(conn), direction });
        let is_ours = transit.network.owner(headers.destination.addr) != Owner::Other;
        let is_judged = match conn.method() {
            ForwardingMethod::FullNat => true,
            _ if to_client && is_ours && !conn.host().client => false,
            ForwardingMethod::Masquerade => true,
            _ if to_client => return self.see_error(transit, id),
            ForwardingMethod::Direct | ForwardingMethod::Tunnel | ForwardingMethod::Bypass => true,
            ForwardingMethod::Local => false,
        };
        if !is_judged {
            return None;
        }
        if !self.takes_sum(transit, to_client) {
            return Some(Verdict::Drop(DropReason::BadChecksum));
        }
        Some(self.translate_related(transit, quoted, id, to_client))
    }

    /// Whether an error is taken with the checksum that it has.
    ///
    /// **Differs** — IPVS sums up ICMPv6 errors of servers without the pseudo-header, so that it drops
    /// all that are whole, and those of clients not at all. A director that did so would keep
    /// clients from learning the size of packets that the way takes, and make wrong sums right.
    fn takes_sum(&self, transit: &Transit<'_, '_, impl Network>, to_client: bool) -> bool {
        // What is left to a network card to sum up cannot be wrong yet.
        if transit.packet.unfinished_checksum().is_some() {
            return true;
        }
        match transit.headers.family {
            Family::V6 if self.misreads_ipv6 => {
                !to_client || Sum::of(transit.transport()).folded() == 0xffff
            }
            Family::V4 | Family::V6 => icmp_checksum_is_right(transit.transport(), transit.headers),
        }
    }

    /// Takes note of a server's error that needs no translation and yet came this way, if the host
    /// can forward it.
    fn see_error(&self, transit: &Transit<'_, '_, impl Network>, id: ConnId) -> Option<Verdict> {
        let conn = self.conns.get(id);
        if check_way(transit, conn.client().addr, false).is_ok() {
            self.count_related(conn, transit.headers, true);
        }
        None
    }

    fn translate_related(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        quoted: &Headers,
        id: ConnId,
        to_client: bool,
    ) -> Verdict {
        let headers = transit.headers;
        let conn = self.conns.get(id);
        // Towards the client, routing looks at the packet before IPVS does; towards the server after.
        if !to_client {
            self.count_related(conn, headers, false);
        }
        let ends = conn.host();
        // What the host itself says of a packet that it could not deliver does not come by a router.
        let is_own = to_client && transit.network.is_local(headers.source.addr);
        let is_forwarded = !(ends.server || to_client && ends.client || is_own);
        if is_forwarded && headers.ttl <= 1 {
            return Verdict::Drop(DropReason::TtlExpired);
        }
        let to = match conn.method() {
            _ if to_client => conn.client().addr,
            ForwardingMethod::Bypass => headers.destination.addr,
            _ => conn.real_endpoint().addr,
        };
        if is_forwarded && transit.network.mtu(to).is_none() {
            return Verdict::Drop(DropReason::NotForwarded);
        }
        if to_client {
            self.count_related(conn, headers, true);
        }
        match conn.method() {
            ForwardingMethod::Direct | ForwardingMethod::Tunnel if !is_forwarded => {
                return Verdict::Forward(Hop { to });
            }
            ForwardingMethod::Tunnel => return self.transmit_tunnel(transit, id),
            ForwardingMethod::Direct | ForwardingMethod::Bypass => {
                write_ttl(transit.packet.bytes_mut(), headers);
                return Verdict::Forward(Hop { to });
            }
            ForwardingMethod::Masquerade | ForwardingMethod::FullNat | ForwardingMethod::Local => {}
        }
        let translation =
            ErrorTranslation { keeps_ttl: !is_forwarded, ..translation(conn, to_client) };
        let start = headers.transport + ICMP_HEADER_LEN;
        if let Some(local) = conn.local().filter(|local| to_client && !local.is_plain()) {
            mend_quote(transit.packet.bytes_mut(), headers, quoted, local);
        }
        translate_error(transit.packet, headers, quoted, start, translation);
        transit.packet.offload.checksum = Checksum::Complete;
        Verdict::Forward(Hop { to })
    }

    pub(super) fn count_related(&self, conn: &Connection, headers: &Headers, to_client: bool) {
        let Some(real) = conn.real().filter(|real| real.is_available()) else { return };
        let counters = real.counters(self.worker);
        if to_client {
            counters.count_out(1, headers.len as u64);
        } else {
            counters.count_in(1, headers.len as u64);
        }
    }
}

/// What changes in an error about a connection that is translated.
///
/// By NAT the error seems to come from the virtual address, or goes to the real server, and what it
/// quotes from or to the other one. By full NAT the client and the local endpoint stand for each
/// other in the same places as well.
pub(super) fn translation(conn: &Connection, to_client: bool) -> ErrorTranslation {
    let (client, local) = match conn.local_endpoint() {
        Some(local) => (Some(conn.client()), Some(local)),
        None => (None, None),
    };
    let (virtual_end, real) = (Some(conn.virtual_endpoint()), Some(conn.real_endpoint()));
    if to_client {
        ErrorTranslation {
            outer: Translation { source: virtual_end, destination: client },
            quoted: Translation { source: client, destination: virtual_end },
            keeps_ttl: false,
        }
    } else {
        ErrorTranslation {
            outer: Translation { source: local, destination: real },
            quoted: Translation { source: real, destination: local },
            keeps_ttl: false,
        }
    }
}

/// Makes an error about a packet that was more than translated one about what the client sent: its
/// sequence number, and room for what was added to it.
fn mend_quote(bytes: &mut [u8], headers: &Headers, quoted: &Headers, local: &LocalEnd) {
    let number_at = headers.transport + ICMP_HEADER_LEN + quoted.transport + 4;
    if quoted.protocol == protocol::TCP
        && let Some(field) = bytes.get_mut(number_at..number_at + 4)
    {
        let number = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
        field.copy_from_slice(&local.shift.acknowledgement(number).to_be_bytes());
    }
    let added = local.introduction.map_or(0, |one| one.len_bytes(headers.family)) as u16;
    let mtu_at = headers.transport + 6;
    let is_too_big = match headers.family {
        Family::V4 => bytes[headers.transport..].starts_with(&[3, 4]),
        Family::V6 => bytes[headers.transport] == 2,
    };
    if is_too_big && word(bytes, mtu_at) > added {
        let mtu = word(bytes, mtu_at) - added;
        set_word(bytes, mtu_at, mtu);
    }
}
