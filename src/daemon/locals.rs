//! Local endpoints for full NAT: which are wanted, and which of them can be had on this host.

use hashbrown::HashSet;

use crate::engine::local::{DEFAULT_LOCAL_PORTS, Locals, PortSet};
use crate::engine::service::{ForwardingMethod, Protocol, ServiceKey, Snapshot, VirtualService};
use crate::guard::Guard;
use crate::link::HostView;
use crate::packet::Addr;
use crate::worker::SharedLink;

/// What is known of local endpoints from one look at the services to the next.
#[derive(Debug, Default)]
pub(super) struct LocalEnds {
    /// Servers reached by full NAT, removed ones too while their connections may live.
    servers: HashSet<Addr>,
    /// Servers without a local address that this was said of.
    stranded: HashSet<Addr>,
}

/// What the services want.
#[derive(Debug, Default)]
struct Wanted {
    /// Where connections may begin, by protocol.
    ends: HashSet<(Addr, Protocol)>,
    servers: HashSet<Addr>,
    /// Servers that no address of the director leads to.
    stranded: HashSet<Addr>,
}

impl LocalEnds {
    /// Holds what the services want of the kernel's addresses; returns what may be used, and why
    /// not what may not be.
    pub fn follow(
        &mut self,
        services: &Snapshot,
        host: &HostView,
        link: &SharedLink,
        guard: &mut Guard,
    ) -> (Locals, Vec<String>) {
        let wanted = Wanted::new(services, |to| link.with(|layer| layer.address_towards(to, None)));
        let is_wanted = |addr| wanted.ends.iter().any(|(each, _)| *each == addr);
        guard.keep_local_ports(|addr| !services.is_empty() && host.owns(addr), is_wanted);
        self.tell_stranded(&wanted);
        if services.is_empty() {
            self.servers.clear();
        }
        self.servers.extend(&wanted.servers);
        let servers = self.servers.clone();
        let mut locals = Locals { servers, guarded: true, ..Locals::default() };
        let mut problems = Vec::new();
        for (addr, protocol) in wanted.ends {
            let key = (addr, protocol.number());
            if !host.owns(addr) {
                locals.ports.insert(key, default_ports(services, addr));
                continue;
            }
            match guard.hold_local_ports(addr, protocol) {
                Ok(ports) => drop(locals.ports.insert(key, ports.clone())),
                Err(Some(error)) => problems.push(format!(
                    "{addr} is this host's own address, and none of the ports that connections by \
                     full NAT come from can be held there ({error}), so that the kernel would \
                     reset them; name another address with --local-address"
                )),
                Err(None) => {}
            }
        }
        (locals, problems)
    }

    fn tell_stranded(&mut self, wanted: &Wanted) {
        for server in wanted.stranded.difference(&self.stranded) {
            tracing::warn!(
                "the director has no address on the way to {server}, which full NAT needs: give \
                 its service one with --local-address"
            );
        }
        self.stranded = wanted.stranded.clone();
    }
}

impl Wanted {
    fn new(services: &Snapshot, address_towards: impl Fn(Addr) -> Option<Addr>) -> Self {
        let mut wanted = Self::default();
        for service in services.services() {
            wanted.add(service, &address_towards);
        }
        wanted
    }

    fn add(&mut self, service: &VirtualService, address_towards: impl Fn(Addr) -> Option<Addr>) {
        let pool = service.pool();
        let reals = pool.reals().iter().filter(|real| real.method() == ForwardingMethod::FullNat);
        let servers: Vec<Addr> = reals.map(|real| real.addr()).collect();
        if servers.is_empty() {
            return;
        }
        let protocols = match service.key() {
            ServiceKey::Address { protocol, .. } => vec![protocol],
            ServiceKey::Mark { .. } => vec![Protocol::Tcp, Protocol::Udp],
        };
        let mut addresses = pool.spec().local_addresses.to_vec();
        if addresses.is_empty() {
            for server in &servers {
                match address_towards(*server) {
                    Some(addr) => addresses.push(addr),
                    None => drop(self.stranded.insert(*server)),
                }
            }
        }
        let ends = addresses.iter().flat_map(|addr| protocols.iter().map(|each| (*addr, *each)));
        self.ends.extend(ends);
        self.servers.extend(servers);
    }
}

/// The default ports of an address less those that source NAT uses there.
fn default_ports(services: &Snapshot, addr: Addr) -> PortSet {
    let shared = services.snat.iter().filter(|rule| rule.to == addr).map(|rule| &rule.ports);
    let is_free = |port: &u16| !shared.clone().any(|ports| ports.contains(port));
    DEFAULT_LOCAL_PORTS.filter(is_free).collect()
}

/// Local addresses that services name.
pub(super) fn configured(services: &Snapshot) -> HashSet<Addr> {
    let mut addrs = HashSet::new();
    for service in services.services() {
        addrs.extend(service.pool().spec().local_addresses.iter().copied());
    }
    addrs
}
