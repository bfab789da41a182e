//! Guard rules: what sockets cannot keep from the kernel.
//!
//! A host that forwards packets would send replies of real servers on as they are, and their
//! connections to the outside as well. A service of every port has no port to hold. With
//! CAP_NET_ADMIN a table of nftables for each address family drops such packets after the director
//! has seen them.
//!
//! Some of what real servers send is not the director's: answers to somebody who reaches them through
//! this host as a mere router. Only the kernel forwards the questions of such connections (the
//! director's packets do not pass its forwarding), so the rules learn connections from what is
//! forwarded towards a server, and leave what answers them alone. In the same way they tell what
//! servers send to the host's own clients of services from what they send to its other programs.

use std::collections::BTreeSet;
use std::io;

use hashbrown::HashSet;

use super::contents::{Layout, Members};
use super::nftables::{Contents, OwnedTable};
use super::plan::{GuardedNetwork, guarded_keys, guarded_networks, with_keys};
use crate::engine::service::{ForwardingMethod, Protocol, ServiceKey, Snapshot};
use crate::engine::{SnatRule, ftp};
use crate::link::HostView;
use crate::packet::{Addr, Family};

/// The rules of an address family as they are in the kernel, or why they are not.
#[derive(Debug)]
pub struct Rules {
    family: Family,
    table: Option<OwnedTable>,
    installed: Option<Wanted>,
    failed: Option<Wanted>,
}

/// What the rules of an address family are to keep from the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Virtual endpoints.
    services: BTreeSet<(Addr, u8, u16)>,
    /// Virtual addresses of services of every port.
    whole: BTreeSet<(Addr, u8)>,
    /// Networks that are the kernel's by a route.
    networks: Vec<GuardedNetwork>,
    /// Where real servers reply from.
    servers: BTreeSet<(Addr, u8, u16)>,
    /// Real servers that reply from every port.
    whole_servers: BTreeSet<(Addr, u8)>,
    /// Virtual addresses, and real servers, that have to do with IPsec as well.
    ipsec: BTreeSet<(Addr, u8)>,
    ipsec_servers: BTreeSet<(Addr, u8)>,
    /// Virtual addresses of FTP, at any port of which the host's own clients open data connections.
    ftp: BTreeSet<(Addr, u8)>,
    /// Where servers open such connections from.
    ftp_servers: BTreeSet<(Addr, u8, u16)>,
    /// Connections of real servers to the outside.
    outbound: Vec<SnatRule>,
    forwards: bool,
    /// Whether the kernel may be sent packets for virtual addresses that are not its own.
    forwards_requests: bool,
    /// The interface by which the director delivers packets to the host itself, if it does.
    door: Option<u32>,
    /// Whether a program of the host listens at a virtual endpoint, as one of its servers or beside
    /// them.
    has_listeners: bool,
}

impl Wanted {
    /// What these services need on this host.
    pub fn new(
        snapshot: &Snapshot,
        host: &HostView,
        family: Family,
        door: Option<u32>,
        listeners: &HashSet<ServiceKey>,
    ) -> Self {
        let mut wanted = Self { forwards: host.forwards(family), door, ..Self::default() };
        wanted.has_listeners = door.is_some() && listeners.iter().any(|key| key.family() == family);
        let keys = guarded_keys(snapshot, host);
        for key in keys.iter().filter(|key| key.family() == family) {
            wanted.add_service(*key, host);
        }
        wanted.networks = guarded_networks(snapshot, host);
        wanted.networks.retain(|each| each.network.addr().family() == family);
        for service in snapshot.services() {
            for real in service.pool().reals().iter() {
                let addr = real.addr();
                let replies = real.method() == ForwardingMethod::Masquerade && !host.owns(addr);
                if replies && addr.family() == family {
                    wanted.add_server(service.key(), addr, real.port());
                }
            }
        }
        let outbound = snapshot.snat.iter().filter(|rule| rule.to.family() == family);
        wanted.outbound = outbound.cloned().collect();
        wanted
    }

    /// Whether sockets do not suffice.
    pub fn is_needed(&self) -> bool {
        self.guards_services() || self.serves_own_clients()
    }

    /// Whether the kernel is to be kept from what clients elsewhere send.
    fn guards_services(&self) -> bool {
        !self.whole.is_empty()
            || !self.networks.is_empty()
            || self.forwards_requests
            || self.forwards_replies()
            || self.has_listeners
            || self.door.is_some() && self.forwards
    }

    /// Whether servers send to the host's own clients what is to be translated first.
    fn serves_own_clients(&self) -> bool {
        let has_servers = !self.servers.is_empty() || !self.whole_servers.is_empty();
        self.door.is_some() && has_servers
    }

    /// Whether the kernel would forward what real servers send.
    pub fn forwards_replies(&self) -> bool {
        let any =
            !self.servers.is_empty() || !self.whole_servers.is_empty() || !self.outbound.is_empty();
        self.forwards && any
    }

