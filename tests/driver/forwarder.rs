//! A wire of two ports: what comes in on one goes out on the other.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use ulvs::driver::af_packet::{AfPacket, AfPacketConfig};
use ulvs::driver::{BATCH, Receiver, ReceiverCounters, Sender, SenderCounters, Waker, wait};
use ulvs::lab::net::{self, Namespace};

/// Three hosts, `client` and `server` on one network, with `director` as the wire between them.
pub struct Hosts {
    pub client: Namespace,
    pub director: Namespace,
    pub server: Namespace,
}

pub const CLIENT: &str = "192.0.2.1";
pub const SERVER: &str = "192.0.2.2";
pub const PORTS: [&str; 2] = ["a", "b"];

impl Hosts {
    pub fn new() -> Result<Self, net::Error> {
        let [client, director, server] = ["client", "director", "server"].map(Namespace::new);
        let (client, director, server) = (client?, director?, server?);
        for host in [&client, &director, &server] {
            // Keeps the kernels from speaking IPv6 on their own account.
            for scope in ["all", "default"] {
                let _ = host.set_sysctl(&format!("net.ipv6.conf.{scope}.disable_ipv6"), "1");
            }
        }
        net::connect(&client.end("eth0"), &director.end(PORTS[0]))?;
        net::connect(&server.end("eth0"), &director.end(PORTS[1]))?;
        for (host, address) in [(&client, CLIENT), (&server, SERVER)] {
            host.add_address("eth0", format!("{address}/24").parse()?)?;
        }
        Ok(Self { client, director, server })
    }
}

/// A running wire.
pub struct Forwarder {
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: JoinHandle<io::Result<Report>>,
}

/// What a wire has done in its life.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub received: [ReceiverCounters; 2],
    pub sent: [SenderCounters; 2],
    /// Processor time of its thread.
    pub busy: Duration,
}

impl Forwarder {
    /// Starts one. It looks for frames again and again for `spin` before it sleeps.
    pub fn start(hosts: &Hosts, config: AfPacketConfig, spin: Duration) -> io::Result<Self> {
        let open = || -> io::Result<_> {
            Ok([AfPacket::open(PORTS[0], &config)?, AfPacket::open(PORTS[1], &config)?])
        };
        let mut ports = hosts.director.run(open).map_err(io::Error::other)??;
        let waker = Waker::new()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (waken, stopped) = (waker.clone(), stop.clone());
        let thread = std::thread::spawn(move || forward(&mut ports, spin, &waken, &stopped));
        Ok(Self { stop, waker, thread })
    }

    /// Ends it.
    pub fn stop(self) -> io::Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        self.thread.join().expect("the forwarder does not panic")
    }
}

fn forward(
    [a, b]: &mut [AfPacket; 2],
    spin: Duration,
    waker: &Waker,
    stop: &AtomicBool,
) -> io::Result<Report> {
    let mut idle_since = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let count = pass(&mut a.receiver, &mut b.sender)? + pass(&mut b.receiver, &mut a.sender)?;
        if count > 0 {
            idle_since = Instant::now();
        } else if idle_since.elapsed() >= spin {
            let mut descriptors = Vec::from_iter(a.receiver.readiness());
            descriptors.extend(b.receiver.readiness());
            descriptors.push(std::os::fd::AsFd::as_fd(waker));
            wait(&descriptors, None)?;
            idle_since = Instant::now();
        } else {
            std::hint::spin_loop();
        }
    }
    Ok(Report {
        received: [a.receiver.counters(), b.receiver.counters()],
        sent: [a.sender.counters(), b.sender.counters()],
        busy: processor_time()?,
    })
}

fn pass(from: &mut dyn Receiver, to: &mut dyn Sender) -> io::Result<usize> {
    from.receive(&mut |batch| {
        let mut frames: ArrayVec<_, BATCH> = batch.iter_mut().collect();
        to.send(&mut frames);
    })
}

/// What the calling thread has used so far.
fn processor_time() -> io::Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split_whitespace().next().and_then(|number| number.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.unwrap_or(0)))
}
