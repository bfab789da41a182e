//! Living beside the kernel: it must neither answer nor reject what belongs to a virtual service.
//!
//! A packet socket sees copies; the kernel handles every frame as well. Where a virtual address is
//! the kernel's own, a *guard socket* is held on the service's port: the kernel finds a listener
//! that drops everything, and stays silent. It needs no privilege beyond the port's, and is
//! gone with the process, however that ends.
//!
//! What sockets cannot cover (a host that forwards packets, services of every port) is kept from the
//! kernel by *guard rules*, an nftables table that vanishes with the process, given CAP_NET_ADMIN.
//!
//! Knows addresses and ports, not packets.

mod contents;
mod divert;
mod holder;
mod locals;
pub(crate) mod nftables;
mod rules;
mod socket;
mod sys;
#[cfg(test)]
mod tests;
mod untrack;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;

use hashbrown::{HashMap, HashSet};

pub use divert::{Diversions, Diverted};
pub use untrack::{Untracked, Untracking};

use crate::engine::local::PortSet;
use crate::engine::service::{Protocol, ServiceKey, Snapshot};
use crate::link::HostView;
use crate::packet::{Addr, Endpoint, Family};
use locals::LocalPorts;
use rules::{Rules, Wanted};
use socket::GuardSocket;

/// What a guard keeps the kernel away from: a port of one of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guarded {
    /// The transport protocol, TCP or UDP.
    pub protocol: Protocol,
    /// The kernel's address and the port.
    pub at: Endpoint,
    /// The interface that the address is on, for one that is valid on a single link; else 0.
    pub interface: u32,
}

/// What an administrator should know about a service that the kernel may interfere with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A program of this host already has the port.
    InUse {
        /// The service's address.
        guarded: Guarded,
        /// The program, if it can be seen.
        holder: Option<String>,
    },
    /// The port could not be taken for another reason.
    Refused {
        /// The service's address.
        guarded: Guarded,
        /// What the kernel said.
        reason: String,
    },
    /// The kernel forwards packets, and would forward what real servers reply.
    Forwarding {
        /// Of which address family.
        family: Family,
        /// Why there are no rules against it.
        reason: String,
    },
    /// A virtual address cannot be led to the director's device.
    Leading {
        /// The address.
        addr: Addr,
        /// What the kernel said.
        reason: String,
    },
    /// Packets cannot be diverted to the director's device.
    Diverting {
        /// What the kernel said.
        reason: String,
    },
    /// A server is reached by its link address, which a device without link headers cannot do.
    NeedsLinkHeader {
        /// The server.
        server: Addr,
    },
    /// The kernel does not forward IPv6 packets, not even the director's.
    ForwardingV6,
    /// A service of every port, or of a protocol without ports, at an address of the kernel.
    Unguardable {
        /// The service.
        service: ServiceKey,
        /// The address.
        addr: Addr,
    },
}

/// The guard sockets that are held.
#[derive(Debug)]
pub struct Guard {
    held: HashMap<Guarded, GuardSocket>,
    /// What was reported already, so that it is said once.
    reported: HashSet<Guarded>,
    told: HashSet<ServiceKey>,
    pools: BTreeMap<Addr, Pool>,
    refused_pools: HashSet<Addr>,
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

#[derive(Debug)]
struct Pool {
    ports: RangeInclusive<u16>,
    _sockets: Vec<GuardSocket>,
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
            pools: BTreeMap::new(),
            refused_pools: HashSet::new(),
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
    pub fn update(&mut self, services: &Snapshot, host: &HostView) -> Vec<Problem> {
        let updates = self.rules.iter_mut().map(|rules| rules.update(services, host));
        let mut problems: Vec<Problem> = updates.flatten().collect();
        let mut wanted = HashSet::new();
        let keys = guarded_keys(services, host);
        for key in &keys {
            match plan(*key, host) {
                Plan::Nothing => {}
                Plan::Hold(guarded) => wanted.extend(guarded),
                Plan::Cannot(addr) => {
                    if !self.has_rules_for(addr.family()) && self.told.insert(*key) {
                        problems.push(Problem::Unguardable { service: *key, addr });
                    }
                }
            }
        }
        self.held.retain(|guarded, _| wanted.contains(guarded));
        self.reported.retain(|guarded| wanted.contains(guarded));
        self.told.retain(|key| keys.contains(key));
        for guarded in wanted {
            problems.extend(self.hold(guarded));
        }
        problems
    }

