//! The virtual-service table: edits on one side, immutable snapshots for the workers on the other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::{HashMap, HashSet};

use super::pool::{Retired, ServiceView, VirtualService};
use super::real::RealServer;
use super::spec::{
    ConfigError, ForwardingMethod, Protocol, RealSpec, ServiceKey, ServiceSpec, Timeouts,
    TunnelKind,
};
use crate::engine::conn::TemplateTable;
use crate::engine::local::Locals;
use crate::engine::mark::MarkRule;
use crate::engine::settings::Settings;
use crate::engine::snat::SnatRule;
use crate::engine::stats::{ESTIMATION_PERIOD_MS, Estimator, Rates, Totals};
use crate::engine::time::Moment;
use crate::packet::{Addr, Family, Prefix};

/// The services as they are at one moment. Never changes once published.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    services: HashMap<ServiceKey, Arc<VirtualService>>,
    virtual_addrs: HashSet<Addr>,
    /// The three timeouts.
    pub timeouts: Timeouts,
    /// The settings of `net.ipv4.vs`.
    pub settings: Settings,
    /// How connections that real servers begin are translated, the first rule that fits.
    pub snat: Vec<SnatRule>,
    /// From which local endpoints connections by full NAT may begin.
    pub locals: Arc<Locals>,
    /// How packets that may open a connection are marked: all rules that fit, in their order.
    pub marks: Vec<MarkRule>,
    /// Networks, of more than one address, whose packets may be a marked service's.
    marked_networks: Vec<Prefix>,
    marks_own: bool,
    /// Services whose persistence engine tells calls apart.
    calls: Vec<Arc<VirtualService>>,
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

    /// The rules whose marks may lead to a service.
    pub fn active_marks(&self) -> impl Iterator<Item = &MarkRule> {
        let is_marked = |key: &ServiceKey| matches!(key, ServiceKey::Mark { .. });
        let has_services = self.services.keys().any(is_marked);
        self.marks.iter().filter(move |_| has_services)
    }

    /// The single addresses whose packets may be a marked service's.
    pub fn marked_addresses(&self) -> impl Iterator<Item = Addr> {
        let networks = self.active_marks().filter_map(|rule| rule.destination);
        networks.filter(is_single).map(|prefix| prefix.addr())
    }

    /// Whether packets to any address of the director's own may be a marked service's.
    pub fn marks_own_addresses(&self) -> bool {
        self.marks_own
    }

    /// Services whose persistence engine tells calls apart.
    pub fn calls(&self) -> &[Arc<VirtualService>] {
        &self.calls
    }

    /// Whether there is any service. Without one the director leaves every packet alone.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    fn index_addresses(&mut self) {
        let addresses = self.services.keys().filter_map(|key| match key {
            ServiceKey::Address { addr, .. } => Some(*addr),
            ServiceKey::Mark { .. } => None,
        });
        let translated = self.snat.iter().map(|rule| rule.to);
        let all = addresses.chain(translated).chain(self.marked_addresses());
        self.virtual_addrs = all.collect();
        let networks = self.active_marks().filter_map(|rule| rule.destination);
        self.marked_networks = networks.filter(|prefix| !is_single(prefix)).collect();
        let marks_own = self.active_marks().any(|rule| rule.destination.is_none());
        self.marks_own = marks_own;
        let tells_calls =
            |service: &&Arc<VirtualService>| service.pool().spec().persistence_engine.is_some();
        self.calls = self.services.values().filter(tells_calls).cloned().collect();
    }
}

/// All virtual services, shared by the control plane and the workers.
///
/// Edits are serialised by one lock and take effect by publishing a new [`Snapshot`]; a refused
/// edit changes nothing. Workers compare [`epoch`](Self::epoch) between batches and fetch the new
/// snapshot when it moved.
#[derive(Debug)]
pub struct ServiceTable {
    epoch: AtomicU64,
    revision: AtomicU64,
    published: Mutex<Arc<Snapshot>>,
    editor: Mutex<Editor>,
    templates: Mutex<TemplateTable>,
    workers: usize,
}

