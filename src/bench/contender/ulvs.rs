//! This program as a NAT director, driven by its own ipvsadm.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::super::network::{
    BULK_PORT, DIRECTOR_OUTSIDE, INSIDE, Network, OUTSIDE, PACKET_PORT, PAGE_PORT, SERVERS,
};
use super::process::{self, Program};
use super::{Forwarder, Launch, Refusal};

pub(super) fn start(network: &Network, launch: &Launch) -> Result<Forwarder, Refusal> {
    start_with(network, launch, &["--interface", OUTSIDE, "--interface", INSIDE])
}

/// The same behind a TUN device.
pub(super) fn start_over_tun(network: &Network, launch: &Launch) -> Result<Forwarder, Refusal> {
    if let Err(error) = OpenOptions::new().read(true).write(true).open(TUN) {
        return Err(Refusal::Absent(format!("{TUN} cannot be opened ({error}), skipped")));
    }
    start_with(network, launch, &["--tun"])
}

fn start_with(network: &Network, launch: &Launch, options: &[&str]) -> Result<Forwarder, Refusal> {
    let program = &launch.program;
    // Contenders stay up while others are measured.
    let control = launch.directory.join(format!("control{}", options.concat()));
    let mut command = network.director.command(program);
    command.arg("run").args(options).arg("--control").arg(&control);
    if let Some(workers) = launch.workers {
        command.args(["--workers", &workers.to_string()]);
    }
    let mut director = Program::start(command, "")?;
    await_control(&control, &mut director)?;
    for line in rules() {
        let mut ipvsadm = network.director.command(program);
        ipvsadm.arg("ipvsadm").args(line.split_whitespace()).env("ULVS_CONTROL", &control);
        process::run(&mut ipvsadm, "")
            .map_err(|error| Refusal::Failed(format!("ipvsadm {line}: {error}")))?;
    }
    let version = format!("ulvs {}", env!("CARGO_PKG_VERSION"));
    Ok(Forwarder { version, program: Some(director) })
}

/// Waits until the director takes commands.
fn await_control(control: &Path, director: &mut Program) -> io::Result<()> {
    let deadline = Instant::now() + START;
    while !control.exists() {
        director.check()?;
        if Instant::now() > deadline {
            let message = format!("made no control socket within {} s", START.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The lines that a user would type.
fn rules() -> Vec<String> {
    [("-t", PAGE_PORT), ("-t", BULK_PORT), ("-u", PACKET_PORT)]
        .into_iter()
        .flat_map(|(protocol, port)| {
            let service = format!("{protocol} {DIRECTOR_OUTSIDE}:{port}");
            let servers = SERVERS.map(|server| format!("-a {service} -r {server}:{port} -m"));
            [format!("-A {service} -s rr")].into_iter().chain(servers)
        })
        .collect()
}

const TUN: &str = "/dev/net/tun";

/// How long a director may take to start.
const START: Duration = Duration::from_secs(5);
