//! The director's door into its own host: what the host's programs send and the director has to see.
//!
//! A packet socket can send to the network only. What is for a real server or a client on the host
//! itself goes in by a device of the director's own, the *door*, and what such servers answer would
//! leave by the kernel's routes as it is. A table of nftables remembers which connections came in by
//! the door, and sends their answers back to it as they leave. The host's own clients of services
//! talk to addresses of the host over the loopback interface, from which they are led to the door as
//! well. Table and device vanish with the process.
//!
//! Where the director works behind a TUN device, own clients are led to that one.

use std::collections::BTreeSet;
use std::io;

use hashbrown::HashSet;

use super::contents::{Layout, Members};
use super::nftables::{Chain, Contents, Hook, OwnedTable};
use super::plan::guarded_keys;
use crate::engine::ftp;
use crate::engine::service::{ForwardingMethod, Protocol, RealServer, ServiceKey, Snapshot};
use crate::link::{HostView, is_door};
use crate::packet::{Addr, Family};

/// The name of the door; the first free number takes the place of `%d`.
pub const DOOR_NAME: &str = "ulvs-lo%d";

/// The table that leads packets to the door, as long as this lives.
#[derive(Debug, Default)]
pub struct Passages {
    table: Option<OwnedTable>,
    installed: Option<Passed>,
}

/// What is led to the door.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// The door's number.
    door: u32,
    /// Its name.
    entry: String,
    /// The interfaces by which answers may leave.
    exits: Vec<String>,
    /// Real servers on the host that are reached by an address or port other than the service's.
    servers: BTreeSet<(Addr, u8, u16)>,
    /// Those that answer from every port.
    whole_servers: BTreeSet<(Addr, u8)>,
    /// Endpoints of services at addresses of the host, of which its own programs are clients.
    services: BTreeSet<(Addr, u8, u16)>,
    /// Services of every port at those.
    whole: BTreeSet<(Addr, u8)>,
}

impl Passed {
    /// What these services need on this host to come to the door, which is given by number and name;
    /// own clients are led there only if `leads_clients`.
    pub fn new(
        services: &Snapshot,
        host: &HostView,
        (door, entry): (u32, &str),
        leads_clients: bool,
    ) -> Self {
        // What has no Ethernet header would come without one.
        let exits = host.interfaces.iter().filter(|each| each.ethernet && !is_door(&each.name));
        let exits = exits.map(|each| each.name.clone()).chain(["lo".to_owned()]).collect();
        let mut passed = Self { door, entry: entry.to_owned(), exits, ..Self::default() };
        for service in services.services() {
            for real in service.pool().reals().iter().filter(|real| host.owns(real.addr())) {
                passed.add_server(service.key(), real);
            }
        }
        for key in guarded_keys(services, host).into_iter().filter(|_| leads_clients) {
            passed.add_service(key, host);
        }
        passed
    }

    fn add_server(&mut self, key: ServiceKey, real: &RealServer) {
        if !is_translated(key, real) {
            return;
        }
        let protocols = match key {
            ServiceKey::Address { protocol, .. } => vec![protocol],
            ServiceKey::Mark { .. } => vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp],
        };
        for protocol in protocols.into_iter().map(Protocol::number) {
            match (real.port(), key) {
                // The port of a persistent client's connection is the one it asked for.
                (0, _) | (_, ServiceKey::Mark { .. }) => {
                    self.whole_servers.insert((real.addr(), protocol));
                }
                (port, _) => drop(self.servers.insert((real.addr(), protocol, port))),
            }
        }
    }

    fn add_service(&mut self, key: ServiceKey, host: &HostView) {
        let ServiceKey::Address { protocol, addr, port } = key else { return };
        if !host.owns(addr) {
            return;
        }
        if port == 0 {
            self.whole.insert((addr, protocol.number()));
        } else {
            self.services.insert((addr, protocol.number(), port));
        }
        if protocol == Protocol::Tcp && port == ftp::CONTROL_PORT {
            // Data connections come to any port. The director gives back what is none.
            self.whole.insert((addr, protocol.number()));
        }
    }

    fn contents(&self) -> Contents {
        let mut contents = Contents::new(Hook::Ingress(vec![self.entry.clone()]));
        let chain = |name, exits| Chain { name, hook: Hook::Egress(exits), rules: Vec::new() };
        contents.others = vec![chain(REQUESTS, vec!["lo".into()])];
        // Everything that leaves the host passes it, the director's packets included.
        if !self.servers.is_empty() || !self.whole_servers.is_empty() {
            contents.others.push(chain(ANSWERS, self.exits.clone()));
        }
        for family in [Family::V4, Family::V6] {
            let layout = Layout::of(family);
            let [servers, whole_servers, services, whole] = match family {
                Family::V4 => ["servers", "whole_servers", "services", "whole"],
                Family::V6 => ["servers6", "whole_servers6", "services6", "whole6"],
            };
            let learned = layout.delivered_set();
            contents.learned.push(learned);
            let servers = Members::endpoints(servers, &self.servers);
            let whole_servers = Members::hosts(whole_servers, &self.whole_servers);
            layout.learn_deliveries(&mut contents, servers);
            layout.learn_deliveries(&mut contents, whole_servers);
            layout.lead_answers(&mut contents, ANSWERS, self.door);
            let services = Members::endpoints(services, &self.services);
            let whole = Members::hosts(whole, &self.whole);
            layout.lead_requests(&mut contents, REQUESTS, services, self.door);
            layout.lead_requests(&mut contents, REQUESTS, whole, self.door);
        }
        contents
    }
}

impl Passages {
    /// Brings the kernel's table up to date.
    ///
    /// **Errors** — the table is as it was.
    pub fn update(&mut self, wanted: Passed) -> io::Result<()> {
        if self.installed.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let contents = wanted.contents();
        let table = match &mut self.table {
            Some(table) => table,
            none => none.insert(OwnedTable::beside(&contents.hook, "_door")?),
        };
        table.replace(&contents)?;
        self.installed = Some(wanted);
        Ok(())
    }
}

/// Services with a server that is a program of the host listening at the service's own address and
/// port, which must be let be.
pub fn listeners(services: &Snapshot, host: &HostView) -> HashSet<ServiceKey> {
    let mut found = HashSet::new();
    let mut is_marked = false;
    for service in services.services() {
        let key = service.key();
        let pool = service.pool();
        let mut own = pool.reals().iter().filter(|real| host.owns(real.addr()));
        if own.any(|real| !is_translated(key, real)) {
            found.insert(key);
            is_marked |= matches!(key, ServiceKey::Mark { .. });
        }
    }
    if is_marked {
        // A mark's endpoints are those of its rules.
        let addressed = guarded_keys(services, host).into_iter();
        found.extend(addressed.filter(|key| services.service(key).is_none()));
    }
    found
}

/// Whether packets to a server on the host have other addresses or ports than the client's packets.
fn is_translated(key: ServiceKey, real: &RealServer) -> bool {
    let is_elsewhere = match key {
        ServiceKey::Address { addr, port, .. } => {
            real.addr() != addr || real.port() != 0 && real.port() != port
        }
        ServiceKey::Mark { .. } => true,
    };
    match real.method() {
        ForwardingMethod::FullNat => true,
        ForwardingMethod::Masquerade => is_elsewhere,
        ForwardingMethod::Direct
        | ForwardingMethod::Tunnel
        | ForwardingMethod::Local
        | ForwardingMethod::Bypass => false,
    }
}

const ANSWERS: &str = "answers";
const REQUESTS: &str = "requests";
