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
use super::{Ran, Session};
use crate::control::client::{Failure, Remark};
use crate::engine::Settings;
use crate::engine::settings::Setting;

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
        let line = words.join(" ");
        let result = match tool {
            Tool::Sysctl => self.set(&line),
            Tool::Mark => self.director.edit_marks(&line),
            Tool::Snat => self.director.edit_snat(&line).map(|()| None),
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

    /// Sets `[-w] NAME=VALUE`.
    fn set(&mut self, line: &str) -> Result<Remark, Failure> {
        let refused = |hint: String| Failure::Refused { errno: Errno::EINVAL, hint: Some(hint) };
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

const PREFIX: &str = "net.ipv4.vs.";
