//! A virtual service at work: its real servers, its scheduler and its accounts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::real::RealServer;
use super::spec::{ConfigError, RealSpec, ServiceKey, ServiceSpec};
use crate::engine::scheduler::{
    self, Change, Explanation, Flow, Options, Random, Scheduler, Tunables,
};
use crate::engine::stats::{Account, Rates, Totals};
use crate::engine::time::Moment;
use crate::packet::Addr;

/// A virtual service. Its identity is fixed; all that can change is behind one lock, which only
/// new connections and the control plane take.
#[derive(Debug)]
pub struct VirtualService {
    key: ServiceKey,
    pool: Mutex<Pool>,
}

impl VirtualService {
    /// A service without servers.
    pub fn new(spec: ServiceSpec, now: Moment) -> Result<Self, ConfigError> {
        let key = spec.key;
        Ok(Self { key, pool: Mutex::new(Pool::new(spec, now)?) })
    }

    /// Its identity.
    pub fn key(&self) -> ServiceKey {
        self.key
    }

    /// Locks what can change.
    pub fn pool(&self) -> MutexGuard<'_, Pool> {
        // A panic while the lock was held cannot leave the pool half-edited in a way that matters
        // more than refusing all further connections would.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The servers of a service, newest first, with the scheduler that chooses among them.
#[derive(Debug)]
pub struct Pool {
    spec: ServiceSpec,
    reals: Vec<Arc<RealServer>>,
    accounts: Vec<RealAccount>,
    scheduler: Box<dyn Scheduler>,
    tunables: Tunables,
    /// What the service's totals have beyond the sum of its servers': those of removed servers.
    residue: Totals,
    account: Account,
}

/// What is kept per server for listings, parallel to the server list.
#[derive(Clone, Copy, Debug, Default)]
struct RealAccount {
    /// Counter values when it became a server of the service.
    origin: Totals,
    account: Account,
}

/// A real server together with its account, while it is not in a pool.
#[derive(Debug)]
pub struct Retired {
    /// The server.
    pub real: Arc<RealServer>,
    account: RealAccount,
}

/// What a listing shows of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// Its configuration.
    pub spec: ServiceSpec,
    /// Counters since the service was made or zeroed, as of when they were last looked at.
    pub totals: Totals,
    /// Rates.
    pub rates: Rates,
    /// Its servers, newest first.
    pub reals: Vec<RealView>,
}

/// What a listing shows of a real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealView {
    /// Its configuration.
    pub spec: RealSpec,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
    /// Persistence templates.
    pub persistent: u32,
    /// Counters since the server was made or zeroed, as of when they were last looked at.
    pub totals: Totals,
    /// Rates.
    pub rates: Rates,
}

impl Pool {
    fn new(spec: ServiceSpec, now: Moment) -> Result<Self, ConfigError> {
        let tunables = Tunables::default();
        let options = Options { flags: spec.scheduler_flags, tunables };
        let scheduler = scheduler::make(&spec.scheduler, &options, &[], now)?;
        Ok(Self {
            spec,
            reals: Vec::new(),
            accounts: Vec::new(),
            scheduler,
            tunables,
            residue: Totals::default(),
            account: Account::default(),
        })
    }

    /// The configuration.
    pub fn spec(&self) -> &ServiceSpec {
        &self.spec
    }

    /// The servers, newest first.
    pub fn reals(&self) -> &[Arc<RealServer>] {
        &self.reals
    }

    /// The server with this address and port.
    pub fn find(&self, addr: Addr, port: u16) -> Option<&Arc<RealServer>> {
        self.position(addr, port).map(|index| &self.reals[index])
    }

    /// Lets the scheduler choose a server.
    pub fn schedule(
        &mut self,
        flow: &Flow,
        now: Moment,
        random: &mut dyn Random,
    ) -> Option<Arc<RealServer>> {
        let index = self.scheduler.pick(&self.reals, flow, now, random)?;
        self.reals.get(index).cloned()
    }

    /// What the scheduler would look at for this flow, one figure per server.
    pub fn explain(&self, flow: &Flow, now: Moment) -> Explanation {
        self.scheduler.explain(&self.reals, flow, now)
    }

    /// Replaces the configuration. The scheduler starts anew if it is another one; new flags alone
    /// leave it where it is.
    pub fn edit(&mut self, spec: ServiceSpec, now: Moment) -> Result<(), ConfigError> {
        let options = Options { flags: spec.scheduler_flags, tunables: self.tunables };
        if spec.scheduler == self.spec.scheduler {
            self.scheduler.configure(&options);
        } else {
            self.scheduler = scheduler::make(&spec.scheduler, &options, &self.reals, now)?;
        }
        self.spec = spec;
        Ok(())
    }

    /// Takes over what is set for the schedulers of all services.
    pub fn tune(&mut self, tunables: Tunables) {
        self.tunables = tunables;
        self.scheduler.configure(&Options { flags: self.spec.scheduler_flags, tunables });
    }

