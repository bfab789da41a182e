//! What a rule of marks may say beyond addresses, and what becomes of it.

use super::super::iptables::{Matches, Place, Reader, Target, set};
use super::super::ipvsadm::names::Names;
use crate::engine::MarkRule;
use crate::engine::mark::{ALL_PORTS, Criterion, FlagTest, MarkTest, Match, Ports, Side};
use crate::engine::service::Protocol;
use crate::packet::headers::{carries_ports, protocol};

#[derive(Clone, Debug, Default)]
pub(super) struct MarkTarget {
    input: Option<Criterion<String>>,
    modules: Vec<Module>,
    /// The value and the mask.
    mark: Option<(u32, u32)>,
}

impl Target for MarkTarget {
    type Rule = MarkRule;
    const PLACE: Place =
        Place { task: "marking", table: "mangle", chain: "PREROUTING", target: "MARK" };

    fn take(&mut self, word: &str, reader: &mut Reader) -> Result<bool, String> {
        match word {
            "-i" | "--in-interface" => set(&mut self.input, reader.asked(word)?, word)?,
            "-o" | "--out-interface" => return Err(format!("Can't use {word} with PREROUTING")),
            "-m" | "--match" => self.modules.push(Module::named(reader.value(word)?)?),
            "--set-mark" | "--set-xmark" | "--or-mark" | "--and-mark" | "--xor-mark" => {
                if self.mark.is_some() {
                    return Err(format!("`{word}': a rule sets the mark once"));
                }
                self.mark = Some(change(word, reader.value(word)?)?);
            }
            _ => return self.take_of_module(word, reader),
        }
        Ok(true)
    }

    fn finish(self, mut matches: Matches, names: &mut dyn Names) -> Result<MarkRule, String> {
        let (value, mask) = self.mark.ok_or("the rule lacks `--set-mark NUMBER'")?;
        matches.check_family(None)?;
        let protocol = matches.protocol.map(number).transpose()?.flatten();
        let with_ports = protocol.as_ref().filter(|asked| !asked.inverted);
        let mut finish = Finish { protocol: with_ports.map(|asked| asked.wanted), names };
        let modules = self.modules.into_iter().map(|module| finish.module(module));
        let any = |asked: &Criterion<String>| !asked.inverted && asked.wanted == "+";
        if let Some(asked) = &self.input
            && asked.wanted.is_empty()
        {
            return Err("Empty interface is likely to be undesired".into());
        }
        Ok(MarkRule {
            input: self.input.filter(|asked| !any(asked)),
            source: matches.source,
            destination: matches.destination,
            protocol,
            matches: modules.collect::<Result<_, _>>()?,
            value,
            mask,
        })
    }
}

impl MarkTarget {
    /// Gives a word to the module that knows it, of several ones to the last. One that is meant may go
    /// without `-m`.
    fn take_of_module(&mut self, word: &str, reader: &mut Reader) -> Result<bool, String> {
        let modules = || self.modules.iter().enumerate().rev();
        let exact = modules().find(|(_, module)| module.knows(word));
        // **Source** — getopt_long(3): `--dport` stands for `--dports` where nothing else has that name.
        let known = exact.or_else(|| modules().find(|(_, module)| module.takes_for_own(word)));
        let at = match known.map(|(at, _)| at) {
            Some(at) => at,
            None => {
                let Some(implied) = Module::IMPLIED.into_iter().find(|each| each.knows(word))
                else {
                    return Ok(false);
                };
                self.modules.push(implied);
                self.modules.len() - 1
            }
        };
        self.modules[at].take(word, reader)?;
        Ok(true)
    }
}

/// A module (`-m`) with what is asked of it, as it was given: what names of ports mean depends on the
/// protocol.
#[derive(Clone, Debug)]
enum Module {
    Transport {
        /// The protocol that was named with it, unless it goes without `-m`.
        name: Option<&'static str>,
        source: Option<Criterion<String>>,
        destination: Option<Criterion<String>>,
        flags: Option<Criterion<FlagTest>>,
    },
    Multiport(Option<(Side, Criterion<String>)>),
    Mark(Option<Criterion<MarkTest>>),
    Comment(Option<String>),
}

