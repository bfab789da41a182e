//! The `ipvsadm` personality: the command line, the messages, the listings and the exit statuses of
//! ipvsadm 1.31, over any [`Transport`].
//!
//! **Source** — ipvsadm(8), and transcripts of ipvsadm 1.31 at work.

mod address;
mod beyond;
mod json;
mod listing;
mod local;
pub mod names;
mod options;
mod parse;
mod popt;
mod save;
mod sort;

use std::io::{self, BufRead, Write};

use nix::errno::Errno;

pub(super) use self::listing::{method_name, protocol_name};
use self::names::Names;
use self::parse::{Command, Illegal};
use super::client::{Director, Failure, Remark, Transport};
use super::socket::Unreachable;

/// Where the command reads and writes.
pub struct Console<'a> {
    /// What `-R` reads.
    pub stdin: &'a mut dyn BufRead,
    /// Where listings go.
    pub stdout: &'a mut dyn Write,
    /// Where messages go.
    pub stderr: &'a mut dyn Write,
    /// Whether ipvsadm's messages are followed by hints of ours, on lines that begin with `hint: `.
    pub hints: bool,
}

/// Runs the command with these arguments, which do not include the program's name, and returns its
/// exit status.
pub fn run(
    args: &[String],
    console: &mut Console,
    transport: &mut dyn Transport,
    names: &mut dyn Names,
) -> i32 {
    let mut session =
        Session { console, director: Director::new(transport), names, restored: None };
    session.run(args).unwrap_or_else(|stop| stop.status)
}

/// Runs one line of a file of rules. Differs from [`run`] in that only its parts after the
/// program's name are given, and in that `-R` is refused.
///
/// **Errors** — the exit status, once the line's message has been written.
pub(super) fn run_line(
    words: &[String],
    console: &mut Console,
    transport: &mut dyn Transport,
    names: &mut dyn Names,
) -> Result<(), i32> {
    let mut session =
        Session { console, director: Director::new(transport), names, restored: None };
    match session.run_restored(words) {
        Ok(0) => Ok(()),
        Ok(status) => Err(status),
        Err(stop) => Err(stop.status),
    }
}

/// One run of the command.
struct Session<'a, 'c> {
    console: &'a mut Console<'c>,
    director: Director<'a>,
    names: &'a mut dyn Names,
    /// During `-R`, the rules of marks and of source NAT that it has been through.
    restored: Option<beyond::Restored>,
}

/// The command is over, and with it a `-R` that it is part of.
struct Stop {
    status: i32,
}

impl From<io::Error> for Stop {
    /// Nobody reads what we write, or we cannot read: there is nobody to tell.
    fn from(_: io::Error) -> Self {
        Self { status: 1 }
    }
}

type Ran = Result<i32, Stop>;

impl Session<'_, '_> {
    fn run(&mut self, args: &[String]) -> Ran {
        match self.parse(args)? {
            Ok(Command::Restore) => self.restore(),
            Ok(command) => self.execute(command),
            Err(status) => Ok(status),
        }
    }

    /// Runs a line of `-R`, which cannot hold another `-R`.
    fn run_restored(&mut self, words: &[String]) -> Ran {
        if let Some((tool, words)) = beyond::tool(words) {
            return self.restore_beyond(tool, words);
        }
        match self.parse(words)? {
            Ok(Command::Restore) => {
                self.console.stderr.write_all(TRY_HELP.as_bytes())?;
                Err(Stop { status: 255 })
            }
            // These end ipvsadm wherever they stand.
            Ok(command @ (Command::Help | Command::Version)) => {
                Err(Stop { status: self.execute(command)? })
            }
            Ok(command) => self.execute(command),
            Err(status) => Ok(status),
        }
    }

    /// Reads a command; what is none ends the run or, inside, only the line with a status.
    fn parse(&mut self, words: &[String]) -> Result<Result<Command, i32>, Stop> {
        match parse::parse(words, self.names) {
            Ok(command) => Ok(Ok(command)),
            Err(Illegal { message, status, is_fatal }) => {
                self.console.stderr.write_all(message.as_bytes())?;
                self.hint(hint_about(&message, words))?;
                if is_fatal { Err(Stop { status }) } else { Ok(Err(status)) }
            }
        }
    }

    fn restore(&mut self) -> Ran {
        let mut status = 0;
        let mut line = String::new();
        self.restored = Some(beyond::Restored::default());
        loop {
            line.clear();
            if self.console.stdin.read_line(&mut line)? == 0 {
                return Ok(status);
            }
            let mut words: Vec<String> = words(&line);
            if beyond::tool(&words).is_some() {
                // Comments of rules are in quotes.
                words = shlex::split(&line).unwrap_or(words);
            }
            if !words.is_empty() {
                status = self.run_restored(&words)?;
            }
        }
    }