    /// Lets the scheduler do what is due by time; returns when it wants to be called next.
    pub fn handle_timeout(&mut self, now: Moment) -> Option<Moment> {
        self.scheduler.handle_timeout(now)
    }

    /// Puts a new server at the head of the list.
    pub fn add(&mut self, real: Arc<RealServer>) -> Result<(), ConfigError> {
        let origin = sum(&real);
        let account = RealAccount { origin, account: Account::new(origin) };
        self.insert(Retired { real, account })
    }

    /// Takes over a server that was retired from another service, and counts from now on.
    pub fn adopt(&mut self, Retired { real, mut account }: Retired) -> Result<(), ConfigError> {
        account.origin = sum(&real);
        account.account.reset();
        self.insert(Retired { real, account })
    }

    /// Puts a server back that was retired from this very service, with its old counters.
    pub fn revive(&mut self, retired: Retired) -> Result<(), ConfigError> {
        let counted = retired.account.counted(&retired.real);
        self.insert(retired)?;
        self.residue -= counted;
        Ok(())
    }

    fn insert(&mut self, Retired { real, account }: Retired) -> Result<(), ConfigError> {
        self.reals.insert(0, real);
        if let Err(refused) = self.scheduler.update(&self.reals, Change::Added) {
            self.reals.remove(0);
            let undone = self.scheduler.update(&self.reals, Change::Removed(0));
            debug_assert!(undone.is_ok(), "the list before the change was accepted before");
            return Err(refused);
        }
        self.accounts.insert(0, account);
        self.reals[0].set_available(true);
        Ok(())
    }

    /// Changes a server's settings.
    pub fn configure(&mut self, spec: &RealSpec) -> Result<(), ConfigError> {
        let index = self.position(spec.addr, spec.port).ok_or(ConfigError::NoSuchReal)?;
        let before = self.reals[index].spec();
        self.reals[index].configure(spec);
        let updated = self.scheduler.update(&self.reals, Change::Edited(index));
        if updated.is_err() {
            self.reals[index].configure(&before);
        }
        updated
    }

    /// Takes a server out. Its connections stay with it.
    pub fn remove(&mut self, addr: Addr, port: u16) -> Result<Retired, ConfigError> {
        let index = self.position(addr, port).ok_or(ConfigError::NoSuchReal)?;
        let real = self.reals.remove(index);
        let account = self.accounts.remove(index);
        real.set_available(false);
        self.residue += account.counted(&real);
        let updated = self.scheduler.update(&self.reals, Change::Removed(index));
        debug_assert!(updated.is_ok(), "no scheduler refuses a shorter list");
        Ok(Retired { real, account })
    }

    /// Takes all servers out.
    pub fn clear(&mut self) -> Vec<Retired> {
        let endpoints: Vec<_> = self.reals.iter().map(|real| real.endpoint()).collect();
        let retired = endpoints.iter().filter_map(|at| self.remove(at.addr, at.port).ok());
        let retired = retired.collect();
        // A scheduler that still held servers would keep them, and they it, for ever.
        self.scheduler.forget();
        retired
    }

    /// Sets the counters and rates of the service and its servers to zero (`-Z`).
    pub fn zero(&mut self) {
        self.accounts.iter_mut().for_each(|each| each.account.reset());
        self.account.reset();
    }

    /// Looks at the counters, for listings.
    pub fn look(&mut self) {
        self.settle(Account::look);
    }

    /// Looks at the counters, and takes a sample for the rates.
    pub fn sample(&mut self) {
        self.settle(Account::sample);
    }

    fn settle(&mut self, enter: fn(&mut Account, Totals)) {
        for (real, each) in self.reals.iter().zip(&mut self.accounts) {
            enter(&mut each.account, sum(real));
        }
        let totals = self.totals();
        enter(&mut self.account, totals);
    }

    /// All that the service ever counted.
    pub fn totals(&self) -> Totals {
        let mut totals = self.residue;
        for (real, account) in self.reals.iter().zip(&self.accounts) {
            totals += account.counted(real);
        }
        totals
    }

    /// What a listing shows.
    pub fn view(&self) -> ServiceView {
        let reals = self.reals.iter().zip(&self.accounts).map(|(real, account)| RealView {
            spec: real.spec(),
            active: real.active(),
            inactive: real.inactive(),
            persistent: real.persistent(),
            totals: account.account.totals(),
            rates: account.account.rates(),
        });
        ServiceView {
            spec: self.spec.clone(),
            totals: self.account.totals(),
            rates: self.account.rates(),
            reals: reals.collect(),
        }
    }

    fn position(&self, addr: Addr, port: u16) -> Option<usize> {
        self.reals.iter().position(|real| real.addr() == addr && real.port() == port)
    }
}

impl RealAccount {
    fn counted(&self, real: &RealServer) -> Totals {
        let mut totals = sum(real);
        totals -= self.origin;
        totals
    }
}

fn sum(real: &RealServer) -> Totals {
    let mut totals = Totals::default();
    for counters in real.all_counters() {
        totals += counters.totals();
    }
    totals
}
