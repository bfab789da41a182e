//! FTP control connections: what they announce is expected, and told to clients in the director's
//! terms.

use std::sync::Arc;

use super::Director;
use super::onhost::host_ends;
use super::transit::Transit;
use crate::engine::conn::tcp::TcpState;
use crate::engine::conn::{Answered, ConnId, ConnKey, Expected, NewConnection, State};
use crate::engine::ftp;
use crate::engine::network::{Awaited, Network};
use crate::engine::rewrite::sequence::replace;
use crate::engine::service::ForwardingMethod;
use crate::engine::verdict::{DropReason, Verdict};
use crate::packet::headers::protocol;
use crate::packet::{Endpoint, Headers};

impl Director {
    /// Forwards the first packet of a connection that was announced; `None` if it is none.
    pub(super) fn begin_expected(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
    ) -> Option<Verdict> {
        let Headers { source, destination, protocol, .. } = *transit.headers;
        if self.services.expectations().is_empty() || protocol != protocol::TCP {
            return None;
        }
        let expectations = self.services.expectations();
        if let Some(expected) = expectations.take_request(source, destination, transit.now) {
            let id = self.enter_expected(expected, source, transit);
            let forward = |id| self.forward_to_real(transit, id);
            return Some(id.map_or(Verdict::Drop(DropReason::TableFull), forward));
        }
        let expected = expectations.take_answer(source, destination, transit.now)?;
        let id = self.enter_expected(expected, destination, transit);
        let forward = |id| self.forward_to_client(transit, id);
        Some(id.map_or(Verdict::Drop(DropReason::TableFull), forward))
    }

    fn enter_expected(
        &mut self,
        expected: Expected,
        client: Endpoint,
        transit: &Transit<'_, '_, impl Network>,
    ) -> Option<ConnId> {
        let Expected { virtual_endpoint, real_endpoint, real, family, hold, .. } = expected;
        let key = ConnKey { protocol: protocol::TCP, client, virtual_endpoint, real_endpoint };
        let state = State::Tcp(TcpState::Listen);
        let new = NewConnection {
            key,
            real: Some(real),
            template: None,
            local: None,
            one_packet: false,
            method: ForwardingMethod::Masquerade,
            host: host_ends(&key, transit.network),
            state,
            timeout_ms: state.timeout_ms(&self.snapshot.timeouts),
            sync: self.traits(transit),
        };
        let id = self.conns.insert(new, transit.now)?;
        self.conns.get_mut(id).join(family, hold);
        Some(id)
    }

    /// Reads a client's segment on a control connection, and mends its acknowledgements.
    pub(super) fn hear_client(&mut self, transit: &mut Transit<'_, '_, impl Network>, id: ConnId) {
        let conn = self.conns.get_mut(id);
        if let Some(control) = conn.ftp() {
            control.shift.shift_acknowledgements(transit.packet, transit.headers);
        }
        if conn.state() != State::Tcp(TcpState::Established) {
            return;
        }
        let Some((_, payload)) = payload(transit).filter(|(_, payload)| !payload.is_empty()) else {
            return;
        };
        if let Some(mode) = ftp::request(payload) {
            conn.ftp_or_new().asked = Some(mode);
        } else if let Some(client) = ftp::active(payload, transit.headers.family) {
            let control = conn.ftp_or_new();
            control.asked = None;
            let family = Arc::clone(&control.family);
            let Some(real) = conn.real().cloned() else { return };
            let expected = Expected {
                client,
                virtual_endpoint: data_port(conn.virtual_endpoint()),
                real_endpoint: data_port(conn.real_endpoint()),
                real,
                family,
                hold: None,
            };
            self.services.expectations().expect(expected, transit.now);
        }
    }

    /// Reads a server's segment on a control connection, mends its sequence number, and puts the
    /// virtual address in the place of the server's. Returns what the headers say if it did so.
    pub(super) fn hear_server(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        id: ConnId,
    ) -> Result<Option<Headers>, DropReason> {
        let conn = self.conns.get_mut(id);
        let (client, virtual_addr) = (conn.client().addr, conn.virtual_endpoint().addr);
        let server = conn.real_endpoint().addr;
        let is_established = conn.state() == State::Tcp(TcpState::Established);
        let Some(control) = conn.ftp() else { return Ok(None) };
        let sequence = sequence(transit);
        control.shift.shift_sequence(transit.packet, transit.headers);
        // A segment that is sent again is the same answer as before.
        let again = control.answered.filter(|answered| answered.sequence == sequence);
        let mode = control.asked.or(again.map(|answered| answered.mode));
        let Some(mode) = mode.filter(|_| is_established) else { return Ok(None) };
        let Some((start, payload)) = payload(transit) else { return Ok(None) };
        let Some(mention) = ftp::passive(payload, mode, server) else { return Ok(None) };
        let client = Endpoint::new(client, 0);
        let expectations = self.services.expectations();
        let awaited = match again {
            Some(Answered { told, .. }) => {
                Awaited { at: told, hold: expectations.hold(client, told) }
            }
            None => {
                let named = Endpoint::new(virtual_addr, mention.endpoint.port);
                transit.network.await_connection(named)
            }
        };
        let written = mention.written(awaited.at);
        let range = start + mention.range.start..start + mention.range.end;
        let change = written.len() as i32 - range.len() as i32;
        let headers = replace(transit.packet, transit.headers, range, written.as_bytes());
        let headers = headers.ok_or(DropReason::NoRoom)?;
        control.asked = None;
        control.answered = Some(Answered { sequence, mode, told: awaited.at });
        if change != 0 {
            control.shift.resize(sequence, change);
        }
        let family = Arc::clone(&control.family);
        if let Some(real) = self.conns.get(id).real() {
            let expected = Expected {
                client,
                virtual_endpoint: awaited.at,
                real_endpoint: mention.endpoint,
                real: Arc::clone(real),
                family,
                hold: awaited.hold,
            };
            expectations.expect(expected, transit.now);
        }
        Ok(Some(headers))
    }
}

/// Where a server connects from: one below the port of its control connection.
///
/// **Source** — RFC 959 §5.2.
fn data_port(control: Endpoint) -> Endpoint {
    Endpoint::new(control.addr, control.port.wrapping_sub(1))
}

/// A segment's payload, and where it begins in the packet.
fn payload<'a>(transit: &'a Transit<'_, '_, impl Network>) -> Option<(usize, &'a [u8])> {
    let transport = transit.transport();
    let header_len = usize::from(transport.get(12)? >> 4) * 4;
    Some((transit.headers.transport + header_len, transport.get(header_len..)?))
}

fn sequence(transit: &Transit<'_, '_, impl Network>) -> u32 {
    let field = transit.transport().get(4..8).and_then(|field| field.first_chunk());
    u32::from_be_bytes(field.copied().unwrap_or_default())
}
