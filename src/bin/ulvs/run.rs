//! `ulvs run`: the director as a daemon.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use ulvs::control::client::InProcess;
use ulvs::control::ipvsadm::names::SystemNames;
use ulvs::control::{rules, socket};
use ulvs::daemon::{Config, Daemon};
use ulvs::driver::af_packet::RingConfig;
use ulvs::link::OwnAddress;
use ulvs::packet::Prefix;
use ulvs::worker::{Patience, WorkerCounters};

/// Options of `ulvs run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Interface to work on, by name; may be given several times [default: all Ethernet interfaces
    /// that are up; with --tun all there are]
    #[arg(short, long = "interface", value_name = "NAME")]
    interfaces: Vec<String>,
    /// Work behind a TUN device that the kernel routes virtual addresses to, instead of on the
    /// interfaces themselves; a worker has a queue of it each [name: ulvs0, or the next that is free]
    #[arg(
        long,
        value_name = "NAME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "ulvs%d",
        conflicts_with_all = ["addresses", "ring_size", "no_adopt"]
    )]
    tun: Option<String>,
    /// Rules to start with: what `ipvsadm -S` prints, or a script of ipvsadm lines
    #[arg(short, long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Number of workers, each a thread with a receive ring of its own for each interface
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,
    /// Cores to pin the workers to, in turn, as in 2,4-6 [default: all]
    #[arg(short, long, value_name = "LIST", value_parser = parse_cores)]
    cores: Option<Cores>,
    /// Control socket [default: $ULVS_CONTROL, or below /run/ulvs or $XDG_RUNTIME_DIR]
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Address that the director has itself, under a link address of its own, such as the servers'
    /// gateway: 192.168.200.1/24@eth1
    #[arg(short, long = "address", value_name = "ADDRESS/LENGTH@NAME", value_parser = parse_address)]
    addresses: Vec<OwnAddress>,
    /// Never take a gateway address that masqueraded servers ask for and nobody has
    #[arg(long)]
    no_adopt: bool,
    /// Receive ring for each interface and worker
    #[arg(long, value_name = "MIB", default_value_t = default_ring_mib(), value_parser = clap::value_parser!(u32).range(1..=4096))]
    ring_size: u32,
    /// Connections that each worker tracks at most
    #[arg(long, value_name = "N", default_value_t = 4 << 20, value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
    /// Microseconds to look for packets before going to sleep; helps only where a core has nothing
    /// else to do
    #[arg(long, value_name = "US", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    spin: u32,
}

/// A list of cores.
#[derive(Clone, Debug)]
struct Cores(Vec<usize>);

/// Runs the daemon until SIGTERM or SIGINT.
pub fn main(args: RunArgs) -> ExitCode {
    super::log::start();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: RunArgs) -> io::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        // A second one, should the orderly end hang, ends the process at once.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    super::orphans::adopt()?;
    let control = args.control.clone().unwrap_or_else(socket::default_path);
    let mut daemon = Daemon::start(&config(&args, control.clone()))?;
    if let Some(file) = &args.rules {
        apply_rules(file, &mut daemon)?;
    }
    daemon.listen(&control)?;
    notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!("ready");
    while !stop.load(Ordering::Acquire) {
        daemon.keep_house(TURN)?;
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    let counted = daemon.handler().host().worker_counters();
    tracing::info!("ending: {}", summary(counted.iter().map(|(_, counted)| counted)));
    drop(daemon);
    Ok(())
}

/// What was done, in a sentence.
fn summary<'a>(workers: impl Iterator<Item = &'a WorkerCounters>) -> String {
    let (mut forwarded, mut replied, mut passed, mut ring_drops) = (0, 0, 0, 0);
    let mut dropped = BTreeMap::new();
    for WorkerCounters { verdicts, ports, .. } in workers {
        forwarded += verdicts.forwarded;
        replied += verdicts.replied;
        passed += verdicts.passed;
        ring_drops += ports.iter().map(|(received, _)| received.ring_drops).sum::<u64>();
        for (reason, count) in verdicts.drops() {
            *dropped.entry(reason.name()).or_insert(0) += count;
        }
    }
    let total: u64 = dropped.values().sum();
    let reasons: Vec<_> =
        dropped.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let reasons =
        if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    format!(
        "{forwarded} packets forwarded, {replied} replied to, {passed} passed to the host, \
         {total} dropped{reasons}; {ring_drops} frames lost because a ring was full"
    )
}

