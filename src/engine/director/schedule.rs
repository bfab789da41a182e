//! Packets that may open a connection to a virtual service.

use std::sync::Arc;

use super::transit::Transit;
use super::{Director, service_protocol};
use crate::engine::conn::sctp::{SctpEvent, SctpState};
use crate::engine::conn::tcp::TcpState;
use crate::engine::conn::{ConnKey, NewConnection, State, Template, TemplateKey};
use crate::engine::mark::mark;
use crate::engine::network::{Network, Owner};
use crate::engine::scheduler::Flow;
use crate::engine::service::{
    ForwardingMethod, Protocol, RealServer, ServiceKey, ServiceSpec, VirtualService,
};
use crate::engine::verdict::{DropReason, Verdict};
use crate::packet::reply::IcmpError;
use crate::packet::{Addr, Endpoint, Headers};

/// How long a connection lives before its first packet has set its state.
///
/// **Source** — IPVS `ip_vs_conn_new`: three seconds.
const NEW_TIMEOUT_MS: u32 = 3000;

impl Director {
    /// Opens a connection for a packet to a service and forwards it; `None` if there is no service
    /// for it, or if a packet of its kind opens none.
    ///
    /// **Source** — IPVS `tcp_conn_schedule`, `udp_conn_schedule`, `sctp_conn_schedule`,
    /// `ip_vs_schedule`.
    pub(super) fn schedule(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
    ) -> Option<Verdict> {
        let headers = transit.headers;
        let protocol = service_protocol(headers)?;
        if !self.opens(protocol, transit) {
            return None;
        }
        let Endpoint { addr, port } = headers.destination;
        let marked = self.marked_service(headers, transit.network);
        let service = Arc::clone(marked.or_else(|| self.snapshot.lookup(protocol, addr, port))?);
        if self.drops_packet() {
            return Some(Verdict::Drop(DropReason::DropPacket));
        }
        match self.choose(&service, protocol, transit) {
            Ok(choice) => Some(self.open(transit, protocol, choice)),
            Err(Refusal::NoCallId) => Some(Verdict::Drop(DropReason::NoCallId)),
            Err(Refusal::TableFull) => Some(Verdict::Drop(DropReason::TableFull)),
            Err(Refusal::NoServer) if is_beside_ftp(&service.key(), port) => None,
            Err(Refusal::NoServer) => {
                let error = IcmpError::PortUnreachable;
                Some(self.refuse(error, transit, Some(addr)))
            }
        }
    }

    /// The service that takes the packet for its firewall mark. IPVS sees packets only that are
    /// for the host itself.
    fn marked_service(
        &self,
        headers: &Headers,
        network: &impl Network,
    ) -> Option<&Arc<VirtualService>> {
        let addr = headers.destination.addr;
        let mark = mark(&self.snapshot.marks, headers, network);
        if mark == 0 || !self.snapshot.is_virtual(addr) && network.owner(addr) == Owner::Other {
            return None;
        }
        self.snapshot.service(&ServiceKey::Mark { mark, family: addr.family() })
    }

    fn opens(&self, protocol: Protocol, transit: &Transit<'_, '_, impl Network>) -> bool {
        match protocol {
            // What comes from there belongs to a connection of FTP that is known, or to nobody.
            _ if transit.headers.source.port == FTP_DATA => false,
            Protocol::Udp => true,
            Protocol::Tcp => transit.flags.is_some_and(|flags| {
                !flags.rst() && (flags.syn() || self.snapshot.settings.sloppy_tcp != 0)
            }),
            Protocol::Sctp => match transit.sctp_event() {
                Some(SctpEvent::Init) => true,
                None | Some(SctpEvent::Abort) => false,
                Some(_) => self.snapshot.settings.sloppy_sctp != 0,
            },
        }
    }

