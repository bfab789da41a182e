//! The `sysctl` personality: the settings of `net.ipv4.vs` under the names, with the words and the
//! exit statuses of sysctl(8), over any [`Transport`].
//!
//! **Source** — sysctl(8) of procps-ng 4.0, and transcripts of it at work on the kernel's IPVS.

mod key;
mod options;

use std::io;

use nix::errno::Errno;
use regex_lite::Regex;

use super::client::{Director, Failure, Transport};
use super::ipvsadm::Console;
use super::netlink::setting::SettingView;
use crate::engine::settings::Setting;
use key::{Key, Target};
pub use options::Options;

/// Opens the files that `-p` names.
pub type Open<'a> = &'a mut dyn FnMut(&str) -> io::Result<String>;

/// Runs the command, and returns its exit status.
pub fn run(
    options: &Options,
    console: &mut Console,
    transport: &mut dyn Transport,
    open: Open,
) -> i32 {
    let pattern = match options.pattern.as_deref().map(Regex::new).transpose() {
        Ok(pattern) => pattern,
        Err(error) => {
            let _ = writeln!(console.stderr, "sysctl: {error}");
            return 1;
        }
    };
    let director = Director::new(transport);
    let mut session = Session { options, pattern, console, director, open, settings: None };
    match session.run() {
        Ok(status) => status,
        Err(Stop::Transport(error)) => {
            // It names the socket, and what starts a director there.
            let _ = writeln!(session.console.stderr, "sysctl: {error}");
            1
        }
        Err(Stop::Silent) => 1,
    }
}

/// One run of the command.
struct Session<'a, 'c> {
    options: &'a Options,
    pattern: Option<Regex>,
    console: &'a mut Console<'c>,
    director: Director<'a>,
    open: Open<'a>,
    /// The settings as first asked for, in the order of their names.
    settings: Option<Vec<SettingView>>,
}

/// The command is over.
enum Stop {
    /// The director cannot be reached.
    Transport(io::Error),
    /// Nobody reads what we write.
    Silent,
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Silent
    }
}

/// The status that a step adds to that of the command.
type Ran = Result<i32, Stop>;

/// `KEY = VALUE`, as written.
struct Assignment {
    key: String,
    value: String,
}

impl Session<'_, '_> {
    fn run(&mut self) -> Ran {
        let options = self.options;
        if options.all {
            return self.read(&Key::new(""));
        }
        if options.load {
            return self.load();
        }
        if options.words.is_empty() {
            writeln!(self.console.stderr, "sysctl: no variables specified\n{TRY_HELP}")?;
            return Ok(1);
        }
        let mut status = 0;
        for word in &options.words {
            if !options.write && !word.contains('=') {
                status += self.read(&Key::new(word))?;
                continue;
            }
            status |= match self.parse(word, "command line", 0)? {
                Some(assignment) => self.write(&assignment)?,
                None => 1,
            };
        }
        Ok(status)
    }

    /// Sets what files say: all of them are read first.
    fn load(&mut self) -> Ran {
        let default = [DEFAULT_FILE.to_owned()];
        let named = &self.options.words;
        let files = if named.is_empty() { &default[..] } else { named };
        let (mut status, mut assignments) = (0, Vec::new());
        for file in files {
            let text = match self.text_of(file) {
                Ok(text) => text,
                Err(error) => {
                    let why = super::ipvsadm::plain(&error);
                    writeln!(self.console.stderr, "sysctl: cannot open \"{file}\": {why}")?;
                    status = 1;
                    continue;
                }
            };
            for (number, line) in (1..).zip(text.lines()) {
                let line = line.trim();
                if line.is_empty() || line.starts_with(['#', ';']) {
                    continue;
                }
                match self.parse(line, file, number)? {
                    Some(assignment) => assignments.push(assignment),
                    None => status = 1,
                }
            }
        }
        for assignment in assignments {
            status |= self.write(&assignment)?;
        }
        Ok(status)
    }

