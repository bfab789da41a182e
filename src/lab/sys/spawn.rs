//! What a child does between `fork` and `exec`.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getegid, geteuid, getpid, getppid, write};

/// Makes the child start in the network namespace `namespace`.
pub(crate) fn enter_network(command: &mut Command, namespace: Arc<OwnedFd>) {
    let enter = move || Ok(setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?);
    // SAFETY: the hook makes one system call and touches no lock and no heap, which is all that
    // a forked child of a threaded process may do. The descriptor lives as long as the command.
    unsafe { command.pre_exec(enter) };
}

/// Makes the child die (SIGKILL) with the thread that started it.
pub(crate) fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    let tie = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        still_child_of(parent)
    };
    // SAFETY: the hook makes two system calls and touches no lock and no heap, which is all that
    // a forked child of a threaded process may do.
    unsafe { command.pre_exec(tie) };
}

/// Fails if the parent died before the death signal was in place.
fn still_child_of(parent: Pid) -> io::Result<()> {
    // A child that is the first of a new process namespace sees 0: its parent is outside.
    let seen = getppid();
    if seen == parent || seen.as_raw() == 0 { Ok(()) } else { Err(Errno::ESRCH.into()) }
}

/// Makes the child start as the root of a new user namespace, mapped to the current user.
pub(crate) fn enter_user_namespace(command: &mut Command) {
    let uid_map = format!("0 {} 1", geteuid());
    let gid_map = format!("0 {} 1", getegid());
    let enter = move || {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        // Without this the kernel accepts no group map of an unprivileged process.
        write_to(c"/proc/self/setgroups", b"deny")?;
        write_to(c"/proc/self/uid_map", uid_map.as_bytes())?;
        write_to(c"/proc/self/gid_map", gid_map.as_bytes())
    };
    // SAFETY: the hook makes system calls on texts that were formatted before; it touches no lock
    // and no heap, which is all that a forked child of a threaded process may do.
    unsafe { command.pre_exec(enter) };
}

fn write_to(path: &CStr, text: &[u8]) -> io::Result<()> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    write(&file, text)?;
    Ok(())
}
