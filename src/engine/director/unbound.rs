//! Packets of real servers that belong to no connection: `nat_icmp_send`.

use hashbrown::HashSet;

use super::Director;
use super::transit::Transit;
use super::transmit::check_way;
use crate::engine::conn::sctp::SctpEvent;
use crate::engine::conn::tcp::TcpFlags;
use crate::engine::ftp;
use crate::engine::network::{Network, Owner};
use crate::engine::rewrite::nat::write_ttl;
use crate::engine::service::{ForwardingMethod, Protocol, ServiceKey, Snapshot};
use crate::engine::verdict::Verdict;
use crate::packet::reply::IcmpError;
use crate::packet::{Addr, Endpoint, Headers};

/// The masqueraded servers of all services, as of a revision of these.
#[derive(Debug, Default)]
pub(super) struct Masqueraded {
    revision: Option<u64>,
    /// With the protocol of their services; `None` for marked ones, which take any.
    endpoints: HashSet<(Endpoint, Option<Protocol>)>,
    /// Those that speak FTP, whose data comes from other ports.
    ftp: HashSet<Addr>,
}

impl Masqueraded {
    /// Works the set out anew, if the services have changed since.
    fn follow(&mut self, snapshot: &Snapshot, revision: u64) {
        if self.revision == Some(revision) {
            return;
        }
        self.revision = Some(revision);
        self.endpoints.clear();
        self.ftp.clear();
        for service in snapshot.services() {
            let protocol = match service.key() {
                ServiceKey::Address { protocol, .. } => Some(protocol),
                ServiceKey::Mark { .. } => None,
            };
            let pool = service.pool();
            let reals = pool.reals().iter();
            let translated = reals.filter(|real| real.method() == ForwardingMethod::Masquerade);
            if matches!(service.key(), ServiceKey::Address { port: ftp::CONTROL_PORT, .. }) {
                self.ftp.extend(translated.clone().map(|real| real.addr()));
            }
            self.endpoints.extend(translated.map(|real| (real.endpoint(), protocol)));
        }
    }

    fn contains(&self, server: Endpoint, protocol: Protocol) -> bool {
        [Some(protocol), None].iter().any(|wanted| self.endpoints.contains(&(server, *wanted)))
    }
}

impl Director {
    /// Whether what goes from one endpoint to another is the answer of a masqueraded server, and no
    /// request, though there may be services at the client's address: it may be the host's own.
    pub fn is_answer(&self, protocol: u8, from: Endpoint, to: Endpoint) -> bool {
        let Some(protocol) = Protocol::from_number(protocol) else { return false };
        let key = |port| ServiceKey::Address { protocol, addr: to.addr, port };
        let is_service = |port| self.snapshot.service(&key(port)).is_some();
        let has_data = || protocol == Protocol::Tcp && self.masqueraded.ftp.contains(&from.addr);
        (self.masqueraded.contains(from, protocol) || has_data())
            && !is_service(to.port)
            && !is_service(0)
    }

    /// Takes note of which servers are masqueraded now.
    pub(super) fn follow_masqueraded(&mut self) {
        self.masqueraded.follow(&self.snapshot, self.services.revision());
    }

    /// Refuses a real server's packet that belongs to no connection, so that the server gives up
    /// at once; `None` if it is none, or the setting is off.
    ///
    /// **Source** — IPVS `ip_vs_out_hook`, `ip_vs_has_real_service`: after the host has found that
    /// it could forward the packet.
    pub(super) fn refuse_unbound(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
    ) -> Option<Verdict> {
        if self.snapshot.settings.nat_icmp_send == 0 || !self.balances() {
            return None;
        }
        let headers = transit.headers;
        let protocol = Protocol::from_number(headers.protocol)?;
        let is_reset = transit.flags.is_some_and(TcpFlags::rst)
            || transit.sctp_event() == Some(SctpEvent::Abort);
        self.masqueraded.follow(&self.snapshot, self.services.revision());
        if is_reset || !self.masqueraded.contains(headers.source, protocol) {
            return None;
        }
        let (error, to) = (IcmpError::PortUnreachable, headers.destination.addr);
        if transit.network.owner(to) != Owner::Other {
            return Some(self.refuse(error, transit, Some(to)));
        }
        check_way(transit, to, true).ok()?;
        write_ttl(transit.packet.bytes_mut(), headers);
        let headers = Headers { ttl: headers.ttl - 1, ..*headers };
        let transit = Transit::new(transit.packet, &headers, transit.network, transit.now);
        Some(self.refuse(error, &transit, None))
    }
}
