//! Packets that may open a connection to a virtual service.

use std::sync::Arc;

use super::forward::tcp_flags;
use super::{Director, service_protocol};
use crate::engine::conn::tcp::TcpState;
use crate::engine::conn::{ConnKey, NewConnection, State};
use crate::engine::network::Network;
use crate::engine::scheduler::Flow;
use crate::engine::service::{ForwardingMethod, Protocol, RealServer, VirtualService};
use crate::engine::time::Moment;
use crate::engine::verdict::{DropReason, Verdict};
use crate::packet::reply::IcmpError;
use crate::packet::{Endpoint, Headers, PacketBuf};

/// How long a connection lives before its first packet has set its state.
///
/// **Source** — IPVS `ip_vs_conn_new`: three seconds.
const NEW_TIMEOUT_MS: u32 = 3000;

impl Director {
    /// Opens a connection for a packet to a service and forwards it; `None` if there is no service
    /// for it, or if a packet of its kind opens none.
    ///
    /// **Source** — IPVS `tcp_conn_schedule`, `udp_conn_schedule`, `ip_vs_schedule`.
    pub(super) fn schedule(
        &mut self,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
        network: &impl Network,
        now: Moment,
    ) -> Option<Verdict> {
        let protocol = service_protocol(headers)?;
        if !self.opens(protocol, packet, headers) {
            return None;
        }
        let Endpoint { addr, port } = headers.destination;
        let service = Arc::clone(self.snapshot.lookup(protocol, addr, port)?);
        let Some(real) = self.choose(&service, headers, now) else {
            let error = IcmpError::PortUnreachable;
            return Some(self.refuse(error, packet.bytes(), headers, Some(addr), network, now));
        };
        Some(self.open(packet, headers, protocol, real, network, now))
    }

    fn opens(&self, protocol: Protocol, packet: &PacketBuf<'_>, headers: &Headers) -> bool {
        match protocol {
            Protocol::Udp => true,
            Protocol::Tcp => tcp_flags(packet, headers).is_some_and(|flags| {
                !flags.rst() && (flags.syn() || self.snapshot.settings.sloppy_tcp)
            }),
            Protocol::Sctp => false,
        }
    }

    fn choose(
        &mut self,
        service: &VirtualService,
        headers: &Headers,
        now: Moment,
    ) -> Option<Arc<RealServer>> {
        let flow = Flow { client: headers.source, destination: headers.destination };
        service.pool().schedule(&flow, now, &mut self.random)
    }

    fn open(
        &mut self,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
        protocol: Protocol,
        real: Arc<RealServer>,
        network: &impl Network,
        now: Moment,
    ) -> Verdict {
        let state = match protocol {
            Protocol::Tcp => State::Tcp(TcpState::None),
            Protocol::Udp | Protocol::Sctp => State::Udp,
        };
        let method = match real.method() {
            ForwardingMethod::Masquerade if network.is_local(real.addr()) => {
                ForwardingMethod::Local
            }
            method => method,
        };
        // A server of port 0 gets the packets at the port they were sent to.
        let port = if real.port() == 0 { headers.destination.port } else { real.port() };
        let key = ConnKey {
            protocol: headers.protocol,
            client: headers.source,
            virtual_endpoint: headers.destination,
            real_endpoint: Endpoint::new(real.addr(), port),
        };
        let worker = self.worker;
        let counted = Arc::clone(&real);
        let new =
            NewConnection { key, real: Some(real), method, state, timeout_ms: NEW_TIMEOUT_MS };
        let Some(id) = self.conns.insert(new, now) else {
            return Verdict::Drop(DropReason::TableFull);
        };
        counted.counters(worker).count_connection();
        self.pass_to_real(packet, headers, id, network, now)
    }
}
