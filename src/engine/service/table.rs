//! The virtual-service table: edits on one side, immutable snapshots for the workers on the other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::check::{check_real, check_service};
use super::pool::{Pool, ServiceView, VirtualService};
use super::real::RealServer;
use super::snapshot::Snapshot;
use super::spec::{ConfigError, RealSpec, ServiceKey, ServiceSpec, Timeouts};
use super::trash::{SWEEP_MS, Trash};
use crate::engine::conn::{Expectations, TemplateTable};
use crate::engine::defence::{self, DEFENCE_PERIOD_MS, Defence, SharedDefence};
use crate::engine::local::Locals;
use crate::engine::mark::MarkRule;
use crate::engine::settings::{Setting, SettingError, Settings};
use crate::engine::snat::SnatRule;
use crate::engine::stats::{Account, ESTIMATION_PERIOD_MS, Rates, Totals};
use crate::engine::sync::SyncRoles;
use crate::engine::time::Moment;
use crate::packet::Addr;

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
    defence: SharedDefence,
    /// Grows with every removal of servers whose connections are to end with it.
    removals: AtomicU64,
    /// How many more connections each worker could take.
    room: Box<[AtomicU64]>,
    expectations: Expectations,
    /// Whether listings show counters as they were at the last sample.
    counts_late: AtomicBool,
    workers: usize,
}

#[derive(Debug, Default)]
struct Editor {
    trash: Trash,
    /// Totals of services that are gone, so that the grand total never goes back.
    residue: Totals,
    account: Account,
    defence: Defence,
    /// When to take a sample for the rates; `None` before the first look at the clock.
    next_sample: Option<Moment>,
    next_sweep: Moment,
    next_defence: Moment,
}

