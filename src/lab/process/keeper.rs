//! The keeper: the process that the user started. It stays outside the lab, hears the terminal
//! and signals, and shows `lab exec` the way in.

use std::io::{self, IsTerminal, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{geteuid, getpgrp, tcgetpgrp};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::registry::{self, Description, HostDescription};
use super::{THIS_PROGRAM, channel, isolate};
use crate::lab::sys::spawn;

/// What the lab is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Which story, which says which topology.
    pub story: String,
    /// How many requests a client makes each time; the story decides otherwise.
    pub requests: Option<usize>,
    /// Whether the lab stays up afterwards.
    pub keep: bool,
    /// Whether the output is for a terminal that has colours.
    pub colour: bool,
}

/// What the supervisor tells the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToKeeper {
    /// The hosts are there; a process descriptor for each comes along.
    Up(Vec<HostDescription>),
    /// The story is told and the lab waits to be ended.
    Kept,
}

/// Runs a lab from beginning to end. The exit code is 0 if its verdict was good.
///
/// To be called while the process has one thread.
pub fn keep(plan: &Plan) -> ExitCode {
    match try_keep(plan) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ulvs lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn try_keep(plan: &Plan) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let listener = registry::open(geteuid())?;
    let signals = signal_stream()?;
    let user_namespace = isolate::isolate()?;
    let (supervisor, channel) = start_supervisor()?;
    let mut keeper = Keeper {
        supervisor,
        channel,
        listener,
        signals,
        description: Description {
            keeper: std::process::id(),
            topology: plan.story.clone(),
            user_namespace,
            hosts: Vec::new(),
        },
        hosts: Vec::new(),
        input: false,
    };
    channel::send(&keeper.channel, plan)?;
    Ok(keeper.watch()?)
}

fn start_supervisor() -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new(THIS_PROGRAM);
    command.arg0("ulvs").args(["lab", "supervise"]).stdin(Stdio::from(OwnedFd::from(theirs)));
    spawn::die_with_parent(&mut command);
    let supervisor = command.spawn()?;
    Ok((supervisor, ours))
}

/// Becomes readable when a signal arrives that ends the lab.
fn signal_stream() -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    reader.set_nonblocking(true)?;
    Ok(reader)
}

struct Keeper {
    supervisor: Child,
    channel: UnixStream,
    listener: UnixListener,
    signals: UnixStream,
    description: Description,
    hosts: Vec<OwnedFd>,
    /// Whether a line on standard input ends the lab.
    input: bool,
}

/// What has happened.
#[derive(Clone, Copy, Default)]
struct Ready {
    channel: bool,
    signals: bool,
    visitor: bool,
    input: bool,
}

impl Keeper {
    /// Waits until the supervisor ends or is to end.
    fn watch(&mut self) -> io::Result<ExitCode> {
        loop {
            let ready = self.wait()?;
            if ready.signals {
                return self.interrupted();
            }
            if ready.visitor {
                // A visitor who goes away again is no trouble of the lab's.
                let _ = registry::answer(&self.listener, &self.description, &self.hosts);
            }
            if ready.channel && !self.hear() {
                return Ok(ended(self.supervisor.wait()?));
            }
            if ready.input && self.enter_was_pressed() {
                // The supervisor sees the end of the channel, and ends.
                self.channel.shutdown(std::net::Shutdown::Write)?;
                self.input = false;
            }
        }
    }

    fn wait(&self) -> io::Result<Ready> {
        let stdin = io::stdin();
        let mut descriptors = vec![
            PollFd::new(self.channel.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        // A process in the background that reads from its terminal is stopped for that.
        let may_read = !io::stdin().is_terminal() || tcgetpgrp(io::stdin()) == Ok(getpgrp());
        if self.input && may_read {
            descriptors.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        let patience =
            if self.input { PollTimeout::from(LOOK_AGAIN_MS) } else { PollTimeout::NONE };
        match poll(&mut descriptors, patience) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is = |index: usize| descriptors.get(index).and_then(PollFd::any).unwrap_or(false);
        Ok(Ready { channel: is(0), signals: is(1), visitor: is(2), input: is(3) })
    }

    /// Takes a message of the supervisor. False when it is gone.
    fn hear(&mut self) -> bool {
        match channel::receive_with_descriptors(&self.channel) {
            Ok((ToKeeper::Up(hosts), processes)) => {
                self.description.hosts = hosts;
                self.hosts = processes;
                true
            }
            Ok((ToKeeper::Kept, _)) => {
                self.input = somebody_may_type();
                true
            }
            Err(_) => false,
        }
    }

    /// Whether there was a line, or the end of the input.
    fn enter_was_pressed(&mut self) -> bool {
        let mut bytes = [0; 256];
        match io::stdin().read(&mut bytes) {
            Ok(0) | Err(_) => true,
            Ok(length) => bytes[..length].contains(&b'\n'),
        }
    }

    fn interrupted(&mut self) -> io::Result<ExitCode> {
        // All processes of its namespace are gone when the first one is.
        self.supervisor.kill()?;
        self.supervisor.wait()?;
        eprintln!("\nulvs lab: interrupted; the lab has been taken down.");
        Ok(ExitCode::from(130))
    }
}

/// How often to look whether the lab has come to the foreground of its terminal.
const LOOK_AGAIN_MS: u8 = 200;

/// Whether standard input is something that can end a lab. /dev/null cannot: a lab that was
/// started in the background stays up until a signal.
fn somebody_may_type() -> bool {
    let kind = fstat(io::stdin())
        .map_or(SFlag::empty(), |stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
    io::stdin().is_terminal() || kind == SFlag::S_IFIFO || kind == SFlag::S_IFSOCK
}

fn ended(status: ExitStatus) -> ExitCode {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from),
        (None, signal) => {
            let signal = signal.map_or_else(String::new, |signal| format!(" by signal {signal}"));
            eprintln!("\nulvs lab: the supervisor was killed{signal}; the lab is gone with it.");
            ExitCode::FAILURE
        }
    }
}
