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

/// A command about rules of source NAT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnatCommand {
    /// `-A`: add a rule at the end.
    Append(SnatRule),
    /// `-I`: add a rule at the front.
    Insert(SnatRule),
    /// `-D`: remove a rule.
    Delete(SnatRule),
    /// `-F`: remove all rules.
    Flush,
    /// `-S` or `-L`: list the rules.
    List,
}

/// Reads a command from the words after `iptables`, or after `ulvs snat`.
///
/// **Errors** — a sentence that names the word at fault.
pub fn parse_snat(words: &[impl AsRef<str>]) -> Result<SnatCommand, String> {
    let mut reader = Reader { words: words.iter().map(AsRef::as_ref).peekable() };
    let mut draft = Draft::default();
    while let Some(word) = reader.words.next() {
        draft.take(word, &mut reader)?;
    }
    draft.finish()
}

struct Reader<I: Iterator> {
    words: std::iter::Peekable<I>,
}

impl<'a, I: Iterator<Item = &'a str>> Reader<I> {
    fn value(&mut self, option: &str) -> Result<&'a str, String> {
        self.words.next().ok_or_else(|| format!("`{option}' needs a value"))
    }

    /// The chain after a command; only `POSTROUTING` makes sense, and it may be left out of `-S`.
    fn chain(&mut self, option: &str, required: bool) -> Result<(), String> {
        match self.words.peek().copied() {
            Some("POSTROUTING") => {
                self.words.next();
                Ok(())
            }
            Some(word) if !word.starts_with('-') => {
                Err(format!("source NAT is done in chain POSTROUTING, not `{word}'"))
            }
            _ if required => Err(format!("`{option}' needs the chain POSTROUTING")),
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
struct Draft {
    verb: Option<Verb>,
    out: Option<String>,
    source: Option<Prefix>,
    destination: Option<Prefix>,
    protocol: Option<u8>,
    target: bool,
    to: Option<(Addr, RangeInclusive<u16>)>,
}

impl Draft {
    fn take<'a>(
        &mut self,
        word: &str,
        reader: &mut Reader<impl Iterator<Item = &'a str>>,
    ) -> Result<(), String> {
        match word {
            "iptables" | "sudo" => Ok(()),
            "-t" | "--table" => match reader.value(word)? {
                "nat" => Ok(()),
                other => Err(format!("source NAT is done in table nat, not `{other}'")),
            },
            "-A" | "--append" => self.set_verb(Verb::Append, word, reader),
            "-I" | "--insert" => self.set_verb(Verb::Insert, word, reader),
            "-D" | "--delete" => self.set_verb(Verb::Delete, word, reader),
            "-F" | "--flush" => self.set_verb(Verb::Flush, word, reader),
            "-S" | "--list-rules" | "-L" | "--list" => self.set_verb(Verb::List, word, reader),
            "-n" | "--numeric" | "-v" | "--verbose" => Ok(()),
            "-o" | "--out-interface" => set(&mut self.out, reader.value(word)?.into(), word),
            "-s" | "--source" | "--src" => {
                set(&mut self.source, prefix(reader.value(word)?)?, word)
            }
            "-d" | "--destination" | "--dst" => {
                set(&mut self.destination, prefix(reader.value(word)?)?, word)
            }
            "-p" | "--protocol" => set(&mut self.protocol, number(reader.value(word)?)?, word),
            "-j" | "--jump" => match reader.value(word)? {
                "SNAT" => {
                    self.target = true;
                    Ok(())
                }
                other => Err(format!("`-j {other}' is not known here, only `-j SNAT'")),
            },
            "--to-source" => set(&mut self.to, target(reader.value(word)?)?, word),
            "!" => Err("`!' (the opposite of a match) is not known here".into()),
            other => Err(format!("`{other}' is not known here")),
        }
    }

    fn set_verb<'a>(
        &mut self,
        verb: Verb,
        word: &str,
        reader: &mut Reader<impl Iterator<Item = &'a str>>,
    ) -> Result<(), String> {
        reader.chain(word, !matches!(verb, Verb::Flush | Verb::List))?;
        set(&mut self.verb, verb, word)
    }

    fn finish(self) -> Result<SnatCommand, String> {
        let verb = self.verb.ok_or("nothing to do: give -A, -I, -D, -F or -S")?;
        match verb {
            Verb::Flush => return Ok(SnatCommand::Flush),
            Verb::List => return Ok(SnatCommand::List),
            Verb::Append | Verb::Insert | Verb::Delete => {}
        }
        if !self.target {
            return Err("the rule lacks `-j SNAT'".into());
        }
        let (to, ports) = self.to.ok_or("the rule lacks `--to-source ADDRESS'")?;
        let families = [self.source, self.destination]
            .map(|prefix| prefix.is_none_or(|prefix| prefix.addr().family() == to.family()));
        if families.contains(&false) {
            return Err("the addresses of a rule are of one family".into());
        }
        let rule = SnatRule {
            out: self.out,
            source: self.source,
            destination: self.destination,
            protocol: self.protocol,
            to,
            ports,
        };
        Ok(match verb {
            Verb::Insert => SnatCommand::Insert(rule),
            Verb::Delete => SnatCommand::Delete(rule),
            _ => SnatCommand::Append(rule),
        })
    }
}

fn set<T>(place: &mut Option<T>, value: T, word: &str) -> Result<(), String> {
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