#[derive(Debug, Default)]
struct Editor {
    trash: Vec<Trashed>,
    /// Totals of services that are gone, so that the grand total never goes back.
    residue: Totals,
    estimator: Estimator,
    next_sample: Moment,
    next_sweep: Moment,
}

/// A removed server whose connections may still live.
#[derive(Debug)]
struct Trashed {
    retired: Retired,
    /// The service it belonged to, compared by identity and by instance.
    key: ServiceKey,
    service: Arc<VirtualService>,
    idle_since: Option<Moment>,
}

/// A removed server without connections is forgotten after this long.
///
/// **Source** — IPVS `IP_VS_DEST_TRASH_PERIOD`, 120 s, looked at every 60 s.
const TRASH_PERIOD_MS: u64 = 120_000;
const TRASH_SWEEP_MS: u64 = 60_000;

/// Most services, and most servers of one service: bounds what a control client can make us hold.
const MAX_SERVICES: usize = 65_536;
const MAX_REALS: usize = 65_536;
/// Most local addresses of one service.
const MAX_LOCAL_ADDRESSES: usize = 256;
/// Most rules of one kind.
const MAX_RULES: usize = 1024;

/// Templates looked at under one lock, and how often it is taken at one go.
const EXPIRY_BATCH: u32 = 1024;
const EXPIRY_BATCHES: u32 = 256;
/// A template's timer is this exact; connections and listings see it end on time.
const EXPIRY_PERIOD_MS: u64 = 1000;

/// **Source** — IPVS refuses what does not fit a signed number of ticks; Debian's kernels tick 250
/// times a second.
const MAX_TIMEOUT_S: u32 = i32::MAX as u32 / 250;

