//! The housekeeper: keeps link layer, ports and services agreeing with the host and each other.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashSet;

use super::control::Chore;
use super::device::Outlet;
use super::door::{Door, Errand};
use super::locals::{self, LocalEnds};
use super::ports::Ports;
use crate::engine::service::{ForwardingMethod, ServiceKey, ServiceTable, Snapshot};
use crate::engine::{Moment, SnatRule};
use crate::guard::{Guard, Problem};
use crate::host::HostWatch;
use crate::host::privileges::{self, CapabilitySet};
use crate::link::{Event, HostView, Services};
use crate::packet::{Addr, Family};
use crate::worker::{Clock, Peers, SharedLink};

/// What has to be done now and then, away from the packets.
pub(super) struct House {
    watch: Arc<HostWatch>,
    services: Arc<ServiceTable>,
    link: Arc<SharedLink>,
    ports: Ports,
    /// The device in their place, if it is one.
    outlet: Option<Outlet>,
    /// Leads to the host's own clients and servers.
    door: Door,
    clock: Clock,
    host_epoch: u64,
    /// The link layer's epoch when its groups were followed last.
    link_epoch: Option<u64>,
    known: Services,
    guard: Guard,
    locals: LocalEnds,
    next_tick: Moment,
    /// What the guard found wrong with the services when they last changed.
    problems: Vec<String>,
    /// The services' revision and the host's epoch that were followed last, and when they are to be
    /// followed again in any case: what failed may work now.
    seen: Option<(u64, u64)>,
    next_look: Moment,
    /// Whether the services it starts with are in force.
    has_begun: bool,
    /// Since when silent next hops are counted, and how many there were.
    silent: (Moment, u32),
}

impl House {
    pub fn new(
        watch: Arc<HostWatch>,
        services: Arc<ServiceTable>,
        link: Arc<SharedLink>,
        ports: Ports,
        outlet: Option<Outlet>,
        clock: Clock,
    ) -> Self {
        let host_epoch = watch.epoch();
        let known = Services::default();
        let next_tick = clock.now();
        let (guard, locals) = (Guard::new(), LocalEnds::default());
        let (seen, next_look, has_begun) = (None, next_tick, false);
        Self {
            watch,
            services,
            link,
            ports,
            outlet,
            door: Door::default(),
            clock,
            host_epoch,
            link_epoch: None,
            known,
            guard,
            locals,
            next_tick,
            seen,
            next_look,
            has_begun,
            problems: Vec::new(),
            silent: (next_tick, 0),
        }
    }

    /// Looks at the host as it is now: whoever has just configured it expects to be understood.
    pub fn catch_up(&self) {
        self.watch.catch_up(LOOK_PATIENCE);
    }

    /// Does what is due.
    ///
    /// **Errors** — at the first time, if the services it starts with would be damaged rather than
    /// served on this host; the TUN device is gone.
    pub fn keep(&mut self, peers: &Peers) -> io::Result<()> {
        let now = self.clock.now();
        let current = (self.services.revision(), self.watch.epoch());
        let mut moved = false;
        if self.seen != Some(current) || now >= self.next_look {
            self.problems.clear();
            self.seen = Some(current);
            self.next_look = Moment::from_ms(now.as_ms() + LOOK_PERIOD_MS);
            // The kernel is to be silent before the link layer invites packets.
            self.follow_guard(peers)?;
            self.has_begun = true;
            moved = self.follow_host(now) | self.follow_services(now);
        }
        if moved && let Some(first) = peers.first() {
            // It sends what the link layer has to say about it.
            first.wake();
        }
        let epoch = self.link.epoch();
        if self.link_epoch != Some(epoch) {
            self.link_epoch = Some(epoch);
            self.ports.listen(self.link.with(|layer| layer.groups()));
        }
        if now >= self.next_tick {
            self.next_tick = self.services.handle_timeout(now);
        }
        while let Some(event) = self.link.with(|layer| layer.poll_event()) {
            match event {
                // Whoever sends from made-up addresses must not fill the log.
                Event::Silent { addr } => self.note_silent(addr, now),
                event => tell(&event),
            }
        }
        Ok(())
    }