    /// Whether guard rules are in force.
    pub fn has_rules(&self) -> bool {
        self.rules.iter().any(|each| each.rules.are_installed())
    }

    fn has_rules_for(&self, family: Family) -> bool {
        self.rules.iter().any(|each| each.family == family && each.rules.are_installed())
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
        if let Some(pool) = self.pools.get(&addr)
            && range.contains(pool.ports.start())
            && range.contains(pool.ports.end())
        {
            return Ok(pool.ports.clone());
        }
        raise_descriptor_limit();
        let mut sockets = Vec::new();
        let mut last = None;
        for port in range.clone() {
            match hold_both(Endpoint::new(addr, port)) {
                Ok(pair) => sockets.extend(pair),
                Err(error) if last.is_none() => {
                    return Err(self.refused_pools.insert(addr).then_some(error));
                }
                Err(_) => break,
            }
            last = Some(port);
        }
        let Some(last) = last else { return Err(None) };
        self.refused_pools.remove(&addr);
        let ports = *range.start()..=last;
        self.pools.insert(addr, Pool { ports: ports.clone(), _sockets: sockets });
        Ok(ports)
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

    /// Lets go of the ports of all addresses but these.
    pub fn keep_ports_of(&mut self, addrs: &HashSet<Addr>) {
        self.pools.retain(|addr, _| addrs.contains(addr));
        self.refused_pools.retain(|addr| addrs.contains(addr));
    }

    fn hold(&mut self, guarded: Guarded) -> Option<Problem> {
        if self.held.contains_key(&guarded) {
            return None;
        }
        match GuardSocket::open(guarded) {
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
    fn update(&mut self, services: &Snapshot, host: &HostView) -> Option<Problem> {
        let wanted = Wanted::new(services, host, self.family);
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

/// The services, and for those by mark the endpoints at the kernel's addresses that the rules of
/// their marks name, as if each had a service of its own.
fn guarded_keys(services: &Snapshot, host: &HostView) -> HashSet<ServiceKey> {
    let mut keys: HashSet<_> = services.services().map(|service| service.key()).collect();
    for rule in services.active_marks() {
        let leads = |family| services.service(&ServiceKey::Mark { mark: rule.value, family });
        let protocols = [Protocol::Tcp, Protocol::Udp].into_iter();
        let protocols: Vec<_> = protocols
            .filter(|each| rule.protocol.is_none_or(|number| number == each.number()))
            .collect();
        // Whole addresses are not for the few that a rule picks out by where they come from.
        let is_picky = rule.source.is_some() || rule.input.is_some();
        let ports = single_ports(&rule.destination_ports);
        if ports == [0] && is_picky {
            continue;
        }
        let own = host.addresses.iter().map(|own| own.addr);
        let own = own.filter(|addr| leads(addr.family()).is_some());
        let own = own.filter(|addr| rule.destination.is_none_or(|prefix| prefix.contains(*addr)));
        for (addr, protocol) in own.flat_map(|addr| protocols.iter().map(move |each| (addr, *each)))
        {
            let endpoints =
                ports.iter().map(|port| ServiceKey::Address { protocol, addr, port: *port });
            keys.extend(endpoints);
        }
    }
    keys
}

/// The ports of ranges, if they are few enough to be held one by one; else 0, for all ports.
fn single_ports(ranges: &[RangeInclusive<u16>]) -> Vec<u16> {
    let count: usize = ranges.iter().map(|range| range.len()).sum();
    match count {
        1..=MOST_PORTS => ranges.iter().cloned().flatten().collect(),
        _ => vec![0],
    }
}

/// Ports that a guard holds for one rule at most.
const MOST_PORTS: usize = 1024;

/// What a service needs from the guard.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Nothing,
    Hold(Vec<Guarded>),
    Cannot(Addr),
}

fn plan(key: ServiceKey, host: &HostView) -> Plan {
    let ServiceKey::Address { protocol, addr, port } = key else { return Plan::Nothing };
    if !host.owns(addr) {
        return Plan::Nothing;
    }
    match protocol {
        Protocol::Tcp | Protocol::Udp if port != 0 => {
            let at = Endpoint::new(addr, port);
            let guarded = |interface| Guarded { protocol, at, interface };
            if !addr.is_link_local() {
                return Plan::Hold(vec![guarded(0)]);
            }
            let own = host.addresses.iter().filter(|own| own.addr == addr);
            Plan::Hold(own.map(|own| guarded(own.interface)).collect())
        }
        Protocol::Tcp | Protocol::Udp | Protocol::Sctp => Plan::Cannot(addr),
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

fn hold_both(at: Endpoint) -> io::Result<[GuardSocket; 2]> {
    let open = |protocol| GuardSocket::open(Guarded { protocol, at, interface: 0 });
    Ok([open(Protocol::Tcp)?, open(Protocol::Udp)?])
}

fn explain(guarded: Guarded, error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            Problem::InUse { guarded, holder: holder::find(guarded.protocol, guarded.at.port) }
        }
        _ if error.raw_os_error() == Some(libc::EACCES) => Problem::Refused {
            guarded,
            reason: format!("{error} (ports below 1024 need CAP_NET_BIND_SERVICE)"),
        },
        _ => Problem::Refused { guarded, reason: error.to_string() },
    }
}

impl Problem {
    /// Whether the director would damage traffic rather than serve it.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Forwarding { .. } | Self::Diverting { .. })
    }
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        };
        write!(f, "{protocol} {}", self.at)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { guarded, holder } => {
                let holder = holder.as_deref().unwrap_or("a program of this host");
                write!(
                    f,
                    "{guarded} is a virtual service, but {holder} listens there as well and will \
                     answer its clients: stop it, or let it listen on other addresses only"
                )
            }
            Self::Refused { guarded, reason } => write!(
                f,
                "{guarded} is a virtual service at an address of this host, whose kernel will \
                 reject its packets, for its port cannot be held: {reason}"
            ),
            Self::Forwarding { family, reason } => {
                let setting = match family {
                    Family::V4 => "net.ipv4.ip_forward",
                    Family::V6 => "net.ipv6.conf.all.forwarding",
                };
                write!(
                    f,
                    "this host's kernel forwards packets ({setting} is 1), so it will send replies \
                     of real servers on untranslated, and break their connections; rules against \
                     that cannot be made ({reason}): give ulvs CAP_NET_ADMIN, or set {setting} to \
                     0, which the director does not need"
                )
            }
            Self::Leading { addr, reason } => {
                write!(f, "packets to {addr} do not come to the director: {reason}")
            }
            Self::Diverting { reason } => write!(
                f,
                "packets of virtual services and real servers cannot be diverted to the director's \
                 device, so this host's kernel would answer or forward them: {reason}"
            ),
            Self::NeedsLinkHeader { server } => write!(
                f,
                "{server} cannot be reached by direct routing (-g) over a TUN device, which has no \
                 link addresses: use -m, or run ulvs without --tun"
            ),
            Self::ForwardingV6 => write!(
                f,
                "this host's kernel does not forward IPv6 packets, not even those of a device: set \
                 net.ipv6.conf.all.forwarding to 1"
            ),
            Self::Unguardable { service, addr } => {
                let what = match service {
                    ServiceKey::Address { protocol: Protocol::Sctp, .. } => "SCTP",
                    ServiceKey::Address { .. } => "all ports",
                    ServiceKey::Mark { .. } => "a mark",
                };
                write!(
                    f,
                    "the service of {what} at {addr} cannot be kept from this host's kernel, which \
                     owns that address and will answer as well: give ulvs CAP_NET_ADMIN, or take the \
                     address off the host's interfaces, and ulvs answers for it itself"
                )
            }
        }
    }
}
