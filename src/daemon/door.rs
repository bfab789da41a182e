//! The door into the director's own host: opened once somebody needs it, and followed as services and
//! host change.

use std::io;

use crate::driver::tun::{Tun, TunConfig};
use crate::engine::MarkRule;
use crate::engine::service::{ForwardingMethod, ServiceKey, Snapshot};
use crate::guard::{DOOR_NAME, Passages, Passed, Problem};
use crate::host::privileges::{self, CapabilitySet};
use crate::host::{Device, Lead, Use};
use crate::link::{DOOR, DOOR_ADDRESS, HostView};
use crate::packet::{Addr, Endpoint};
use crate::worker::{Peers, Request};

use super::leads::Leads;
use super::ports::Addressed;

/// The door, and why there is none.
#[derive(Default)]
pub(super) struct Door {
    open: Option<Open>,
    /// The services' revision for which it could not be opened, and why.
    refused: Option<(u64, String)>,
    /// What is wrong and was said.
    told: Vec<Problem>,
}

struct Open {
    device: Device,
    passages: Passages,
    /// Virtual addresses that the host's own clients find here.
    leads: Leads,
}

/// What the door is for.
pub(super) struct Errand<'a> {
    pub services: &'a Snapshot,
    /// The services' revision.
    pub revision: u64,
    pub host: &'a HostView,
    /// Whether there is a device to which the kernel routes: then own clients are led there.
    pub has_outlet: bool,
    /// Virtual addresses that are the director's own, each with the address that the host's own
    /// programs talk to it from.
    pub addresses: Vec<(Addr, Addr)>,
}

impl Door {
    /// The kernel's number for the door's device, if it is open.
    pub fn index(&self) -> Option<u32> {
        self.open.as_ref().map(|open| open.device.index())
    }

    /// Opens it if somebody needs it, and brings what leads there up to date. Returns the problems
    /// that are new.
    pub fn follow(&mut self, errand: &Errand<'_>, peers: &Peers) -> Vec<Problem> {
        let servers = local_servers(errand.services, errand.host);
        let has_clients = !errand.has_outlet && !errand.services.is_empty();
        if servers.is_empty() && !has_clients && self.open.is_none() {
            self.told.clear();
            return Vec::new();
        }
        let done = self.open(errand.revision, peers).and_then(|()| {
            let led = self.lead(errand);
            if let Err(reason) = &led {
                (self.open, self.refused) = (None, Some((errand.revision, reason.clone())));
            }
            led
        });
        let refused = done.is_err();
        let mut problems = match done {
            Ok(()) => unserved(errand.services, errand.host, &servers),
            Err(reason) => refusals(&servers, &reason),
        };
        let before = std::mem::replace(&mut self.told, problems.clone());
        problems.retain(|problem| !before.contains(problem));
        if refused {
            return problems;
        }
        // Another director may have the address now, and this one later.
        problems.iter().for_each(|problem| tracing::warn!("{problem}"));
        Vec::new()
    }

    fn open(&mut self, revision: u64, peers: &Peers) -> Result<(), String> {
        if self.open.is_some() {
            return Ok(());
        }
        if let Some((_, reason)) = self.refused.as_ref().filter(|(at, _)| *at == revision) {
            return Err(reason.clone());
        }
        let opened = if privileges::has(CapabilitySet::NET_ADMIN) {
            Open::new(peers).map_err(|error| error.to_string())
        } else {
            Err(NEEDS.into())
        };
        match opened {
            Ok(open) => {
                tracing::info!(
                    "device {} leads to this host's own clients and servers, and vanishes with this \
                     process",
                    open.device.name()
                );
                (self.open, self.refused) = (Some(open), None);
                Ok(())
            }
            Err(reason) => {
                if self.refused.is_none() {
                    tracing::info!("this host's own programs are no clients of services: {reason}");
                }
                self.refused = Some((revision, reason.clone()));
                Err(reason)
            }
        }
    }