impl ServiceTable {
    /// An empty table whose servers are counted by `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self {
            epoch: AtomicU64::new(0),
            revision: AtomicU64::new(0),
            published: Mutex::default(),
            editor: Mutex::default(),
            templates: Mutex::default(),
            workers,
        }
    }

    /// How many workers share it.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Grows with every edit that workers have to see.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Grows with every edit, also with those of real servers, which workers need not see.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// The services as they are now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&lock(&self.published))
    }

    /// Locks the templates of persistent services. To be taken after a service's lock, never before.
    pub fn templates(&self) -> MutexGuard<'_, TemplateTable> {
        lock(&self.templates)
    }

    /// Adds a service (`-A`).
    pub fn add_service(&self, spec: ServiceSpec, now: Moment) -> Result<(), ConfigError> {
        let _editor = self.editor();
        let current = self.snapshot();
        check_service(&spec)?;
        if current.services.contains_key(&spec.key) {
            return Err(ConfigError::ServiceExists);
        }
        if current.services.len() >= MAX_SERVICES {
            return Err(ConfigError::OutOfMemory);
        }
        let service = Arc::new(VirtualService::new(spec, now)?);
        service.pool().tune(current.settings.schedulers);
        self.publish(|snapshot| {
            snapshot.services.insert(service.key(), service);
        });
        Ok(())
    }

    /// Replaces a service's settings (`-E`).
    pub fn edit_service(&self, spec: ServiceSpec, now: Moment) -> Result<(), ConfigError> {
        let _editor = self.editor();
        let service = self.require(&spec.key)?;
        check_service(&spec)?;
        service.pool().edit(spec, now)?;
        // What the snapshot knows of services may have changed.
        self.publish(|_| ());
        Ok(())
    }

    /// Removes a service and its servers (`-D`). Connections stay.
    pub fn delete_service(&self, key: &ServiceKey) -> Result<(), ConfigError> {
        let mut editor = self.editor();
        let service = self.require(key)?;
        self.publish(|snapshot| {
            snapshot.services.remove(key);
        });
        editor.retire_service(service);
        Ok(())
    }

    /// Removes all services (`-C`).
    pub fn flush(&self) {
        let mut editor = self.editor();
        let before = self.snapshot();
        self.publish(|snapshot| snapshot.services.clear());
        for service in before.services.values() {
            editor.retire_service(Arc::clone(service));
        }
    }

    /// Whether a service would take a real server, as far as its address is not looked at.
    pub fn would_take_real(&self, key: &ServiceKey, spec: &RealSpec) -> Result<(), ConfigError> {
        self.require(key)?;
        check_real(key, spec)
    }

    /// Adds a real server to a service (`-a`).
    ///
    /// A server that was removed from the same service and is still remembered comes back with its
    /// connections and counters.
    pub fn add_real(&self, key: &ServiceKey, spec: &RealSpec) -> Result<(), ConfigError> {
        let mut editor = self.editor();
        let service = self.require(key)?;
        check_real(key, spec)?;
        let mut pool = service.pool();
        // Whoever follows the count waits for the pool, and sees the server.
        self.count_edit();
        if pool.find(spec.addr, spec.port).is_some() {
            return Err(ConfigError::RealExists);
        }
        if pool.reals().len() >= MAX_REALS {
            return Err(ConfigError::OutOfMemory);
        }
        let Some(index) = editor.trashed(key, spec) else {
            return pool.add(Arc::new(RealServer::new(spec, self.workers)));
        };
        let Trashed { retired, service: former, .. } = editor.trash.swap_remove(index);
        retired.real.revive(spec);
        if Arc::ptr_eq(&former, &service) { pool.revive(retired) } else { pool.add(retired.real) }
    }

    /// Changes a real server's settings (`-e`).
    pub fn edit_real(&self, key: &ServiceKey, spec: &RealSpec) -> Result<(), ConfigError> {
        let _editor = self.editor();
        let service = self.require(key)?;
        check_real(key, spec)?;
        service.pool().configure(spec)?;
        self.count_edit();
        Ok(())
    }

    /// Removes a real server from a service (`-d`). Its connections stay.
    pub fn delete_real(&self, key: &ServiceKey, addr: Addr, port: u16) -> Result<(), ConfigError> {
        let mut editor = self.editor();
        let service = self.require(key)?;
        let retired = service.pool().remove(addr, port)?;
        editor.trash.push(Trashed { retired, key: *key, service, idle_since: None });
        self.count_edit();
        Ok(())
    }

    /// Sets counters to zero, of one service or of everything (`-Z`).
    pub fn zero(&self, key: Option<&ServiceKey>) -> Result<(), ConfigError> {
        let mut editor = self.editor();
        let Some(key) = key else {
            for service in self.snapshot().services.values() {
                service.pool().zero();
            }
            editor.residue = Totals::default();
            editor.estimator = Estimator::default();
            return Ok(());
        };
        let service = self.require(key)?;
        // The grand total keeps what this service had counted.
        editor.residue += service.pool().totals();
        service.pool().zero();
        Ok(())
    }

    /// Changes the timeouts that are not 0 (`--set`).
    pub fn set_timeouts(&self, new: Timeouts) -> Result<(), ConfigError> {
        let _editor = self.editor();
        if [new.tcp_s, new.tcp_fin_s, new.udp_s].iter().any(|seconds| *seconds > MAX_TIMEOUT_S) {
            return Err(ConfigError::Invalid);
        }
        let keep = |new: u32, old: u32| if new == 0 { old } else { new };
        self.publish(|snapshot| {
            let old = snapshot.timeouts;
            snapshot.timeouts = Timeouts {
                tcp_s: keep(new.tcp_s, old.tcp_s),
                tcp_fin_s: keep(new.tcp_fin_s, old.tcp_fin_s),
                udp_s: keep(new.udp_s, old.udp_s),
            };
        });
        Ok(())
    }

    /// Replaces the settings of `net.ipv4.vs`.
    pub fn set_settings(&self, settings: Settings) {
        let _editor = self.editor();
        self.publish(|snapshot| snapshot.settings = settings);
        for service in self.snapshot().services.values() {
            service.pool().tune(settings.schedulers);
        }
    }

    /// Replaces the rules by which connections of real servers are translated.
    pub fn set_snat(&self, rules: Vec<SnatRule>) -> Result<(), ConfigError> {
        let _editor = self.editor();
        if rules.len() > MAX_RULES {
            return Err(ConfigError::OutOfMemory);
        }
        self.publish(|snapshot| snapshot.snat = rules);
        Ok(())
    }

    /// Replaces the local endpoints that full NAT may use. No edit of the administrator's: what
    /// follows edits need not follow this one.
    pub fn set_locals(&self, locals: Locals) {
        let _editor = self.editor();
        let locals = Arc::new(locals);
        self.publish_quietly(|snapshot| snapshot.locals = locals);
    }

    /// Replaces the rules by which packets are marked.
    pub fn set_marks(&self, rules: Vec<MarkRule>) -> Result<(), ConfigError> {
        let _editor = self.editor();
        if rules.len() > MAX_RULES {
            return Err(ConfigError::OutOfMemory);
        }
        self.publish(|snapshot| snapshot.marks = rules);
        Ok(())
    }

    /// What a listing shows of one service.
    pub fn view(&self, key: &ServiceKey) -> Result<ServiceView, ConfigError> {
        Ok(self.require(key)?.pool().view())
    }

    /// What a listing shows of all services.
    pub fn views(&self) -> Vec<ServiceView> {
        self.snapshot().services.values().map(|service| service.pool().view()).collect()
    }

    /// Counters and rates of the director as a whole.
    pub fn grand_total(&self) -> (Totals, Rates) {
        let editor = self.editor();
        (self.sum(&editor), editor.estimator.rates())
    }

    /// Does what is due by time: samples for the rates, what schedulers have to do, the expiry of
    /// templates, and forgetting removed servers.
    ///
    /// Returns when it wants to be called next.
    pub fn handle_timeout(&self, now: Moment) -> Moment {
        let mut editor = self.editor();
        if now >= editor.next_sample {
            editor.next_sample = Moment::from_ms(now.as_ms() + ESTIMATION_PERIOD_MS);
            for service in self.snapshot().services.values() {
                service.pool().sample();
            }
            let total = self.sum(&editor);
            editor.estimator.sample(total);
        }
        if now >= editor.next_sweep {
            editor.next_sweep = Moment::from_ms(now.as_ms() + TRASH_SWEEP_MS);
            editor.sweep(now);
        }
        let schedulers = self.snapshot();
        let schedulers = schedulers.services.values();
        let next = schedulers.filter_map(|service| service.pool().handle_timeout(now)).min();
        let next = next.unwrap_or(editor.next_sample);
        next.min(editor.next_sample).min(editor.next_sweep).min(self.expire_templates(now))
    }

    /// Expires templates, holding up new connections for no longer than a batch of them takes.
    fn expire_templates(&self, now: Moment) -> Moment {
        for _ in 0..EXPIRY_BATCHES {
            if !self.templates().expire(now, EXPIRY_BATCH) {
                return Moment::from_ms(now.as_ms() + EXPIRY_PERIOD_MS);
            }
        }
        now
    }

    fn sum(&self, editor: &Editor) -> Totals {
        let mut totals = editor.residue;
        for service in self.snapshot().services.values() {
            totals += service.pool().totals();
        }
        totals
    }

    fn require(&self, key: &ServiceKey) -> Result<Arc<VirtualService>, ConfigError> {
        self.snapshot().service(key).cloned().ok_or(ConfigError::NoSuchService)
    }

    fn editor(&self) -> MutexGuard<'_, Editor> {
        lock(&self.editor)
    }

    fn publish(&self, change: impl FnOnce(&mut Snapshot)) {
        self.publish_quietly(change);
        self.count_edit();
    }

    fn publish_quietly(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut published = lock(&self.published);
        let mut next = Snapshot::clone(&published);
        change(&mut next);
        next.index_addresses();
        *published = Arc::new(next);
        self.epoch.fetch_add(1, Ordering::Release);
    }

    fn count_edit(&self) {
        self.revision.fetch_add(1, Ordering::Release);
    }
}