    fn execute(&mut self, command: Command) -> Ran {
        let director = &mut self.director;
        let (topic, result) = match &command {
            Command::AddService(spec) => (Topic::ServiceEdit, director.add_service(spec)),
            Command::EditService(spec) => (Topic::ServiceEdit, director.edit_service(spec)),
            Command::DeleteService(key) => (Topic::Service, director.delete_service(key)),
            Command::AddServer(key, spec) => (Topic::Server, director.add_real(key, spec)),
            Command::EditServer(key, spec) => (Topic::Server, director.edit_real(key, spec)),
            Command::DeleteServer(key, spec) => (Topic::Server, director.delete_real(key, spec)),
            Command::Clear => (Topic::Service, director.flush()),
            Command::Zero(key) => (Topic::Service, director.zero(key.as_ref())),
            Command::SetTimeouts(timeouts) => (Topic::Service, director.set_timeouts(*timeouts)),
            Command::StartDaemon(request) => (Topic::Start, director.start_sync(request)),
            Command::StopDaemon(role, id) => (Topic::Stop, director.stop_sync(*role, *id)),
            Command::EditLocal(edit) => return self.edit_local(edit),
            Command::List(list) => return self.list(list),
            Command::ListLocal(key) => return self.list_local(key.as_ref()),
            Command::Save(form) => return self.save(*form),
            Command::Help => {
                let said = self.say(HELP);
                self.hint(Some(MORE_HELP.trim_end()))?;
                return said;
            }
            Command::Version => return self.say(&format!("{VERSION}\n")),
            Command::Restore => unreachable!("taken out by the callers"),
        };
        self.conclude(topic, result)
    }

    fn say(&mut self, text: &str) -> Ran {
        self.console.stdout.write_all(text.as_bytes())?;
        Ok(0)
    }

    /// Tells how a call ended.
    fn conclude(&mut self, topic: Topic, result: Result<Remark, Failure>) -> Ran {
        match result {
            Ok(remark) => {
                self.hint(remark.as_deref())?;
                Ok(0)
            }
            Err(Failure::Refused { errno, hint }) => {
                writeln!(self.console.stderr, "{}", topic.text(errno))?;
                self.hint(hint.as_deref())?;
                Ok(255)
            }
            Err(Failure::Transport(error)) => self.explain_silence(&error),
        }
    }

    /// Tells why there is nothing to list, which ends a `-R` too.
    fn give_up(&mut self, failure: Failure) -> Ran {
        self.conclude(Topic::Service, Err(failure))?;
        Err(Stop { status: 1 })
    }

    /// Tells that there is no director, in the words in which ipvsadm tells that there is no IPVS.
    fn explain_silence(&mut self, error: &io::Error) -> Ran {
        let unreachable = error.get_ref().and_then(|inner| inner.downcast_ref::<Unreachable>());
        let cause = unreachable.map_or(error, |unreachable| &unreachable.source);
        writeln!(self.console.stderr, "Can't initialize ipvs: {}", plain(cause))?;
        writeln!(self.console.stderr, "{NO_IPVS}")?;
        let hint = match unreachable {
            Some(unreachable) => unreachable.to_string(),
            None => "the director stopped answering; its log says why".into(),
        };
        self.hint(Some(&hint))?;
        Err(Stop { status: 2 })
    }

    fn hint(&mut self, text: Option<&str>) -> io::Result<()> {
        match text.filter(|_| self.console.hints) {
            Some(text) => writeln!(self.console.stderr, "hint: {text}"),
            None => Ok(()),
        }
    }
}

/// The words of a line, without the program's name.
fn words(line: &str) -> Vec<String> {
    let mut words = line.split_ascii_whitespace().map(String::from).collect::<Vec<_>>();
    if words.first().is_some_and(|word| word == "ipvsadm") {
        words.remove(0);
    }
    words
}

/// What a call was about: the same error has different names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topic {
    ServiceEdit,
    Service,
    Server,
    Local,
    Start,
    Stop,
}

impl Topic {
    /// ipvsadm's words for a refusal.
    fn text(self, errno: Errno) -> String {
        let text = match (self, errno) {
            (Self::ServiceEdit, Errno::EEXIST) => "Service already exists",
            (Self::ServiceEdit, Errno::ENOENT) => "Scheduler or persistence engine not found",
            (Self::ServiceEdit | Self::Service | Self::Local, Errno::ESRCH) => "No such service",
            (Self::Local, Errno::EEXIST) => "Local address already exists",
            (Self::Local, Errno::ENOENT) => "No such local address",
            (Self::Server, Errno::EEXIST) => "Destination already exists",
            (Self::Server, Errno::ESRCH) => "Service not defined",
            (Self::Server, Errno::ENOENT) => "No such destination",
            (Self::Start, Errno::EEXIST) => "Daemon has already run",
            (Self::Stop, Errno::ESRCH) => "No daemon is running",
            (_, Errno::EPERM) => "Permission denied (you must be root)",
            (_, Errno::EINVAL) => {
                "Invalid operation.  Possibly wrong module version, address not unicast, ..."
            }
            (_, Errno::ENOPROTOOPT) => "Protocol not available",
            (_, Errno::ENOMEM) => "Memory allocation problem",
            _ => return plain(&errno.into()),
        };
        text.into()
    }
}

/// What may be meant by words that ipvsadm does not take.
fn hint_about(message: &str, words: &[String]) -> Option<&'static str> {
    let in_brackets = |word: &String| word.starts_with('[') && word.ends_with(']');
    if message.starts_with("-O: unknown option") {
        // Many texts have it so; no version of ipvsadm does.
        Some("one-packet scheduling is -o, or --ops")
    } else if message.starts_with("illegal real server") && words.iter().any(in_brackets) {
        Some("brackets are for IPv6 addresses with a port: -r [2001:db8::2]:80, or -r 2001:db8::2")
    } else {
        None
    }
}

/// The C library's words for an error, without the number that Rust adds.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].into(),
        None => text,
    }
}

const HELP: &str = include_str!("help.txt");
const MORE_HELP: &str = include_str!("more.txt");
const VERSION: &str = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)";
const TRY_HELP: &str = "Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n";
const NO_IPVS: &str = "Are you sure that IP Virtual Server is built in the kernel or as module?";