    /// Says that a next hop is silent, unless much of that has been said of late.
    fn note_silent(&mut self, addr: Addr, now: Moment) {
        let (since, told) = self.silent;
        self.silent = match now.ms_since(since) < SILENT_PERIOD_MS {
            true => (since, told + 1),
            false => (now, 1),
        };
        match self.silent.1 {
            1..=SILENT_MOST => tracing::warn!("{addr} does not answer {}", questions(addr)),
            told if told == SILENT_MOST + 1 => tracing::warn!(
                "more addresses do not answer; `ulvs stats' counts their packets as silent"
            ),
            _ => {}
        }
    }

    fn follow_guard(&mut self, peers: &Peers) -> io::Result<()> {
        let host = self.watch.view();
        // First, as what is held decides what has to come to the director.
        self.hold_pools(&self.services.snapshot().snat, &host);
        self.follow_locals(&self.services.snapshot(), &host);
        let snapshot = self.services.snapshot();
        let (had_rules, held) = (self.guard.has_rules(), self.guard.held());
        let Services { virtuals, locals, .. } = self.summarise();
        let mut problems = match &mut self.outlet {
            Some(outlet) => outlet.follow(&snapshot, &host, virtuals.into_iter().chain(locals))?,
            None => self.guard.update(&snapshot, &host, self.door.index()),
        };
        // Only now, for it takes a while.
        let door = self.door.index();
        let told_of_door = self.follow_door(&snapshot, &host, peers);
        if self.outlet.is_none() && self.door.index() != door {
            // What sockets cannot hold, rules can keep from the kernel then.
            problems.retain(|problem| !matches!(problem, Problem::InUse { .. }));
            self.guard.forget_reports();
            problems.extend(self.guard.update(&snapshot, &host, self.door.index()));
        }
        problems.extend(told_of_door);
        for problem in problems {
            if problem.is_fatal() && !self.has_begun {
                return Err(io::Error::other(problem.to_string()));
            }
            tracing::error!("{problem}");
            self.problems.push(problem.to_string());
        }
        self.link.set_rules(self.guard.has_rules());
        if self.guard.has_rules() != had_rules {
            let state = if had_rules { "no longer needed" } else { "in force" };
            tracing::info!("guard rules (nftables) are {state}");
        }
        if self.guard.held() != held {
            let held = self.guard.held();
            let word = if held == 1 { "service" } else { "services" };
            tracing::info!("guard sockets hold the ports of {held} {word}");
        }
        Ok(())
    }

    fn follow_door(&mut self, services: &Snapshot, host: &HostView, peers: &Peers) -> Vec<Problem> {
        let mut addresses = self.link.with(|layer| layer.owned_addresses());
        addresses.retain(|addr| services.is_virtual(*addr) && !host.owns(*addr));
        let with_source = |addr| Some((addr, host.nearest_address(addr)?));
        let addresses = addresses.into_iter().filter_map(with_source).collect();
        let (revision, has_outlet) = (self.services.revision(), self.outlet.is_some());
        self.door.follow(&Errand { services, revision, host, has_outlet, addresses }, peers)
    }

    /// Holds the local ports that full NAT needs, and tells the workers which they are.
    fn follow_locals(&mut self, snapshot: &Snapshot, host: &HostView) {
        let held = self.guard.held_local_ports();
        let (locals, problems) = self.locals.follow(snapshot, host, &self.link, &mut self.guard);
        for problem in problems {
            tracing::error!("{problem}");
            self.problems.push(problem);
        }
        if self.guard.held_local_ports() != held {
            let held = self.guard.held_local_ports();
            tracing::info!("guard sockets hold {held} local ports for full NAT");
        }
        if locals != *snapshot.locals {
            self.services.set_locals(locals);
        }
    }

