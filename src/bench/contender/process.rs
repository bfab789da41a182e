//! Programs of contenders: finding them, running them, and what they say when they fail.

use std::convert::Infallible;
use std::env;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Finds a program in PATH and where programs for administrators are, which is often not in an
/// ordinary user's PATH.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// The first line that a program prints on either of its outputs, as its version.
pub(super) fn first_line(program: &Path, argument: &str) -> io::Result<String> {
    let output = Command::new(program).arg(argument).output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    Ok(said.lines().next().unwrap_or_default().trim().to_owned())
}

/// Runs a program in the director's namespace until it ends.
///
/// **Errors** — it could not be started or was not successful, with the last it said.
pub(super) fn run(command: &mut Command, input: &str) -> io::Result<()> {
    let mut child =
        command.stdin(memory_file(input)?).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut said = String::new();
    if let Some(stderr) = &mut child.stderr {
        stderr.read_to_string(&mut said)?;
    }
    match child.wait()? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(format!("{status}: {}", last_words(&said)))),
    }
}

/// A program that forwards. When this is dropped it is killed with every process that it has
/// started, and so it is when this process ends in whatever way.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    /// What it writes to its standard error, kept in memory by the kernel.
    said: File,
    /// The thread whose end is the program's.
    keeper: Option<(Sender<Infallible>, JoinHandle<()>)>,
}

impl Program {
    /// Starts a command with `config` as its standard input.
    ///
    /// **Shape** — the program is the first process of a process namespace, with which the kernel
    /// ends all others in it. A thread that has once asked for such a namespace for its children
    /// cannot start threads any more, so it is one of its own, which then lives on as the parent
    /// at whose end the program is to be killed.
    pub(super) fn start(mut command: Command, config: &str) -> io::Result<Self> {
        let name = Path::new(command.get_program())
            .file_name()
            .map_or_else(|| "program".to_owned(), |name| name.to_string_lossy().into_owned());
        let said = memory_file("")?;
        command.stdin(memory_file(config)?).stdout(memory_file("")?).stderr(said.try_clone()?);
        let (started, child) = mpsc::channel();
        let (keep, kept) = mpsc::channel();
        let thread = thread::Builder::new().name(format!("keeper of {name}")).spawn(move || {
            let spawned = unshare(CloneFlags::CLONE_NEWPID)
                .map_err(io::Error::from)
                .and_then(|()| command.spawn());
            // Nobody sends anything: this waits until the other end is dropped.
            if started.send(spawned).is_ok() {
                let _ = kept.recv();
            }
        })?;
        let child = child
            .recv()
            .map_err(io::Error::other)
            .and_then(|spawned| spawned)
            .map_err(|error| io::Error::new(error.kind(), format!("start {name}: {error}")))?;
        Ok(Self { name, child, said, keeper: Some((keep, thread)) })
    }

    /// Makes sure that it is still running.
    pub(super) fn check(&mut self) -> io::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let said = self.last_words().unwrap_or_default();
                let message = format!("{} ended ({status}): {said}", self.name);
                Err(io::Error::other(message))
            }
        }
    }

    fn last_words(&self) -> io::Result<String> {
        let mut said = vec![0; MAX_SAID_BYTES];
        let length = self.said.metadata()?.len();
        // Without moving the offset, which the program shares.
        let bytes = self.said.read_at(&mut said, length.saturating_sub(MAX_SAID_BYTES as u64))?;
        Ok(last_words(&String::from_utf8_lossy(&said[..bytes])))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some((keep, thread)) = self.keeper.take() {
            drop(keep);
            let _ = thread.join();
        }
    }
}

/// A file without a name that goes with its last descriptor, kill -9 included. The program can
/// open it by name as `/dev/stdin`, and has no file on the machine to leave behind.
fn memory_file(content: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("ulvs-bench", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// The last lines that say something, on one line.
fn last_words(said: &str) -> String {
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(MAX_SAID_LINES)..].join(" | ")
}

/// How much of what a failed program said is looked at.
const MAX_SAID_BYTES: usize = 4096;

/// Lines of it that a message quotes.
const MAX_SAID_LINES: usize = 3;
