//! What a saved table holds beyond ipvsadm's own commands: settings, marks and source NAT, each as
//! the command that makes it.
//!
//! | line | as |
//! |---|---|
//! | `sysctl net.ipv4.vs.NAME=VALUE` | `ulvs sysctl` |
//! | `mark -A PREROUTING ... -j MARK ...` | `ulvs mark` |
//! | `snat -A POSTROUTING ... -j SNAT ...` | `ulvs snat` |

use nix::errno::Errno;

use super::listing::put;
use super::names::NoNames;
use super::{Ran, Session};
use crate::control::client::{Failure, Remark};
use crate::control::iptables::{Command, Shown, parse_snat};
use crate::control::marks::{self, parse_mark};
use crate::engine::settings::Setting;
use crate::engine::{MarkRule, Settings, SnatRule};

/// A command that stands in a saved table beside those of ipvsadm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Sysctl,
    Mark,
    Snat,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Sysctl => "sysctl",
            Self::Mark => "mark",
            Self::Snat => "snat",
        }
    }
}

/// The tool that a line begins with, and the words that follow it.
pub(super) fn tool(words: &[String]) -> Option<(Tool, &[String])> {
    let words = words.strip_prefix(&["ulvs".to_owned()][..]).unwrap_or(words);
    let (first, rest) = words.split_first()?;
    let tools = [Tool::Sysctl, Tool::Mark, Tool::Snat];
    tools.into_iter().find(|tool| tool.name() == first).map(|tool| (tool, rest))
}

impl Session<'_, '_> {
    /// Appends what is set otherwise than by default, and the rules.
    pub(super) fn save_beyond(&mut self, text: &mut String) -> Result<(), Failure> {
        let defaults = Settings::default();
        for setting in self.director.settings()? {
            let default = Setting::named(&setting.name).map(|known| known.show(&defaults));
            if default.as_deref() != Some(setting.value.as_str()) {
                let value = setting.value.replace('\t', " ");
                put(text, format_args!("sysctl {PREFIX}{}={value}\n", setting.name));
            }
        }
        for rule in self.director.mark_rules()? {
            put(text, format_args!("mark {rule}\n"));
        }
        for rule in self.director.snat_rules()? {
            put(text, format_args!("snat {rule}\n"));
        }
        Ok(())
    }

    /// Carries out a line of a saved table that is none of ipvsadm's.
    pub(super) fn restore_beyond(&mut self, tool: Tool, words: &[String]) -> Ran {
        let result = match tool {
            Tool::Sysctl => self.set(&words.join(" ")),
            Tool::Mark => self.edit_marks(words),
            Tool::Snat => self.edit_snat(words),
        };
        match result {
            Ok(remark) => {
                self.hint(remark.as_deref())?;
                Ok(0)
            }
            Err(Failure::Refused { errno, hint }) => {
                let why = hint.unwrap_or_else(|| errno.desc().into());
                writeln!(self.console.stderr, "{}: {why}", tool.name())?;
                Ok(255)
            }
            Err(Failure::Transport(error)) => self.explain_silence(&error),
        }
    }

    fn edit_marks(&mut self, words: &[String]) -> Result<Remark, Failure> {
        let mut remark = None;
        for command in parse_mark(words, self.names).map_err(refused)? {
            if let Command::Append(rule) = &command
                && self.has(&Rule::Mark(rule.clone()))?
            {
                continue;
            }
            remark = self.director.edit_marks(&marks::words(&command))?;
        }
        Ok(remark)
    }

    fn edit_snat(&mut self, words: &[String]) -> Result<Remark, Failure> {
        if let Command::Append(rule) = parse_snat(words).map_err(refused)?
            && self.has(&Rule::Snat(rule))?
        {
            return Ok(None);
        }
        self.director.edit_snat(&words.join(" "))
    }

    /// Whether the director has a rule that `-R` is about to add, and that is none of those that
    /// the table has up to there.
    fn has(&mut self, rule: &Rule) -> Result<bool, Failure> {
        let Some(restored) = &mut self.restored else { return Ok(false) };
        let (lines, taken, shown) = match rule {
            Rule::Mark(rule) => {
                let shown = marks::Shown(rule).to_string();
                (self.director.mark_rules()?, &mut restored.marks, shown)
            }
            Rule::Snat(rule) => {
                let shown = Shown(rule).to_string();
                (self.director.snat_rules()?, &mut restored.snat, shown)
            }
        };
        let free: Vec<_> = (0..lines.len()).filter(|at| !taken.contains(at)).collect();
        let same = free.iter().find(|at| lines[**at] == shown);
        let there = same.or_else(|| free.iter().find(|at| rule.is_met_by(&lines[**at]))).copied();
        // A new one comes to the end.
        taken.push(there.unwrap_or(lines.len()));
        Ok(there.is_some())
    }

    /// Sets `[-w] NAME=VALUE`.
    fn set(&mut self, line: &str) -> Result<Remark, Failure> {
        let line = line.strip_prefix("-w ").unwrap_or(line);
        let (name, value) =
            line.split_once('=').ok_or_else(|| refused(format!("`{line}' is not NAME=VALUE")))?;
        let key = name.trim().replace('/', ".");
        let known = key
            .strip_prefix(PREFIX)
            .ok_or_else(|| refused(format!("`{key}' is not below net.ipv4.vs")))?;
        self.director.set_setting(known, value.trim()).map_err(|failure| match failure {
            Failure::Refused { errno, .. } => {
                Failure::Refused { errno, hint: Some(format!("{key}: {}", errno.desc())) }
            }
            other => other,
        })
    }
}

fn refused(hint: String) -> Failure {
    Failure::Refused { errno: Errno::EINVAL, hint: Some(hint) }
}

/// The rules that a saved table has up to some line, each by its place among the director's.
#[derive(Debug, Default)]
pub(super) struct Restored {
    marks: Vec<usize>,
    snat: Vec<usize>,
}

/// A rule of a saved table.
enum Rule {
    Mark(MarkRule),
    Snat(SnatRule),
}

impl Rule {
    /// Whether a rule that the director lists is this one. Of the ports of source NAT it may have
    /// got hold of some only.
    fn is_met_by(&self, line: &str) -> bool {
        let Some(words) = shlex::split(line) else { return false };
        match self {
            Self::Mark(rule) => match parse_mark(&words, &mut NoNames).as_deref() {
                Ok([Command::Append(known)]) => known == rule,
                _ => false,
            },
            Self::Snat(rule) => match parse_snat(&words) {
                Ok(Command::Append(known)) => {
                    let is_within = rule.ports.contains(known.ports.start())
                        && rule.ports.contains(known.ports.end());
                    is_within && SnatRule { ports: rule.ports.clone(), ..known } == *rule
                }
                _ => false,
            },
        }
    }
}

const PREFIX: &str = "net.ipv4.vs.";
