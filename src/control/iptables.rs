//! The words of iptables for what the director does in its stead.
//!
//! A rule pasted from a tutorial works as it is: `-t nat -A POSTROUTING -o ens36 -s
//! 192.168.200.0/24 -j SNAT --to-source 12.0.0.1`. Rules are kept, and listed, in the form of
//! `iptables -S`.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::engine::{DEFAULT_PORTS, SnatRule};
use crate::packet::headers::protocol;
use crate::packet::{Addr, Family, Prefix};

/// A command about rules of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<R> {
    /// `-A`: add a rule at the end.
    Append(R),
    /// `-I`: add a rule at the front.
    Insert(R),
    /// `-D`: remove a rule.
    Delete(R),
    /// `-F`: remove all rules.
    Flush,
    /// `-S` or `-L`: list the rules.
    List,
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
            Self::Insert(rule) => rules.insert(0, rule),
            Self::Delete(rule) => {
                let at = rules.iter().position(|known| is_same(known, &rule));
                rules.remove(at.ok_or("there is no such rule; `-S' lists the rules")?);
            }
            Self::Flush => rules.clear(),
            Self::List => {}
        }
        Ok(())
    }
}

/// Reads a command from the words after `iptables`, or after `ulvs snat`.
///
/// **Errors** — a sentence that names the word at fault.
pub fn parse_snat(words: &[impl AsRef<str>]) -> Result<SnatCommand, String> {
    parse::<SnatTarget>(words)
}

/// Reads a command about rules of one kind.
pub(super) fn parse<T: Target>(words: &[impl AsRef<str>]) -> Result<Command<T::Rule>, String> {
    let mut words = words.iter().map(AsRef::as_ref);
    let mut reader = Reader { words: (&mut words as &mut dyn Iterator<Item = &str>).peekable() };
    let mut draft = Draft::<T>::default();
    while let Some(word) = reader.words.next() {
        draft.take(word, &mut reader)?;
    }
    draft.finish()
}

/// The target of a kind of rules (`-j`), with the words that are its own.
pub(super) trait Target: Default {
    /// What a rule becomes.
    type Rule;
    /// What it does, and where.
    const PLACE: Place;

    /// Takes a word of its own; `false` if it is none.
    fn take(&mut self, word: &str, reader: &mut Reader) -> Result<bool, String>;

    /// Puts a rule together.
    fn finish(self, matches: Matches) -> Result<Self::Rule, String>;
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
    /// Whether the networks are of one family, and of that of `other`, if there is one.
    pub(super) fn check_family(&self, other: Option<Family>) -> Result<(), String> {
        let prefixes = [self.source, self.destination].into_iter().flatten();
        let mut families = prefixes.map(|prefix| prefix.addr().family()).chain(other);
        let first = families.next();
        match families.all(|family| Some(family) == first) {
            true => Ok(()),
            false => Err("the addresses of a rule are of one family".into()),
        }
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Append,
    Insert,
    Delete,
    Flush,
    List,
}

#[derive(Debug, Default)]
struct Draft<T> {
    verb: Option<Verb>,
    matches: Matches,
    is_aimed: bool,
    target: T,
}

impl<T: Target> Draft<T> {
    fn take(&mut self, word: &str, reader: &mut Reader) -> Result<(), String> {
        let Place { task, table, target, .. } = T::PLACE;
        let Matches { source, destination, protocol } = &mut self.matches;
        match word {
            "iptables" | "ip6tables" | "sudo" => Ok(()),
            "-t" | "--table" => match reader.value(word)? {
                name if name == table => Ok(()),
                other => Err(format!("{task} is done in table {table}, not `{other}'")),
            },
            "-A" | "--append" => self.set_verb(Verb::Append, word, reader),
            "-I" | "--insert" => self.set_verb(Verb::Insert, word, reader),
            "-D" | "--delete" => self.set_verb(Verb::Delete, word, reader),
            "-F" | "--flush" => self.set_verb(Verb::Flush, word, reader),
            "-S" | "--list-rules" | "-L" | "--list" => self.set_verb(Verb::List, word, reader),
            "-n" | "--numeric" | "-v" | "--verbose" => Ok(()),
            "-s" | "--source" | "--src" => set(source, prefix(reader.value(word)?)?, word),
            "-d" | "--destination" | "--dst" => {
                set(destination, prefix(reader.value(word)?)?, word)
            }
            "-p" | "--protocol" => set(protocol, reader.value(word)?.into(), word),
            "-j" | "--jump" => match reader.value(word)? {
                name if name == target => {
                    self.is_aimed = true;
                    Ok(())
                }
                other => Err(format!("`-j {other}' is not known here, only `-j {target}'")),
            },
            "!" => Err("`!' (the opposite of a match) is not known here".into()),
            other => match self.target.take(other, reader)? {
                true => Ok(()),
                false => Err(format!("`{other}' is not known here")),
            },
        }
    }

    fn set_verb(&mut self, verb: Verb, word: &str, reader: &mut Reader) -> Result<(), String> {
        reader.chain(word, &T::PLACE, !matches!(verb, Verb::Flush | Verb::List))?;
        set(&mut self.verb, verb, word)
    }

    fn finish(self) -> Result<Command<T::Rule>, String> {
        let verb = self.verb.ok_or("nothing to do: give -A, -I, -D, -F or -S")?;
        match verb {
            Verb::Flush => return Ok(Command::Flush),
            Verb::List => return Ok(Command::List),
            Verb::Append | Verb::Insert | Verb::Delete => {}
        }
        if !self.is_aimed {
            return Err(format!("the rule lacks `-j {}'", T::PLACE.target));
        }
        let rule = self.target.finish(self.matches)?;
        Ok(match verb {
            Verb::Insert => Command::Insert(rule),
            Verb::Delete => Command::Delete(rule),
            _ => Command::Append(rule),
        })
    }
}

#[derive(Debug, Default)]
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

    fn finish(self, matches: Matches) -> Result<SnatRule, String> {
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

fn prefix(text: &str) -> Result<Prefix, String> {
    let prefix: Prefix = text.parse()?;
    // iptables lists networks without their host bits.
    let shift = match prefix.addr().family() {
        Family::V4 => 32 - u32::from(prefix.len()),
        Family::V6 => 128 - u32::from(prefix.len()),
    };
    let bits = prefix.addr().bits().checked_shr(shift).and_then(|bits| bits.checked_shl(shift));
    let addr = match prefix.addr().family() {
        Family::V4 => Addr::v4(bits.unwrap_or(0) as u32),
        Family::V6 => Addr::v6(bits.unwrap_or(0)),
    };
    Prefix::new(addr, prefix.len()).ok_or_else(|| format!("`{text}' is not a network"))
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
        assert_eq!(parse("-t nat -S POSTROUTING"), Ok(SnatCommand::List));
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
