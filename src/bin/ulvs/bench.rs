//! `ulvs bench`: arguments, progress, files.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use indicatif::{ProgressBar, ProgressStyle};
use ulvs::bench::isolation::{self, Isolation};
use ulvs::bench::report::Sample;
use ulvs::bench::{self, Contender, Launch, Load, Observer, Plan, Timing};

/// Builds a network of namespaces for each contender, runs the same loads against all of them
/// in turns, and prints medians and ratios.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Measure only these contenders
    #[arg(long, value_name = "CONTENDER", num_args = 1.., value_delimiter = ',')]
    only: Vec<Contender>,
    /// Measure only these loads
    #[arg(long, value_name = "LOAD", num_args = 1.., value_delimiter = ',')]
    load: Vec<Load>,
    /// Measurements of each load with each contender
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u32>::new().range(1..=1000))]
    rounds: Option<u32>,
    /// Seconds of each measurement
    #[arg(long, value_name = "S", value_parser = seconds)]
    seconds: Option<Duration>,
    /// Threads or processes of each contender; without it, its own choice
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u16>::new().range(1..=1024))]
    workers: Option<u16>,
    /// One round of one second
    #[arg(long)]
    quick: bool,
    /// Write everything that was measured as JSON
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Draw the medians as an SVG picture
    #[arg(long, value_name = "PATH")]
    svg: Option<PathBuf>,
}

/// Measures and reports. Fails if a contender that is installed could not be measured, or any
/// measurement had failures.
pub fn run(args: &Args) -> ExitCode {
    match measure(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ulvs bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> io::Result<ExitCode> {
    let plan = plan(args)?;
    // Before the work, so that a mistyped path costs no minutes, and before there is another
    // file system in its place.
    let json = args.json.as_deref().map(create).transpose()?;
    let svg = args.svg.as_deref().map(create).transpose()?;
    if let Isolation::Elsewhere(code) = isolation::enter()? {
        return Ok(code);
    }
    let mut progress = Progress::new(&plan);
    let report = bench::run(&plan, &mut progress)?;
    progress.finish();
    io::stdout().write_all(report.to_table().as_bytes())?;
    if let Some(mut file) = json {
        file.write_all(report.to_json()?.as_bytes())?;
    }
    if let Some(mut file) = svg {
        file.write_all(report.to_svg().as_bytes())?;
    }
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn plan(args: &Args) -> io::Result<Plan> {
    let (rounds, measured) = if args.quick { QUICK } else { THOROUGH };
    let measured = args.seconds.unwrap_or(measured);
    Ok(Plan {
        contenders: chosen(&args.only, &Contender::ALL),
        loads: chosen(&args.load, &Load::ALL),
        rounds: args.rounds.unwrap_or(rounds),
        timing: Timing { warm_up: (measured / 4).max(MIN_WARM_UP), measured },
        launch: Launch {
            workers: args.workers,
            program: std::env::current_exe()?,
            directory: isolation::DIRECTORY.into(),
        },
    })
}

/// Those that were asked for, each once and in the usual order; all if none was.
fn chosen<T: Copy + PartialEq>(asked: &[T], all: &[T]) -> Vec<T> {
    let wanted = |one: &T| asked.is_empty() || asked.contains(one);
    all.iter().copied().filter(wanted).collect()
}

fn create(path: &Path) -> io::Result<File> {
    File::create(path).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()))
    })
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    match (0.1..=3600.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("between 0.1 and 3600 seconds, please".to_owned()),
    }
}

/// Shows how far the benchmark is: a bar on a terminal, lines elsewhere.
struct Progress {
    bar: ProgressBar,
    is_terminal: bool,
    steps: u64,
    step: u64,
}

impl Progress {
    fn new(plan: &Plan) -> Self {
        let steps = plan.steps();
        let bar = ProgressBar::new(steps);
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        let progress = Self { bar, is_terminal: io::stderr().is_terminal(), steps, step: 0 };
        progress.say(&format!("{steps} measurements, about {} s", plan.duration().as_secs()));
        progress
    }

    fn say(&self, line: &str) {
        if self.is_terminal {
            self.bar.println(line);
        } else {
            // A reader that has gone does not end the work.
            let _ = writeln!(io::stderr(), "{line}");
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Progress {
    fn preparing(&mut self, contender: Contender) {
        self.bar.set_message(format!("starting {}", contender.name()));
        self.bar.tick();
    }

    fn left_out(&mut self, contender: Contender, reason: &str) {
        self.say(&format!("{}: {reason}", contender.name()));
    }

    fn measuring(&mut self, round: u32, load: Load, contender: Contender) {
        let message = format!("round {}: {} with {}", round + 1, load.name(), contender.name());
        self.bar.set_message(message);
        self.bar.tick();
    }

    fn measured(&mut self, load: Load, contender: Contender, sample: &Sample) {
        self.step += 1;
        self.bar.set_position(self.step);
        let troubled = !matches!(sample, Sample::Measured(found) if found.failures.total() == 0);
        if troubled || !self.is_terminal {
            let (step, steps) = (self.step, self.steps);
            self.say(&format!("[{step}/{steps}] {} {}: {sample}", load.name(), contender.name()));
        }
    }
}

const TEMPLATE: &str = "{bar:30.cyan/dim} {pos}/{len} {msg} ({elapsed})";

/// Rounds and length of a measurement.
const THOROUGH: (u32, Duration) = (3, Duration::from_secs(2));
const QUICK: (u32, Duration) = (1, Duration::from_secs(1));

/// Connections, caches and congestion windows have settled after this.
const MIN_WARM_UP: Duration = Duration::from_millis(200);
