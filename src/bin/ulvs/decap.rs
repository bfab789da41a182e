//! `ulvs decap`: the real server's end of tunnels.

use std::io;
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use ulvs::decap::{Config, Decap, Kind, Way, look_around};
use ulvs::host;
use ulvs::packet::{Family, Prefix};

/// Unpack tunnels on a real server (ipip, gre, gue), where the kernel has no modules for it
///
/// What a director sends with `ipvsadm -i` comes by raw sockets and, for gue, by a UDP socket; what is
/// inside goes to the host's own programs through a TUN device that has the virtual addresses. The
/// answers go to the clients by the host's own routes. Device, addresses and sockets vanish with the
/// process. Needs CAP_NET_RAW and CAP_NET_ADMIN, and /dev/net/tun; where there is no leave for that, a
/// veth pair takes its place, which needs CAP_SYS_ADMIN. SIGUSR1 has it say what it has unpacked.
#[derive(Args, Debug)]
pub struct DecapArgs {
    /// Virtual address; may be given several times
    #[arg(short, long = "vip", value_name = "ADDRESS", required = true)]
    vips: Vec<IpAddr>,
    /// Kind of tunnel to take; may be given several times [default: all]
    #[arg(short, long = "type", value_name = "TYPE")]
    types: Vec<Type>,
    /// UDP port of gue, as in ipvsadm --tun-port
    #[arg(short, long, default_value_t = 6080, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Take packets only from this address or network, the directors'; may be given several times
    /// [default: from anybody]
    #[arg(short, long = "from", value_name = "ADDRESS[/LENGTH]", value_parser = parse_sender)]
    senders: Vec<Prefix>,
    /// Name of the device; %d stands for the first free number
    #[arg(short, long, default_value = "decap%d", value_name = "NAME")]
    device: String,
    /// Number of workers, each a thread with sockets and a queue of the device of its own
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,
    /// How packets get into the host's stack [default: tun where there is leave for it, else veth]
    #[arg(long, value_enum, value_name = "WAY")]
    way: Option<WayIn>,
}

/// A way into the host's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WayIn {
    Tun,
    Veth,
}

/// A kind of tunnel, by ipvsadm's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Type {
    Ipip,
    Gre,
    Gue,
}

/// Unpacks until SIGTERM or SIGINT.
pub fn main(args: DecapArgs) -> ExitCode {
    super::log::start();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &DecapArgs) -> io::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        // A second one, should the orderly end hang, ends the process at once.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    super::orphans::adopt()?;
    let ask = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&ask))?;
    let config = config(args);
    for advice in look_around(&host::look()?, &config.kinds, &config.virtuals) {
        tracing::warn!("{advice}");
    }
    let mut decap = Decap::start(&config)?;
    tell(&decap, &config);
    super::run::notify(&[sd_notify::NotifyState::Ready]);
    while !stop.load(Ordering::Acquire) && !decap.has_failed() {
        // A signal ends the rest early.
        std::thread::park_timeout(TURN);
        if ask.swap(false, Ordering::AcqRel) {
            tracing::info!("{}", decap.summary());
        }
    }
    super::run::notify(&[sd_notify::NotifyState::Stopping]);
    let ended = decap.stop();
    tracing::info!("ending: {}", decap.summary());
    ended
}

/// Says what was set up.
fn tell(decap: &Decap, config: &Config) {
    let listed = |texts: Vec<String>| texts.join(", ");
    let vips = listed(config.virtuals.iter().map(ToString::to_string).collect());
    let kinds = config.kinds.iter().map(|kind| match kind {
        Kind::IpIp | Kind::Gre => kind.name().to_string(),
        Kind::Gue => format!("gue (UDP port {})", config.port),
    });
    let from = match config.senders.as_slice() {
        [] => "anybody".to_string(),
        senders => listed(senders.iter().map(ToString::to_string).collect()),
    };
    let over = match decap.families() {
        [Family::V4] => " (the host has no IPv6)",
        [Family::V6] => " (the host has no IPv4)",
        _ => "",
    };
    let device = match decap.way() {
        Way::Veth if config.way.is_none() => "there is no leave for /dev/net/tun: veth device",
        Way::Tun | Way::Veth => "device",
    };
    tracing::info!("{device} {} has {vips}, for as long as this process lives", decap.device());
    tracing::info!("ready: takes {} from {from}{over}", listed(kinds.collect()));
    if config.senders.is_empty() {
        tracing::info!(
            "whoever reaches this host can send in any client's name; --from keeps to the directors"
        );
    }
}

fn config(args: &DecapArgs) -> Config {
    let chosen = |kind: &Kind| {
        let named = |each: &Type| each.kind() == *kind;
        args.types.is_empty() || args.types.iter().any(named)
    };
    Config {
        device: args.device.clone(),
        virtuals: args.vips.iter().copied().map(Into::into).collect(),
        kinds: Kind::ALL.into_iter().filter(chosen).collect(),
        port: args.port,
        senders: args.senders.clone(),
        workers: usize::from(args.workers),
        way: args.way.map(|way| match way {
            WayIn::Tun => Way::Tun,
            WayIn::Veth => Way::Veth,
        }),
    }
}

impl Type {
    fn kind(self) -> Kind {
        match self {
            Self::Ipip => Kind::IpIp,
            Self::Gre => Kind::Gre,
            Self::Gue => Kind::Gue,
        }
    }
}

fn parse_sender(text: &str) -> Result<Prefix, String> {
    let whole = |addr: IpAddr| format!("{addr}/{}", if addr.is_ipv4() { 32 } else { 128 });
    let prefix = text.parse::<IpAddr>().map_or_else(|_| text.to_string(), whole);
    prefix.parse().map_err(|_| format!("`{text}' is no address and no network, as in 192.0.2.0/24"))
}

/// How soon a signal is followed.
const TURN: Duration = Duration::from_millis(100);