/// How long the housekeeper rests at most; how soon a signal is followed.
const TURN: Duration = Duration::from_millis(100);

fn config(args: &RunArgs, control: PathBuf) -> Config {
    let ring = RingConfig { bytes: (args.ring_size as usize) << 20, ..RingConfig::default() };
    Config {
        interfaces: args.interfaces.clone(),
        tun: args.tun.clone(),
        addresses: args.addresses.clone(),
        adopt: !args.no_adopt,
        workers: usize::from(args.workers),
        cores: args.cores.clone().map(|cores| cores.0).unwrap_or_default(),
        ring,
        max_connections: args.max_connections as usize,
        patience: Patience { spin: Duration::from_micros(args.spin.into()) },
        control,
    }
}

/// Applies a file of rules, while the house is kept that its edits wait for.
fn apply_rules(file: &Path, daemon: &mut Daemon) -> io::Result<()> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
    let (handler, now) = (Arc::clone(daemon.handler()), daemon.clock().now());
    let applying = std::thread::spawn(move || {
        let mut transport = InProcess { handler: handler.as_ref(), now };
        rules::apply(&name, &text, &mut transport, &mut SystemNames::default())
    });
    while !applying.is_finished() {
        daemon.keep_house(Duration::from_millis(1))?;
    }
    let applied = applying.join().map_err(|_| io::Error::other("reading the rules failed"))?;
    applied.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

/// Tells the service manager, where there is one.
pub(super) fn notify(states: &[sd_notify::NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("cannot tell the service manager: {error}");
    }
}

fn default_ring_mib() -> u32 {
    (RingConfig::default().bytes >> 20) as u32
}

fn parse_address(text: &str) -> Result<OwnAddress, String> {
    let form = "expected ADDRESS/LENGTH@INTERFACE, as in 192.168.200.1/24@eth1";
    let (network, interface) = text.rsplit_once('@').ok_or(form)?;
    let (addr, len) = network.split_once('/').ok_or(form)?;
    let addr: std::net::IpAddr =
        addr.parse().map_err(|_| format!("`{addr}' is not an IP address"))?;
    let len = len.parse().map_err(|_| format!("`{len}' is not a prefix length"))?;
    let prefix = Prefix::new(addr.into(), len).ok_or_else(|| format!("/{len} is too long"))?;
    Ok(OwnAddress { addr: addr.into(), prefix, interface: interface.into() })
}

fn parse_cores(text: &str) -> Result<Cores, String> {
    let number = |text: &str| {
        text.trim().parse::<usize>().map_err(|_| format!("`{text}' is not a core's number"))
    };
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if last < first || last > MOST_CORES {
            return Err(format!("`{part}' is not a range of cores"));
        }
        cores.extend(first..=last);
    }
    let distinct: HashSet<_> = cores.iter().collect();
    if distinct.len() != cores.len() {
        return Err("a core is named twice".into());
    }
    Ok(Cores(cores))
}

const MOST_CORES: usize = 4095;

#[cfg(test)]
mod tests {
    use ulvs::driver::{ReceiverCounters, SenderCounters};
    use ulvs::engine::{DropReason, Verdict};

    use super::*;

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(parse_cores("2,4-6").unwrap().0, [2, 4, 5, 6]);
        for wrong in ["", "x", "3-1", "1,1", "0-99999", "1,,2"] {
            assert!(parse_cores(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_summary_adds_up_over_workers() {
        let mut counters = WorkerCounters::default();
        counters.verdicts.forwarded = 2;
        counters.verdicts.count(Verdict::Drop(DropReason::Truncated));
        let received = ReceiverCounters { ring_drops: 4, ..ReceiverCounters::default() };
        counters.ports.push((received, SenderCounters::default()));
        assert_eq!(
            summary([&counters, &counters].into_iter()),
            "4 packets forwarded, 0 replied to, 0 passed to the host, 2 dropped (truncated 2); \
             8 frames lost because a ring was full"
        );
        assert!(summary([].into_iter()).contains("0 dropped;"));
    }

    #[test]
    fn own_addresses_are_read() {
        let own = parse_address("192.168.200.1/24@in").unwrap();
        assert_eq!((own.addr.to_string(), own.interface.as_str()), ("192.168.200.1".into(), "in"));
        for wrong in ["192.168.200.1/24", "192.168.200.1@in", "x/24@in", "192.0.2.1/33@in"] {
            assert!(parse_address(wrong).is_err(), "{wrong}");
        }
    }
}
