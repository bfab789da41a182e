//! Entering a host of a running lab, from another terminal.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sched::{CloneFlags, setns};
use signal_hook::consts::{SIGINT, SIGQUIT};

use super::registry::{self, Description, Found};
use super::{CONTROL_SOCKET, host_path, typed_program};

/// What is to be done on a host.
#[derive(Clone, Debug)]
pub struct Visit {
    /// The host's name.
    pub host: String,
    /// Which lab, by the process id of its keeper; needed only if there are several.
    pub lab: Option<u32>,
    /// The command; a shell if there is none.
    pub command: Vec<OsString>,
}

/// Runs a command or a shell on a host of a running lab. The exit code is the command's.
///
/// To be called while the process has one thread.
pub fn visit(visit: &Visit) -> ExitCode {
    match try_visit(visit) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("ulvs lab: {why}");
            // As env(1) and docker-exec(1) say that they could not even start the command.
            ExitCode::from(125)
        }
    }
}

/// Lists the running labs of this user.
pub fn list() -> ExitCode {
    let found = match registry::find_all() {
        Ok(found) => found,
        Err(error) => {
            eprintln!("ulvs lab: cannot look for labs: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut text = String::new();
    if found.is_empty() {
        text.push_str(&format!(
            "no lab is running; start one with: {} lab nat --keep\n",
            typed_program()
        ));
    }
    for Found { description, .. } in &found {
        text.push_str(&format!("lab {} (process {})\n", description.topology, description.keeper));
        for host in &description.hosts {
            text.push_str(&format!("  {:<10} {}\n", host.name, host.address));
        }
    }
    // Whoever closed the pipe has seen enough.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn try_visit(visit: &Visit) -> Result<ExitCode, String> {
    let labs = registry::find_all().map_err(|error| format!("cannot look for labs: {error}"))?;
    let lab = choose(labs, visit.lab)?;
    let index = host_index(&lab.description, &visit.host)?;
    let director = lab.description.hosts[index].director;
    let directory = std::env::current_dir().ok();
    let mut command = command(visit, director);
    enter(&lab, index).map_err(|error| format!("cannot enter {}: {error}", visit.host))?;
    // The mount namespace was changed, and with it the directory; the host may lack ours.
    let directory = directory.filter(|path| path.is_dir());
    command.current_dir(directory.unwrap_or_else(|| PathBuf::from("/")));
    // The terminal's signals are for the command, which is waited for.
    let ignored = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGQUIT] {
        signal_hook::flag::register(signal, Arc::clone(&ignored)).map_err(|e| e.to_string())?;
    }
    match command.status() {
        Ok(status) => Ok(ExitCode::from(exit_code(status) as u8)),
        Err(error) => {
            eprintln!("ulvs lab: {}: {error}", command.get_program().display());
            Ok(ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }))
        }
    }
}

/// The exit code by which a shell would report this end.
pub(super) fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn choose(mut labs: Vec<Found>, wanted: Option<u32>) -> Result<Found, String> {
    let numbers: Vec<String> = labs.iter().map(|lab| lab.description.keeper.to_string()).collect();
    if let Some(wanted) = wanted {
        labs.retain(|lab| lab.description.keeper == wanted);
    }
    match (labs.pop(), labs.len(), wanted) {
        (Some(lab), 0, _) => Ok(lab),
        (Some(_), _, _) => {
            Err(format!("several labs are running; say which one: --lab {}", numbers.join(" or ")))
        }
        (None, _, Some(wanted)) if !numbers.is_empty() => {
            Err(format!("no lab has the number {wanted}; running: {}", numbers.join(", ")))
        }
        (None, _, _) => {
            Err(format!("no lab is running; start one with: {} lab nat --keep", typed_program()))
        }
    }
}

fn host_index(description: &Description, name: &str) -> Result<usize, String> {
    let found = description.hosts.iter().position(|host| host.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = description.hosts.iter().map(|host| host.name.as_str()).collect();
        format!("the lab has no host '{name}'; its hosts are {}", names.join(", "))
    })
}

/// Joins the namespaces of a host; new processes are then in all of them.
fn enter(lab: &Found, index: usize) -> io::Result<()> {
    let mut kinds = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID;
    if lab.description.user_namespace {
        kinds |= CloneFlags::CLONE_NEWUSER;
    }
    Ok(setns(lab.hosts[index].as_fd(), kinds)?)
}

fn command(visit: &Visit, director: bool) -> Command {
    let mut command = match visit.command.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
        None => shell(&visit.host),
    };
    command.env("PATH", host_path());
    if director {
        command.env("ULVS_CONTROL", CONTROL_SOCKET);
    }
    command
}

fn shell(host: &str) -> Command {
    let preferred = std::env::var_os("SHELL").filter(|shell| Path::new(shell).is_file());
    let mut command = Command::new(preferred.unwrap_or_else(|| "/bin/sh".into()));
    command.env("PS1", format!("{host}# "));
    command
}
