//! Writes random scenarios, to find out where the director and the kernel's IPVS part ways.
//!
//! ```text
//! cargo run --example random_scenarios -- --kind state --seed 7            # to standard output
//! cargo run --example random_scenarios -- --count 50 --into scenarios      # fifty of every kind
//! ulvs simulate scenarios/state/state_0007.scn                             # how ulvs plays one
//! ```
//!
//! A kind and a seed always give the same scenario, in the language of `tests/golden/ipvs`. Played by
//! a machine with the kernel's IPVS, its transcript has to equal that of `ulvs simulate`. A scenario
//! that shows a difference is worth shortening and keeping among the recorded ones.
//!
//! Sleeps are chosen so that sums of them are never close to whole seconds, nor to the moments when
//! timers of the kinds used here expire: a slow machine must not change what is seen.

mod commands;
mod dice;
mod kinds;
mod packets;
mod world;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dice::Dice;
use kinds::Kind;

/// Write random scenarios for `ulvs simulate` and for the kernel's IPVS.
#[derive(Debug, Parser)]
struct Arguments {
    /// What the scenarios are about; all kinds if none is named
    #[arg(short, long, value_name = "KIND", value_parser = kinds::names())]
    kind: Vec<String>,
    /// The first seed
    #[arg(short, long, default_value_t = 1)]
    seed: u64,
    /// How many scenarios of each kind
    #[arg(short, long, default_value_t = 1)]
    count: u64,
    /// Write KIND/KIND_SEED.scn below this folder instead of printing them
    #[arg(short, long, value_name = "FOLDER")]
    into: Option<PathBuf>,
}

fn main() -> ExitCode {
    match write_all(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("random_scenarios: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_all(arguments: &Arguments) -> io::Result<()> {
    let wanted = |kind: &&Kind| {
        arguments.kind.is_empty() || arguments.kind.iter().any(|name| name == kind.name)
    };
    for kind in kinds::ALL.iter().filter(wanted) {
        for seed in arguments.seed..arguments.seed.saturating_add(arguments.count) {
            let text = kind.scenario(&mut Dice::new(kind.name, seed), seed);
            match &arguments.into {
                None => print!("{text}"),
                Some(folder) => {
                    let folder = folder.join(kind.name);
                    fs::create_dir_all(&folder)?;
                    fs::write(folder.join(format!("{}_{seed:04}.scn", kind.name)), text)?;
                }
            }
        }
    }
    Ok(())
}
