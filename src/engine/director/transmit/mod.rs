//! Transmission: what each forwarding method does to a packet on its way to the real server.
//!
//! One file per method. Every method first asks whether the packet can go where it is to go
//! ([`check_way`]); what cannot is answered with an ICMP error from the virtual address.

mod bypass;
mod direct;
mod fullnat;
mod introduce;
mod nat;
mod tunnel;

pub use introduce::FullNatCounters;

use super::Director;
use super::transit::Transit;
use crate::engine::conn::{ConnId, Connection};
use crate::engine::network::Network;
use crate::engine::rewrite::nat::write_ttl;
use crate::engine::service::ForwardingMethod;
use crate::engine::verdict::{DropReason, Verdict};
use crate::packet::reply::IcmpError;
use crate::packet::{Addr, Headers};

impl Director {
    /// Transmits a packet of the client, the connection's first one or a later one.
    pub(super) fn transmit(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        id: ConnId,
        is_first: bool,
    ) -> Verdict {
        let conn = self.conns.get(id);
        let verdict = match conn.method() {
            _ if conn.host().server => self.transmit_to_host(transit, id),
            _ if is_confined(conn) => Verdict::Drop(DropReason::LocalBoundary),
            ForwardingMethod::Masquerade => self.transmit_nat(transit, id, is_first),
            ForwardingMethod::Direct => self.transmit_direct(transit, id, is_first),
            ForwardingMethod::FullNat => self.transmit_full_nat(transit, id, is_first),
            ForwardingMethod::Tunnel => self.transmit_tunnel(transit, id),
            ForwardingMethod::Local => Verdict::Pass,
            ForwardingMethod::Bypass => self.transmit_bypass(transit, is_first),
        };
        if verdict == Verdict::Reply {
            self.count_own_error(id, verdict);
        }
        verdict
    }

    /// Answers a client's packet that cannot go on, in the name of the virtual address.
    fn refuse_request(
        &mut self,
        error: IcmpError,
        transit: &mut Transit<'_, '_, impl Network>,
        virtual_addr: Addr,
    ) -> Verdict {
        if !matches!(error, IcmpError::TooBig { .. }) {
            return self.refuse(error, transit, Some(virtual_addr));
        }
        // IPVS has taken the hop off by then, and quotes what it has.
        write_ttl(transit.packet.bytes_mut(), transit.headers);
        let ttl = transit.headers.ttl.saturating_sub(1);
        let headers = Headers { ttl, ..*transit.headers };
        let transit = Transit::new(transit.packet, &headers, transit.network, transit.now);
        self.refuse(error, &transit, Some(virtual_addr))
    }
}

/// Whether a connection's packets cannot leave the host: they come from a loopback address, which
/// full NAT alone translates.
///
/// **Source** — IPVS `crosses_local_route_boundary`.
fn is_confined(conn: &Connection) -> bool {
    conn.host().client
        && conn.method() != ForwardingMethod::FullNat
        && conn.client().addr.is_loopback()
}

/// Whether a packet can go to `to`: hops left, a route, and small enough for it.
///
/// Packets too large that may be fragmented are let through; the link fragments them.
pub(super) fn check_way(
    transit: &Transit<'_, '_, impl Network>,
    to: Addr,
    is_first: bool,
) -> Result<(), IcmpError> {
    let headers = transit.headers;
    if headers.ttl <= 1 {
        return Err(IcmpError::TimeExceeded);
    }
    if headers.len <= SMALL && !is_first {
        return Ok(());
    }
    let mtu = transit.network.mtu(to).ok_or(IcmpError::HostUnreachable)?;
    let largest = transit.longest();
    if largest > mtu && headers.dont_fragment {
        return Err(IcmpError::TooBig { mtu: mtu.min(usize::from(u16::MAX)) as u16 });
    }
    Ok(())
}

/// Packets up to this size are not asked about once the first of a connection had its way.
/// **Source** — RFC 791 §3.2: every host takes 576 bytes.
const SMALL: usize = 576;
