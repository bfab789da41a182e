//! The `ulvs` command: one binary for everything, also under the names of the tools it stands in
//! for.

mod bench;
mod decap;
mod iptables;
mod ipvsadm;
mod lab;
mod log;
mod mark;
mod orphans;
mod run;
mod simulate;
mod snat;
mod stats;
mod sysctl;
mod web;

use std::env;
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
    /// Run the director
    Run(run::RunArgs),
    /// Set up, maintain or inspect the virtual server table, as with ipvsadm(8)
    #[command(disable_help_flag = true)]
    Ipvsadm(ipvsadm::Args),
    /// Let real servers reach the outside through the director, in the words of iptables -j SNAT
    Snat(snat::Args),
    /// Give packets firewall marks for services of -f, in the words of iptables -j MARK
    Mark(mark::Args),
    Sysctl(sysctl::Args),
    Decap(decap::DecapArgs),
    /// Show what the director counts: packets by verdict, drops by reason, interfaces
    Stats(stats::Args),
    /// Measure ulvs beside other forwarders on this machine
    Bench(bench::Args),
    Lab(lab::Lab),
    /// Play packet scenarios through the director and print what happens
    Simulate(simulate::Arguments),
}

fn main() -> ExitCode {
    // ipvsadm reads its arguments in a way of its own, before clap can take offence at them.
    if let Some(status) = ipvsadm::by_name(env::args_os()) {
        return status;
    }
    if let Some(status) = iptables::by_name(env::args_os()) {
        return status;
    }
    match Cli::parse().command {
        Command::Run(args) => run::main(args),
        Command::Ipvsadm(args) => ipvsadm::run(&args),
        Command::Snat(args) => snat::run(&args),
        Command::Mark(args) => mark::run(&args),
        Command::Sysctl(args) => sysctl::run(&args),
        Command::Decap(args) => decap::main(args),
        Command::Stats(args) => stats::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Lab(lab) => lab.run(),
        Command::Simulate(arguments) => simulate::run(&arguments),
    }
}