impl Module {
    /// Those that need no `-m`.
    const IMPLIED: [Self; 4] =
        [Self::transport(None), Self::Multiport(None), Self::Mark(None), Self::Comment(None)];

    const fn transport(name: Option<&'static str>) -> Self {
        Self::Transport { name, source: None, destination: None, flags: None }
    }

    fn named(name: &str) -> Result<Self, String> {
        Ok(match name {
            "tcp" => Self::transport(Some("tcp")),
            "udp" => Self::transport(Some("udp")),
            "sctp" => Self::transport(Some("sctp")),
            "multiport" => Self::Multiport(None),
            "mark" => Self::Mark(None),
            "comment" => Self::Comment(None),
            "state" | "conntrack" => {
                return Err(format!(
                    "`-m {name}' is not known here, and is not needed for new connections: marks are \
                     looked at only when a packet may begin one, and further packets go where \
                     the connection goes; leave it out"
                ));
            }
            other => return Err(format!("`-m {other}' is not known here")),
        })
    }

    fn knows(&self, word: &str) -> bool {
        match self {
            Self::Transport { name, .. } => match word {
                "--sport" | "--source-port" | "--dport" | "--destination-port" => true,
                "--syn" | "--tcp-flags" => name.is_none_or(|name| name == "tcp"),
                _ => false,
            },
            Self::Multiport(_) => side(word).is_some(),
            Self::Mark(_) => word == "--mark",
            Self::Comment(_) => word == "--comment",
        }
    }

    fn takes_for_own(&self, word: &str) -> bool {
        matches!(self, Self::Multiport(_)) && side(&format!("{word}s")).is_some()
    }

    fn take(&mut self, word: &str, reader: &mut Reader) -> Result<(), String> {
        match self {
            Self::Transport { source, destination, flags, .. } => match word {
                "--sport" | "--source-port" => set(source, reader.asked(word)?, word),
                "--dport" | "--destination-port" => set(destination, reader.asked(word)?, word),
                _ if flags.is_some() => Err("Only one of `--syn' or `--tcp-flags' allowed".into()),
                _ => {
                    let test = if word == "--syn" { SYN } else { flag_test(word, reader)? };
                    *flags = Some(reader.criterion(test));
                    Ok(())
                }
            },
            Self::Multiport(Some(_)) => Err(format!(
                "`{word}': `-m multiport' takes one list of ports; give `-m multiport' again before \
                 another one"
            )),
            Self::Multiport(ports) => {
                let name = side(word).or_else(|| side(&format!("{word}s")));
                let side = name.expect("words of other modules do not come here");
                *ports = Some((side, reader.asked(word)?));
                Ok(())
            }
            Self::Mark(test) => {
                let (value, mask) = masked(reader.value(word)?)?;
                set(test, reader.criterion(MarkTest { value, mask }), word)
            }
            Self::Comment(text) => set(text, comment(reader.value(word)?)?, word),
        }
    }
}

/// Which ports an option of `-m multiport` is about.
fn side(word: &str) -> Option<Side> {
    match word {
        "--sports" | "--source-ports" => Some(Side::Source),
        "--dports" | "--destination-ports" => Some(Side::Destination),
        "--ports" => Some(Side::Either),
        _ => None,
    }
}

/// Makes matches of modules, when the protocol is known.
struct Finish<'a> {
    protocol: Option<u8>,
    names: &'a mut dyn Names,
}

