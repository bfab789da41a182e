//! The packet socket driver as a wire between two hosts: `cargo bench --bench driver`.
//!
//! Compares ways to size the ring and to wait, in turn within one run, round by round, since the
//! machine's mood changes by the minute; prints medians. Beside each rate stands what a frame costs
//! the forwarding thread in processor time, which other work on the machine disturbs less, and the
//! share of frames for which the ring was full. `-- NAME...` runs those ways only; `ROUNDS` and
//! `SECONDS` in the environment change how often and how long each is measured.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ulvs::bench::load::{Page, Timing, bulk, packets, requests};
use ulvs::driver::af_packet::{AfPacketConfig, RingConfig};
use ulvs::lab::net::sandbox;
use ulvs::lab::web::{Site, WebServer, listen};

#[path = "../tests/driver/forwarder.rs"]
mod forwarder;

use forwarder::{CLIENT, Forwarder, Hosts, Report, SERVER};

/// A way to run the driver.
struct Way {
    name: String,
    config: AfPacketConfig,
    spin: Duration,
}

/// Loads, with the unit of each one's rate.
const LOADS: [(&str, &str); 4] =
    [("bulk", "Gbit/s"), ("ping", "1/s"), ("requests", "1/s"), ("packets", "1/s")];

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    sandbox::run("", || run().expect("the measurement runs"));
}

fn ways() -> Vec<Way> {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let mut ways = Vec::new();
    for mebibytes in [4, 16, 64] {
        for spin_us in [0, 50] {
            let ring = RingConfig { bytes: mebibytes << 20, ..Default::default() };
            ways.push(Way {
                name: format!("{mebibytes}MiB-spin{spin_us}"),
                config: AfPacketConfig { ring, ..Default::default() },
                spin: Duration::from_micros(spin_us),
            });
        }
    }
    ways.retain(|way| chosen.is_empty() || chosen.contains(&way.name));
    ways
}

fn number(variable: &str, default: f64) -> f64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let hosts = Hosts::new()?;
    let bulk = hosts.server.run(|| bulk::Counterpart::start(8001))??;
    let echo = hosts.server.run(|| TcpListener::bind((SERVER, 8002)))??;
    std::thread::spawn(move || echo.incoming().flatten().for_each(|s| drop(answer(s))));
    let site = Site::new("server").page("/", "text/html", vec![b'x'; 100]);
    let listeners = hosts.server.run(|| listen(address(8003), 1))??;
    let web = WebServer::start(listeners, site)?;
    let sink = hosts.server.run(|| packets::Sink::start(8004))??;
    let ways = ways();
    let mut figures = vec![vec![Vec::new(); LOADS.len()]; ways.len()];
    for _ in 0..number("ROUNDS", 3.0) as usize {
        for (way, figures) in ways.iter().zip(&mut figures) {
            for (load, figures) in figures.iter_mut().enumerate() {
                let forwarder = Forwarder::start(&hosts, way.config, way.spin)?;
                let rate = hosts.client.run(|| measure(load, &sink))??;
                figures.push(Figures::new(rate, &forwarder.stop()?));
            }
        }
    }
    drop((web, bulk));
    print(&ways, &mut figures);
    Ok(())
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::new(SERVER.parse().expect("a constant address is valid"), port)
}

/// Puts one load on the wire, from the client's namespace.
fn measure(load: usize, sink: &packets::Sink) -> io::Result<f64> {
    let measured = Duration::from_secs_f64(number("SECONDS", 1.0));
    let timing = Timing { warm_up: Duration::from_millis(200), measured };
    Ok(match load {
        0 => bulk::download(address(8001), timing)?.rate * 1e-9,
        1 => ping(timing.measured)?,
        2 => {
            let page = Page { addresses: vec![address(8003)], path: "/".to_owned() };
            requests::run(&page, timing)?.rate
        }
        _ => {
            let target = packets::Target {
                interface: "eth0".to_owned(),
                source: CLIENT.parse().expect("a constant address is valid"),
                next_hop: SERVER.parse().expect("a constant address is valid"),
                addresses: vec![format!("{SERVER}:{}", sink.port()).parse().expect("likewise")],
            };
            packets::run(&target, sink, timing)?.rate
        }
    })
}

/// Round trips per second of one byte on one connection: nothing but latency.
fn ping(measured: Duration) -> io::Result<f64> {
    let mut stream = TcpStream::connect(address(8002))?;
    stream.set_nodelay(true)?;
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < measured {
        stream.write_all(&[1])?;
        stream.read_exact(&mut [0])?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut byte = [0];
    while stream.read(&mut byte)? > 0 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

/// What one run has shown.
#[derive(Clone, Copy)]
struct Figures {
    rate: f64,
    us_per_frame: f64,
    dropped_percent: f64,
}

impl Figures {
    fn new(rate: f64, report: &Report) -> Self {
        let lost: u64 = report.received.iter().map(|counters| counters.ring_drops).sum();
        let sent: u64 = report.sent.iter().map(|counters| counters.frames).sum();
        let us_per_frame = report.busy.as_secs_f64() * 1e6 / sent.max(1) as f64;
        let dropped_percent = lost as f64 * 100.0 / (lost + sent).max(1) as f64;
        Self { rate, us_per_frame, dropped_percent }
    }

    fn median(figures: &[Self], value: impl Fn(&Self) -> f64) -> f64 {
        let mut values: Vec<f64> = figures.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }
}

fn print(ways: &[Way], figures: &mut [Vec<Vec<Figures>>]) {
    print!("{:16}", "");
    LOADS.iter().for_each(|(name, unit)| print!("{:>28}", format!("{name} {unit}, µs, lost")));
    println!();
    for (way, figures) in ways.iter().zip(figures) {
        print!("{:16}", way.name);
        for figures in figures {
            let [rate, cost, lost] = [
                Figures::median(figures, |figures| figures.rate),
                Figures::median(figures, |figures| figures.us_per_frame),
                Figures::median(figures, |figures| figures.dropped_percent),
            ];
            print!("{:>28}", format!("{rate:.1} {cost:6.2} {lost:4.1}%"));
        }
        println!();
    }
}