    /// Holds the ports that connections of real servers to the outside come from, where they are
    /// the kernel's, and keeps to those that could be held.
    fn hold_pools(&mut self, rules: &[SnatRule], host: &HostView) {
        let kernels = rules.iter().filter(|rule| host.owns(rule.to));
        let wanted: Vec<_> = kernels.map(|rule| (rule.to, pool(&rule.ports))).collect();
        self.guard.keep_ports(&wanted);
        let mut narrowed = rules.to_vec();
        for rule in narrowed.iter_mut().filter(|rule| host.owns(rule.to)) {
            match self.guard.hold_ports(rule.to, pool(&rule.ports)) {
                Ok(held) => rule.ports = held,
                // Said once for each address: the guard remembers what it could not hold.
                Err(Some(error)) => tracing::error!(
                    "the source ports of {} cannot be held ({error}): this host's kernel will \
                     reset the connections of real servers to the outside",
                    rule.to
                ),
                Err(None) => {}
            }
        }
        if narrowed == rules {
            return;
        }
        let used: Vec<_> = narrowed.iter().map(|rule| (rule.to, rule.ports.clone())).collect();
        // Rules that are edited meanwhile are looked at next.
        if self.services.replace_snat(rules, narrowed) {
            for (addr, ports) in used {
                let (first, last) = (ports.start(), ports.end());
                tracing::warn!("{addr} is used with source ports {first} to {last} only");
            }
        }
    }

    /// Finishes a chore, once everything that was due is done.
    pub fn finish(&mut self, chore: Chore) {
        // Whoever waited may have given up.
        match chore {
            Chore::Settle { done } => {
                let problem = std::mem::take(&mut self.problems).join("; ");
                let _ = done.send(if problem.is_empty() { Ok(()) } else { Err(problem) });
            }
            Chore::HoldPorts { addr, ports, held } => {
                let _ = held.send(self.hold_ports(addr, ports));
            }
        }
    }

    /// Holds ports if their address is the kernel's: as many as a pool has.
    fn hold_ports(
        &mut self,
        addr: Addr,
        ports: RangeInclusive<u16>,
    ) -> Result<RangeInclusive<u16>, String> {
        if !self.watch.view().owns(addr) {
            return Ok(ports);
        }
        self.guard.hold_ports(addr, pool(&ports)).map_err(|error| {
            let reason = error.map_or(String::new(), |error| format!(" ({error})"));
            format!(
                "{addr} is this host's own address, and its port {} cannot be held{reason}, so \
                 the kernel would reset the connections; name other ports with --to-source \
                 {addr}:FIRST-LAST",
                ports.start()
            )
        })
    }

    /// Says what it works with.
    pub fn report(&self) {
        if let Some(outlet) = &self.outlet {
            return outlet.report();
        }
        let names: Vec<_> = self.ports.names().collect();
        let mib = self.ports.ring_mib();
        tracing::info!(
            "AF_PACKET on {}: TPACKET_V2 rings of {mib} MiB, checksum and segmentation offloads \
             passed through",
            names.join(", ")
        );
        let ports = self.link.with(|layer| layer.ports().to_vec());
        for port in ports {
            tracing::info!(
                "{}: link address {}, own link address {}, MTU {}",
                port.name,
                port.mac,
                port.own_mac,
                port.mtu_bytes
            );
        }
    }

    /// Says how the kernel is kept from the services' packets.
    pub fn report_guard(&self) {
        if self.outlet.is_some() {
            return;
        }
        let rules = match privileges::has(CapabilitySet::NET_ADMIN) {
            true => "guard rules (nftables) on hosts that forward",
            false => "no guard rules (they need CAP_NET_ADMIN)",
        };
        tracing::info!(
            "beside the kernel: own link addresses for addresses it does not have, guard sockets \
             at those it has, {rules}"
        );
    }