    /// Chooses a server: the one that the client is bound to, else the scheduler's choice.
    ///
    /// **Source** — IPVS `ip_vs_schedule`, `ip_vs_sched_persist`.
    fn choose(
        &mut self,
        service: &VirtualService,
        protocol: Protocol,
        transit: &Transit<'_, '_, impl Network>,
    ) -> Result<Choice, Refusal> {
        let Headers { source: client, destination, .. } = *transit.headers;
        let now = transit.now;
        let flow = Flow { client, destination };
        let mut pool = service.pool();
        let spec = pool.spec();
        let one_packet = spec.one_packet && protocol == Protocol::Udp;
        let on_own_port = is_on_own_port(&spec.key, destination.port);
        let Some(timeout_s) = spec.persistence_timeout_s else {
            // Only persistent services take other ports than their own.
            if !on_own_port && !matches!(spec.key, ServiceKey::Mark { .. }) {
                return Err(Refusal::NoServer);
            }
            let real = pool.schedule(&flow, now, &mut self.random).ok_or(Refusal::NoServer)?;
            let port = or_else_port(real.port(), destination.port);
            let locals = local_addresses(&real, pool.spec());
            return Ok(Choice { real, port, template: None, one_packet, locals });
        };
        let mut key = TemplateKey::new(spec, protocol, client.addr, destination);
        if spec.persistence_engine.is_some() {
            key = key.of_call(transit.call_id().ok_or(Refusal::NoCallId)?);
        }
        let quiescent = self.snapshot.settings.expire_quiescent_template != 0;
        // Held until the template is there, so that no other worker makes one for the client.
        let mut templates = self.services.templates();
        let template = match templates.find(&key, quiescent, now) {
            Some(template) => template,
            None => {
                let real = pool.schedule(&flow, now, &mut self.random);
                let real = real.ok_or(Refusal::NoServer)?;
                let port = if key.has_port() { real.port() } else { 0 };
                let bound = templates.insert(key, real, port, timeout_s, now);
                bound.ok_or(Refusal::TableFull)?
            }
        };
        let real = Arc::clone(template.real());
        let port = if on_own_port { real.port() } else { 0 };
        let port = or_else_port(port, destination.port);
        let locals = local_addresses(&real, pool.spec());
        Ok(Choice { real, port, template: Some(template), one_packet, locals })
    }

    fn open(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        protocol: Protocol,
        choice: Choice,
    ) -> Verdict {
        let Choice { real, port, template, one_packet, locals } = choice;
        let state = match protocol {
            Protocol::Tcp => State::Tcp(TcpState::None),
            Protocol::Udp => State::Udp,
            Protocol::Sctp => State::Sctp(SctpState::None),
        };
        let method = match real.method() {
            ForwardingMethod::Masquerade | ForwardingMethod::FullNat
                if transit.network.is_local(real.addr()) =>
            {
                ForwardingMethod::Local
            }
            method => method,
        };
        let key = ConnKey {
            protocol: transit.headers.protocol,
            client: transit.headers.source,
            virtual_endpoint: transit.headers.destination,
            real_endpoint: Endpoint::new(real.addr(), port),
        };
        let local = match locals.filter(|_| method == ForwardingMethod::FullNat) {
            Some(addresses) => match self.local_endpoint(transit.network, &key, &addresses) {
                Ok(local) => Some(local),
                Err(reason) => return Verdict::Drop(reason),
            },
            None => None,
        };
        let worker = self.worker;
        let counted = Arc::clone(&real);
        let timeout_ms = NEW_TIMEOUT_MS;
        let real = Some(real);
        let new =
            NewConnection { key, real, template, local, one_packet, method, state, timeout_ms };
        let Some(id) = self.conns.insert(new, transit.now) else {
            return Verdict::Drop(DropReason::TableFull);
        };
        counted.counters(worker).count_connection();
        let verdict = self.pass_to_real(transit, id);
        if one_packet {
            self.conns.remove(id);
        }
        verdict
    }
}

/// What a new connection gets.
struct Choice {
    real: Arc<RealServer>,
    /// The port at the server.
    port: u16,
    template: Option<Arc<Template>>,
    /// Whether it ends with its first packet.
    one_packet: bool,
    /// The service's local addresses, if the server is reached by full NAT.
    locals: Option<Arc<[Addr]>>,
}

/// Why there is no choice.
enum Refusal {
    /// No server takes new connections.
    NoServer,
    /// The service's persistence engine found no call.
    NoCallId,
    /// There is no room for another template.
    TableFull,
}

/// The local addresses for connections to a server, if it is reached by full NAT.
fn local_addresses(real: &RealServer, spec: &ServiceSpec) -> Option<Arc<[Addr]>> {
    (real.method() == ForwardingMethod::FullNat).then(|| Arc::clone(&spec.local_addresses))
}

const FTP: u16 = 21;
const FTP_DATA: u16 = 20;

/// Whether a packet goes to the very port of its service.
fn is_on_own_port(service: &ServiceKey, port: u16) -> bool {
    matches!(service, ServiceKey::Address { port: own, .. } if *own == port)
}

/// Whether a packet came to an FTP service by another port, which is the host's business if the
/// service does not take it. **Source** — IPVS `ip_vs_leave`.
fn is_beside_ftp(service: &ServiceKey, port: u16) -> bool {
    port != FTP && is_on_own_port(service, FTP)
}

/// `port`, or where that is 0 the port that the packet was sent to.
fn or_else_port(port: u16, destination: u16) -> u16 {
    if port == 0 { destination } else { port }
}