impl Finish<'_> {
    fn module(&mut self, module: Module) -> Result<Match, String> {
        match module {
            Module::Transport { name, source, destination, flags } => {
                self.check_protocol(name, flags.is_some())?;
                let source = source.map(|asked| self.range(asked)).transpose()?;
                let destination = destination.map(|asked| self.range(asked)).transpose()?;
                Ok(Match::Transport {
                    source: source.filter(|asked| *asked != ALL_PORTS.into()),
                    destination: destination.filter(|asked| *asked != ALL_PORTS.into()),
                    flags: flags.filter(|asked| *asked != FlagTest { mask: 0, set: 0 }.into()),
                })
            }
            Module::Multiport(asked) => {
                let (side, asked) = asked.ok_or("`-m multiport' needs `--dports' or the like")?;
                self.check_protocol(None, false)?;
                let Criterion { wanted, inverted } = asked;
                let wanted = many_ports(&wanted, self.protocol, self.names)?;
                Ok(Match::Multiport(side, Criterion { wanted, inverted }))
            }
            Module::Mark(asked) => Ok(Match::Mark(asked.ok_or("`-m mark' needs `--mark'")?)),
            Module::Comment(text) => {
                Ok(Match::Comment(text.ok_or("`-m comment' needs `--comment'")?))
            }
        }
    }

    fn range(&mut self, asked: Criterion<String>) -> Result<Criterion<Ports>, String> {
        let wanted = ports(&asked.wanted, self.protocol, self.names)?;
        Ok(Criterion { wanted, inverted: asked.inverted })
    }

    fn check_protocol(&self, module: Option<&str>, has_flags: bool) -> Result<(), String> {
        match self.protocol.filter(|number| carries_ports(*number)) {
            None if has_flags => Err("flags of TCP need `-p tcp'".into()),
            None => Err("ports need `-p tcp', `-p udp' or `-p sctp'".into()),
            Some(protocol::TCP) if module.is_none_or(|name| name == "tcp") => Ok(()),
            Some(_) if has_flags => Err("flags of TCP need `-p tcp'".into()),
            Some(number) => match module {
                Some(name) if protocol_name(number) != name => {
                    Err(format!("`-m {name}' needs `-p {name}'"))
                }
                _ => Ok(()),
            },
        }
    }
}

/// A protocol's number; `None` for all of them.
fn number(asked: Criterion<String>) -> Result<Option<Criterion<u8>>, String> {
    let Criterion { wanted: name, inverted } = asked;
    let name = name.to_lowercase();
    let known = PROTOCOLS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    let wanted = match (name.as_str(), known) {
        ("all" | "0", _) if inverted => return Err("rule would never match protocol".into()),
        ("all" | "0", _) => return Ok(None),
        (_, Some(number)) => number,
        _ => name.parse().map_err(|_| format!("`{name}' is not a protocol"))?,
    };
    Ok(Some(Criterion { wanted, inverted }))
}