/// Most services, and most servers of one service: bounds what a control client can make us hold.
const MAX_SERVICES: usize = 65_536;
const MAX_REALS: usize = 65_536;
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
            defence: SharedDefence::default(),
            removals: AtomicU64::new(0),
            room: (0..workers).map(|_| AtomicU64::new(u64::MAX)).collect(),
            expectations: Expectations::default(),
            counts_late: AtomicBool::new(false),
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

    /// The connections that control connections have announced.
    pub fn expectations(&self) -> &Expectations {
        &self.expectations
    }

    /// Locks the templates of persistent services. To be taken after a service's lock, never before.
    pub fn templates(&self) -> MutexGuard<'_, TemplateTable> {
        lock(&self.templates)
    }

    /// The defences that act now.
    pub fn defence(&self) -> Defence {
        self.defence.load()
    }

    /// Grows whenever servers are removed while `expire_nodest_conn` is set.
    pub fn removals(&self) -> u64 {
        self.removals.load(Ordering::Acquire)
    }

    /// Takes note of how many more connections a worker could take.
    pub fn report_room(&self, worker: usize, connections: u64) {
        if let Some(room) = self.room.get(worker) {
            room.store(connections, Ordering::Relaxed);
        }
    }

    /// Adds a service (`-A`).
    pub fn add_service(&self, spec: ServiceSpec, now: Moment) -> Result<(), ConfigError> {
        let _editor = self.editor();
        let current = self.snapshot();
        if current.services.contains_key(&spec.key) {
            return Err(ConfigError::ServiceExists);
        }
        check_service(&spec)?;
        if current.services.len() >= MAX_SERVICES {
            return Err(ConfigError::OutOfMemory);
        }
        let service = Arc::new(VirtualService::new(spec, now)?);
        service.pool().tune(current.settings.tunables());
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
        drop(self.counted(&service));
        editor.retire_service(&service);
        self.count_removal();
        Ok(())
    }

    /// Removes all services (`-C`).
    pub fn flush(&self) {
        let mut editor = self.editor();
        let before = self.snapshot();
        self.publish(|snapshot| snapshot.services.clear());
        for service in before.services.values() {
            drop(self.counted(service));
            editor.retire_service(service);
        }
        self.count_removal();
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
        let Some((retired, former)) = editor.trash.take(key, spec) else {
            return pool.add(Arc::new(RealServer::new(spec, self.workers)));
        };
        retired.real.revive(spec);
        if Arc::ptr_eq(&former, &service) { pool.revive(retired) } else { pool.adopt(retired) }
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
        let retired = self.counted(&service).remove(addr, port)?;
        editor.trash.keep(retired, service);
        self.count_removal();
        self.count_edit();
        Ok(())
    }

    /// Sets counters to zero, of one service or of everything (`-Z`).
    pub fn zero(&self, key: Option<&ServiceKey>) -> Result<(), ConfigError> {
        let mut editor = self.editor();
        let Some(key) = key else {
            for service in self.snapshot().services.values() {
                self.counted(service).zero();
            }
            self.look(&mut editor);
            editor.account.reset();
            return Ok(());
        };
        let service = self.require(key)?;
        self.counted(&service).zero();
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

    /// Changes a setting of `net.ipv4.vs` to what `text` says.
    ///
    /// **Errors** — if there is none of that name, or it does not take the value.
    pub fn set_setting(&self, name: &str, text: &str) -> Result<&'static Setting, SettingError> {
        let mut editor = self.editor();
        let setting = Setting::named(name).ok_or(SettingError::Unknown)?;
        let before = self.snapshot().settings;
        let mut settings = before;
        setting.set(&mut settings, text)?;
        let modes =
            |settings: &Settings| (settings.drop_entry, settings.drop_packet, settings.secure_tcp);
        // The kernel looks at once when a mode changes, and with its timer only otherwise.
        if modes(&settings) != modes(&before) {
            self.defend(&mut editor, &mut settings);
        }
        self.replace_settings(before, settings);
        Ok(setting)
    }

    fn replace_settings(&self, before: Settings, settings: Settings) {
        if settings == before {
            return;
        }
        self.publish(|snapshot| snapshot.settings = settings);
        if settings.tunables() != before.tunables() {
            for service in self.snapshot().services.values() {
                service.pool().tune(settings.tunables());
            }
        }
    }

    fn defend(&self, editor: &mut Editor, settings: &mut Settings) {
        // A worker whose table is full refuses clients, however much room the others have.
        let least = self.room.iter().map(|room| room.load(Ordering::Relaxed)).min();
        let room = least.unwrap_or(u64::MAX).saturating_mul(self.room.len() as u64);
        editor.defence.update(settings, defence::pages(room));
        self.defence.store(editor.defence);
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

    /// Replaces those rules by others, unless somebody else has changed them meanwhile. Returns
    /// whether it did; it does not take more rules than there were.
    pub fn replace_snat(&self, old: &[SnatRule], new: Vec<SnatRule>) -> bool {
        let _editor = self.editor();
        let is_known = self.snapshot().snat == old && new.len() <= old.len();
        if is_known {
            self.publish(|snapshot| snapshot.snat = new);
        }
        is_known
    }

    /// Replaces the local endpoints that full NAT may use. No edit of the administrator's: what
    /// follows edits need not follow this one.
    pub fn set_locals(&self, locals: Locals) {
        let _editor = self.editor();
        let locals = Arc::new(locals);
        self.publish_quietly(|snapshot| snapshot.locals = locals);
    }

    /// Says what synchronisation takes place. No edit of services: what follows those need not
    /// follow this one.
    pub fn set_sync(&self, sync: SyncRoles) {
        let _editor = self.editor();
        self.templates().note_renewals(sync.master.is_some());
        self.publish_quietly(|snapshot| snapshot.sync = sync);
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
        let service = self.require(key)?;
        Ok(self.counted(&service).view())
    }

    /// What a listing shows of all services.
    pub fn views(&self) -> Vec<ServiceView> {
        self.snapshot().services.values().map(|service| self.counted(service).view()).collect()
    }

    /// Counters and rates of the director as a whole.
    pub fn grand_total(&self) -> (Totals, Rates) {
        let mut editor = self.editor();
        self.look(&mut editor);
        (editor.account.totals(), editor.account.rates())
    }

    /// Lets listings show counters as they were at the last sample, up to two seconds ago, as those
    /// of the kernel's IPVS do. They show them as they are otherwise.
    pub fn count_late(&self) {
        self.counts_late.store(true, Ordering::Relaxed);
    }

    /// Locks what can change of a service, its counters up to date unless they are to be late.
    fn counted<'a>(&self, service: &'a VirtualService) -> MutexGuard<'a, Pool> {
        let mut pool = service.pool();
        if !self.counts_late.load(Ordering::Relaxed) {
            pool.look();
        }
        pool
    }

    fn look(&self, editor: &mut Editor) {
        if !self.counts_late.load(Ordering::Relaxed) {
            let total = self.sum(editor);
            editor.account.look(total);
        }
    }

    /// Does what is due by time: samples for the rates, what schedulers have to do, the expiry of
    /// templates, the modes of the defences, and forgetting removed servers.
    ///
    /// Returns when it wants to be called next.
    pub fn handle_timeout(&self, now: Moment) -> Moment {
        let mut editor = self.editor();
        let following = Moment::from_ms(now.as_ms() + ESTIMATION_PERIOD_MS);
        let mut next_sample = *editor.next_sample.get_or_insert(following);
        if now >= next_sample {
            next_sample = following;
            editor.next_sample = Some(following);
            self.estimate(&mut editor);
        }
        if now >= editor.next_defence {
            editor.next_defence = Moment::from_ms(now.as_ms() + DEFENCE_PERIOD_MS);
            let before = self.snapshot().settings;
            let mut settings = before;
            self.defend(&mut editor, &mut settings);
            self.replace_settings(before, settings);
        }
        if now >= editor.next_sweep {
            editor.next_sweep = Moment::from_ms(now.as_ms() + SWEEP_MS);
            editor.trash.sweep(now);
        }
        let schedulers = self.snapshot();
        let schedulers = schedulers.services.values();
        let next = schedulers.filter_map(|service| service.pool().handle_timeout(now)).min();
        let next = next.unwrap_or(next_sample);
        let next = next.min(next_sample).min(editor.next_sweep).min(editor.next_defence);
        next.min(self.expire_templates(now))
    }

    fn estimate(&self, editor: &mut Editor) {
        let snapshot = self.snapshot();
        if snapshot.settings.run_estimation == 0 {
            return;
        }
        for service in snapshot.services.values() {
            service.pool().sample();
        }
        let total = self.sum(editor);
        editor.account.sample(total);
    }

    /// Expires templates, holding up new connections for no longer than a batch of them takes.
    fn expire_templates(&self, now: Moment) -> Moment {
        self.expectations.expire(now);
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

    /// Lets workers end the connections of servers that were just removed, if they are to.
    fn count_removal(&self) {
        if self.snapshot().settings.expire_nodest_conn != 0 {
            self.removals.fetch_add(1, Ordering::Release);
        }
    }

    fn count_edit(&self) {
        self.revision.fetch_add(1, Ordering::Release);
    }
}

impl Editor {
    fn retire_service(&mut self, service: &Arc<VirtualService>) {
        let mut pool = service.pool();
        let retired = pool.clear();
        self.residue += pool.totals();
        drop(pool);
        retired.into_iter().for_each(|retired| self.trash.keep(retired, Arc::clone(service)));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
