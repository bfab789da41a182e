//! The order of a benchmark: prepare every contender, then let them take turns.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::contender::{Contender, Forwarder, Launch, Refusal};
use super::load::{Load, Measurement, Page, Timing, bulk, connections, packets, requests};
use super::network::{BULK_PORT, Network, PAGE, PAGE_PORT};
use super::report::{Entry, Machine, Report, Sample, Settings, Standing};
use super::verify::verify;

/// What is to be measured, and how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who takes part.
    pub contenders: Vec<Contender>,
    /// What is measured.
    pub loads: Vec<Load>,
    /// How often each is measured.
    pub rounds: u32,
    /// How long each measurement takes.
    pub timing: Timing,
    /// How contenders are started.
    pub launch: Launch,
}

impl Plan {
    /// Single measurements that the plan asks for.
    pub fn steps(&self) -> u64 {
        let declined = |contender: &Contender, load: &Load| contender.declines(*load).is_some();
        let runs = self
            .contenders
            .iter()
            .flat_map(|contender| self.loads.iter().filter(move |load| !declined(contender, load)));
        runs.count() as u64 * u64::from(self.rounds)
    }

    /// About how long it takes.
    pub fn duration(&self) -> Duration {
        let steps = u32::try_from(self.steps()).unwrap_or(u32::MAX);
        // The packet load searches for its rate first, for about as long again.
        self.timing.total().saturating_mul(steps).mul_f64(1.2)
    }

    fn settings(&self) -> Settings {
        Settings {
            rounds: self.rounds,
            seconds: self.timing.measured.as_secs_f64(),
            warm_up_seconds: self.timing.warm_up.as_secs_f64(),
            concurrency: super::load::CONCURRENCY,
            workers: self.launch.workers,
        }
    }
}

/// What a benchmark tells while it runs.
pub trait Observer {
    /// A contender is about to be started.
    fn preparing(&mut self, contender: Contender);
    /// A contender does not take part.
    fn left_out(&mut self, contender: Contender, reason: &str);
    /// A measurement is about to begin.
    fn measuring(&mut self, round: u32, load: Load, contender: Contender);
    /// It is over.
    fn measured(&mut self, load: Load, contender: Contender, sample: &Sample);
}

/// Measures everything in `plan`.
///
/// **Errors** — only if the network cannot be built; what goes wrong with a contender is in the
/// report.
pub fn run(plan: &Plan, observer: &mut dyn Observer) -> io::Result<Report> {
    let mut entries = Vec::new();
    for &contender in &plan.contenders {
        observer.preparing(contender);
        let (entry, stage) = prepare(plan, contender)?;
        if let Some(reason) = entry.standing.reason() {
            observer.left_out(contender, reason);
        }
        entries.push((entry, stage));
    }
    for round in 0..plan.rounds {
        for &load in &plan.loads {
            take_turns(plan, round, load, &mut entries, observer);
        }
    }
    Ok(Report {
        machine: Machine::of_this()?,
        settings: plan.settings(),
        entries: entries.into_iter().map(|(entry, _)| entry).collect(),
    })
}

/// A contender at work in its own network.
struct Stage {
    // Before the network, so that the program ends before its interfaces do.
    forwarder: Forwarder,
    network: Network,
}

fn prepare(plan: &Plan, contender: Contender) -> io::Result<(Entry, Option<Stage>)> {
    let network = Network::new().map_err(io::Error::other)?;
    let started = contender.start(&network, &plan.launch).and_then(|mut forwarder| {
        verify(contender, &mut forwarder, &network)?;
        Ok(forwarder)
    });
    Ok(match started {
        Ok(forwarder) => {
            let version = forwarder.version.clone();
            let entry = Entry::new(contender, Standing::Measured { version }, &plan.loads);
            (entry, Some(Stage { forwarder, network }))
        }
        Err(Refusal::Absent(reason)) => {
            (Entry::new(contender, Standing::Skipped { reason }, &[]), None)
        }
        Err(Refusal::Failed(reason)) => {
            (Entry::new(contender, Standing::Failed { reason }, &[]), None)
        }
    })
}

/// Measures one load with each contender. Who begins changes with the round.
fn take_turns(
    plan: &Plan,
    round: u32,
    load: Load,
    entries: &mut [(Entry, Option<Stage>)],
    observer: &mut dyn Observer,
) {
    let count = entries.len();
    for turn in 0..count {
        let (entry, stage) = &mut entries[(turn + round as usize) % count];
        let (Some(stage), None) = (stage, entry.contender.declines(load)) else {
            continue;
        };
        observer.measuring(round, load, entry.contender);
        let sample = match measure(load, entry.contender, stage, plan.timing) {
            Ok(measurement) => Sample::Measured(measurement),
            Err(error) => Sample::Failed { reason: error.to_string() },
        };
        observer.measured(load, entry.contender, &sample);
        entry.add(load, sample);
    }
}

fn measure(
    load: Load,
    contender: Contender,
    stage: &mut Stage,
    timing: Timing,
) -> io::Result<Measurement> {
    stage.forwarder.check()?;
    let network = &stage.network;
    let page = page_of(contender);
    let bulk_address = SocketAddr::from((contender.targets()[0], BULK_PORT));
    let measurement = match load {
        Load::Download => in_client(network, || bulk::download(bulk_address, timing)),
        Load::Upload => {
            let meter = network.bulk().meter();
            in_client(network, || bulk::upload(bulk_address, &meter, timing))
        }
        Load::Connections => in_client(network, || connections::run(&page, timing)),
        Load::Requests => in_client(network, || requests::run(&page, timing)),
        Load::Packets => {
            let sink = network.sink()?;
            let target = network.packet_target(contender.targets());
            in_client(network, || packets::run(&target, &sink, timing))
        }
    }?;
    stage.forwarder.check()?;
    Ok(measurement)
}

fn in_client<T: Send>(
    network: &Network,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    network.client.run(work).map_err(io::Error::other)?
}

/// The page as a client of this contender asks for it.
pub(super) fn page_of(contender: Contender) -> Page {
    let address = |&target| SocketAddr::from((target, PAGE_PORT));
    Page { addresses: contender.targets().iter().map(address).collect(), path: PAGE.to_owned() }
}
