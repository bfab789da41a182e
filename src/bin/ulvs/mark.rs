//! `ulvs mark`: firewall marks for services of `ipvsadm -f`, in the words of iptables.

use std::process::ExitCode;

use ulvs::control::ipvsadm::names::SystemNames;
use ulvs::control::marks::{MarkCommand, parse_mark, words};

use super::snat::{carry_out, look_for, remark, show};

/// Arguments of `ulvs mark`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  ulvs mark -t mangle -A PREROUTING -p tcp -d 192.168.122.2 --dport 80 -j MARK --set-mark 10
  ulvs mark -A PREROUTING -d 12.0.0.1 -p tcp -m multiport --dports 80,443 -j MARK --set-mark 1
  ulvs mark -S
  ulvs mark -F

Words: -t mangle; -A -I -D -R -C PREROUTING, with a rule's number, -S, -L, -F; -i INTERFACE (a
trailing + is any ending), -s and -d NETWORK or HOST, -p PROTOCOL, --sport and --dport
PORT[:PORT], --syn and --tcp-flags MASK SET, -m multiport --sports, --dports and --ports LIST,
-m mark --mark NUMBER[/MASK], each of them with `!' before it for the opposite; -m comment --comment
TEXT; -j MARK --set-mark or --set-xmark NUMBER[/MASK], --or-mark, --and-mark or --xor-mark NUMBER.")]
pub struct Args {
    /// The words of `iptables -t mangle ... -j MARK`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub(super) words: Vec<String>,
}

/// Runs the command. Statuses are those of `ulvs snat`.
pub fn run(args: &Args) -> ExitCode {
    let commands = parse_mark(&args.words, &mut SystemNames::default());
    carry_out("mark", commands, |director, commands| {
        for command in commands {
            if let MarkCommand::List(listing) = command {
                let rules = director.mark_rules()?;
                show("PREROUTING", &rules, listing);
                continue;
            }
            remark(director.edit_marks(&words(&command))?.as_deref());
            if let MarkCommand::Append(rule)
            | MarkCommand::Insert(rule, _)
            | MarkCommand::Replace(rule, _) = command
            {
                let named = rule.input.as_ref().map(|asked| asked.wanted.as_str());
                look_for(named);
            }
        }
        Ok(())
    })
}
