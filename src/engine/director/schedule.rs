//! Packets that may open a connection to a virtual service.

use std::sync::Arc;

use super::local::WantedEnd;
use super::onhost::host_ends;
use super::transit::Transit;
use super::{Director, service_protocol};
use crate::engine::conn::sctp::{SctpEvent, SctpState};
use crate::engine::conn::tcp::TcpState;
use crate::engine::conn::{ConnId, ConnKey, NewConnection, State, Template, TemplateKey};
use crate::engine::event::{Binding, Event, Sight};
use crate::engine::network::{Network, Owner};
use crate::engine::scheduler::{Flow, Random};
use crate::engine::service::{
    ForwardingMethod, Pool, Protocol, RealServer, ServiceKey, ServiceSpec, VirtualService,
};
use crate::engine::verdict::{DropReason, Verdict};
use crate::packet::{Endpoint, Headers};

/// How long a connection lives before its first packet has set its state.
///
/// **Source** — IPVS `ip_vs_conn_new`: three seconds.
pub(super) const NEW_TIMEOUT_MS: u32 = 3000;

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
        let Headers { source: client, destination, .. } = *transit.headers;
        let protocol = service_protocol(transit.headers)?;
        if !self.opens(protocol, transit) || self.answers_as_host(transit) {
            return None;
        }
        let asked = Asked { protocol, flow: Flow { client, destination } };
        let service = self.service_of(asked, transit)?;
        if transit.is_forged() {
            return Some(Verdict::Drop(DropReason::LocalBoundary));
        }
        match self.open(transit, &service, asked) {
            Ok(id) => {
                let verdict = self.pass_to_real(transit, id);
                self.end_one_packet(id);
                Some(verdict)
            }
            Err(DropReason::NoServer) => self.leave(transit, &service, asked),
            Err(reason) => Some(Verdict::Drop(reason)),
        }
    }

    /// The service that is asked, by the mark of the packet at hand or by its address.
    pub(super) fn service_of(
        &self,
        asked: Asked,
        transit: &Transit<'_, '_, impl Network>,
    ) -> Option<Arc<VirtualService>> {
        let Endpoint { addr, port } = asked.flow.destination;
        let marked = self.marked_service(transit);
        marked.or_else(|| self.snapshot.lookup(asked.protocol, addr, port)).cloned()
    }

    /// Opens a connection to a service, which its first packet has still to go through.
    ///
    /// **Errors** — why there is none; `NoServer` is for the caller to look into.
    pub(super) fn open(
        &mut self,
        transit: &Transit<'_, '_, impl Network>,
        service: &VirtualService,
        asked: Asked,
    ) -> Result<ConnId, DropReason> {
        if self.drops_packet() {
            return Err(DropReason::DropPacket);
        }
        let choice = self.choose(service, asked, transit)?;
        self.enter(transit, asked, choice)
    }

    /// Ends a connection that was for one packet only.
    pub(super) fn end_one_packet(&mut self, id: ConnId) {
        if self.conns.get(id).is_one_packet() {
            self.conns.remove(id);
        }
    }

    /// The service that takes the packet for its firewall mark. IPVS sees packets only that are
    /// for the host itself.
    fn marked_service(
        &self,
        transit: &Transit<'_, '_, impl Network>,
    ) -> Option<&Arc<VirtualService>> {
        let (addr, network) = (transit.headers.destination.addr, transit.network);
        let mark = self.snapshot.mark(transit.subject(), network);
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
            Protocol::Sctp => match SctpEvent::of_first_chunk(transit.transport()) {
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
        Asked { protocol, flow }: Asked,
        transit: &Transit<'_, '_, impl Network>,
    ) -> Result<Choice, DropReason> {
        let Flow { client, destination } = flow;
        let mut pool = service.pool();
        let spec = pool.spec();
        transit.tell(|| Event::Matched { service: spec.key, scheduler: spec.scheduler.clone() });
        let one_packet = spec.one_packet && protocol == Protocol::Udp;
        let on_own_port = is_on_own_port(&spec.key, destination.port);
        let Some(timeout_s) = spec.persistence_timeout_s else {
            // Only persistent services take other ports than their own.
            if !on_own_port && !matches!(spec.key, ServiceKey::Mark { .. }) {
                return Err(DropReason::NoServer);
            }
            let real = ask(&mut pool, &flow, transit, &mut self.random);
            let real = real.ok_or(DropReason::NoServer)?;
            let port = or_else_port(real.port(), destination.port);
            let local = wanted_end(&real, pool.spec());
            return Ok(Choice { real, port, template: None, one_packet, local });
        };
        let mut key = TemplateKey::new(spec, protocol, client.addr, destination);
        if spec.persistence_engine.is_some() {
            key = key.of_call(transit.call_id().ok_or(DropReason::NoCallId)?);
        }
        let bound = key.client();
        let quiescent = self.snapshot.settings.expire_quiescent_template != 0;
        // Held until the template is there, so that no other worker makes one for the client.
        let mut templates = self.services.templates();
        let known = templates.find(&key, quiescent, transit.now);
        let is_new = known.is_none();
        let template = match known {
            Some(template) => template,
            None => {
                let real = ask(&mut pool, &flow, transit, &mut self.random);
                let real = real.ok_or(DropReason::NoServer)?;
                let port = if key.has_port() { real.port() } else { 0 };
                let traits = self.template_traits(real.method(), transit);
                let timeout_ms = u64::from(timeout_s) * 1000;
                let inserted =
                    templates.insert_with(key, real, port, timeout_ms, traits, transit.now);
                inserted.ok_or(DropReason::TableFull)?
            }
        };
        let real = Arc::clone(template.real());
        transit.tell(|| {
            let call = transit.call_id().map(|call| String::from_utf8_lossy(call).into_owned());
            let call = call.filter(|_| pool.spec().persistence_engine.is_some());
            let real = real.endpoint();
            Event::Bound(Binding { client: bound, call, real, is_new, timeout_s })
        });
        let port = if on_own_port { real.port() } else { 0 };
        let port = or_else_port(port, destination.port);
        let local = wanted_end(&real, pool.spec());
        Ok(Choice { real, port, template: Some(template), one_packet, local })
    }

    fn enter(
        &mut self,
        transit: &Transit<'_, '_, impl Network>,
        Asked { protocol, flow }: Asked,
        choice: Choice,
    ) -> Result<ConnId, DropReason> {
        let Choice { real, port, template, one_packet, local } = choice;
        let method = real.method();
        let key = ConnKey {
            protocol: protocol.number(),
            client: flow.client,
            virtual_endpoint: flow.destination,
            real_endpoint: Endpoint::new(real.addr(), port),
        };
        let wanted = local.filter(|_| method == ForwardingMethod::FullNat);
        let local = wanted.map(|wanted| self.local_end(transit, &key, &wanted)).transpose()?;
        let counted = Arc::clone(&real);
        let new = NewConnection {
            key,
            real: Some(real),
            template,
            local,
            one_packet,
            method,
            host: host_ends(&key, transit.network),
            state: first_state(protocol),
            timeout_ms: NEW_TIMEOUT_MS,
            sync: self.traits(transit),
        };
        let id = self.conns.insert(new, transit.now).ok_or(DropReason::TableFull)?;
        counted.counters(self.worker).count_connection();
        transit.tell(|| Event::Opened(Sight::of(self.conns.get(id))));
        Ok(id)
    }
}

