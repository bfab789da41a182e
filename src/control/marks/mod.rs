//! The rules of firewall marks: their words, and edits to them.

mod grammar;
mod shown;

use std::fmt;

use grammar::MarkTarget;

use super::iptables::{Command, parse};
use super::ipvsadm::names::{Names, NoNames};
use crate::engine::MarkRule;
use crate::engine::service::{ConfigError, ServiceTable};

pub use shown::Shown;

/// A command about rules of firewall marks.
pub type MarkCommand = Command<MarkRule>;

/// Reads a command from the words after `iptables`, or after `ulvs mark`. A rule that names several
/// addresses, as the name of a host may, is a command for each.
///
/// **Errors** — a sentence that names the word at fault.
pub fn parse_mark(
    words: &[impl AsRef<str>],
    names: &mut dyn Names,
) -> Result<Vec<MarkCommand>, String> {
    parse::<MarkTarget>(words, names)
}

/// The words of a command, without names that would have to be looked up.
pub fn words(command: &MarkCommand) -> String {
    let with = |rule: &MarkRule, verb: &str, number: &dyn fmt::Display| {
        let rule = Shown(rule).to_string();
        let rule = rule.strip_prefix("-A PREROUTING").unwrap_or(&rule);
        format!("{verb} PREROUTING{number}{rule}")
    };
    match command {
        Command::Append(rule) => with(rule, "-A", &""),
        Command::Insert(rule, number) => with(rule, "-I", &format_args!(" {number}")),
        Command::Replace(rule, number) => with(rule, "-R", &format_args!(" {number}")),
        Command::Delete(rule) => with(rule, "-D", &""),
        Command::Check(rule) => with(rule, "-C", &""),
        Command::DeleteAt(number) => format!("-D PREROUTING {number}"),
        Command::Flush => "-F".into(),
        Command::Idle => "-P PREROUTING ACCEPT".into(),
        Command::List(_) => "-S".into(),
    }
}

/// Carries a command out. Names of hosts and services are not looked up here.
///
/// **Errors** — a sentence that says what is wrong; nothing has changed then.
pub fn edit(table: &ServiceTable, command: &str) -> Result<(), String> {
    let words = shlex::split(command).ok_or("a quote is not closed")?;
    let mut rules = table.snapshot().marks.clone();
    let mut is_edited = false;
    for command in parse_mark(&words, &mut NoNames)? {
        is_edited |= command.apply(&mut rules, PartialEq::eq)?;
    }
    if !is_edited {
        return Ok(());
    }
    table.set_marks(rules).map_err(|error| match error {
        ConfigError::OutOfMemory => "there are too many rules".into(),
        other => other.to_string(),
    })
}

/// The rules in the form of `iptables -S`.
pub fn list(table: &ServiceTable) -> Vec<String> {
    table.snapshot().marks.iter().map(|rule| Shown(rule).to_string()).collect()
}

#[cfg(test)]
mod tests;