    fn text_of(&mut self, file: &str) -> io::Result<String> {
        if file != "-" {
            return (self.open)(file);
        }
        let mut text = String::new();
        self.console.stdin.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Reads `KEY=VALUE`; what is none is told, unless it is only to be left out.
    fn parse(&mut self, text: &str, file: &str, line: usize) -> Result<Option<Assignment>, Stop> {
        let text = text.trim_start();
        if text.len() < 2 {
            return Ok(None);
        }
        let (text, is_optional) = text.strip_prefix('-').map_or((text, false), |text| (text, true));
        if let Some((key, value)) = text.split_once('=') {
            let (key, value) = (key.trim_end().to_owned(), value.trim().to_owned());
            return Ok(Some(Assignment { key, value }));
        }
        if !is_optional {
            let where_ = format!("{file}({line})");
            writeln!(self.console.stderr, "sysctl: {where_}: invalid syntax, continuing...")?;
        }
        Ok(None)
    }

    /// Shows what a name stands for.
    fn read(&mut self, key: &Key) -> Ran {
        let Some(target) = self.find(key)? else { return Ok(i32::from(!self.options.ignore)) };
        let settings = self.settings()?.to_vec();
        let meant = |setting: &&SettingView| match target {
            Target::Setting(name) => setting.name == name,
            Target::Directory => true,
        };
        for SettingView { name, value } in settings.iter().filter(meant) {
            let full = match target {
                Target::Setting(_) => key.name().to_owned(),
                Target::Directory => format!("{PREFIX}{name}"),
            };
            if self.is_selected(&full) {
                self.show(&full, value, true)?;
            }
        }
        Ok(0)
    }

    fn write(&mut self, assignment: &Assignment) -> Ran {
        let Assignment { key, value } = assignment;
        if key.is_empty() {
            writeln!(self.console.stderr, "sysctl: Path is not under /proc/sys/: /proc/sys/")?;
            return Ok(1);
        }
        let key = Key::new(key);
        let Some(target) = self.find(&key)? else { return Ok(i32::from(!self.options.ignore)) };
        if !self.is_selected(key.name()) {
            return Ok(1);
        }
        let result = match target {
            Target::Directory => Err(Failure::Refused { errno: Errno::EACCES, hint: None }),
            Target::Setting(_) if self.options.dry_run => Ok(None),
            Target::Setting(name) => self.director.set_setting(name, value),
        };
        match result {
            Ok(remark) => {
                if !self.options.quiet {
                    self.show(key.name(), value, false)?;
                }
                self.hint(remark.as_deref())?;
                Ok(0)
            }
            Err(Failure::Refused { errno, .. }) => {
                // sysctl(8) has these words for all that the kernel refuses to root.
                let name = key.name();
                let text = "Invalid argument";
                writeln!(self.console.stderr, "sysctl: setting key \"{name}\": {text}")?;
                self.explain(target, errno)?;
                Ok(i32::from(errno != Errno::EACCES))
            }
            Err(Failure::Transport(error)) => Err(Stop::Transport(error)),
        }
    }

    /// Says what a setting takes that refused a value.
    fn explain(&mut self, target: Target, errno: Errno) -> io::Result<()> {
        let Target::Setting(name) = target else { return Ok(()) };
        let Some(setting) = Setting::named(name) else { return Ok(()) };
        let about = setting.about.trim().replace('`', "");
        let takes = if errno == Errno::EACCES { ", can only be read" } else { "" };
        self.hint(Some(&format!("{name}{takes}: {about}")))
    }

    /// What a name stands for; tells that it is nothing, unless such are to be ignored.
    fn find<'k>(&mut self, key: &'k Key) -> Result<Option<Target<'k>>, Stop> {
        let found = match key.target() {
            Some(Target::Setting(name)) => {
                let is_known = self.settings()?.iter().any(|setting| setting.name == name);
                is_known.then_some(Target::Setting(name))
            }
            other => other,
        };
        if found.is_none() && !self.options.ignore {
            let path = key.path();
            writeln!(self.console.stderr, "sysctl: cannot stat {path}: {}", Errno::ENOENT.desc())?;
            let hint = match key.target() {
                Some(_) => "`ulvs sysctl -a' lists the settings that there are",
                None => "ulvs has the settings below net.ipv4.vs; sysctl(8) has the host's",
            };
            self.hint(Some(hint))?;
        }
        Ok(found)
    }

    fn settings(&mut self) -> Result<&[SettingView], Stop> {
        if self.settings.is_none() || self.options.words.len() > 1 {
            let told = self.director.settings().map_err(|failure| match failure {
                Failure::Transport(error) => Stop::Transport(error),
                Failure::Refused { errno, .. } => Stop::Transport(errno.into()),
            })?;
            self.settings = Some(told);
        }
        Ok(self.settings.as_deref().unwrap_or_default())
    }

    fn is_selected(&self, name: &str) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(name))
    }

    fn show(&mut self, name: &str, value: &str, is_read: bool) -> io::Result<()> {
        let (options, stdout) = (self.options, &mut self.console.stdout);
        if options.names && is_read {
            writeln!(stdout, "{name}")
        } else if options.binary {
            write!(stdout, "{value}")
        } else if options.values || options.names {
            writeln!(stdout, "{value}")
        } else {
            writeln!(stdout, "{name} = {value}")
        }
    }

    fn hint(&mut self, text: Option<&str>) -> io::Result<()> {
        match text.filter(|_| self.console.hints) {
            Some(text) => writeln!(self.console.stderr, "hint: {text}"),
            None => Ok(()),
        }
    }
}

const PREFIX: &str = "net.ipv4.vs.";
const DEFAULT_FILE: &str = "/etc/sysctl.conf";
const TRY_HELP: &str = "Try `sysctl --help' for more information.";
