//! The rules of firewall marks: their words, and edits to them.

use std::fmt;
use std::ops::RangeInclusive;

use super::iptables::{Command, Matches, Place, Reader, Target, parse, set};
use super::ipvsadm::names::{Names, NoNames};
use crate::engine::MarkRule;
use crate::engine::service::{ConfigError, Protocol, ServiceTable};
use crate::packet::headers::{carries_ports, protocol};

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
        Command::DeleteAt(number) => format!("-D PREROUTING {number}"),
        Command::Flush => "-F".into(),
        Command::Policy => "-P PREROUTING ACCEPT".into(),
        Command::List { .. } => "-S".into(),
    }
}

/// Carries a command out. Names of hosts and services are not looked up here.
///
/// **Errors** — a sentence that says what is wrong; nothing has changed then.
pub fn edit(table: &ServiceTable, command: &str) -> Result<(), String> {
    let words = shlex::split(command).ok_or("a quote is not closed")?;
    let mut rules = table.snapshot().marks.clone();
    for command in parse_mark(&words, &mut NoNames)? {
        if matches!(command, Command::Policy | Command::List { .. }) {
            return Ok(());
        }
        command.apply(&mut rules, PartialEq::eq)?;
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

type Ports = Vec<RangeInclusive<u16>>;

/// Ports as they were given. What their names mean depends on the protocol.
#[derive(Clone, Debug)]
enum PortWords {
    /// `PORT` or `PORT:PORT`.
    One(String),
    /// Such ones with commas.
    Many(String),
}

#[derive(Clone, Debug, Default)]
struct MarkTarget {
    input: Option<String>,
    source_ports: Option<PortWords>,
    destination_ports: Option<PortWords>,
    mark: Option<(u32, u32)>,
    comment: Option<String>,
}

impl Target for MarkTarget {
    type Rule = MarkRule;
    const PLACE: Place =
        Place { task: "marking", table: "mangle", chain: "PREROUTING", target: "MARK" };

    fn take(&mut self, word: &str, reader: &mut Reader) -> Result<bool, String> {
        match word {
            "-i" | "--in-interface" => set(&mut self.input, reader.value(word)?.into(), word)?,
            "-m" | "--match" => match reader.value(word)? {
                "tcp" | "udp" | "sctp" | "multiport" | "comment" => {}
                other => return Err(format!("`-m {other}' is not known here")),
            },
            "--sport" | "--source-port" => {
                set(&mut self.source_ports, PortWords::One(reader.value(word)?.into()), word)?;
            }
            "--dport" | "--destination-port" => {
                set(&mut self.destination_ports, PortWords::One(reader.value(word)?.into()), word)?;
            }
            "--sports" | "--source-ports" => {
                set(&mut self.source_ports, PortWords::Many(reader.value(word)?.into()), word)?;
            }
            "--dports" | "--destination-ports" => {
                set(
                    &mut self.destination_ports,
                    PortWords::Many(reader.value(word)?.into()),
                    word,
                )?;
            }
            "--comment" => set(&mut self.comment, comment(reader.value(word)?)?, word)?,
            "--set-mark" => {
                let (value, mask) = masked(reader.value(word)?)?;
                set(&mut self.mark, (value, value | mask), word)?;
            }
            "--set-xmark" => set(&mut self.mark, masked(reader.value(word)?)?, word)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn finish(self, mut matches: Matches, names: &mut dyn Names) -> Result<MarkRule, String> {
        let (value, mask) = self.mark.ok_or("the rule lacks `--set-mark NUMBER'")?;
        matches.check_family(None)?;
        let Matches { source, destination, protocol } = matches;
        let protocol = protocol.as_deref().map(number).transpose()?.flatten();
        let has_ports = protocol.is_some_and(carries_ports);
        if !has_ports && (self.source_ports.is_some() || self.destination_ports.is_some()) {
            return Err("ports need `-p tcp', `-p udp' or `-p sctp'".into());
        }
        let mut numbers = |words: Option<PortWords>| match words {
            None => Ok(Ports::new()),
            Some(PortWords::One(text)) => Ok(vec![ports(&text, protocol, names)?]),
            Some(PortWords::Many(text)) => many_ports(&text, protocol, names),
        };
        Ok(MarkRule {
            input: self.input,
            source,
            destination,
            protocol,
            source_ports: numbers(self.source_ports)?,
            destination_ports: numbers(self.destination_ports)?,
            value,
            mask,
            comment: self.comment,
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

/// What is said of a rule, in one line.
fn comment(text: &str) -> Result<String, String> {
    // **Source** — comment of iptables-extensions(8): up to 256 characters, the last of which ends
    // it.
    if text.len() > 255 {
        return Err("a comment has 255 characters at most".into());
    }
    match text.chars().any(char::is_control) {
        true => Err("a comment is one line".into()),
        false => Ok(text.to_owned()),
    }
}

fn many_ports(text: &str, of: Option<u8>, names: &mut dyn Names) -> Result<Ports, String> {
    let ranges =
        text.split(',').map(|part| ports(part, of, names)).collect::<Result<Ports, _>>()?;
    // **Source** — multiport of iptables-extensions(8): up to 15, a range counts twice.
    let count: usize = ranges.iter().map(|range| if is_one(range) { 1 } else { 2 }).sum();
    if count > 15 { Err(format!("`{text}' names more than 15 ports")) } else { Ok(ranges) }
}

/// A port, or a range with either end left out. Ports of a protocol may have names.
fn ports(text: &str, of: Option<u8>, names: &mut dyn Names) -> Result<RangeInclusive<u16>, String> {
    let of = match of {
        Some(protocol::TCP) => Some(Protocol::Tcp),
        Some(protocol::UDP) => Some(Protocol::Udp),
        Some(protocol::SCTP) => Some(Protocol::Sctp),
        _ => None,
    };
    let mut port = |text: &str| {
        let number = text.parse::<u16>().ok();
        let found = number.or_else(|| names.port(text, of?));
        found.ok_or_else(|| format!("invalid port/service `{text}' specified"))
    };
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
        if let Some(comment) = &rule.comment {
            write!(f, " -m comment --comment {}", Quoted(comment))?;
        }
        write!(f, " -j MARK --set-xmark {:#x}/{:#x}", rule.value, rule.mask)
    }
}

/// A text in quotes unless it is one plain word.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
        if !self.0.is_empty() && self.0.chars().all(is_plain) {
            return f.write_str(self.0);
        }
        write!(f, "\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\""))
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
    use std::net::{IpAddr, Ipv4Addr};

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

    /// Knows what the system would know.
    struct Known;

    impl Names for Known {
        fn address(&mut self, host: &str) -> Option<Ipv4Addr> {
            self.addresses(host).first().copied()
        }

        fn addresses(&mut self, host: &str) -> Vec<Ipv4Addr> {
            match host {
                "www.example" => vec![Ipv4Addr::new(12, 0, 0, 1), Ipv4Addr::new(12, 0, 0, 2)],
                _ => Vec::new(),
            }
        }

        fn port(&mut self, service: &str, protocol: Protocol) -> Option<u16> {
            match (service, protocol) {
                ("http", Protocol::Tcp) => Some(80),
                ("https", Protocol::Tcp) => Some(443),
                ("domain", _) => Some(53),
                _ => None,
            }
        }

        fn host(&mut self, _: IpAddr) -> Option<String> {
            None
        }

        fn service(&mut self, _: u16, _: Protocol) -> Option<String> {
            None
        }
    }

    /// Carries out a command with names, as the tool does.
    fn tell(table: &ServiceTable, line: &str) -> Result<(), String> {
        let split = shlex::split(line).unwrap();
        parse_mark(&split, &mut Known)?.iter().try_for_each(|each| edit(table, &words(each)))
    }

    #[test]
    fn what_iptables_takes_is_listed_as_iptables_lists_it() {
        let table = ServiceTable::new(1);
        for (given, shown) in [
            ("-p tcp --dport http", "-p tcp -m tcp --dport 80"),
            ("--dport http:https -p tcp", "-p tcp -m tcp --dport 80:443"),
            ("-p tcp -m multiport --dports http,https", "-p tcp -m multiport --dports 80,443"),
            ("-p udp --sport domain", "-p udp -m udp --sport 53"),
            ("-s 0/0 -p udp", "-p udp"),
            ("-s 0.0.0.0/0 -d 10.1/16", "-d 10.1.0.0/16"),
            ("-s 10/8 -d 12.0.0.9/255.255.255.0", "-s 10.0.0.0/8 -d 12.0.0.0/24"),
            ("-s 12.0.0.9/0.0.0.0 -d 12.0.0.9/255.255.255.255", "-d 12.0.0.9/32"),
            ("-d 2001:db8::9/64", "-d 2001:db8::/64"),
            ("-m comment --comment web", "-m comment --comment web"),
            ("-m comment --comment 'the web'", "-m comment --comment \"the web\""),
            (r#"-m comment --comment 'a "b" \ # c'"#, r#"-m comment --comment "a \"b\" \\ # c""#),
        ] {
            tell(&table, &format!("-A PREROUTING {given} -j MARK --set-mark 1")).unwrap();
            let shown = format!("PREROUTING {shown} -j MARK --set-xmark 0x1/0xffffffff");
            assert_eq!(list(&table), [format!("-A {shown}")]);
            tell(&table, &format!("-D {shown}")).unwrap();
            assert!(list(&table).is_empty());
        }
    }

    #[test]
    fn rules_have_numbers_and_each_address_of_a_host_has_a_rule() {
        let table = ServiceTable::new(1);
        let rules = || -> Vec<String> {
            let short = |line: String| line.split(' ').nth(3).unwrap().to_owned();
            list(&table).into_iter().map(short).collect()
        };
        tell(&table, "-P PREROUTING ACCEPT").unwrap();
        tell(&table, "-A PREROUTING -d www.example -j MARK --set-mark 1").unwrap();
        assert_eq!(rules(), ["12.0.0.1/32", "12.0.0.2/32"]);
        tell(&table, "-I PREROUTING 2 -d 12.0.0.3 -j MARK --set-mark 1").unwrap();
        tell(&table, "-I PREROUTING 4 -d 12.0.0.4 -j MARK --set-mark 1").unwrap();
        tell(&table, "-I PREROUTING -d 12.0.0.5 -j MARK --set-mark 1").unwrap();
        tell(&table, "-t mangle -D PREROUTING 2").unwrap();
        tell(&table, "-R PREROUTING 1 -d 12.0.0.6 -j MARK --set-mark 1").unwrap();
        assert_eq!(rules(), ["12.0.0.6/32", "12.0.0.3/32", "12.0.0.2/32", "12.0.0.4/32"]);
        let rest = "-d www.example -j MARK --set-mark 1";
        for (wrong, fault) in [
            ("-D PREROUTING 5".to_owned(), "Index of deletion too big."),
            ("-R PREROUTING 5 -d 12.0.0.1 -j MARK --set-mark 1".into(), "Index of replacement too"),
            ("-I PREROUTING 6 -d 12.0.0.1 -j MARK --set-mark 1".into(), "Index of insertion too"),
            ("-D PREROUTING 0".into(), "Invalid rule number `0'"),
            (format!("-D PREROUTING 1 {rest}"), "not both"),
            (format!("-R PREROUTING {rest}"), "number"),
            (format!("-R PREROUTING 1 {rest}"), "unique"),
            ("-P PREROUTING DROP".into(), "DROP"),
        ] {
            let error = tell(&table, &wrong).expect_err(&wrong);
            assert!(error.contains(fault), "{wrong}: {error}");
        }
        assert_eq!(rules().len(), 4);
    }

    #[test]
    fn listings_may_be_short_and_numbered() {
        for (line, numbered) in
            [("-nL", false), ("-nvL PREROUTING", false), ("-L --line-numbers -n", true)]
        {
            let words: Vec<_> = line.split(' ').collect();
            assert_eq!(parse_mark(&words, &mut Known), Ok(vec![MarkCommand::List { numbered }]));
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
            ("-A PREROUTING -d 12.0.0.0/255.0.255.0 -j MARK --set-mark 1", "255.0.255.0"),
            ("-A PREROUTING -d no.example -j MARK --set-mark 1", "no.example"),
            ("-A PREROUTING ! -s 10.0.0.1 -j MARK --set-mark 1", "not supported"),
            ("-A PREROUTING -p tcp --syn -j MARK --set-mark 1", "not supported"),
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
