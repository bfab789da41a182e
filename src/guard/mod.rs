//! Living beside the kernel: it must neither answer nor reject what belongs to a virtual service.
//!
//! A packet socket sees copies; the kernel handles every frame as well. Where a virtual address is
//! the kernel's own, a *guard socket* is held on the service's port: the kernel finds a listener
//! that drops everything, and stays silent. It needs no privilege beyond the port's, and is
//! gone with the process, however that ends. A raw socket does the same for all of a protocol that
//! the kernel does not speak.
//!
//! What sockets cannot cover (a host that forwards packets, services of every port) is kept from the
//! kernel by *guard rules*, an nftables table that vanishes with the process, given CAP_NET_ADMIN.
//!
//! Knows addresses and ports, not packets.

mod announced;
mod contents;
mod divert;
mod door;
mod holder;
mod locals;
pub(crate) mod nftables;
mod plan;
mod pools;
mod problem;
mod rules;
mod socket;
mod sys;
#[cfg(test)]
mod tests;
mod untrack;

use std::io;
use std::ops::RangeInclusive;

use hashbrown::{HashMap, HashSet};

pub use announced::AnnouncedPorts;
pub use divert::{Diversions, Diverted};
pub use door::{DOOR_NAME, Passages, Passed, listeners};
pub use plan::Guarded;
pub use problem::Problem;
pub use untrack::{Untracked, Untracking};

use crate::engine::local::PortSet;
use crate::engine::service::{Protocol, ServiceKey, Snapshot};
use crate::link::HostView;
use crate::packet::{Addr, Family};
use locals::LocalPorts;
use plan::{Plan, guarded_keys, guarded_networks, plan};
use pools::Pools;
use problem::explain;
use rules::{Rules, Wanted};
use socket::GuardSocket;

/// The guard sockets that are held.
#[derive(Debug)]
pub struct Guard {
    held: HashMap<Guarded, GuardSocket>,
    /// What was reported already, so that it is said once.
    reported: HashSet<Guarded>,
    told: HashSet<ServiceKey>,
    pools: Pools,
    locals: LocalPorts,
    /// One for each address family.
    rules: [FamilyRules; 2],
}

#[derive(Debug)]
struct FamilyRules {
    family: Family,
    rules: Rules,
    told_forwarding: bool,
}

impl Default for Guard {
    fn default() -> Self {
        Self::new()
    }
}

impl Guard {
    /// A guard that holds nothing yet.
    pub fn new() -> Self {
        Self {
            held: HashMap::new(),
            reported: HashSet::new(),
            told: HashSet::new(),
            pools: Pools::default(),
            locals: LocalPorts::default(),
            rules: [Family::V4, Family::V6].map(|family| FamilyRules {
                family,
                rules: Rules::new(family),
                told_forwarding: false,
            }),
        }
    }

    /// Holds what the services need on this host, lets go of what they no longer need, and returns
    /// the problems that are new.
    ///
    /// `door` is the number of the interface by which the director delivers packets to the host's
    /// own programs, if it can.
    pub fn update(
        &mut self,
        services: &Snapshot,
        host: &HostView,
        door: Option<u32>,
    ) -> Vec<Problem> {
        // The ports that are left to programs of the host, of which rules keep others' packets.
        let mut left = listeners(services, host);
        let (mut problems, mut wanted, mut unguardable) = (Vec::new(), HashSet::new(), Vec::new());
        let keys = guarded_keys(services, host);
        for key in &keys {
            match plan(*key, host) {
                Plan::Hold(_) if door.is_some() && left.contains(key) => {}
                Plan::Nothing => {}
                Plan::Hold(guarded) => {
                    for guarded in guarded {
                        match self.hold(guarded) {
                            Some(Problem::InUse { holder, .. }) if door.is_some() => {
                                self.tell_occupied(guarded, holder);
                            }
                            problem => problems.extend(problem),
                        }
                        if self.reported.contains(&guarded) {
                            left.insert(*key);
                        }
                        wanted.insert(guarded);
                    }
                }
                Plan::Cannot(addr) => unguardable.push((*key, addr)),
            }
        }
        let networks = guarded_networks(services, host).into_iter();
        unguardable.extend(networks.map(|each| (each.service, each.network.addr())));
        let updates = self.rules.iter_mut();
        let updates = updates.map(|rules| rules.update(services, host, door, &left));
        problems.extend(updates.flatten());
        for (service, addr) in unguardable {
            if !self.has_rules_for(addr.family()) && self.told.insert(service) {
                problems.push(Problem::Unguardable { service, addr });
            }
        }
        // Last, when rules have taken over.
        self.held.retain(|guarded, _| wanted.contains(guarded));
        self.reported.retain(|guarded| wanted.contains(guarded));
        self.told.retain(|key| keys.contains(key));
        problems
    }

