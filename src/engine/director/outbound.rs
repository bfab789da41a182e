//! Connections that real servers begin: source NAT to an address of the director.

use super::transit::Transit;
use super::{Director, without_port};
use crate::engine::conn::tcp::{TcpFlags, TcpState};
use crate::engine::conn::{ConnId, ConnKey, HostEnds, NewConnection, State, SyncTraits};
use crate::engine::event::Event;
use crate::engine::network::{Network, Owner};
use crate::engine::service::ForwardingMethod;
use crate::engine::time::Moment;
use crate::engine::verdict::{DropReason, Verdict};
use crate::packet::headers::protocol;
use crate::packet::{Addr, Endpoint, Headers};

/// Ports tried for a connection before giving up.
const ATTEMPTS: u32 = 128;

impl Director {
    /// Begins a connection from behind the director if a rule takes it, and forwards its first
    /// packet; `None` if no rule does.
    ///
    /// Such a connection is kept like one to a service whose client is the remote end, whose
    /// virtual endpoint is the address and port it was given, and whose real server began it.
    pub(super) fn begin_outbound(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
    ) -> Option<Verdict> {
        let Transit { headers, network, now, .. } = *transit;
        if self.snapshot.snat.is_empty()
            || network.owner(headers.destination.addr) != Owner::Other
            || network.is_local(headers.source.addr)
        {
            return None;
        }
        let state = first_state(transit)?;
        let (from, to) = (headers.source.addr, headers.destination.addr);
        let rules = self.snapshot.snat.iter();
        let rule =
            rules.into_iter().find(|rule| rule.takes(headers.protocol, from, to, network))?.clone();
        let Some(port) = self.free_port(headers, rule.to, &rule.ports) else {
            return Some(Verdict::Drop(DropReason::PortsExhausted));
        };
        let Some(id) = self.enter_outbound(headers, Endpoint::new(rule.to, port), state, now)
        else {
            return Some(Verdict::Drop(DropReason::TableFull));
        };
        transit.tell(|| Event::BeganOutbound(self.conns.get(id).virtual_endpoint()));
        Some(self.forward_to_client(transit, id))
    }

    fn enter_outbound(
        &mut self,
        headers: &Headers,
        virtual_endpoint: Endpoint,
        state: State,
        now: Moment,
    ) -> Option<ConnId> {
        let key = ConnKey {
            protocol: headers.protocol,
            client: remote(headers),
            virtual_endpoint,
            real_endpoint: headers.source,
        };
        let timeout_ms = state.timeout_ms(&self.snapshot.timeouts);
        let method = ForwardingMethod::Masquerade;
        let new = NewConnection {
            key,
            real: None,
            template: None,
            local: None,
            one_packet: false,
            method,
            host: HostEnds::default(),
            state,
            timeout_ms,
            sync: SyncTraits::default(),
        };
        self.conns.insert(new, now)
    }

    /// A port of `addr` from which no other connection talks to the same remote end.
    fn free_port(
        &mut self,
        headers: &Headers,
        addr: Addr,
        ports: &std::ops::RangeInclusive<u16>,
    ) -> Option<u16> {
        use crate::engine::scheduler::Random;
        let (first, count) = (*ports.start(), u32::from(ports.end() - ports.start()) + 1);
        let start = self.random.below(u64::from(count)) as u32;
        let candidates =
            (0..count.min(ATTEMPTS)).map(|step| first + ((start + step) % count) as u16);
        candidates.into_iter().find(|port| {
            let taken = Endpoint::new(addr, *port);
            let lookup = self.conns.prepare(remote(headers), taken, headers.protocol);
            self.conns.find(&lookup).is_none()
        })
    }
}

/// The other end of an outbound connection. Echo has no port there.
fn remote(headers: &Headers) -> Endpoint {
    match headers.protocol {
        protocol::ICMP | protocol::ICMP6 => without_port(headers.destination),
        _ => headers.destination,
    }
}

/// The state of a connection that this packet begins, if it may begin one.
fn first_state(transit: &Transit<'_, '_, impl Network>) -> Option<State> {
    match transit.headers.protocol {
        protocol::TCP => {
            let begins = |flags: TcpFlags| flags.syn() && !flags.ack() && !flags.rst();
            begins(transit.flags?).then_some(State::Tcp(TcpState::None))
        }
        protocol::UDP => Some(State::Udp),
        protocol::ICMP | protocol::ICMP6 => {
            let asks = transit.is_echo() && transit.headers.source.port != 0;
            asks.then_some(State::Echo)
        }
        _ => None,
    }
}
