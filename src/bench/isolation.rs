//! The right to make namespaces, and a place for files that goes with the process.

use std::env;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::lab::net::Namespace;
use crate::lab::process::refusal;
use crate::lab::sys::spawn;

/// A directory for files of the benchmark, which nobody else sees after [`enter`].
pub const DIRECTORY: &str = "/run";

/// Where the benchmark is to run.
#[derive(Debug)]
pub enum Isolation {
    /// In this process.
    Here,
    /// It has run in another process, which ended with this code.
    Elsewhere(ExitCode),
}

/// Gives this process what a benchmark needs: the right to make namespaces, if need be by running
/// this program once more as the root of a user namespace, and an empty [`DIRECTORY`] that
/// vanishes with it. Call it while there is one thread only.
///
/// **Errors** — the system allows neither this user nor a user namespace to do so.
pub fn enter() -> io::Result<Isolation> {
    match Namespace::new("probe") {
        Ok(_) => hide_directory().map(|()| Isolation::Here),
        Err(error) if env::var_os(MARK).is_some() => {
            let errno = error.errno().unwrap_or(Errno::EPERM as i32);
            Err(io::Error::other(refusal(io::Error::from_raw_os_error(errno))))
        }
        Err(_) => run_as_namespace_root().map(Isolation::Elsewhere),
    }
}

fn run_as_namespace_root() -> io::Result<ExitCode> {
    let mut command = Command::new("/proc/self/exe");
    command.args(env::args_os().skip(1)).env(MARK, "1");
    spawn::enter_user_namespace(&mut command);
    spawn::die_with_parent(&mut command);
    let status = command.status().map_err(|error| io::Error::other(refusal(error)))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Mounts an empty file system over [`DIRECTORY`], for this process and its children only.
fn hide_directory() -> io::Result<()> {
    let nothing = None::<&Path>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_SLAVE, nothing)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), DIRECTORY, Some("tmpfs"), flags, nothing).map_err(|errno| {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), format!("mount an empty file system on {DIRECTORY}: {error}"))
    })
}

/// Set in the environment of a process that already is the root of a user namespace.
const MARK: &str = "ULVS_BENCH_INSIDE";
