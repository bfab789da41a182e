//! The words of iptables for what the director does in its stead.
//!
//! A rule pasted from a tutorial works as it is: `-t nat -A POSTROUTING -o ens36 -s
//! 192.168.200.0/24 -j SNAT --to-source 12.0.0.1`. Rules are kept, and listed, in the form of
//! `iptables -S`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use super::ipvsadm::names::{Names, NoNames};
use crate::engine::{DEFAULT_PORTS, SnatRule};
use crate::packet::headers::protocol;
use crate::packet::{Addr, Family, Prefix};

/// A command about rules of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<R> {
    /// `-A`: add a rule at the end.
    Append(R),
    /// `-I`: add a rule before the one of a number, which is 1 for the first.
    Insert(R, usize),
    /// `-D`: remove a rule.
    Delete(R),
    /// `-D` with a number: remove the rule of that number.
    DeleteAt(usize),
    /// `-R`: put a rule in place of the one of a number.
    Replace(R, usize),
    /// `-F`: remove all rules.
    Flush,
    /// `-P ... ACCEPT`: what no rule takes goes on, as it always does.
    Policy,
    /// `-S` or `-L`: list the rules, with `--line-numbers` each with its number.
    List {
        /// Whether the numbers are wanted.
        numbered: bool,
    },
}

/// A command about rules of source NAT.
pub type SnatCommand = Command<SnatRule>;

impl<R> Command<R> {
    /// Carries the command out on rules; `is_same` finds the one to delete.
    ///
    /// **Errors** — if there is none to delete.
    pub fn apply(self, rules: &mut Vec<R>, is_same: impl Fn(&R, &R) -> bool) -> Result<(), String> {
        match self {
            Self::Append(rule) => rules.push(rule),
            Self::Insert(rule, number) => {
                let at = number - 1;
                if at > rules.len() {
                    return Err("Index of insertion too big.".into());
                }
                rules.insert(at, rule);
            }
            Self::DeleteAt(number) => {
                if number > rules.len() {
                    return Err("Index of deletion too big.".into());
                }
                rules.remove(number - 1);
            }
            Self::Replace(rule, number) => {
                *rules.get_mut(number - 1).ok_or("Index of replacement too big.")? = rule;
            }
            Self::Delete(rule) => {
                let at = rules.iter().position(|known| is_same(known, &rule));
                rules.remove(at.ok_or("there is no such rule; `-S' lists the rules")?);
            }
            Self::Flush => rules.clear(),
            Self::Policy | Self::List { .. } => {}
        }
        Ok(())
    }
}

/// Reads a command from the words after `iptables`, or after `ulvs snat`.
///
/// **Errors** — a sentence that names the word at fault.
pub fn parse_snat(words: &[impl AsRef<str>]) -> Result<SnatCommand, String> {
    let mut commands = parse::<SnatTarget>(words, &mut NoNames)?;
    match (commands.pop(), commands.is_empty()) {
        (Some(command), true) => Ok(command),
        _ => Err("a rule of source NAT names one network each with `-s' and `-d'".into()),
    }
}

/// Reads a command about rules of one kind. If it names several addresses, there is a command for
/// each.
pub(super) fn parse<T: Target>(
    words: &[impl AsRef<str>],
    names: &mut dyn Names,
) -> Result<Vec<Command<T::Rule>>, String> {
    let mut words = words.iter().map(AsRef::as_ref);
    let mut reader = Reader { words: (&mut words as &mut dyn Iterator<Item = &str>).peekable() };
    let mut draft = Draft::<T>::default();
    while let Some(word) = reader.words.next() {
        draft.take(word, &mut reader)?;
    }
    draft.finish(names)
}

/// The target of a kind of rules (`-j`), with the words that are its own.
pub(super) trait Target: Clone + Default {
    /// What a rule becomes.
    type Rule;
    /// What it does, and where.
    const PLACE: Place;

    /// Takes a word of its own; `false` if it is none.
    fn take(&mut self, word: &str, reader: &mut Reader) -> Result<bool, String>;

    /// Puts a rule together.
    fn finish(self, matches: Matches, names: &mut dyn Names) -> Result<Self::Rule, String>;
}

/// Where a kind of rules is kept.
pub(super) struct Place {
    /// What they do, to begin a sentence with.
    pub task: &'static str,
    /// The table.
    pub table: &'static str,
    /// The chain.
    pub chain: &'static str,
    /// The target.
    pub target: &'static str,
}

