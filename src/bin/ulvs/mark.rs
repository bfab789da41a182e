//! `ulvs mark`: firewall marks for services of `ipvsadm -f`, in the words of iptables.

use std::process::ExitCode;

use ulvs::control::marks::{MarkCommand, parse_mark};

use super::snat::{carry_out, look_for, show};

/// Arguments of `ulvs mark`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  ulvs mark -t mangle -A PREROUTING -p tcp -d 192.168.122.2 --dport 80 -j MARK --set-mark 10
  ulvs mark -A PREROUTING -d 12.0.0.1 -p tcp -m multiport --dports 80,443 -j MARK --set-mark 1
  ulvs mark -S
  ulvs mark -F

Words: -t mangle; -A -I -D PREROUTING, -S, -F; -i INTERFACE (a trailing + is any ending),
-s and -d NETWORK, -p PROTOCOL, --sport and --dport PORT[:PORT], -m multiport --sports and
--dports LIST, -j MARK --set-mark or --set-xmark NUMBER[/MASK].")]
pub struct Args {
    /// The words of `iptables -t mangle ... -j MARK`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub(super) words: Vec<String>,
}

/// Runs the command. Statuses are those of `ulvs snat`.
pub fn run(args: &Args) -> ExitCode {
    carry_out("mark", parse_mark(&args.words), |director, command| match command {
        MarkCommand::List => director.mark_rules().map(|rules| show("PREROUTING", &rules)),
        command => {
            let remark = director.edit_marks(&args.words.join(" "))?;
            remark.iter().for_each(|remark| eprintln!("hint: {remark}"));
            if let MarkCommand::Append(rule) | MarkCommand::Insert(rule) = command {
                look_for(rule.input.as_deref());
            }
            Ok(())
        }
    })
}
