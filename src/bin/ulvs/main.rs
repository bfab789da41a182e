//! The `ulvs` command.

mod bench;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A complete Linux Virtual Server (IPVS) in userspace.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure ulvs beside other forwarders on this machine
    Bench(bench::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Bench(args) => bench::run(&args),
    }
}
