//! `ulvs snat`: source NAT for connections that real servers begin, in the words of iptables.

use std::process::ExitCode;

use ulvs::control::client::{Director, Failure};
use ulvs::control::iptables::{SnatCommand, parse_snat};
use ulvs::control::socket::{SocketTransport, default_path};

/// Arguments of `ulvs snat`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  ulvs snat -t nat -A POSTROUTING -o eth0 -s 192.168.200.0/24 -j SNAT --to-source 12.0.0.1
  ulvs snat -D POSTROUTING -o eth0 -s 192.168.200.0/24 -j SNAT --to-source 12.0.0.1
  ulvs snat -S
  ulvs snat -F

Words: -t nat; -A -I -D POSTROUTING, -S, -F; -o INTERFACE (a trailing + is any ending),
-s and -d NETWORK, -p tcp|udp|icmp, -j SNAT --to-source ADDRESS[:PORT-PORT].")]
pub struct Args {
    /// The words of `iptables -t nat ... -j SNAT`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    words: Vec<String>,
}

/// Runs the command. Status 2 is a rule that cannot be read, 1 a director that refuses it or
/// cannot be reached.
pub fn run(args: &Args) -> ExitCode {
    let command = match parse_snat(&args.words) {
        Ok(command) => command,
        Err(problem) => {
            eprintln!("ulvs snat: {problem}");
            eprintln!("hint: `ulvs snat --help' shows the words it knows");
            return ExitCode::from(2);
        }
    };
    let mut transport = SocketTransport::new(default_path());
    let mut director = Director::new(&mut transport);
    let result = match command {
        SnatCommand::List => director.snat_rules().map(|rules| {
            println!("-P POSTROUTING ACCEPT");
            rules.iter().for_each(|rule| println!("{rule}"));
        }),
        _ => director.edit_snat(&args.words.join(" ")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Refused { errno, hint }) => {
            eprintln!("ulvs snat: {}", hint.unwrap_or_else(|| errno.desc().into()));
            ExitCode::FAILURE
        }
        Err(Failure::Transport(error)) => {
            eprintln!("ulvs snat: {error}");
            ExitCode::FAILURE
        }
    }
}
