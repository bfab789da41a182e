//! The rules of firewall marks: their words, and edits to them.

use std::fmt;
use std::ops::RangeInclusive;

use super::iptables::{Command, Matches, Place, Reader, Target, parse, set};
use crate::engine::MarkRule;
use crate::engine::service::{ConfigError, ServiceTable};
use crate::packet::headers::{carries_ports, protocol};

/// A command about rules of firewall marks.
pub type MarkCommand = Command<MarkRule>;

/// Reads a command from the words after `iptables`, or after `ulvs mark`.
///
/// **Errors** — a sentence that names the word at fault.
pub fn parse_mark(words: &[impl AsRef<str>]) -> Result<MarkCommand, String> {
    parse::<MarkTarget>(words)
}

/// Carries a command out.
///
/// **Errors** — a sentence that says what is wrong; nothing has changed then.
pub fn edit(table: &ServiceTable, command: &str) -> Result<(), String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let command = parse_mark(&words)?;
    let mut rules = table.snapshot().marks.clone();
    command.apply(&mut rules, PartialEq::eq)?;
    table.set_marks(rules).map_err(|error| match error {
        ConfigError::OutOfMemory => "there are too many rules".into(),
        other => other.to_string(),
    })
}

/// The rules in the form of `iptables -S`.
pub fn list(table: &ServiceTable) -> Vec<String> {
    table.snapshot().marks.iter().map(|rule| Shown(rule).to_string()).collect()
}

type Ports = Vec<RangeInclusive<u16>>;

#[derive(Debug, Default)]
struct MarkTarget {
    input: Option<String>,
    source_ports: Option<Ports>,
    destination_ports: Option<Ports>,
    mark: Option<(u32, u32)>,
}

impl Target for MarkTarget {
    type Rule = MarkRule;
    const PLACE: Place =
        Place { task: "marking", table: "mangle", chain: "PREROUTING", target: "MARK" };

    fn take(&mut self, word: &str, reader: &mut Reader) -> Result<bool, String> {
        match word {
            "-i" | "--in-interface" => set(&mut self.input, reader.value(word)?.into(), word)?,
            "-m" | "--match" => match reader.value(word)? {
                "tcp" | "udp" | "sctp" | "multiport" => {}
                other => return Err(format!("`-m {other}' is not known here")),
            },
            "--sport" | "--source-port" => {
                set(&mut self.source_ports, vec![ports(reader.value(word)?)?], word)?;
            }
            "--dport" | "--destination-port" => {
                set(&mut self.destination_ports, vec![ports(reader.value(word)?)?], word)?;
            }
            "--sports" | "--source-ports" => {
                set(&mut self.source_ports, many_ports(reader.value(word)?)?, word)?;
            }
            "--dports" | "--destination-ports" => {
                set(&mut self.destination_ports, many_ports(reader.value(word)?)?, word)?;
            }
            "--set-mark" => {
                let (value, mask) = masked(reader.value(word)?)?;
                set(&mut self.mark, (value, value | mask), word)?;
            }
            "--set-xmark" => set(&mut self.mark, masked(reader.value(word)?)?, word)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn finish(self, matches: Matches) -> Result<MarkRule, String> {
        let (value, mask) = self.mark.ok_or("the rule lacks `--set-mark NUMBER'")?;
        matches.check_family(None)?;
        let Matches { source, destination, protocol } = matches;
        let protocol = protocol.as_deref().map(number).transpose()?.flatten();
        let has_ports = protocol.is_some_and(carries_ports);
        if !has_ports && (self.source_ports.is_some() || self.destination_ports.is_some()) {
            return Err("ports need `-p tcp', `-p udp' or `-p sctp'".into());
        }
        Ok(MarkRule {
            input: self.input,
            source,
            destination,
            protocol,
            source_ports: self.source_ports.unwrap_or_default(),
            destination_ports: self.destination_ports.unwrap_or_default(),
            value,
            mask,
        })
    }
}

/// A protocol's number; `None` for all of them.
fn number(name: &str) -> Result<Option<u8>, String> {
    let known = PROTOCOLS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    match (name, known) {
        ("all" | "0", _) => Ok(None),
        (_, Some(number)) => Ok(Some(number)),
        _ => {
            let number = name.parse().map_err(|_| format!("`{name}' is not a protocol"))?;
            Ok(Some(number))
        }
    }
}

/// **Source** — names of iptables(8).
const PROTOCOLS: &[(&str, u8)] = &[
    ("tcp", protocol::TCP),
    ("udp", protocol::UDP),
    ("sctp", protocol::SCTP),
    ("icmp", protocol::ICMP),
    ("ipv6-icmp", protocol::ICMP6),
    ("icmpv6", protocol::ICMP6),
];

fn many_ports(text: &str) -> Result<Ports, String> {
    let ranges = text.split(',').map(ports).collect::<Result<Ports, _>>()?;
    // **Source** — multiport of iptables-extensions(8): up to 15, a range counts twice.
    let count: usize = ranges.iter().map(|range| if is_one(range) { 1 } else { 2 }).sum();
    if count > 15 { Err(format!("`{text}' names more than 15 ports")) } else { Ok(ranges) }
}

/// A port, or a range with either end left out.
fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let port = |text: &str| text.parse::<u16>().map_err(|_| format!("`{text}' is not a port"));
    let (first, last) = match text.split_once(':') {
        None => (port(text)?, port(text)?),
        Some((first, last)) => (
            if first.is_empty() { 0 } else { port(first)? },
            if last.is_empty() { u16::MAX } else { port(last)? },
        ),
    };
    if last < first { Err(format!("`{text}' ends before it begins")) } else { Ok(first..=last) }
}

/// `VALUE` or `VALUE/MASK`, decimal or hexadecimal.
fn masked(text: &str) -> Result<(u32, u32), String> {
    let number = |part: &str| {
        let read = match part.strip_prefix("0x").or_else(|| part.strip_prefix("0X")) {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => part.parse(),
        };
        read.map_err(|_| format!("`{text}' is not NUMBER or NUMBER/MASK"))
    };
    let (value, mask) =
        text.split_once('/').map_or((text, None), |(value, mask)| (value, Some(mask)));
    Ok((number(value)?, mask.map_or(Ok(u32::MAX), number)?))
}

fn is_one(range: &RangeInclusive<u16>) -> bool {
    range.start() == range.end()
}

/// A rule in the form of `iptables -S`.
pub struct Shown<'a>(pub &'a MarkRule);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.0;
        f.write_str("-A PREROUTING")?;
        if let Some(source) = rule.source {
            write!(f, " -s {source}")?;
        }
        if let Some(destination) = rule.destination {
            write!(f, " -d {destination}")?;
        }
        if let Some(input) = &rule.input {
            write!(f, " -i {input}")?;
        }
        let mut name = String::new();
        if let Some(number) = rule.protocol {
            let known = PROTOCOLS.iter().find(|(_, known)| *known == number);
            name = known.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned());
            write!(f, " -p {name}")?;
        }
        let sides = [("s", &rule.source_ports), ("d", &rule.destination_ports)];
        if sides.iter().any(|(_, ports)| ports.len() == 1) {
            write!(f, " -m {name}")?;
        }
        for (side, ports) in sides {
            if let [range] = ports.as_slice() {
                write!(f, " --{side}port {}", Range(range))?;
            }
        }
        for (side, ports) in sides.iter().filter(|(_, ports)| ports.len() > 1) {
            let ranges: Vec<_> = ports.iter().map(|range| Range(range).to_string()).collect();
            write!(f, " -m multiport --{side}ports {}", ranges.join(","))?;
        }
        write!(f, " -j MARK --set-xmark {:#x}/{:#x}", rule.value, rule.mask)
    }
}