/// What rules of any kind may ask of a packet.
#[derive(Debug, Default)]
pub(super) struct Matches {
    pub source: Option<Prefix>,
    pub destination: Option<Prefix>,
    /// The protocol's name or number.
    pub protocol: Option<String>,
}

impl Matches {
    /// Makes sure that the networks are of one family, and of that of `other`, if there is one.
    /// `0.0.0.0/0` is as good as none from there on.
    pub(super) fn check_family(&mut self, other: Option<Family>) -> Result<(), String> {
        let prefixes = [self.source, self.destination].into_iter().flatten();
        let mut families = prefixes.map(|prefix| prefix.addr().family()).chain(other);
        let first = families.next();
        if !families.all(|family| Some(family) == first) {
            return Err("the addresses of a rule are of one family".into());
        }
        let is_some = |prefix: &Prefix| !prefix.is_empty() || prefix.addr().family() == Family::V6;
        self.source = self.source.filter(is_some);
        self.destination = self.destination.filter(is_some);
        Ok(())
    }
}

pub(super) struct Reader<'a, 'b> {
    words: std::iter::Peekable<&'b mut dyn Iterator<Item = &'a str>>,
}

impl<'a> Reader<'a, '_> {
    pub(super) fn value(&mut self, option: &str) -> Result<&'a str, String> {
        self.words.next().ok_or_else(|| format!("`{option}' needs a value"))
    }

    /// The chain after a command; only one makes sense, and it may be left out of `-S`.
    fn chain(&mut self, option: &str, place: &Place, required: bool) -> Result<(), String> {
        let Place { task, chain, .. } = place;
        match self.words.peek().copied() {
            Some(word) if word == *chain => {
                self.words.next();
                Ok(())
            }
            Some(word) if !word.starts_with('-') => {
                Err(format!("{task} is done in chain {chain}, not `{word}'"))
            }
            _ if required => Err(format!("`{option}' needs the chain {chain}")),
            _ => Ok(()),
        }
    }

    /// The number of a rule after a chain, if there is one.
    fn rule_number(&mut self) -> Result<Option<usize>, String> {
        let Some(word) = self.words.next_if(|word| !word.starts_with(['-', '!'])) else {
            return Ok(None);
        };
        match word.parse() {
            Ok(number) if number > 0 => Ok(Some(number)),
            _ => Err(format!("Invalid rule number `{word}'")),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Append,
    Insert,
    Delete,
    Replace,
    Flush,
    Policy,
    List,
}

#[derive(Debug, Default)]
struct Draft<T> {
    verb: Option<Verb>,
    /// The number of the rule that the verb is about.
    number: Option<usize>,
    is_numbered: bool,
    source: Option<String>,
    destination: Option<String>,
    protocol: Option<String>,
    is_aimed: bool,
    /// Whether there are words of a rule.
    has_rule: bool,
    target: T,
}

impl<T: Target> Draft<T> {
    fn take(&mut self, word: &str, reader: &mut Reader) -> Result<(), String> {
        let Place { task, table, target, .. } = T::PLACE;
        let is_of_rule = |word: &str| {
            !["-t", "--table", "-n", "--numeric", "-v", "--verbose", "-x", "--exact"]
                .contains(&word)
        };
        if self.verb.is_some() && is_of_rule(word) {
            self.has_rule = true;
        }
        match word {
            "iptables" | "ip6tables" | "sudo" => Ok(()),
            "-t" | "--table" => match reader.value(word)? {
                name if name == table => Ok(()),
                other => Err(format!("{task} is done in table {table}, not `{other}'")),
            },
            "-A" | "--append" => self.set_verb(Verb::Append, word, reader),
            "-I" | "--insert" => self.set_verb(Verb::Insert, word, reader),
            "-R" | "--replace" => self.set_verb(Verb::Replace, word, reader),
            "-P" | "--policy" => self.set_verb(Verb::Policy, word, reader),
            "-D" | "--delete" => self.set_verb(Verb::Delete, word, reader),
            "-F" | "--flush" => self.set_verb(Verb::Flush, word, reader),
            "-S" | "--list-rules" | "-L" | "--list" => self.set_verb(Verb::List, word, reader),
            "-n" | "--numeric" | "-v" | "--verbose" | "-x" | "--exact" => Ok(()),
            "--line-numbers" | "--line-number" => {
                self.is_numbered = true;
                Ok(())
            }
            "-s" | "--source" | "--src" => set(&mut self.source, reader.value(word)?.into(), word),
            "-d" | "--destination" | "--dst" => {
                set(&mut self.destination, reader.value(word)?.into(), word)
            }
            "-p" | "--protocol" => set(&mut self.protocol, reader.value(word)?.into(), word),
            "-j" | "--jump" => match reader.value(word)? {
                name if name == target => {
                    self.is_aimed = true;
                    Ok(())
                }
                other => Err(format!("`-j {other}' is not known here, only `-j {target}'")),
            },
            "!" => Err("`!' (the opposite of a match) is not supported here".into()),
            "--syn" | "--tcp-flags" => {
                Err(format!("`{word}' (flags of TCP) is not supported here"))
            }
            listing if is_short_listing(listing) => self.set_verb(Verb::List, word, reader),
            other => match self.target.take(other, reader)? {
                true => Ok(()),
                false => Err(format!("`{other}' is not known here")),
            },
        }
    }

    fn set_verb(&mut self, verb: Verb, word: &str, reader: &mut Reader) -> Result<(), String> {
        reader.chain(word, &T::PLACE, !matches!(verb, Verb::Flush | Verb::List))?;
        match verb {
            Verb::Insert | Verb::Delete | Verb::Replace => self.number = reader.rule_number()?,
            Verb::Policy => match reader.value(word)? {
                "ACCEPT" => {}
                other => return Err(format!("the policy is ACCEPT, and cannot be `{other}'")),
            },
            Verb::Append | Verb::Flush | Verb::List => {}
        }
        set(&mut self.verb, verb, word)
    }

    fn finish(self, names: &mut dyn Names) -> Result<Vec<Command<T::Rule>>, String> {
        let verb = self.verb.ok_or("nothing to do: give -A, -I, -D, -R, -F or -S")?;
        match (verb, self.number) {
            (Verb::Flush, _) => return Ok(vec![Command::Flush]),
            (Verb::Policy, _) => return Ok(vec![Command::Policy]),
            (Verb::List, _) => return Ok(vec![Command::List { numbered: self.is_numbered }]),
            (Verb::Delete, Some(_)) if self.has_rule => {
                return Err("`-D' takes a rule or its number, not both".into());
            }
            (Verb::Delete, Some(number)) => return Ok(vec![Command::DeleteAt(number)]),
            (Verb::Replace, None) => return Err("`-R' needs the number of a rule".into()),
            (Verb::Append | Verb::Insert | Verb::Delete | Verb::Replace, _) => {}
        }
        if !self.is_aimed {
            return Err(format!("the rule lacks `-j {}'", T::PLACE.target));
        }
        let mut commands = Vec::new();
        let sources = any_of(self.source.as_deref(), names)?;
        let destinations = any_of(self.destination.as_deref(), names)?;
        for source in sources {
            for destination in &destinations {
                let matches =
                    Matches { source, destination: *destination, protocol: self.protocol.clone() };
                let rule = self.target.clone().finish(matches, names)?;
                commands.push(match (verb, self.number) {
                    (Verb::Insert, number) => Command::Insert(rule, number.unwrap_or(1)),
                    (Verb::Delete, _) => Command::Delete(rule),
                    (Verb::Replace, Some(number)) => Command::Replace(rule, number),
                    _ => Command::Append(rule),
                });
            }
        }
        if verb == Verb::Replace && commands.len() > 1 {
            return Err("Replacement rule does not specify a unique address".into());
        }
        Ok(commands)
    }
}

/// Whether a word is `-L` or `-S` with other letters before it, as in `-nvL`.
fn is_short_listing(word: &str) -> bool {
    let letters = word.strip_prefix('-').and_then(|word| word.strip_suffix(['L', 'S']));
    letters.is_some_and(|letters| letters.chars().all(|letter| "nvx".contains(letter)))
}

#[derive(Clone, Debug, Default)]
struct SnatTarget {
    out: Option<String>,
    to: Option<(Addr, RangeInclusive<u16>)>,
}

impl Target for SnatTarget {
    type Rule = SnatRule;
    const PLACE: Place =
        Place { task: "source NAT", table: "nat", chain: "POSTROUTING", target: "SNAT" };

    fn take(&mut self, word: &str, reader: &mut Reader) -> Result<bool, String> {
        match word {
            "-o" | "--out-interface" => set(&mut self.out, reader.value(word)?.into(), word)?,
            "--to-source" => set(&mut self.to, target(reader.value(word)?)?, word)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn finish(self, mut matches: Matches, _: &mut dyn Names) -> Result<SnatRule, String> {
        let (to, ports) = self.to.ok_or("the rule lacks `--to-source ADDRESS'")?;
        matches.check_family(Some(to.family()))?;
        let Matches { source, destination, protocol } = matches;
        let protocol = protocol.as_deref().map(number).transpose()?;
        Ok(SnatRule { out: self.out, source, destination, protocol, to, ports })
    }
}

pub(super) fn set<T>(place: &mut Option<T>, value: T, word: &str) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("`{word}' is given twice")),
    }
}

