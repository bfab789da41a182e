//! The words of iptables for what the director does in its stead.
//!
//! A rule pasted from a tutorial works as it is: `-t nat -A POSTROUTING -o ens36 -s
//! 192.168.200.0/24 -j SNAT --to-source 12.0.0.1`. Rules are kept, and listed, in the form of
//! `iptables -S`.

mod addresses;
mod command;
mod snat;

use addresses::any_of;
use command::Verb;
pub use command::{Command, Listing};
pub use snat::{Shown, SnatCommand, parse_snat};

use super::ipvsadm::names::Names;
use crate::engine::mark::Criterion;
use crate::packet::{Family, Prefix};

/// Reads a command about rules of one kind. If it names several addresses, there is a command for
/// each.
pub(super) fn parse<T: Target>(
    words: &[impl AsRef<str>],
    names: &mut dyn Names,
) -> Result<Vec<Command<T::Rule>>, String> {
    let mut words = words.iter().map(AsRef::as_ref);
    let words = (&mut words as &mut dyn Iterator<Item = &str>).peekable();
    let mut reader = Reader { words, is_inverted: false };
    let mut draft = Draft::<T>::default();
    while let Some(word) = reader.words.next() {
        draft.take(word, &mut reader)?;
    }
    if reader.is_inverted {
        return Err("nothing follows `!'".into());
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
    pub source: Option<Criterion<Prefix>>,
    pub destination: Option<Criterion<Prefix>>,
    /// The protocol's name or number.
    pub protocol: Option<Criterion<String>>,
}

impl Matches {
    /// Makes sure that the networks are of one family, and of that of `other`, if there is one.
    /// `0.0.0.0/0` is as good as none from there on.
    pub(super) fn check_family(&mut self, other: Option<Family>) -> Result<(), String> {
        let prefixes = [&self.source, &self.destination].into_iter().flatten();
        let families = prefixes.map(|asked| asked.wanted.addr().family()).chain(other);
        let families: Vec<_> = families.collect();
        if families.iter().any(|family| *family != families[0]) {
            return Err("the addresses of a rule are of one family".into());
        }
        let is_all = |asked: &Criterion<Prefix>| {
            asked.wanted.is_empty() && asked.wanted.addr().family() == Family::V4
        };
        for place in [&mut self.source, &mut self.destination] {
            match place {
                Some(asked) if is_all(asked) && asked.inverted => {
                    return Err("nothing has an address outside of 0.0.0.0/0".into());
                }
                Some(asked) if is_all(asked) => *place = None,
                _ => {}
            }
        }
        Ok(())
    }
}

pub(super) struct Reader<'a, 'b> {
    words: std::iter::Peekable<&'b mut dyn Iterator<Item = &'a str>>,
    /// Whether there was a `!`, until something takes it.
    is_inverted: bool,
}

impl<'a> Reader<'a, '_> {
    pub(super) fn value(&mut self, option: &str) -> Result<&'a str, String> {
        self.words.next().ok_or_else(|| format!("`{option}' needs a value"))
    }

    /// What an option asks for, or the opposite if there was a `!` before it.
    pub(super) fn criterion<T>(&mut self, wanted: T) -> Criterion<T> {
        Criterion { wanted, inverted: std::mem::take(&mut self.is_inverted) }
    }

    /// The value of an option before which there may be a `!`.
    pub(super) fn asked(&mut self, option: &str) -> Result<Criterion<String>, String> {
        let value = self.value(option)?.to_owned();
        Ok(self.criterion(value))
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

    /// Passes over a number, if one follows.
    fn skip_number(&mut self) {
        self.words.next_if(|word| word.parse::<u32>().is_ok());
    }
}

#[derive(Debug, Default)]
struct Draft<T> {
    verb: Option<(Verb, String)>,
    /// The number of the rule that the verb is about.
    number: Option<usize>,
    is_numbered: bool,
    source: Option<Criterion<String>>,
    destination: Option<Criterion<String>>,
    protocol: Option<Criterion<String>>,
    is_aimed: bool,
    /// The first word of a rule.
    rule: Option<String>,
    target: T,
}

impl<T: Target> Draft<T> {
    fn take(&mut self, word: &str, reader: &mut Reader) -> Result<(), String> {
        if word == "!" {
            return match std::mem::replace(&mut reader.is_inverted, true) {
                false => Ok(()),
                true => Err("multiple consecutive ! not allowed".into()),
            };
        }
        if !self.take_beside(word, reader)? {
            match Verb::named(word) {
                Some(verb) => self.set_verb(verb, word, reader)?,
                None => {
                    self.take_of_rule(word, reader)?;
                    self.rule.get_or_insert_with(|| word.to_owned());
                }
            }
        }
        if reader.is_inverted {
            Err(format!("there cannot be a `!' before `{word}'"))
        } else {
            Ok(())
        }
    }

