//! Getting the right to make namespaces, and making the first ones.

use std::fs;
use std::io;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::host::privileges::{self, CapabilitySet};

/// Why no lab can be made on this system.
#[derive(Debug, thiserror::Error)]
#[error("this system does not let {who} make namespaces ({source})\n{advice}")]
pub struct Refusal {
    who: String,
    advice: String,
    source: io::Error,
}

/// Makes this process's next child the first of a new process namespace, in a new user namespace
/// if it lacks privileges otherwise. Returns whether there is a new user namespace.
///
/// The process must have one thread only, and cannot get a second one afterwards.
pub(super) fn isolate() -> Result<bool, Refusal> {
    let privileged = privileges::has(NEEDED);
    if !privileged {
        become_namespace_root().map_err(refusal)?;
    }
    unshare(CloneFlags::CLONE_NEWPID).map_err(|errno| refusal(errno.into()))?;
    Ok(!privileged)
}

/// Gives the first process of the lab file systems, name and network of its own.
pub(super) fn settle_supervisor() -> Result<(), Refusal> {
    let own = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET;
    unshare(own).map_err(|errno| refusal(errno.into()))?;
    // What is mounted in the lab must not appear outside.
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .map_err(|errno| refusal(errno.into()))?;
    // A container that hides parts of its /proc cannot have a second one. Then `ps` in the lab
    // shows the container's processes, which harms nothing.
    let _ = mount_virtual("proc", "/proc");
    Ok(())
}

/// Mounts a file system of the kernel's own making.
pub(super) fn mount_virtual(kind: &str, on: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some(kind), on, Some(kind), flags, None::<&str>)?)
}

/// Capabilities without which a lab needs a user namespace; SYS_PTRACE is for entering a host.
const NEEDED: CapabilitySet = CapabilitySet::NET_BIND_SERVICE
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::SYS_ADMIN);

fn become_namespace_root() -> io::Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER)?;
    // Without this the kernel accepts no group map of an unprivileged process.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// Says who was refused and what can be done about it.
pub(crate) fn refusal(source: io::Error) -> Refusal {
    let who = if geteuid().is_root() { "this process" } else { "an unprivileged user" };
    Refusal { who: who.to_owned(), advice: advice(&source), source }
}

/// What to do about it, from the switches that systems have for this.
fn advice(error: &io::Error) -> String {
    let set = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|v| v.trim() == value);
    if set("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return try_switch("kernel.apparmor_restrict_unprivileged_userns=0");
    }
    if set("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return try_switch("kernel.unprivileged_userns_clone=1");
    }
    for kind in ["user", "pid", "net", "mnt", "uts", "ipc"] {
        if set(&format!("/proc/sys/user/max_{kind}_namespaces"), "0") {
            return try_switch(&format!("user.max_{kind}_namespaces=1000"));
        }
    }
    if error.raw_os_error() == Some(Errno::ENOSPC as i32) {
        return "Too many namespaces exist already: see /proc/sys/user/max_*_namespaces."
            .to_owned();
    }
    "Run it as root. In a container, the container needs the right to make namespaces: with Docker \
     `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`, or `--privileged`."
        .to_owned()
}

fn try_switch(setting: &str) -> String {
    format!("Run it as root, or allow it: sysctl -w {setting}")
}
