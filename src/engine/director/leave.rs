//! Packets to a service that no server takes.

use super::Director;
use super::onhost::host_ends;
use super::schedule::{Asked, NEW_TIMEOUT_MS, first_state, is_on_own_port};
use super::transit::Transit;
use crate::engine::conn::{ConnKey, NewConnection};
use crate::engine::network::{Network, Owner};
use crate::engine::service::{ForwardingMethod, Protocol, ServiceKey, VirtualService, is_unicast};
use crate::engine::verdict::{DropReason, Verdict};
use crate::packet::reply::IcmpError;
use crate::packet::{Addr, Endpoint, Family};

const FTP: u16 = 21;

impl Director {
    /// Judges a packet whose service has no server for it; `None` if it is the host's business.
    ///
    /// **Source** — IPVS `ip_vs_leave`.
    pub(super) fn leave(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        service: &VirtualService,
        asked: Asked,
    ) -> Option<Verdict> {
        let Endpoint { addr, port } = transit.headers.destination;
        if self.may_bypass(service, addr, transit.network) {
            return Some(self.bypass(transit, service, asked));
        }
        // An FTP service takes connections to other ports than its own as well, if it can.
        if port != FTP && is_on_own_port(&service.key(), FTP) {
            return None;
        }
        Some(match self.refuse(IcmpError::PortUnreachable, transit, Some(addr)) {
            // It is refused all the same if nobody may be told.
            Verdict::Drop(DropReason::NotForUs) => Verdict::Drop(DropReason::NoServer),
            verdict => verdict,
        })
    }

    /// Whether the packet may go on to where it was sent, as a transparent cache has it. For IPv6 IPVS
    /// forgets to ask whether that is the host itself.
    fn may_bypass(&self, service: &VirtualService, to: Addr, network: &impl Network) -> bool {
        self.snapshot.settings.cache_bypass != 0
            && matches!(service.key(), ServiceKey::Mark { .. })
            && (network.owner(to) == Owner::Other
                || self.misreads_ipv6 && to.family() == Family::V6)
            && is_unicast(to)
    }

    /// Sends the packet on to where it was sent, and those that follow it.
    fn bypass(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        service: &VirtualService,
        Asked { protocol, flow }: Asked,
    ) -> Verdict {
        let one_packet = protocol == Protocol::Udp && service.pool().spec().one_packet;
        let nobody = match flow.destination.addr.family() {
            Family::V4 => Addr::v4(0),
            Family::V6 => Addr::v6(0),
        };
        let key = ConnKey {
            protocol: protocol.number(),
            client: flow.client,
            virtual_endpoint: flow.destination,
            real_endpoint: Endpoint::new(nobody, 0),
        };
        let new = NewConnection {
            key,
            real: None,
            template: None,
            local: None,
            one_packet,
            method: ForwardingMethod::Bypass,
            host: host_ends(&key, transit.network),
            state: first_state(protocol),
            timeout_ms: NEW_TIMEOUT_MS,
            sync: self.traits(transit),
        };
        let Some(id) = self.conns.insert(new, transit.now) else {
            return Verdict::Drop(DropReason::TableFull);
        };
        let verdict = self.pass_to_real(transit, id);
        if one_packet {
            self.conns.remove(id);
        }
        verdict
    }
}
