//! The director as a daemon: workers, control socket, and a housekeeper that keeps them agreeing
//! with the host.
//!
//! Owns the order in which things start and end. Packets never come here.

mod control;
mod counters;
mod device;
mod door;
mod house;
mod interfaces;
mod leads;
mod locals;
mod ports;
mod sync;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use core_affinity::CoreId;
use crossbeam_channel::{Receiver, bounded};

use crate::control::handler::Handler;
use crate::control::server::Server;
use crate::driver::af_packet::RingConfig;
use crate::engine::service::ServiceTable;
use crate::engine::{Director, DirectorConfig};
use crate::guard::AnnouncedPorts;
use crate::host::HostWatch;
use crate::link::{LinkLayer, OwnAddress, Settings};
use crate::worker::{
    Clock, Mailbox, Patience, Peers, SharedLink, SyncOutlet, Worker, WorkerConfig,
};

use control::Chore;
pub use control::DaemonHost;
use device::Outlet;
use house::House;
use ports::Ports;

/// How a daemon is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// The interfaces to work on; all Ethernet interfaces that are up if empty. With a device of its
    /// own, those whose packets may be for the director; all if empty.
    pub interfaces: Vec<String>,
    /// The name of a TUN device to work on instead, to which the kernel routes packets; a `%d` in it
    /// is replaced by the first free number.
    pub tun: Option<String>,
    /// Addresses the director has itself.
    pub addresses: Vec<OwnAddress>,
    /// Whether it may take a gateway address that real servers ask for and nobody has.
    pub adopt: bool,
    /// Number of workers.
    pub workers: usize,
    /// Cores to pin the workers to, in turn; all that there are if empty.
    pub cores: Vec<usize>,
    /// Receive rings, for each interface and worker.
    pub ring: RingConfig,
    /// Connections of each worker at most.
    pub max_connections: usize,
    /// How workers wait.
    pub patience: Patience,
    /// Where the control socket is.
    pub control: PathBuf,
}

/// A daemon that runs. Dropping it ends the workers and removes the control socket.
pub struct Daemon {
    services: Arc<ServiceTable>,
    house: House,
    stop: Arc<AtomicBool>,
    peers: Peers,
    threads: Vec<JoinHandle<io::Result<()>>>,
    handler: Arc<Handler<DaemonHost>>,
    clock: Clock,
    chores: Receiver<Chore>,
    server: Option<Server>,
}

/// Chores that wait for the housekeeper at most; whoever has more waits to hand them over.
const CHORES: usize = 64;

impl Daemon {
    /// Opens the interfaces and starts the workers. The control socket comes last, by
    /// [`listen`](Self::listen), so that whoever can talk to the daemon finds it working.
    ///
    /// **Errors** — say what failed and what to do; nothing stays open.
    pub fn start(config: &Config) -> io::Result<Self> {
        let clock = Clock::start();
        let workers = config.workers.max(1);
        let outlet = match &config.tun {
            Some(name) => Some(Outlet::open(name, config.interfaces.clone(), workers)?),
            None => None,
        };
        let (outlet, mut opened) = outlet.unzip();
        let watch = HostWatch::start(outlet.as_ref().map(Outlet::index)).map(Arc::new).map_err(
            |error| io::Error::other(format!("cannot read the kernel's routes: {error}")),
        )?;
        let interfaces = match &outlet {
            Some(outlet) => {
                interfaces::require(&config.interfaces, &watch.view())?;
                vec![outlet.name().to_owned()]
            }
            None => interfaces::choose(&config.interfaces, &watch.view())?,
        };
        let services = Arc::new(ServiceTable::new(workers));
        let settings = Settings {
            interfaces: interfaces.clone(),
            addresses: config.addresses.clone(),
            adopt: config.adopt,
            routed: outlet.is_some(),
        };
        let mut layer = LinkLayer::new(settings);
        layer.set_host(watch.view(), clock.now());
        let link = Arc::new(SharedLink::new(layer).with_keeper(Box::new(AnnouncedPorts::new())));
        let stop = Arc::new(AtomicBool::new(false));
        let mut inboxes = Vec::new();
        let mut mailboxes = Vec::new();
        for _ in 0..workers {
            let (mailbox, inbox) = Mailbox::new()?;
            mailboxes.push(mailbox);
            inboxes.push(inbox);
        }
        let peers: Peers = mailboxes.into();
        let interfaces = if outlet.is_some() { Vec::new() } else { interfaces };
        let mut ports = Ports::new(interfaces, config.ring, Arc::clone(&peers));
        let opened = match opened.take() {
            Some(opened) => opened,
            None => ports.open_all(&link)?,
        };
        let (send_chore, chores) = bounded(CHORES);
        let outbound = Arc::new(SyncOutlet::default());
        let host = DaemonHost::new(
            Arc::clone(&peers),
            Arc::clone(&services),
            clock,
            Arc::clone(&link),
            Arc::clone(&watch),
            send_chore,
            Arc::clone(&outbound),
        );
        let handler = Arc::new(Handler::new(Arc::clone(&services), host));
        let mut daemon = Self {
            house: House::new(
                watch,
                Arc::clone(&services),
                Arc::clone(&link),
                ports,
                outlet,
                clock,
            ),
            services,
            stop,
            peers,
            threads: Vec::new(),
            handler,
            clock,
            chores,
            server: None,
        };
        let cores = cores(config)?;
        for (number, inbox) in inboxes.into_iter().enumerate() {
            let director = DirectorConfig {
                max_connections: config.max_connections,
                ..DirectorConfig::new(number, random_seed()?)
            };
            let worker = WorkerConfig {
                number,
                director: Director::new(Arc::clone(&daemon.services), director, clock.now()),
                link: Arc::clone(&link),
                clock,
                patience: config.patience,
                peers: Arc::clone(&daemon.peers),
                outlet: Arc::clone(&outbound),
                inbox,
                stop: Arc::clone(&daemon.stop),
            };
            daemon.spawn(worker, cores.get(number % cores.len().max(1)).copied())?;
        }
        for request in opened {
            request.send(&daemon.peers);
        }
        daemon.report(config, &cores);
        Ok(daemon)
    }

