//! Clients and real servers on the director's own host.
//!
//! What the host itself sends passes the director on its way out, and what the director sends to the
//! host does not go through it again. Such packets are not forwarded by a router, so that nothing is
//! taken from their time to live and no link has to be large enough for them.

use super::Director;
use super::transit::Transit;
use crate::engine::conn::{ConnId, ConnKey, Direction, HostEnds};
use crate::engine::network::Network;
use crate::engine::rewrite::nat::{Translation, rewrite};
use crate::engine::service::ForwardingMethod;
use crate::engine::verdict::{DropReason, Hop, Verdict};

impl Director {
    /// Transmits a packet to a server that is the host itself.
    ///
    /// By NAT its destination is translated. By any other method it stays as it is, so that it is
    /// served at the virtual address, if that is the host's as well.
    ///
    /// **Source** — IPVS `crosses_local_route_boundary`, `ip_vs_nat_xmit`, `ip_vs_dr_xmit`,
    /// `ip_vs_tunnel_xmit`, `ip_vs_null_xmit`.
    pub(super) fn transmit_to_host(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        id: ConnId,
    ) -> Verdict {
        let conn = self.conns.get(id);
        let real = conn.real_endpoint();
        match conn.method() {
            ForwardingMethod::FullNat => self.transmit_full_nat(transit, id, false),
            ForwardingMethod::Masquerade => {
                if real.addr.is_loopback() && !conn.host().client {
                    return Verdict::Drop(DropReason::LocalBoundary);
                }
                if conn.is_ftp_control() {
                    self.hear_client(transit, id);
                }
                let translation = Translation { destination: Some(real), ..Default::default() };
                rewrite(transit.packet, transit.headers, translation);
                Verdict::Forward(Hop { to: real.addr })
            }
            ForwardingMethod::Direct
            | ForwardingMethod::Tunnel
            | ForwardingMethod::Local
            | ForwardingMethod::Bypass => {
                let virtual_addr = conn.virtual_endpoint().addr;
                if conn.host().client && !transit.network.is_local(virtual_addr) {
                    return Verdict::Drop(DropReason::LocalBoundary);
                }
                Verdict::Forward(Hop { to: real.addr })
            }
        }
    }

    /// Whether a packet of the host itself goes back to the client of a connection that is known,
    /// and so opens none.
    ///
    /// **Source** — IPVS `ip_vs_schedule`.
    pub(super) fn answers_as_host(&self, transit: &Transit<'_, '_, impl Network>) -> bool {
        let headers = transit.headers;
        if !transit.network.is_local(headers.source.addr) {
            return false;
        }
        let (from, to) = (headers.source, headers.destination);
        let lookup = self.conns.prepare(to, from, headers.protocol);
        self.conns.find(&lookup).is_some_and(|(_, direction)| direction == Direction::ToReal)
    }
}

/// Which ends of a connection are the host itself.
pub(super) fn host_ends(key: &ConnKey, network: &impl Network) -> HostEnds {
    HostEnds {
        client: network.is_local(key.client.addr),
        server: network.is_local(key.real_endpoint.addr),
    }
}
