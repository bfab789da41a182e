//! The `ulvs` command.

mod bench;
mod lab;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A complete Linux Virtual Server (IPVS) in userspace.
#[derive(Debug, Parser)]
#[command(name = "ulvs", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure ulvs beside other forwarders on this machine
    Bench(bench::Args),
    /// Build a textbook network on this machine and try the director in it
    Lab(lab::Lab),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Bench(args) => bench::run(&args),
        Command::Lab(lab) => lab.run(),
    }
}