/// The networks that an option names; one that is any if it is not given.
fn any_of(text: Option<&str>, names: &mut dyn Names) -> Result<Vec<Option<Prefix>>, String> {
    let Some(text) = text else { return Ok(vec![None]) };
    let mut found = Vec::new();
    for part in text.split(',') {
        found.extend(prefixes(part, names)?.into_iter().map(Some));
    }
    Ok(found)
}

/// The networks that `ADDRESS`, `ADDRESS/BITS`, `ADDRESS/MASK` or the same with the name of a host
/// stand for. An IPv4 address may lack its last numbers, which are then zero.
fn prefixes(text: &str, names: &mut dyn Names) -> Result<Vec<Prefix>, String> {
    let (host, mask) = text.split_once('/').map_or((text, None), |(host, mask)| (host, Some(mask)));
    let addrs = match host.parse::<IpAddr>() {
        Ok(addr) => vec![addr],
        Err(_) => match short_address(host) {
            Some(addr) => vec![addr.into()],
            None => names.addresses(host).into_iter().map(IpAddr::from).collect(),
        },
    };
    if addrs.is_empty() {
        return Err(format!("host/network `{host}' not found"));
    }
    let mut found = Vec::new();
    for addr in addrs {
        let prefix = network(addr, mask)?;
        // Several addresses of a host may be of one network.
        if !found.contains(&prefix) {
            found.push(prefix);
        }
    }
    Ok(found)
}

