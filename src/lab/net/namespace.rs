//! A network namespace that is held by a descriptor only.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use super::error::During;
use super::{End, Error};
use crate::lab::sys::spawn;

/// A network namespace, with the name that messages about it use.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: Arc<str>,
    fd: Arc<OwnedFd>,
}

impl Namespace {
    /// Makes an empty network namespace with its loopback interface up.
    ///
    /// **Errors** — without CAP_SYS_ADMIN in the current user namespace; see
    /// [`sandbox`](super::sandbox).
    pub fn new(name: &str) -> Result<Self, Error> {
        let fd = on_own_thread(name, || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            open_current()
        })
        .and_then(|made| made)
        .during(|| format!("create network namespace {name}"))?;
        let namespace = Namespace { name: name.into(), fd: Arc::new(fd) };
        namespace.set_up("lo")?;
        // Link-local addresses are usable at once, like those that are given. A kernel without IPv6
        // has no such parameter.
        let _ = namespace.set_sysctl("net.ipv6.conf.default.accept_dad", "0");
        Ok(namespace)
    }

    /// Takes the network namespace that the calling thread is in.
    pub fn current(name: &str) -> Result<Self, Error> {
        let fd = open_current().during(|| format!("open the network namespace of {name}"))?;
        Ok(Namespace { name: name.into(), fd: Arc::new(fd) })
    }

    /// The name that messages use.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// An interface of this namespace, as one end of a link.
    pub fn end<'a>(&'a self, interface: &'a str) -> End<'a> {
        End { namespace: self, interface, mac: None }
    }

    /// Runs `work` on a thread of its own inside the namespace and waits for it. Sockets that it
    /// returns stay in the namespace.
    ///
    /// **Panics** — if `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let inside = || self.enter().map(|()| work());
        on_own_thread(&self.name, inside)
            .and_then(|done| done)
            .during(|| format!("enter namespace {}", self.name))
    }

    /// Starts a thread inside the namespace.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<thread::JoinHandle<io::Result<T>>, Error> {
        let namespace = self.clone();
        thread::Builder::new()
            .name(self.name.to_string())
            .spawn(move || namespace.enter().map(|()| work()))
            .during(|| format!("start a thread in {}", self.name))
    }

    /// A command that will run inside the namespace, and that is killed when the *thread* that
    /// starts it ends: whatever happens to a test, its programs end with it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.command_detached(program);
        spawn::die_with_parent(&mut command);
        command
    }

    /// A command that will run inside the namespace, and that nothing ends.
    pub fn command_detached(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        spawn::enter_network(&mut command, Arc::clone(&self.fd));
        command
    }

    /// Moves the calling thread into the namespace, for the rest of its life.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET)?)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Runs `work` on a thread that ends afterwards, since a thread that changed its namespace must
/// not do anything else.
fn on_own_thread<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn open_current() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}