/// Asks the scheduler for a server.
fn ask(
    pool: &mut Pool,
    flow: &Flow,
    transit: &Transit<'_, '_, impl Network>,
    random: &mut dyn Random,
) -> Option<Arc<RealServer>> {
    transit.tell(|| Event::Weighed {
        reals: pool.reals().iter().map(|real| real.endpoint()).collect(),
        explanation: pool.explain(flow, transit.now),
    });
    let chosen = pool.schedule(flow, transit.now, random);
    transit.tell(|| Event::Chose(chosen.as_ref().map(|real| real.endpoint())));
    chosen
}

/// What a packet asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub protocol: Protocol,
    /// From the client to the service.
    pub flow: Flow,
}

/// What a new connection gets.
struct Choice {
    real: Arc<RealServer>,
    /// The port at the server.
    port: u16,
    template: Option<Arc<Template>>,
    /// Whether it ends with its first packet.
    one_packet: bool,
    /// What it needs of the director's own, if the server is reached by full NAT.
    local: Option<WantedEnd>,
}

/// What a connection to a server asks for, if that is reached by full NAT.
fn wanted_end(real: &RealServer, spec: &ServiceSpec) -> Option<WantedEnd> {
    (real.method() == ForwardingMethod::FullNat).then(|| WantedEnd {
        addresses: Arc::clone(&spec.local_addresses),
        client_address: real.client_address(),
    })
}

pub(super) const FTP_DATA: u16 = 20;

/// Whether a packet goes to the very port of its service.
pub(super) fn is_on_own_port(service: &ServiceKey, port: u16) -> bool {
    matches!(service, ServiceKey::Address { port: own, .. } if *own == port)
}

/// The state that a connection has before its first packet.
pub(super) fn first_state(protocol: Protocol) -> State {
    match protocol {
        Protocol::Tcp => State::Tcp(TcpState::None),
        Protocol::Udp => State::Udp,
        Protocol::Sctp => State::Sctp(SctpState::None),
    }
}

/// `port`, or where that is 0 the port that the packet was sent to.
fn or_else_port(port: u16, destination: u16) -> u16 {
    if port == 0 { destination } else { port }
}