    fn lead(&mut self, errand: &Errand<'_>) -> Result<(), String> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let Errand { services, host, has_outlet, .. } = *errand;
        let door = (open.device.index(), open.device.name());
        let passed = Passed::new(services, host, door, !has_outlet);
        open.passages.update(passed).map_err(|error| {
            format!(
                "what its programs send cannot be led here: {error} (needs nftables with `fwd\' at \
                 the egress hook: Linux 5.17 with CONFIG_NETFILTER_EGRESS and CONFIG_NFT_FWD_NETDEV)"
            )
        })?;
        if !has_outlet {
            open.follow_leads(&errand.addresses);
        }
        Ok(())
    }
}

impl Open {
    /// Makes the device, with a queue for each worker.
    fn new(peers: &Peers) -> io::Result<Self> {
        let config = TunConfig {
            name: DOOR_NAME.into(),
            queues: peers.len(),
            link_address: Some(DOOR_ADDRESS.octets()),
        };
        let tun = Tun::open(&config)?;
        let device = Device::set_up(&tun.name, MTU_BYTES, Use::Door)?;
        for (worker, (receiver, sender)) in tun.queues.into_iter().enumerate() {
            let (receiver, sender) = (Box::new(receiver), Box::new(sender));
            Addressed::new(worker, Request::Attach { port: DOOR, receiver, sender }).send(peers);
        }
        Ok(Self { device, passages: Passages::default(), leads: Leads::default() })
    }

    /// Routes the director's own virtual addresses here, for nobody on the links answers for them to
    /// this host.
    fn follow_leads(&mut self, addresses: &[(Addr, Addr)]) {
        let wanted = addresses.iter().map(|(addr, from)| (*addr, Lead::RouteFrom(*from)));
        for led in self.leads.follow(&self.device, wanted.collect()) {
            if let Err(error) = led.done {
                tracing::debug!("{error}");
            }
        }
    }
}

/// Real servers that are this host itself, with their services.
fn local_servers(
    services: &Snapshot,
    host: &HostView,
) -> Vec<(ServiceKey, Endpoint, ForwardingMethod)> {
    let mut found = Vec::new();
    for service in services.services() {
        for real in service.pool().reals().iter().filter(|real| host.owns(real.addr())) {
            found.push((service.key(), real.endpoint(), real.method()));
        }
    }
    found.sort_by_key(|(_, server, _)| (server.addr, server.port));
    found
}

fn refusals(servers: &[(ServiceKey, Endpoint, ForwardingMethod)], reason: &str) -> Vec<Problem> {
    let refuse = |(_, server, _): &(ServiceKey, Endpoint, ForwardingMethod)| Problem::LocalServer {
        server: *server,
        reason: reason.to_owned(),
    };
    servers.iter().map(refuse).collect()
}

/// Servers of this host that are served at addresses which it does not have.
fn unserved(
    services: &Snapshot,
    host: &HostView,
    servers: &[(ServiceKey, Endpoint, ForwardingMethod)],
) -> Vec<Problem> {
    let is_elsewhere = |key: &ServiceKey| match key {
        ServiceKey::Address { addr, .. } => !host.owns(*addr),
        ServiceKey::Mark { .. } => {
            let mut networks = services.active_marks().filter_map(MarkRule::destination_network);
            networks.any(|network| !host.owns(network.addr()))
        }
    };
    let unserved = servers.iter().filter(|(key, _, method)| {
        matches!(method, ForwardingMethod::Direct | ForwardingMethod::Tunnel) && is_elsewhere(key)
    });
    let problem = |(_, server, _): &(ServiceKey, Endpoint, ForwardingMethod)| {
        Problem::LocalServer { server: *server, reason: NOT_HERE.into() }
    };
    unserved.map(problem).collect()
}

const NEEDS: &str = "packets are handed to its programs by a device of ulvs\'s own, which takes \
                     CAP_NET_ADMIN and /dev/net/tun: give ulvs both";
const NOT_HERE: &str = "by -g and -i it is served at the virtual address, which this host does not \
                        have: add it (ip addr add), or use -m";
/// As large as can be: nothing is fragmented on its way into the host.
const MTU_BYTES: u32 = 65_521;