    /// Says that rules keep a service's packets from a program that listens at the same port.
    fn tell_occupied(&self, guarded: Guarded, holder: Option<String>) {
        let holder = holder.as_deref().unwrap_or("a program of this host");
        tracing::info!(
            "{holder} listens at {guarded} as well: guard rules keep the service's packets from it, but \
             for those that it is to serve itself"
        );
    }

    /// Whether guard rules are in force.
    pub fn has_rules(&self) -> bool {
        self.rules.iter().any(|each| each.rules.are_installed())
    }

    fn has_rules_for(&self, family: Family) -> bool {
        self.rules.iter().any(|each| each.family == family && each.rules.are_installed())
    }

    /// Says again what was said of ports that cannot be held.
    pub fn forget_reports(&mut self) {
        self.reported.clear();
    }

    /// How many ports are held for services.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Holds TCP and UDP ports of one of the kernel's addresses, for connections that begin there,
    /// and returns those that could be held: as many from the start of the range as there are free
    /// ones and descriptors for.
    ///
    /// **Errors** — if not even the first could be held; without a reason if that was said before.
    pub fn hold_ports(
        &mut self,
        addr: Addr,
        range: RangeInclusive<u16>,
    ) -> Result<RangeInclusive<u16>, Option<io::Error>> {
        self.pools.hold(addr, range)
    }

    /// Holds ports of one of the kernel's addresses for connections by full NAT that begin there.
    ///
    /// **Errors** — if not one could be held; without a reason if that was said before.
    pub fn hold_local_ports(
        &mut self,
        addr: Addr,
        protocol: Protocol,
    ) -> Result<&PortSet, Option<io::Error>> {
        self.locals.hold(addr, protocol)
    }

    /// Lets go of the ports for full NAT at all addresses but those to keep, and tries again at
    /// those that are no longer wanted, should they be.
    pub fn keep_local_ports(&mut self, keeps: impl Fn(Addr) -> bool, wants: impl Fn(Addr) -> bool) {
        self.locals.keep(keeps, wants);
    }

    /// How many ports are held for full NAT.
    pub fn held_local_ports(&self) -> usize {
        self.locals.len()
    }

    /// Lets go of the ports for connections that begin at the kernel's addresses, but for these.
    pub fn keep_ports(&mut self, wanted: &[(Addr, RangeInclusive<u16>)]) {
        self.pools.keep(wanted);
    }

    fn hold(&mut self, guarded: Guarded) -> Option<Problem> {
        if self.held.contains_key(&guarded) {
            return None;
        }
        match GuardSocket::open_routed(guarded) {
            Ok(socket) => {
                self.held.insert(guarded, socket);
                self.reported.remove(&guarded);
                None
            }
            Err(error) => self.reported.insert(guarded).then(|| explain(guarded, &error)),
        }
    }
}

impl FamilyRules {
    fn update(
        &mut self,
        services: &Snapshot,
        host: &HostView,
        door: Option<u32>,
        listeners: &HashSet<ServiceKey>,
    ) -> Option<Problem> {
        let wanted = Wanted::new(services, host, self.family, door, listeners);
        let forwards_replies = wanted.forwards_replies();
        let result = self.rules.update(wanted);
        let told = std::mem::replace(&mut self.told_forwarding, forwards_replies);
        match result {
            Err(Some(error)) if forwards_replies && !told => {
                Some(Problem::Forwarding { family: self.family, reason: error.to_string() })
            }
            Ok(()) | Err(_) => None,
        }
    }
}

/// Allows as many open files as an ordinary process may have: a range of ports takes thousands.
/// Returns how many those are.
fn raise_descriptor_limit() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    let mut limit = hard;
    if soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::debug!("the limit on open files stays at {soft}: {error}");
        limit = soft;
    }
    usize::try_from(limit).unwrap_or(usize::MAX)
}
