//! Packets of known connections.

use super::Director;
use super::transit::{Transit, misread_event, misread_flags};
use super::transmit::check_way;
use crate::engine::conn::sctp::{self, SctpEvent, SctpState};
use crate::engine::conn::tcp::{self, Seen, TcpFlags, TcpState};
use crate::engine::conn::{ConnId, Connection, Direction, HostEnds, State};
use crate::engine::event::{Ending, Event};
use crate::engine::network::Network;
use crate::engine::rewrite::nat::{Translation, rewrite, translate};
use crate::engine::service::ForwardingMethod;
use crate::engine::verdict::{DropReason, Hop, Verdict};
use crate::packet::reply::IcmpError;
use crate::packet::{Endpoint, Family, Headers};

impl Director {
    /// Judges a packet of the client.
    ///
    /// **Source** — IPVS `ip_vs_in_hook`: a SYN or INIT may take the connection's place, a removed server
    /// swallows, then counters, state, transmission.
    pub(super) fn forward_to_real(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        id: ConnId,
    ) -> Verdict {
        let conn = self.conns.get(id);
        if conn.host().client && transit.is_forged() {
            return Verdict::Drop(DropReason::LocalBoundary);
        }
        if transit.asks_anew()
            && let Some(ending) = self.ending(conn)
        {
            return self.begin_anew(transit, id, ending);
        }
        if conn.real().is_some_and(|real| !real.is_available()) {
            if self.snapshot.settings.expire_nodest_conn == 0 {
                return Verdict::Drop(DropReason::ServerRemoved);
            }
            return self.begin_anew(transit, id, Ending::Removed);
        }
        self.pass_to_real(transit, id)
    }

    /// Judges a packet as if its connection were not there.
    ///
    /// **Source** — IPVS `ip_vs_conn_expire_now`: the connection ends by its timer, so that it
    /// still counts with its server while the packet is scheduled.
    fn begin_anew(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        id: ConnId,
        ending: Ending,
    ) -> Verdict {
        transit.tell(|| Event::Ended(ending));
        let ended = self.conns.retire(id);
        let verdict = self.judge_unknown(transit);
        drop(ended);
        verdict
    }

    /// Counts, moves the state and transmits a packet of the client.
    pub(super) fn pass_to_real(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        id: ConnId,
    ) -> Verdict {
        let worker = self.worker;
        let conn = self.conns.get_mut(id);
        if let Some(real) = conn.real() {
            real.counters(worker).count_in(1, transit.headers.len as u64);
        }
        conn.count_in();
        let is_first = conn.in_packets() == 1;
        self.advance(id, transit, Direction::ToReal);
        let verdict = self.transmit(transit, id, is_first);
        if self.master.is_some() {
            self.announce(id, transit.now);
        }
        verdict
    }

