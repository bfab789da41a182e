//! Rules in the form of `iptables -S`.

use std::fmt::{self, Display};

use super::grammar::{FLAGS, protocol_name};
use crate::engine::MarkRule;
use crate::engine::mark::{Criterion, FlagTest, MarkTest, Match, Ports, Side};

/// A rule in the form of `iptables -S`.
pub struct Shown<'a>(pub &'a MarkRule);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MarkRule { input, source, destination, protocol, matches, value, mask } = self.0;
        f.write_str("-A PREROUTING")?;
        write_asked(f, "-s", source.as_ref(), |prefix| *prefix)?;
        write_asked(f, "-d", destination.as_ref(), |prefix| *prefix)?;
        write_asked(f, "-i", input.as_ref(), Clone::clone)?;
        write_asked(f, "-p", protocol.as_ref(), |number| protocol_name(*number))?;
        let module = protocol.as_ref().map(|asked| protocol_name(asked.wanted));
        for each in matches {
            write_match(f, each, module.as_deref().unwrap_or_default())?;
        }
        write!(f, " -j MARK --set-xmark {value:#x}/{mask:#x}")
    }
}

/// Writes an option with what it asks for, if it does.
fn write_asked<T, D: Display>(
    f: &mut fmt::Formatter<'_>,
    option: &str,
    asked: Option<&Criterion<T>>,
    shown: impl FnOnce(&T) -> D,
) -> fmt::Result {
    let Some(Criterion { wanted, inverted }) = asked else { return Ok(()) };
    let not = if *inverted { "! " } else { "" };
    write!(f, " {not}{option} {}", shown(wanted))
}

fn write_match(f: &mut fmt::Formatter<'_>, each: &Match, protocol: &str) -> fmt::Result {
    match each {
        Match::Transport { source, destination, flags } => {
            write!(f, " -m {protocol}")?;
            write_asked(f, "--sport", source.as_ref(), range)?;
            write_asked(f, "--dport", destination.as_ref(), range)?;
            write_asked(f, "--tcp-flags", flags.as_ref(), |test| {
                let FlagTest { mask, set } = *test;
                format!("{} {}", flag_names(mask), flag_names(set))
            })
        }
        Match::Multiport(side, asked) => {
            f.write_str(" -m multiport")?;
            let option = match side {
                Side::Source => "--sports",
                Side::Destination => "--dports",
                Side::Either => "--ports",
            };
            write_asked(f, option, Some(asked), |ranges| {
                ranges.iter().map(range).collect::<Vec<_>>().join(",")
            })
        }
        Match::Mark(asked) => {
            f.write_str(" -m mark")?;
            write_asked(f, "--mark", Some(asked), |test| match *test {
                MarkTest { value, mask: u32::MAX } => format!("{value:#x}"),
                MarkTest { value, mask } => format!("{value:#x}/{mask:#x}"),
            })
        }
        Match::Comment(text) => write!(f, " -m comment --comment {}", Quoted(text)),
    }
}

fn range(ports: &Ports) -> String {
    match ports.start() == ports.end() {
        true => ports.start().to_string(),
        false => format!("{}:{}", ports.start(), ports.end()),
    }
}

fn flag_names(flags: u8) -> String {
    let set = FLAGS.iter().filter(|(_, flag)| flags & flag != 0);
    let names: Vec<_> = set.map(|(name, _)| *name).collect();
    if names.is_empty() { "NONE".into() } else { names.join(",") }
}

/// A text in quotes unless it is one plain word.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
        if !self.0.is_empty() && self.0.chars().all(is_plain) {
            return f.write_str(self.0);
        }
        write!(f, "\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\""))
    }
}