    /// The services it balances.
    pub fn services(&self) -> &Arc<ServiceTable> {
        &self.services
    }

    /// What answers requests of the control protocol.
    pub fn handler(&self) -> &Arc<Handler<DaemonHost>> {
        &self.handler
    }

    /// The clock of everything in it.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Opens the control socket.
    pub fn listen(&mut self, path: &std::path::Path) -> io::Result<()> {
        let clock = self.clock;
        let server = Server::start(path, Arc::clone(&self.handler), move || clock.now())?;
        tracing::info!("control socket {}", server.path().display());
        self.server = Some(server);
        Ok(())
    }

    /// Does what is due, and the chores that come within `patience`; to be called again and again.
    ///
    /// **Errors** — a worker has ended by itself.
    pub fn keep_house(&mut self, patience: Duration) -> io::Result<()> {
        let first = self.chores.recv_timeout(patience).ok();
        let chores: Vec<_> = first.into_iter().chain(self.chores.try_iter()).collect();
        if !chores.is_empty() {
            self.house.catch_up();
        }
        self.house.keep(&self.peers)?;
        for chore in chores {
            self.house.finish(chore);
        }
        match self.threads.iter().position(JoinHandle::is_finished) {
            None => Ok(()),
            Some(ended) => match self.threads.swap_remove(ended).join() {
                Ok(Err(error)) => Err(io::Error::other(format!("a worker ended: {error}"))),
                _ => Err(io::Error::other("a worker ended unexpectedly")),
            },
        }
    }

    fn spawn(&mut self, config: WorkerConfig, core: Option<CoreId>) -> io::Result<()> {
        let name = format!("ulvs-worker-{}", config.number);
        let number = config.number;
        let run = move || {
            if let Some(core) = core
                && !core_affinity::set_for_current(core)
            {
                tracing::warn!("worker {number} cannot be pinned to core {}", core.id);
            }
            Worker::new(config).run()
        };
        self.threads.push(std::thread::Builder::new().name(name).spawn(run)?);
        Ok(())
    }

    fn report(&self, config: &Config, cores: &[CoreId]) {
        self.house.report();
        self.house.report_guard();
        let cores: Vec<_> = (0..config.workers.max(1))
            .filter_map(|number| cores.get(number % cores.len().max(1)))
            .map(|core| core.id.to_string())
            .collect();
        let workers = config.workers.max(1);
        let word = if workers == 1 { "worker" } else { "workers" };
        tracing::info!("{workers} {word} on core {}", cores.join(", "));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The socket first: nobody is to be told of a success that will not last.
        self.server = None;
        self.stop.store(true, Ordering::Release);
        for mailbox in self.peers.iter() {
            mailbox.wake();
        }
        for thread in self.threads.drain(..) {
            // A worker's error was reported by `keep_house`, or does not matter any more.
            let _ = thread.join();
        }
    }
}

fn cores(config: &Config) -> io::Result<Vec<CoreId>> {
    let present = core_affinity::get_core_ids().unwrap_or_default();
    if config.cores.is_empty() {
        return Ok(present);
    }
    let find = |id: &usize| {
        present.iter().find(|core| core.id == *id).copied().ok_or_else(|| {
            let ids: Vec<_> = present.iter().map(|core| core.id.to_string()).collect();
            let problem = format!("there is no core {id} to run on, only {}", ids.join(", "));
            io::Error::new(io::ErrorKind::InvalidInput, problem)
        })
    };
    config.cores.iter().map(find).collect()
}

/// Secret random bits for a director's hash.
fn random_seed() -> io::Result<u64> {
    use std::io::Read;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}