    /// Judges a packet of the real server.
    ///
    /// **Source** — Linux `ip_forward`, which looks at the time to live and the size before IPVS
    /// translates, and IPVS `handle_response`.
    pub(super) fn forward_to_client(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        id: ConnId,
    ) -> Verdict {
        let conn = self.conns.get(id);
        let client = conn.client();
        // By full NAT the server takes a local address for the client, and hears of errors from it.
        let (destination, stand_in) = match conn.method() {
            ForwardingMethod::Masquerade => (None, None),
            ForwardingMethod::FullNat => (Some(client), Some(transit.headers.destination.addr)),
            ForwardingMethod::Local
            | ForwardingMethod::Tunnel
            | ForwardingMethod::Direct
            | ForwardingMethod::Bypass => return self.see_answer(transit, id),
        };
        let way = match conn.host() {
            HostEnds { client: false, server: false } => check_way(transit, client.addr, false),
            // It is not forwarded.
            _ => Ok(()),
        };
        match way {
            // What counts are its fragments.
            Err(IcmpError::TooBig { mtu }) if transit.stays_in_fragments_of(mtu) => {}
            Err(error) => return self.refuse(error, transit, stand_in),
            Ok(()) => {}
        }
        match self.retell(transit, id) {
            Ok(None) => self.pass_to_client(transit, id, destination),
            Ok(Some(headers)) => {
                let mut told = Transit::new(transit.packet, &headers, transit.network, transit.now);
                self.pass_to_client(&mut told, id, destination)
            }
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// Counts, moves the state and translates a packet of the real server.
    fn pass_to_client(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        id: ConnId,
        destination: Option<Endpoint>,
    ) -> Verdict {
        let conn = self.conns.get(id);
        let (to, source) = (conn.client().addr, Some(conn.virtual_endpoint()));
        let is_forwarded = conn.host() == HostEnds::default();
        if let Some(real) = conn.real().filter(|real| real.is_available()) {
            real.counters(self.worker).count_out(1, transit.headers.len as u64);
        }
        self.advance(id, transit, Direction::ToClient);
        let translation = Translation { source, destination };
        if is_forwarded {
            translate(transit.packet, transit.headers, translation);
        } else {
            rewrite(transit.packet, transit.headers, translation);
        }
        if destination.is_some() {
            self.hear_segment(transit, id);
        }
        // By full NAT, which translates the destination as well, no kernel sends it on.
        if is_forwarded && destination.is_none() && transit.stays_in_fragments_of(u16::MAX) {
            return self.refuse_refragmenting(transit, id);
        }
        Verdict::Forward(Hop { to })
    }

    /// Lets a helper change what the server says, and tells what the headers say then.
    fn retell(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        id: ConnId,
    ) -> Result<Option<Headers>, DropReason> {
        if self.conns.get(id).is_ftp_control() { self.hear_server(transit, id) } else { Ok(None) }
    }

    /// Takes note of a server's answer that needs no translation and yet came this way, if the host
    /// can forward it.
    fn see_answer(&mut self, transit: &Transit<'_, '_, impl Network>, id: ConnId) -> Verdict {
        let conn = self.conns.get(id);
        if !conn.host().server && check_way(transit, conn.client().addr, false).is_err() {
            return Verdict::Pass;
        }
        if let Some(real) = self.conns.get(id).real().filter(|real| real.is_available()) {
            real.counters(self.worker).count_out(1, transit.headers.len as u64);
        }
        self.advance(id, transit, Direction::ToClient);
        Verdict::Pass
    }

    /// Moves a connection's state by a packet and gives it the state's time to live.
    fn advance(&mut self, id: ConnId, transit: &Transit<'_, '_, impl Network>, to: Direction) {
        let (flags, event) = (self.state_flags(transit), self.state_event(transit));
        let conn = self.conns.get_mut(id);
        if transit.headers.protocol != conn.key().protocol {
            // ESP and AH of a connection that was made for UDP.
            let timeout_ms = conn.timeout_ms();
            return self.conns.extend(id, timeout_ms, transit.now);
        }
        let seen = match (to, conn.is_one_way()) {
            (Direction::ToReal, false) => Seen::Input,
            (Direction::ToReal, true) => Seen::InputOnly,
            (Direction::ToClient, _) => Seen::Output,
        };
        let before = conn.state();
        let after = match before {
            State::Tcp(state) => {
                let secure = self.defence.secures_tcp;
                let next = |flags| tcp::next(state, flags, seen, secure);
                flags.map(|flags| State::Tcp(next(flags)))
            }
            State::Sctp(state) => {
                let next = |event| sctp::next(state, event, seen);
                event.map(|event| State::Sctp(next(event)))
            }
            State::Udp | State::Echo => None,
        };
        if let Some(after) = after {
            if seen == Seen::Output {
                conn.set_two_way();
            }
            conn.set_state(after);
            if after != before && is_established(after) {
                assure(conn);
            }
        } else if seen == Seen::Output && matches!(before, State::Udp | State::Echo) {
            assure(conn);
        }
        let to = conn.state();
        let timeout_ms = to.timeout_ms(&self.snapshot.timeouts);
        transit.tell(|| Event::Moved { from: before, to, timeout_ms });
        self.conns.extend(id, timeout_ms, transit.now);
    }

    /// The flags that move a connection's state.
    ///
    /// **Differs** — IPVS reads them right behind the IPv6 header, whatever extension headers are
    /// there, and so ends connections that go on.
    fn state_flags(&self, transit: &Transit<'_, '_, impl Network>) -> Option<TcpFlags> {
        match transit.headers.family {
            Family::V6 if self.misreads_ipv6 => misread_flags(transit.packet),
            Family::V4 | Family::V6 => transit.flags,
        }
    }

    /// The chunk that moves a connection's state.
    ///
    /// **Differs** — as with flags.
    fn state_event(&self, transit: &Transit<'_, '_, impl Network>) -> Option<SctpEvent> {
        match transit.headers.family {
            Family::V6 if self.misreads_ipv6 => misread_event(transit.packet),
            Family::V4 | Family::V6 => transit.sctp_event(),
        }
    }

    /// Why a SYN or INIT opens a new connection in the place of this one, if it does.
    ///
    /// **Source** — IPVS `ip_vs_in_hook` and `is_new_conn_expected`.
    fn ending(&self, conn: &Connection) -> Option<Ending> {
        let settings = &self.snapshot.settings;
        let quiesced = conn.real().is_some_and(|real| real.weight() == 0);
        if settings.expire_nodest_conn != 0 && quiesced {
            return Some(Ending::Quiesced);
        }
        let mode = settings.conn_reuse_mode;
        (mode != 0 && conn.may_be_reused(mode & 2 != 0)).then_some(Ending::Reused)
    }
}

fn is_established(state: State) -> bool {
    matches!(state, State::Tcp(TcpState::Established) | State::Sctp(SctpState::Established))
}

/// Tells a connection's template that it was answered.
fn assure(conn: &Connection) {
    if let Some(template) = conn.template() {
        template.assure();
    }
}
