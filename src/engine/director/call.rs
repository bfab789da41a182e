//! Calls that real servers begin: SIP messages to clients that have not been heard of.

use std::sync::Arc;

use super::Director;
use super::onhost::host_ends;
use super::transit::Transit;
use crate::engine::conn::{ConnKey, NewConnection, State, Template, TemplateKey};
use crate::engine::network::{Network, Owner};
use crate::engine::service::{ForwardingMethod, Protocol, RealServer, ServiceKey, VirtualService};
use crate::engine::verdict::{DropReason, Verdict};
use crate::packet::Endpoint;
use crate::packet::headers::protocol;

/// What a server's call becomes part of.
struct Call {
    virtual_endpoint: Endpoint,
    real: Arc<RealServer>,
    template: Arc<Template>,
    one_packet: bool,
}

impl Director {
    /// Enters a call that a real server begins, so that the client answers the service, and
    /// forwards its first message; `None` if it is none.
    ///
    /// **Source** — IPVS `ip_vs_new_conn_out`, by `ip_vs_sip_conn_out`.
    pub(super) fn begin_call(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
    ) -> Option<Verdict> {
        let headers = transit.headers;
        let goes_out = || transit.network.owner(headers.destination.addr) == Owner::Other;
        if headers.protocol != protocol::UDP || self.snapshot.calls().is_empty() || !goes_out() {
            return None;
        }
        let services = self.snapshot.calls().iter();
        let call = services.into_iter().find_map(|service| self.call(service, transit))?;
        let Some(Call { virtual_endpoint, real, template, one_packet }) = call else {
            return Some(Verdict::Drop(DropReason::TableFull));
        };
        let key = ConnKey {
            protocol: headers.protocol,
            client: headers.destination,
            virtual_endpoint,
            real_endpoint: headers.source,
        };
        let state = State::Udp;
        let counted = Arc::clone(&real);
        let new = NewConnection {
            key,
            real: Some(real),
            template: Some(template),
            local: None,
            one_packet,
            method: ForwardingMethod::Masquerade,
            host: host_ends(&key, transit.network),
            state,
            timeout_ms: state.timeout_ms(&self.snapshot.timeouts),
            sync: self.traits(transit),
        };
        let Some(id) = self.conns.insert(new, transit.now) else {
            return Some(Verdict::Drop(DropReason::TableFull));
        };
        counted.counters(self.worker).count_connection();
        let verdict = self.forward_to_client(transit, id);
        if one_packet {
            self.conns.remove(id);
        }
        Some(verdict)
    }

    /// The call of a message of one of the service's servers; `Some(None)` if there is no room for
    /// its template.
    fn call(
        &self,
        service: &VirtualService,
        transit: &Transit<'_, '_, impl Network>,
    ) -> Option<Option<Call>> {
        let ServiceKey::Address { protocol: Protocol::Udp, addr, port } = service.key() else {
            return None;
        };
        let (server, client) = (transit.headers.source, transit.headers.destination);
        let pool = service.pool();
        let real = pool.find(server.addr, server.port)?;
        if real.method() != ForwardingMethod::Masquerade {
            return None;
        }
        let spec = pool.spec();
        let timeout_s = spec.persistence_timeout_s?;
        let virtual_endpoint = Endpoint::new(addr, port);
        let key = TemplateKey::new(spec, Protocol::Udp, client.addr, virtual_endpoint)
            .of_call(transit.call_id()?);
        let quiescent = self.snapshot.settings.expire_quiescent_template != 0;
        let mut templates = self.services.templates();
        let template = templates.find(&key, quiescent, transit.now).or_else(|| {
            let traits = self.template_traits(real.method(), transit);
            let timeout_ms = u64::from(timeout_s) * 1000;
            let (real, port) = (Arc::clone(real), real.port());
            templates.insert_with(key, real, port, timeout_ms, traits, transit.now)
        });
        let (real, one_packet) = (Arc::clone(real), spec.one_packet);
        Some(template.map(|template| Call { virtual_endpoint, real, template, one_packet }))
    }
}
