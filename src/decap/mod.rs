//! `ulvs decap`: the real server's end of a tunnel, for hosts whose kernel cannot unpack one.
//!
//! What arrives in IP-in-IP, GRE and GUE comes by sockets ([`driver::raw`](crate::driver::raw)), is
//! opened ([`open()`]) and given to the host's own stack through a TUN device, which has the virtual
//! addresses, so that the host takes the packets for its own. Where there is no leave for one, a veth
//! pair does the same. Answers leave as the host's routes say, around the director; they never come
//! here.
//!
//! Needs CAP_NET_RAW and CAP_NET_ADMIN in its network namespace. Everything it sets up belongs to
//! the device or to a socket, and vanishes with the process, however that ends.

mod advice;
mod counters;
mod opener;
mod pair;
#[cfg(test)]
mod tests;
mod worker;

pub use advice::{Advice, look_around};
pub use counters::{Counters, Summary};
pub use opener::{Policy, Refusal, open};

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::driver::raw::{Carrier, TunnelSocket};
use crate::driver::tun::{Tun, TunConfig};
use crate::driver::{Sender, Waker};
use crate::host::{Device, Lead, Use};
use crate::packet::headers::protocol;
use crate::packet::{Addr, Family, Prefix};
use pair::Pair;
use worker::Worker;

/// What tunnels may be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// IP in IP: protocols 4 and 41.
    IpIp,
    /// GRE: protocol 47.
    Gre,
    /// Generic UDP encapsulation.
    Gue,
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::IpIp, Self::Gre, Self::Gue];

    /// Its name in `ipvsadm --tun-type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IpIp => "ipip",
            Self::Gre => "gre",
            Self::Gue => "gue",
        }
    }

    /// What its packets come in.
    fn carriers(self, port: u16) -> Vec<Carrier> {
        let over_both = |carrier: fn(Family, u16) -> Carrier, number| {
            [Family::V4, Family::V6].map(|family| carrier(family, number))
        };
        let ip = |family, number| Carrier::Ip { family, protocol: number as u8 };
        let udp = |family, port| Carrier::Udp { family, port };
        match self {
            Self::IpIp => {
                let numbers = [protocol::IPV4, protocol::IPV6];
                numbers.into_iter().flat_map(|each| over_both(ip, each.into())).collect()
            }
            Self::Gre => over_both(ip, protocol::GRE.into()).to_vec(),
            Self::Gue => over_both(udp, port).to_vec(),
        }
    }

    fn of(carrier: Carrier) -> Self {
        match carrier {
            Carrier::Ip { protocol: protocol::GRE, .. } => Self::Gre,
            Carrier::Ip { .. } => Self::IpIp,
            Carrier::Udp { .. } => Self::Gue,
        }
    }
}

/// How packets get into the host's own stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A TUN device.
    Tun,
    /// A veth pair with a far end that nobody else has.
    Veth,
}

/// How packets are to be unpacked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the device; a `%d` in it is replaced by the first free number.
    pub device: String,
    /// The virtual addresses.
    pub virtuals: Vec<Addr>,
    /// Which tunnels are taken.
    pub kinds: Vec<Kind>,
    /// The UDP port of GUE.
    pub port: u16,
    /// Who may send; everybody if there are none.
    pub senders: Vec<Prefix>,
    /// How many threads do it, each with a queue of the device and sockets of its own.
    pub workers: usize,
    /// How packets get into the host's own stack; the first way that is open, if none is said.
    pub way: Option<Way>,
}

/// Tunnels being unpacked. Ends when dropped.
#[derive(Debug)]
pub struct Decap {
    device: Device,
    way: Way,
    families: Vec<Family>,
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    threads: Vec<(Waker, JoinHandle<io::Result<()>>)>,
}

