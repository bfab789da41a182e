//! `ulvs snat`: source NAT for connections that real servers begin, in the words of iptables.

use std::process::ExitCode;

use ulvs::control::client::{Director, Failure};
use ulvs::control::iptables::{Listing, SnatCommand, parse_snat};
use ulvs::control::socket::{SocketTransport, default_path};

/// Arguments of `ulvs snat`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  ulvs snat -t nat -A POSTROUTING -o eth0 -s 192.168.200.0/24 -j SNAT --to-source 12.0.0.1
  ulvs snat -D POSTROUTING -o eth0 -s 192.168.200.0/24 -j SNAT --to-source 12.0.0.1
  ulvs snat -S
  ulvs snat -F

Words: -t nat; -A -I -D -R -C POSTROUTING, with a rule's number, -S, -L, -F; -o INTERFACE (a trailing + is any ending),
-s and -d NETWORK, -p tcp|udp|icmp, -j SNAT --to-source ADDRESS[:PORT-PORT].")]
pub struct Args {
    /// The words of `iptables -t nat ... -j SNAT`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub(super) words: Vec<String>,
}

/// Runs the command. Status 2 is a rule that cannot be read, 1 a director that refuses it or
/// cannot be reached.
pub fn run(args: &Args) -> ExitCode {
    carry_out("snat", parse_snat(&args.words), |director, command| match command {
        SnatCommand::List(listing) => {
            director.snat_rules().map(|rules| show("POSTROUTING", &rules, listing))
        }
        SnatCommand::Append(rule)
        | SnatCommand::Insert(rule, _)
        | SnatCommand::Replace(rule, _) => {
            remark(director.edit_snat(&args.words.join(" "))?.as_deref());
            look_for(rule.out.as_deref());
            Ok(())
        }
        SnatCommand::Idle => Ok(()),
        SnatCommand::Delete(_)
        | SnatCommand::DeleteAt(_)
        | SnatCommand::Check(_)
        | SnatCommand::Flush => director.edit_snat(&args.words.join(" ")).map(drop),
    })
}

/// Shows what the director has to say about a rule that it took.
pub(super) fn remark(remark: Option<&str>) {
    if let Some(remark) = remark {
        eprintln!("hint: {remark}");
    }
}

/// Says so if a rule is for an interface that this host does not have.
pub(super) fn look_for(interface: Option<&str>) {
    let Some(pattern) = interface else { return };
    let Ok(found) = nix::net::if_::if_nameindex() else { return };
    let names: Vec<_> = found.iter().map(|each| each.name().to_string_lossy()).collect();
    let is_there = |name: &str| match pattern.strip_suffix('+') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    };
    if !names.iter().any(|name| is_there(name)) {
        let names = names.join(", ");
        eprintln!("hint: there is no interface {pattern} here for now; there are {names}");
    }
}

/// Lists rules in the form of `iptables -S`, each after its number if those are wanted.
pub(super) fn show(chain: &str, rules: &[String], listing: Listing) {
    if listing.only.is_none() {
        println!("-P {chain} ACCEPT");
    }
    print!("{}", listing.lines(rules));
}

/// Has a director do what the command `ulvs NAME` was given.
pub(super) fn carry_out<C>(
    name: &str,
    command: Result<C, String>,
    act: impl FnOnce(&mut Director, C) -> Result<(), Failure>,
) -> ExitCode {
    let command = match command {
        Ok(command) => command,
        Err(problem) => {
            eprintln!("ulvs {name}: {problem}");
            eprintln!("hint: `ulvs {name} --help' shows the words it knows");
            return ExitCode::from(2);
        }
    };
    let mut transport = SocketTransport::new(default_path());
    match act(&mut Director::new(&mut transport), command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Refused { errno, hint }) => {
            eprintln!("ulvs {name}: {}", hint.unwrap_or_else(|| errno.desc().into()));
            ExitCode::FAILURE
        }
        Err(Failure::Transport(error)) => {
            // It names the socket, and what starts a director there.
            eprintln!("ulvs {name}: {error}");
            ExitCode::FAILURE
        }
    }
}
