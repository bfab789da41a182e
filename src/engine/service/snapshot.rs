//! The services as workers see them: one immutable snapshot per edit.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::pool::VirtualService;
use super::real::RealServer;
use super::spec::{Protocol, ServiceKey, Timeouts};
use crate::engine::local::Locals;
use crate::engine::mark::{MarkRule, Subject, mark};
use crate::engine::network::Network;
use crate::engine::settings::Settings;
use crate::engine::snat::SnatRule;
use crate::engine::sync::{Entry, SyncRoles, flag};
use crate::packet::{Addr, Endpoint, Family, Prefix};

/// The services as they are at one moment. Never changes once published.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(super) services: HashMap<ServiceKey, Arc<VirtualService>>,
    virtual_addrs: HashSet<Addr>,
    /// The three timeouts.
    pub timeouts: Timeouts,
    /// The settings of `net.ipv4.vs`.
    pub settings: Settings,
    /// How connections that real servers begin are translated, the first rule that fits.
    pub snat: Vec<SnatRule>,
    /// From which local endpoints connections by full NAT may begin.
    pub locals: Arc<Locals>,
    /// The synchronisation that takes place.
    pub sync: SyncRoles,
    /// How packets that may open a connection are marked: all rules that fit, in their order.
    pub marks: Vec<MarkRule>,
    /// Networks, of more than one address, whose packets may be a marked service's.
    marked_networks: Vec<Prefix>,
    marks_own: bool,
    /// Services whose persistence engine tells calls apart.
    calls: Vec<Arc<VirtualService>>,
    families: [Option<Family>; 2],
}

impl Snapshot {
    /// The service with this identity.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<VirtualService>> {
        self.services.get(key)
    }

    /// The service that takes packets to this destination: the exact one, else for data connections
    /// of FTP that of port 21, else that of port 0.
    ///
    /// **Source** — IPVS `ip_vs_service_find`, without marks.
    pub fn lookup(
        &self,
        protocol: Protocol,
        addr: Addr,
        port: u16,
    ) -> Option<&Arc<VirtualService>> {
        let at = |port| self.service(&ServiceKey::Address { protocol, addr, port });
        let may_be_ftp_data = protocol == Protocol::Tcp && (port == 20 || port >= 1024);
        at(port).or_else(|| if may_be_ftp_data { at(21) } else { None }).or_else(|| at(0))
    }

    /// The server of a connection that another director told of: of the service by the mark, else by
    /// address and port.
    ///
    /// **Source** — IPVS `ip_vs_find_dest`.
    pub fn server_of(&self, entry: &Entry) -> Option<Arc<RealServer>> {
        let Endpoint { addr, port } = entry.virtual_endpoint;
        let key = ServiceKey::Mark { mark: entry.mark, family: entry.client.addr.family() };
        let marked = self.service(&key).filter(|_| entry.mark != 0);
        let by_address = || self.lookup(Protocol::from_number(entry.protocol)?, addr, port);
        let service = marked.or_else(by_address)?;
        let Endpoint { addr, port } = entry.real_endpoint;
        let is_translated = entry.flags & flag::METHOD == flag::MASQUERADE;
        let first = if entry.mark != 0 && !is_translated { 0 } else { port };
        let pool = service.pool();
        pool.find(addr, first).or_else(|| pool.find(addr, first ^ port)).cloned()
    }

    /// All services, in no particular order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<VirtualService>> {
        self.services.values()
    }

    /// Whether clients talk to this address: some service's, or one that connections of real
    /// servers are translated to.
    pub fn is_virtual(&self, addr: Addr) -> bool {
        self.virtual_addrs.contains(&addr)
            || self.marked_networks.iter().any(|network| network.contains(addr))
    }

    /// Whether an address is [virtual](Self::is_virtual) only as one of a network that a mark names.
    pub fn is_only_in_marked_network(&self, addr: Addr) -> bool {
        self.is_virtual(addr) && !self.virtual_addrs.contains(&addr)
    }

    /// The firewall mark that a packet gets.
    pub fn mark(&self, packet: Subject<'_>, network: &impl Network) -> u32 {
        mark(&self.marks, packet, network)
    }

    /// The rules whose marks may lead to a service.
    pub fn active_marks(&self) -> impl Iterator<Item = &MarkRule> {
        let is_marked = |key: &ServiceKey| matches!(key, ServiceKey::Mark { .. });
        let has_services = self.services.keys().any(is_marked);
        self.marks.iter().filter(move |_| has_services)
    }

    /// The single addresses whose packets may be a marked service's.
    pub fn marked_addresses(&self) -> impl Iterator<Item = Addr> {
        let networks = self.active_marks().filter_map(MarkRule::destination_network);
        networks.filter(Prefix::is_single).map(|prefix| prefix.addr())
    }

    /// Whether packets to any address of the director's own may be a marked service's.
    pub fn marks_own_addresses(&self) -> bool {
        self.marks_own
    }

    /// Services whose persistence engine tells calls apart.
    pub fn calls(&self) -> &[Arc<VirtualService>] {
        &self.calls
    }

    /// Whether anything is done for packets of a family: there is a service, or connections that
    /// real servers begin are translated.
    pub fn serves(&self, family: Family) -> bool {
        self.families.contains(&Some(family))
    }

    /// Whether there is any service. Without one the director leaves every packet alone.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Works out what follows from the services and rules.
    pub(super) fn index_addresses(&mut self) {
        let addresses = self.services.keys().filter_map(|key| match key {
            ServiceKey::Address { addr, .. } => Some(*addr),
            ServiceKey::Mark { .. } => None,
        });
        let translated = self.snat.iter().map(|rule| rule.to);
        let all = addresses.chain(translated).chain(self.marked_addresses());
        self.virtual_addrs = all.collect();
        let networks = self.active_marks().filter_map(MarkRule::destination_network);
        self.marked_networks = networks.filter(|prefix| !prefix.is_single()).collect();
        let marks_own = self.active_marks().any(|rule| rule.destination_network().is_none());
        self.marks_own = marks_own;
        let tells_calls =
            |service: &&Arc<VirtualService>| service.pool().spec().persistence_engine.is_some();
        self.calls = self.services.values().filter(tells_calls).cloned().collect();
        let translated = self.snat.iter().map(|rule| rule.to.family());
        let served: HashSet<_> =
            self.services.keys().map(ServiceKey::family).chain(translated).collect();
        self.families = [Family::V4, Family::V6].map(|each| served.contains(&each).then_some(each));
    }
}