impl Decap {
    /// Opens sockets and device, and starts to unpack.
    ///
    /// **Errors** — say what failed and what is needed; nothing stays.
    pub fn start(config: &Config) -> io::Result<Self> {
        let workers = config.workers.max(1);
        let mut sockets = Vec::new();
        for number in 0..workers {
            sockets.push(open_sockets(config, number as u32, workers as u32)?);
        }
        let (way, name, senders) = enter(config, workers)?;
        let device = Device::set_up(&name, MTU_BYTES, Use::Delivered)?;
        for addr in &config.virtuals {
            device.lead(*addr, Lead::Address)?;
        }
        let mut decap = Self {
            device,
            way,
            families: families(&sockets[0]),
            counters: Arc::default(),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        let policy = Arc::new(Policy {
            virtuals: config.virtuals.iter().copied().collect(),
            senders: config.senders.clone(),
        });
        for (sockets, sender) in sockets.into_iter().zip(senders) {
            decap.start_worker(sockets, sender, Arc::clone(&policy))?;
        }
        Ok(decap)
    }

    fn start_worker(
        &mut self,
        sockets: Vec<TunnelSocket>,
        sender: Box<dyn Sender>,
        policy: Arc<Policy>,
    ) -> io::Result<()> {
        let waker = Waker::new()?;
        let worker = Worker::new(sockets, sender, policy, Arc::clone(&self.counters));
        let (stop, own) = (Arc::clone(&self.stop), waker.clone());
        let name = format!("decap {}", self.threads.len());
        let thread = std::thread::Builder::new().name(name);
        self.threads.push((waker, thread.spawn(move || worker.run(&own, &stop))?));
        Ok(())
    }

    /// The device's name.
    pub fn device(&self) -> &str {
        self.device.name()
    }

    /// How packets get into the host's own stack.
    pub fn way(&self) -> Way {
        self.way
    }

    /// The families that tunnels may come over; IPv6 is missing where the host has none.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// What was unpacked and what was not.
    pub fn summary(&self) -> Summary {
        self.counters.summary()
    }

    /// Whether a worker has ended by itself.
    pub fn has_failed(&self) -> bool {
        self.threads.iter().any(|(_, thread)| thread.is_finished())
    }

    /// Ends all workers. Returns what went wrong in one of them.
    pub fn stop(&mut self) -> io::Result<()> {
        self.stop.store(true, Ordering::Release);
        self.threads.iter().for_each(|(waker, _)| waker.wake());
        let mut ended = Ok(());
        for (_, thread) in self.threads.drain(..) {
            let end = thread.join();
            ended = ended.and(end.unwrap_or_else(|_| Err(io::Error::other("a worker panicked"))));
        }
        ended
    }
}

impl Drop for Decap {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// A way into the host's own stack: which it is, the name of its device, and for each worker what sends
/// there.
type Entrance = (Way, String, Vec<Box<dyn Sender>>);

/// Opens the way that was chosen, or the first that is open.
fn enter(config: &Config, workers: usize) -> io::Result<Entrance> {
    let by_tun = || {
        let tun = Tun::open(&TunConfig {
            name: config.device.clone(),
            queues: workers,
            link_address: None,
        })?;
        let senders = tun.queues.into_iter().map(|(_, sender)| Box::new(sender) as _);
        io::Result::Ok((Way::Tun, tun.name, senders.collect()))
    };
    let by_veth = || {
        let pair = Pair::open(&config.device, workers)?;
        let senders = pair.senders.into_iter().map(|sender| Box::new(sender) as _);
        io::Result::Ok((Way::Veth, pair.name, senders.collect()))
    };
    match config.way {
        Some(Way::Tun) => by_tun(),
        Some(Way::Veth) => by_veth(),
        None => by_tun().or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound => {
                // What would have been best is what to ask for.
                by_veth().map_err(|_| error)
            }
            _ => Err(error),
        }),
    }
}

fn open_sockets(config: &Config, number: u32, sharers: u32) -> io::Result<Vec<TunnelSocket>> {
    let mut sockets = Vec::new();
    for carrier in config.kinds.iter().flat_map(|kind| kind.carriers(config.port)) {
        match TunnelSocket::open(carrier, number, sharers) {
            Ok(socket) => sockets.push(socket),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(error) => return Err(error),
        }
    }
    if sockets.is_empty() {
        return Err(io::Error::other("the host has neither IPv4 nor IPv6"));
    }
    Ok(sockets)
}

fn families(sockets: &[TunnelSocket]) -> Vec<Family> {
    let has = |family: &Family| sockets.iter().any(|each| each.carrier().family() == *family);
    [Family::V4, Family::V6].into_iter().filter(has).collect()
}

/// As large as the kernel allows: what comes out was small enough for its way here.
const MTU_BYTES: u32 = 65_535;