/// What a protocol is called in rules.
pub(super) fn protocol_name(number: u8) -> String {
    let known = PROTOCOLS.iter().find(|(_, known)| *known == number);
    known.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// **Source** — names of iptables(8) and of Debian's protocols(5).
const PROTOCOLS: &[(&str, u8)] = &[
    ("tcp", protocol::TCP),
    ("udp", protocol::UDP),
    ("sctp", protocol::SCTP),
    ("icmp", protocol::ICMP),
    ("ipv6-icmp", protocol::ICMP6),
    ("icmpv6", protocol::ICMP6),
    ("gre", protocol::GRE),
    ("esp", protocol::ESP),
    ("ah", protocol::AH),
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

fn many_ports(text: &str, of: Option<u8>, names: &mut dyn Names) -> Result<Vec<Ports>, String> {
    let ranges =
        text.split(',').map(|part| ports(part, of, names)).collect::<Result<Vec<_>, _>>()?;
    // **Source** — multiport of iptables-extensions(8): up to 15, a range counts twice.
    let count: usize =
        ranges.iter().map(|range| if range.start() == range.end() { 1 } else { 2 }).sum();
    if count > 15 { Err(format!("`{text}' names more than 15 ports")) } else { Ok(ranges) }
}

/// A port, or a range with either end left out. Ports of a protocol may have names.
fn ports(text: &str, of: Option<u8>, names: &mut dyn Names) -> Result<Ports, String> {
    let of = match of {
        Some(protocol::TCP) => Some(Protocol::Tcp),
        Some(protocol::UDP) => Some(Protocol::Udp),
        Some(protocol::SCTP) => Some(Protocol::Sctp),
        _ => None,
    };
    let mut port = |text: &str| {
        let number = integer(text).map(u16::try_from).and_then(Result::ok);
        let found = number.or_else(|| names.port(text, of?));
        found.ok_or_else(|| format!("invalid port/service `{text}' specified"))
    };
    let (first, last) = match text.split_once(':') {
        None => {
            let port = port(text)?;
            (port, port)
        }
        Some((first, last)) => (
            if first.is_empty() { 0 } else { port(first)? },
            if last.is_empty() { u16::MAX } else { port(last)? },
        ),
    };
    if last < first { Err(format!("`{text}' ends before it begins")) } else { Ok(first..=last) }
}

/// **Source** — tcp of iptables-extensions(8): `--syn` is `--tcp-flags SYN,RST,ACK,FIN SYN`.
const SYN: FlagTest = FlagTest { mask: 0x17, set: 0x02 };

/// `MASK COMP`: the flags that are looked at, and those of them that are set.
fn flag_test(word: &str, reader: &mut Reader) -> Result<FlagTest, String> {
    let missing = |_| format!("{word} requires two args.");
    let mask = flags(reader.value(word).map_err(missing)?)?;
    let set = flags(reader.value(word).map_err(missing)?)?;
    Ok(FlagTest { mask, set })
}

fn flags(text: &str) -> Result<u8, String> {
    let mut flags = 0;
    for part in text.split(',') {
        let part = part.to_uppercase();
        let known = FLAGS.iter().find(|(name, _)| *name == part);
        flags |= match (part.as_str(), known) {
            ("ALL", _) => ALL_FLAGS,
            ("NONE", _) => 0,
            (_, Some((_, flag))) => *flag,
            _ => return Err(format!("Unknown TCP flag `{part}'")),
        };
    }
    Ok(flags)
}

/// In the order in which they are listed.
///
/// **Source** — RFC 9293 §3.1.
pub(super) const FLAGS: [(&str, u8); 6] =
    [("FIN", 0x01), ("SYN", 0x02), ("RST", 0x04), ("PSH", 0x08), ("ACK", 0x10), ("URG", 0x20)];
const ALL_FLAGS: u8 = 0x3f;

/// The value and the mask by which an option of the target changes the mark.
fn change(word: &str, text: &str) -> Result<(u32, u32), String> {
    let single = || integer(text).ok_or_else(|| format!("`{word} {text}': that is not a NUMBER"));
    Ok(match word {
        "--or-mark" => (single()?, single()?),
        "--and-mark" => (0, !single()?),
        "--xor-mark" => (single()?, 0),
        "--set-mark" => {
            let (value, mask) = masked(text)?;
            (value, value | mask)
        }
        _ => masked(text)?,
    })
}

/// `VALUE` or `VALUE/MASK`.
fn masked(text: &str) -> Result<(u32, u32), String> {
    let number =
        |part| integer(part).ok_or_else(|| format!("`{text}' is not NUMBER or NUMBER/MASK"));
    let (value, mask) =
        text.split_once('/').map_or((text, None), |(value, mask)| (value, Some(mask)));
    Ok((number(value)?, mask.map_or(Ok(u32::MAX), number)?))
}

/// A number: decimal, hexadecimal after `0x`, or octal after `0`.
fn integer(text: &str) -> Option<u32> {
    let digits = |text: &str, radix| {
        let is_digit = |letter: char| letter.is_digit(radix);
        if text.chars().all(is_digit) { u32::from_str_radix(text, radix).ok() } else { None }
    };
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hexadecimal) => digits(hexadecimal, 16),
        None if text.len() > 1 && text.starts_with('0') => digits(text, 8),
        None => digits(text, 10),
    }
}