    fn follow_host(&mut self, now: Moment) -> bool {
        let epoch = self.watch.epoch();
        if epoch == self.host_epoch {
            return false;
        }
        self.host_epoch = epoch;
        let view = self.watch.view();
        self.link.with(|layer| layer.set_host(Arc::clone(&view), now));
        self.ports.follow(&view, &self.link);
        true
    }

    fn follow_services(&mut self, now: Moment) -> bool {
        let services = self.summarise();
        let locals = &self.services.snapshot().locals;
        let shared = locals.ports.keys().any(|(addr, _)| services.virtuals.contains(addr));
        self.ports.steer(services.virtuals.iter().copied().collect(), shared);
        if services == self.known {
            return false;
        }
        self.known = services.clone();
        self.link.with(|layer| layer.set_services(services, now));
        true
    }

    /// What the link layer has to know about the services.
    fn summarise(&self) -> Services {
        let snapshot = self.services.snapshot();
        let translated = snapshot.snat.iter().map(|rule| rule.to);
        let virtuals = translated.chain(snapshot.marked_addresses()).collect();
        let locals = locals::configured(&snapshot);
        let mut summary = Services { virtuals, locals, ..Services::default() };
        for service in snapshot.services() {
            if let ServiceKey::Address { addr, .. } = service.key() {
                summary.virtuals.insert(addr);
            }
            let pool = service.pool();
            summary.servers.extend(pool.reals().iter().map(|real| real.addr()));
            let masqueraded = pool
                .reals()
                .iter()
                .filter(|real| real.method() == ForwardingMethod::Masquerade)
                .map(|real| real.addr());
            summary.masqueraded.extend(masqueraded.collect::<HashSet<Addr>>());
        }
        summary
    }
}

/// The ports of a range that are held at an address of the kernel.
fn pool(ports: &RangeInclusive<u16>) -> RangeInclusive<u16> {
    let last = ports.start().saturating_add(POOL_PORTS - 1);
    *ports.start()..=last.min(*ports.end())
}

/// Ports held for connections that real servers begin at an address of the kernel. A port serves
/// any number of connections as long as they go to different places; to one and the same place
/// there can be as many as there are ports.
const POOL_PORTS: u16 = 512;

/// Tells an administrator what happened on the links.
fn tell(event: &Event) {
    match event {
        Event::Took { addr, at, why } => {
            let at: Vec<_> = at.iter().map(|(name, mac)| format!("{name} ({mac})")).collect();
            tracing::info!("answering {} for {addr} on {}: {why}", questions(*addr), at.join(", "));
        }
        Event::Yielded { addr, why, interface, rival, server } => {
            let who = named(*server);
            tracing::warn!("leaving {addr} ({why}) to {rival}{who}, which uses it on {interface}");
        }
        Event::Contested { addr, interface, rival, server } => {
            let who = named(*server);
            tracing::warn!("{rival}{who} uses {addr} on {interface} as well; keeping it");
        }
        Event::AmbiguousGateway { server, candidates } => {
            let list: Vec<_> = candidates.iter().map(ToString::to_string).collect();
            tracing::warn!(
                "real server {server} asks for {}, which nobody has; if one of them is its \
                 gateway, say so with --address",
                list.join(" and ")
            );
        }
        // Told by `note_silent`.
        Event::Silent { .. } => {}
    }
}

/// What is asked to find out who has an address.
fn questions(addr: Addr) -> &'static str {
    match addr.family() {
        Family::V4 => "ARP",
        Family::V6 => "neighbour solicitations",
    }
}

fn named(server: Option<Addr>) -> String {
    server.map_or(String::new(), |server| format!(" (real server {server})"))
}

/// Silent next hops that are told of within a period, and the period.
const SILENT_MOST: u32 = 10;
const SILENT_PERIOD_MS: u64 = 60_000;
/// How long the host's view may take to show what has changed.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);
/// How often everything is looked at though nothing is known to have changed.
const LOOK_PERIOD_MS: u64 = 1000;
