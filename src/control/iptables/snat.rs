//! Source NAT in the words of iptables: `-t nat -A POSTROUTING ... -j SNAT --to-source ADDRESS`.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::{Command, Matches, Place, Reader, Target, parse, set};
use crate::control::ipvsadm::names::{Names, NoNames};
use crate::engine::mark::Criterion;
use crate::engine::{DEFAULT_PORTS, SnatRule};
use crate::packet::headers::protocol;
use crate::packet::{Addr, Family};

/// A command about rules of source NAT.
pub type SnatCommand = Command<SnatRule>;

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
        let protocol = upright(protocol)?.as_deref().map(number).transpose()?;
        let (source, destination) = (upright(source)?, upright(destination)?);
        Ok(SnatRule { out: self.out, source, destination, protocol, to, ports })
    }
}

/// What is asked for, if it is not inverted.
fn upright<T>(asked: Option<Criterion<T>>) -> Result<Option<T>, String> {
    match asked {
        Some(Criterion { inverted: true, .. }) => {
            Err("`!' (the opposite of a match) is not supported in rules of source NAT".into())
        }
        other => Ok(other.map(|asked| asked.wanted)),
    }
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
    use crate::control::iptables::Listing;

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
        assert_eq!(parse("-t nat -S POSTROUTING"), Ok(SnatCommand::List(Listing::default())));
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
            ("-A POSTROUTING ! -d 10.0.0.0/8 -j SNAT --to-source 12.0.0.1", "not supported"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(fault), "{line}: {error}");
        }
    }
}