impl Editor {
    fn retire_service(&mut self, service: Arc<VirtualService>) {
        let mut pool = service.pool();
        let retired = pool.clear();
        self.residue += pool.totals();
        drop(pool);
        let key = service.key();
        self.trash.extend(retired.into_iter().map(|retired| Trashed {
            retired,
            key,
            service: Arc::clone(&service),
            idle_since: None,
        }));
    }

    fn trashed(&self, key: &ServiceKey, spec: &RealSpec) -> Option<usize> {
        self.trash.iter().position(|trashed| {
            let real = &trashed.retired.real;
            trashed.key == *key && real.addr() == spec.addr && real.port() == spec.port
        })
    }

    fn sweep(&mut self, now: Moment) {
        self.trash.retain_mut(|trashed| {
            if Arc::strong_count(&trashed.retired.real) > 1 {
                trashed.idle_since = None;
                return true;
            }
            let idle_since = *trashed.idle_since.get_or_insert(now);
            now.ms_since(idle_since) < TRASH_PERIOD_MS
        });
    }
}

fn check_service(spec: &ServiceSpec) -> Result<(), ConfigError> {
    let locals = spec.local_addresses.iter();
    let fits = |addr: &Addr| is_unicast(*addr) && addr.family() == spec.key.family();
    if spec.local_addresses.len() > MAX_LOCAL_ADDRESSES || !locals.copied().all(|addr| fits(&addr))
    {
        return Err(ConfigError::Invalid);
    }
    let mask_is_valid = match spec.key.family() {
        Family::V4 => true,
        Family::V6 => (1..=128).contains(&spec.netmask),
    };
    if !mask_is_valid {
        return Err(ConfigError::Invalid);
    }
    match spec.persistence_engine.as_deref() {
        None | Some("sip") => Ok(()),
        Some(_) => Err(ConfigError::NoSuchScheduler),
    }
}