struct Range<'a>(&'a RangeInclusive<u16>);

impl fmt::Display for Range<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match is_one(self.0) {
            true => write!(f, "{}", self.0.start()),
            false => write!(f, "{}:{}", self.0.start(), self.0.end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_tutorials_are_taken_and_listed_as_iptables_lists_them() {
        let table = ServiceTable::new(1);
        for (words, shown) in [
            (
                "iptables -t mangle -A PREROUTING -p tcp -d 192.168.122.2 --dport 80 -j MARK \
                 --set-mark 10",
                "-A PREROUTING -d 192.168.122.2/32 -p tcp -m tcp --dport 80 -j MARK --set-xmark \
                 0xa/0xffffffff",
            ),
            (
                "-A PREROUTING -i eth0 -p tcp -m multiport --dports 80,443,8000:8010 -j MARK \
                 --set-mark 0x1/0xf",
                "-A PREROUTING -i eth0 -p tcp -m multiport --dports 80,443,8000:8010 -j MARK \
                 --set-xmark 0x1/0xf",
            ),
            (
                "-A PREROUTING -s 10.1.2.3/8 -p udp -m udp --sport :1023 -j MARK --set-xmark 2/3",
                "-A PREROUTING -s 10.0.0.0/8 -p udp -m udp --sport 0:1023 -j MARK --set-xmark \
                 0x2/0x3",
            ),
            (
                "-A PREROUTING -d 2001:db8::/64 -j MARK --set-mark 1",
                "-A PREROUTING -d 2001:db8::/64 -j MARK --set-xmark 0x1/0xffffffff",
            ),
        ] {
            edit(&table, words).unwrap();
            assert_eq!(list(&table), [shown]);
            edit(&table, &shown.replacen("-A", "-D", 1)).unwrap();
            assert!(list(&table).is_empty());
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_changes_nothing() {
        let table = ServiceTable::new(1);
        for (line, fault) in [
            ("-A PREROUTING -j MARK", "--set-mark"),
            ("-A PREROUTING --set-mark 1", "-j MARK"),
            ("-t nat -A PREROUTING", "mangle"),
            ("-A FORWARD -j MARK --set-mark 1", "FORWARD"),
            ("-A PREROUTING --dport 80 -j MARK --set-mark 1", "-p tcp"),
            ("-A PREROUTING -p tcp --dport 90:80 -j MARK --set-mark 1", "90:80"),
            ("-A PREROUTING -p tcp --dport http -j MARK --set-mark 1", "http"),
            ("-A PREROUTING -p nothing -j MARK --set-mark 1", "nothing"),
            ("-A PREROUTING -m state -j MARK --set-mark 1", "state"),
            ("-A PREROUTING -j MARK --set-mark x", "`x'"),
            ("-A PREROUTING -j MARK --set-mark 0x100000000", "0x100000000"),
            ("-A PREROUTING -s 10.0.0.0/8 -d ::1 -j MARK --set-mark 1", "family"),
            ("-D PREROUTING -j MARK --set-mark 1", "no such rule"),
        ] {
            let error = edit(&table, line).expect_err(line);
            assert!(error.contains(fault), "{line}: {error}");
            assert_eq!(table.epoch(), 0);
        }
    }
}