    fn add_service(&mut self, key: ServiceKey, host: &HostView) {
        let ServiceKey::Address { protocol, addr, port } = key else { return };
        self.forwards_requests |= self.forwards && !host.owns(addr);
        self.ipsec.extend(with_keys(protocol, port).iter().map(|number| (addr, *number)));
        if protocol == Protocol::Tcp && port == ftp::CONTROL_PORT {
            self.ftp.insert((addr, protocol.number()));
        }
        if port != 0 {
            self.services.insert((addr, protocol.number(), port));
        } else if host.owns(addr) || self.forwards {
            self.whole.insert((addr, protocol.number()));
        }
    }

    fn add_server(&mut self, key: ServiceKey, addr: Addr, port: u16) {
        let ServiceKey::Address { protocol, port: service_port, .. } = key else {
            let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
            return self.whole_servers.extend(all.map(|each| (addr, each.number())));
        };
        let number = protocol.number();
        self.ipsec_servers
            .extend(with_keys(protocol, service_port).iter().map(|each| (addr, *each)));
        if port == 0 {
            self.whole_servers.insert((addr, number));
            return;
        }
        self.servers.insert((addr, number, port));
        if protocol == Protocol::Tcp && service_port == ftp::CONTROL_PORT {
            // Data connections: those that clients begin are to any port.
            let data = (addr, number, port.wrapping_sub(1));
            self.servers.insert(data);
            self.ftp_servers.insert(data);
            self.whole_servers.insert((addr, number));
        }
    }

    fn contents(&self, layout: Layout) -> Contents {
        let mut contents = Contents::new(layout.hook());
        contents.learned = layout.learned_sets().to_vec();
        contents.learned.push(layout.clients_set());
        contents.others = vec![layout.forwarded(), layout.sent()];
        if let Some(door) = self.door {
            layout.accept_from(&mut contents, door);
            // Routes to the door are for the host's own clients.
            layout.drop_forwarded_to(&mut contents, door);
        }
        if self.guards_services() {
            layout.drop_pieces(&mut contents);
            for members in [self.services(), self.whole(), Members::hosts("ipsec", &self.ipsec)] {
                layout.drop_requests(&mut contents, members);
            }
            for GuardedNetwork { network, protocol, ports, .. } in &self.networks {
                layout.drop_network_requests(&mut contents, *network, protocol.number(), ports);
            }
        }
        if self.forwards {
            layout.drop_replies(&mut contents, self.servers());
            layout.drop_all_replies(&mut contents, self.whole_servers());
            let portless = Members::hosts("ipsec_servers", &self.ipsec_servers);
            layout.drop_portless_replies(&mut contents, portless);
            layout.drop_outbound(&mut contents, &self.outbound);
        }
        if self.serves_own_clients() {
            self.add_own_clients(&mut contents, layout);
        }
        contents
    }
}

impl Wanted {
    /// Keeps what servers send to the host's own clients from the kernel.
    fn add_own_clients(&self, contents: &mut Contents, layout: Layout) {
        layout.add_set(contents, self.services());
        layout.add_set(contents, self.whole());
        layout.add_servers(contents, self.servers());
        layout.add_servers(contents, self.whole_servers());
        for (services, servers) in
            [(self.services(), self.servers()), (self.whole(), self.whole_servers())]
        {
            layout.learn_clients(contents, services);
            layout.drop_deliveries(contents, servers);
        }
        let ftp = Members::hosts("ftp_services", &self.ftp);
        layout.add_set(contents, ftp);
        layout.learn_clients(contents, ftp);
        let ftp_servers = Members::endpoints("ftp_servers", &self.ftp_servers);
        layout.add_set(contents, ftp_servers);
        layout.drop_calls(contents, ftp_servers);
    }

    fn services(&self) -> Members<'_> {
        Members::endpoints("services", &self.services)
    }

    fn whole(&self) -> Members<'_> {
        Members::hosts("whole_services", &self.whole)
    }

    fn servers(&self) -> Members<'_> {
        Members::endpoints("servers", &self.servers)
    }

    fn whole_servers(&self) -> Members<'_> {
        Members::hosts("whole_servers", &self.whole_servers)
    }
}

impl Rules {
    /// No rules yet.
    pub fn new(family: Family) -> Self {
        Self { family, table: None, installed: None, failed: None }
    }

    /// Brings the kernel's rules up to date.
    ///
    /// **Errors** — they are needed and cannot be had; without a reason if that was said before.
    pub fn update(&mut self, wanted: Wanted) -> Result<(), Option<io::Error>> {
        if !wanted.is_needed() {
            *self = Self::new(self.family);
            return Ok(());
        }
        if self.installed.as_ref() == Some(&wanted) {
            return Ok(());
        }
        if self.failed.as_ref() == Some(&wanted) {
            return Err(None);
        }
        match self.install(&wanted) {
            Ok(()) => {
                self.installed = Some(wanted);
                self.failed = None;
                Ok(())
            }
            Err(error) => {
                self.failed = Some(wanted);
                Err(Some(error))
            }
        }
    }

    /// Whether there are rules in the kernel that keep services from it.
    pub fn are_installed(&self) -> bool {
        self.installed.as_ref().is_some_and(Wanted::guards_services)
    }

    fn install(&mut self, wanted: &Wanted) -> io::Result<()> {
        let layout = Layout::of(self.family);
        let table = match &mut self.table {
            Some(table) => table,
            none => none.insert(OwnedTable::new(&layout.hook())?),
        };
        table.replace(&wanted.contents(layout))
    }
}