fn check_real(key: &ServiceKey, spec: &RealSpec) -> Result<(), ConfigError> {
    let lower_above_upper = spec.lower_threshold > spec.upper_threshold;
    if spec.weight < 0 || lower_above_upper {
        return Err(ConfigError::OutOfRange);
    }
    if spec.upper_threshold > i32::MAX as u32 {
        return Err(ConfigError::Invalid);
    }
    let tunnelled = spec.method == ForwardingMethod::Tunnel;
    if spec.addr.family() != key.family() && !tunnelled {
        return Err(ConfigError::Invalid);
    }
    if tunnelled && spec.tunnel.kind == TunnelKind::Gue && spec.tunnel.port == 0 {
        return Err(ConfigError::Invalid);
    }
    if is_unicast(spec.addr) { Ok(()) } else { Err(ConfigError::Invalid) }
}

fn is_single(prefix: &Prefix) -> bool {
    match prefix.addr().family() {
        Family::V4 => prefix.len() == 32,
        Family::V6 => prefix.len() == 128,
    }
}

/// **Source** — Linux `ipv6_addr_type`, which does not call IPv4-mapped addresses unicast.
fn is_unicast(addr: Addr) -> bool {
    match std::net::IpAddr::from(addr) {
        std::net::IpAddr::V4(addr) => {
            !addr.is_multicast() && !addr.is_broadcast() && !addr.is_unspecified()
        }
        std::net::IpAddr::V6(v6) => !v6.is_multicast() && !v6.is_unspecified() && !addr.is_mapped(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