/// `10`, `10.1` or `10.1.2`.
fn short_address(text: &str) -> Option<Ipv4Addr> {
    let parts = text.split('.').map(str::parse).collect::<Result<Vec<u8>, _>>().ok()?;
    let mut octets = [0; 4];
    octets.get_mut(..parts.len())?.copy_from_slice(&parts);
    Some(octets.into())
}

/// A network without its host bits, as iptables lists it.
fn network(addr: IpAddr, mask: Option<&str>) -> Result<Prefix, String> {
    let whole = if addr.is_ipv4() { 32 } else { 128 };
    let len = match mask {
        None => whole,
        Some(mask) => match mask.parse::<Ipv4Addr>() {
            Ok(dotted) if addr.is_ipv4() => {
                let bits = dotted.to_bits();
                if bits.leading_ones() + bits.trailing_zeros() < 32 {
                    return Err(format!("`{mask}' is not a mask: ones follow a zero"));
                }
                bits.leading_ones()
            }
            _ => mask.parse().map_err(|_| format!("`{mask}' is not a prefix length"))?,
        },
    };
    if len > whole {
        return Err(format!("`/{len}' is longer than /{whole}"));
    }
    let addr = match addr {
        IpAddr::V4(addr) => {
            Addr::v4(addr.to_bits() & u32::MAX.checked_shl(whole - len).unwrap_or(0))
        }
        IpAddr::V6(addr) => {
            Addr::v6(addr.to_bits() & u128::MAX.checked_shl(whole - len).unwrap_or(0))
        }
    };
    Ok(Prefix::new(addr, len as u8).expect("the length was looked at"))
}

fn number(name: &str) -> Result<u8, String> {
    match name {
        "tcp" | "6" => Ok(protocol::TCP),
        "udp" | "17" => Ok(protocol::UDP),
        "icmp" | "1" => Ok(protocol::ICMP),
        other => Err(format!("protocol `{other}' cannot be translated, only tcp, udp and icmp")),
    }
}