    /// Takes a word that is neither a command nor part of a rule.
    fn take_beside(&mut self, word: &str, reader: &mut Reader) -> Result<bool, String> {
        let Place { task, table, .. } = T::PLACE;
        match word {
            "iptables" | "ip6tables" | "sudo" | "-4" | "--ipv4" | "-6" | "--ipv6" => {}
            "-n" | "--numeric" | "-v" | "--verbose" | "-x" | "--exact" => {}
            "-w" | "--wait" => reader.skip_number(),
            "--line-numbers" | "--line-number" => self.is_numbered = true,
            "-t" | "--table" => match reader.value(word)? {
                name if name == table => {}
                other => return Err(format!("{task} is done in table {table}, not `{other}'")),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_of_rule(&mut self, word: &str, reader: &mut Reader) -> Result<(), String> {
        let target = T::PLACE.target;
        match word {
            "-s" | "--source" | "--src" => set(&mut self.source, reader.asked(word)?, word),
            "-d" | "--destination" | "--dst" => {
                set(&mut self.destination, reader.asked(word)?, word)
            }
            "-p" | "--protocol" | "--proto" => set(&mut self.protocol, reader.asked(word)?, word),
            "-j" | "--jump" => match reader.value(word)? {
                _ if self.is_aimed => Err(format!("`{word}' is given twice")),
                name if name == target => {
                    self.is_aimed = true;
                    Ok(())
                }
                other => Err(format!("`-j {other}' is not known here, only `-j {target}'")),
            },
            other => match self.target.take(other, reader)? {
                true => Ok(()),
                false => Err(format!("`{other}' is not known here")),
            },
        }
    }

    fn set_verb(&mut self, verb: Verb, word: &str, reader: &mut Reader) -> Result<(), String> {
        if let Some((_, other)) = &self.verb {
            return Err(format!("Cannot use {word} with {other}"));
        }
        match verb {
            Verb::Chains => self.check_chain(word, reader)?,
            _ => reader.chain(word, &T::PLACE, verb.needs_chain())?,
        }
        match verb {
            Verb::Insert | Verb::Delete | Verb::Replace | Verb::List | Verb::Zero => {
                self.number = reader.rule_number()?;
            }
            Verb::Policy => match reader.value(word)? {
                "ACCEPT" => {}
                other => return Err(format!("the policy is ACCEPT, and cannot be `{other}'")),
            },
            Verb::Append | Verb::Check | Verb::Flush | Verb::Chains => {}
        }
        self.verb = Some((verb, word.to_owned()));
        Ok(())
    }

    /// Of commands about chains only the one makes sense that removes all of one's own.
    fn check_chain(&self, word: &str, reader: &mut Reader) -> Result<(), String> {
        let chain = T::PLACE.chain;
        let named = reader.words.next_if(|word| !word.starts_with('-')).is_some();
        match word {
            "-X" | "--delete-chain" if !named => Ok(()),
            _ => Err(format!("`{word}': there is the chain {chain} here and no other")),
        }
    }

    fn finish(self, names: &mut dyn Names) -> Result<Vec<Command<T::Rule>>, String> {
        let Some((verb, word)) = &self.verb else {
            return Err("nothing to do: give -A, -I, -D, -R, -C, -F or -S".into());
        };
        let whole = match (verb, self.number) {
            (Verb::Flush, _) => Some(Command::Flush),
            (Verb::Policy | Verb::Zero | Verb::Chains, _) => Some(Command::Idle),
            (Verb::List, only) => Some(Command::List(Listing { numbered: self.is_numbered, only })),
            (Verb::Delete, Some(number)) => Some(Command::DeleteAt(number)),
            (Verb::Replace, None) => return Err("`-R' needs the number of a rule".into()),
            (Verb::Append | Verb::Insert | Verb::Delete | Verb::Replace | Verb::Check, _) => None,
        };
        match (whole, &self.rule) {
            (Some(_), Some(of_rule)) if *verb == Verb::Delete => Err(format!(
                "Illegal option `{of_rule}' with this command: `{word}' takes a rule or its number, \
                 not both"
            )),
            (Some(_), Some(of_rule)) => {
                Err(format!("Illegal option `{of_rule}' with this command"))
            }
            (Some(command), None) => Ok(vec![command]),
            (None, _) if !self.is_aimed => Err(format!("the rule lacks `-j {}'", T::PLACE.target)),
            (None, _) => self.finish_rules(names),
        }
    }

    /// A command for each address that the rule names.
    fn finish_rules(self, names: &mut dyn Names) -> Result<Vec<Command<T::Rule>>, String> {
        let mut commands = Vec::new();
        let sources = any_of(self.source.as_ref(), names)?;
        let destinations = any_of(self.destination.as_ref(), names)?;
        let verb = self.verb.map(|(verb, _)| verb);
        for source in sources {
            for destination in &destinations {
                let (source, destination) = (source.clone(), destination.clone());
                let matches = Matches { source, destination, protocol: self.protocol.clone() };
                let rule = self.target.clone().finish(matches, names)?;
                commands.push(match (verb, self.number) {
                    (Some(Verb::Insert), number) => Command::Insert(rule, number.unwrap_or(1)),
                    (Some(Verb::Delete), _) => Command::Delete(rule),
                    (Some(Verb::Check), _) => Command::Check(rule),
                    (Some(Verb::Replace), Some(number)) => Command::Replace(rule, number),
                    _ => Command::Append(rule),
                });
            }
        }
        if verb == Some(Verb::Replace) && commands.len() > 1 {
            return Err("Replacement rule does not specify a unique address".into());
        }
        Ok(commands)
    }
}

pub(super) fn set<T>(place: &mut Option<T>, value: T, word: &str) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("`{word}' is given twice")),
    }
}