fn target(text: &str) -> Result<(Addr, RangeInclusive<u16>), String> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok((addr.into(), DEFAULT_PORTS));
    }
    let wrong = || format!("`{text}' is not ADDRESS or ADDRESS:PORT-PORT");
    let (addr, ports) = text.rsplit_once(':').ok_or_else(wrong)?;
    let addr = addr.trim_matches(['[', ']']).parse::<IpAddr>().map_err(|_| wrong())?;
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last): (u16, u16) =
        (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    if first == 0 || last < first {
        return Err(wrong());
    }
    Ok((addr.into(), first..=last))
}

/// A rule in the form of `iptables -S`.
pub struct Shown<'a>(pub &'a SnatRule);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SnatRule { out, source, destination, protocol, to, ports } = self.0;
        f.write_str("-A POSTROUTING")?;
        if let Some(source) = source {
            write!(f, " -s {source}")?;
        }
        if let Some(destination) = destination {
            write!(f, " -d {destination}")?;
        }
        if let Some(out) = out {
            write!(f, " -o {out}")?;
        }
        match protocol {
            Some(protocol::TCP) => f.write_str(" -p tcp")?,
            Some(protocol::UDP) => f.write_str(" -p udp")?,
            Some(_) => f.write_str(" -p icmp")?,
            None => {}
        }
        write!(f, " -j SNAT --to-source ")?;
        match (ports == &DEFAULT_PORTS, to.family()) {
            (true, _) => write!(f, "{to}"),
            (false, Family::V4) => write!(f, "{to}:{}-{}", ports.start(), ports.end()),
            (false, Family::V6) => write!(f, "[{to}]:{}-{}", ports.start(), ports.end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<SnatCommand, String> {
        parse_snat(&line.split_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn the_rule_of_the_tutorials_is_taken_and_shown_as_iptables_shows_it() {
        let line = "iptables -t nat -A POSTROUTING -o ens36 -s 192.168.200.9/24 -j SNAT \
                    --to-source 12.0.0.1";
        let Ok(SnatCommand::Append(rule)) = parse(line) else { panic!("not taken") };
        let shown = Shown(&rule).to_string();
        let expected = "-A POSTROUTING -s 192.168.200.0/24 -o ens36 -j SNAT --to-source 12.0.0.1";
        assert_eq!(shown, expected);
        assert_eq!(parse(&shown), Ok(SnatCommand::Append(rule)));
    }

    #[test]
    fn ports_protocols_and_other_commands_are_taken() {
        let line = "-D POSTROUTING -p udp -d 12.0.0.12 -j SNAT --to-source 12.0.0.1:2000-2009";
        let Ok(SnatCommand::Delete(rule)) = parse(line) else { panic!("not taken") };
        assert_eq!((rule.protocol, rule.ports), (Some(17), 2000..=2009));
        assert_eq!(parse("-t nat -F"), Ok(SnatCommand::Flush));
        assert_eq!(parse("-t nat -S POSTROUTING"), Ok(SnatCommand::List { numbered: false }));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, fault) in [
            ("", "-A"),
            ("-A POSTROUTING -j MASQUERADE", "MASQUERADE"),
            ("-t filter -A POSTROUTING", "filter"),
            ("-A PREROUTING -j SNAT", "PREROUTING"),
            ("-A POSTROUTING -j SNAT", "--to-source"),
            ("-A POSTROUTING --to-source 12.0.0.1", "-j SNAT"),
            ("-A POSTROUTING -j SNAT --to-source 12.0.0.1:9-3", "12.0.0.1:9-3"),
            ("-A POSTROUTING -j SNAT --to-source", "--to-source"),
            ("-A POSTROUTING -s 192.168.200.0/33 -j SNAT --to-source 12.0.0.1", "/33"),
            ("-A POSTROUTING -s ::/0 -j SNAT --to-source 12.0.0.1", "family"),
            ("-A POSTROUTING -s 1.1.1.1 -s 1.1.1.1 -j SNAT --to-source 12.0.0.1", "twice"),
            ("-A POSTROUTING -p esp -j SNAT --to-source 12.0.0.1", "esp"),
            ("-A POSTROUTING ! -o lo -j SNAT --to-source 12.0.0.1", "!"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(fault), "{line}: {error}");
        }
    }
}
