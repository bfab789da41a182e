//! The daemon's end of the control socket.
//!
//! One thread accepts, and each client has one of its own, so that nobody waits for another's slow
//! reading; their number, the size of their messages and the time they take are bounded.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};
use tracing::{debug, warn};

use super::handler::{Handler, Host};
use super::socket::{MAX_DATAGRAM, connect};
use crate::engine::Moment;

/// A control socket that answers. Dropping it closes the socket and removes its file.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// Device and inode of the socket's file, so that only our own is ever removed.
    identity: (u64, u64),
    listener: Socket,
    is_over: AtomicBool,
    clients: Mutex<HashMap<u64, Arc<Socket>>>,
}

impl Server {
    /// Listens at `path` and answers with `handler`, to which `clock` tells the time.
    ///
    /// **Errors** — `AddrInUse` if a director listens there already, and whatever goes wrong with
    /// the file, with the path in the message.
    pub fn start<H: Host + Send + Sync + 'static>(
        path: &Path,
        handler: Arc<Handler<H>>,
        clock: impl Fn() -> Moment + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = listen(path).map_err(|error| about(path, &error))?;
        let identity = identity(path).map_err(|error| about(path, &error))?;
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            identity,
            listener,
            is_over: AtomicBool::new(false),
            clients: Mutex::default(),
        });
        let service = Service { shared: Arc::clone(&shared), handler, clock: Arc::new(clock) };
        let acceptor =
            thread::Builder::new().name("control".into()).spawn(move || service.accept())?;
        Ok(Self { shared, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        // Wakes the acceptor: shutting a listening socket down ends its accept.
        let _ = self.shared.listener.shutdown(Shutdown::Both);
        for client in self.shared.clients().values() {
            let _ = client.shutdown(Shutdown::Both);
        }
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        if identity(&self.shared.path).is_ok_and(|found| found == self.shared.identity) {
            let _ = fs::remove_file(&self.shared.path);
        }
    }
}

impl Shared {
    fn clients(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Socket>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the threads share.
struct Service<H, C: ?Sized> {
    shared: Arc<Shared>,
    handler: Arc<Handler<H>>,
    clock: Arc<C>,
}

impl<H, C: ?Sized> Clone for Service<H, C> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            handler: Arc::clone(&self.handler),
            clock: Arc::clone(&self.clock),
        }
    }
}

impl<H, C> Service<H, C>
where
    H: Host + Send + Sync + 'static,
    C: Fn() -> Moment + Send + Sync + ?Sized + 'static,
{
    fn accept(&self) {
        for number in 0.. {
            let accepted = self.shared.listener.accept();
            if self.shared.is_over.load(Ordering::Acquire) {
                return;
            }
            match accepted {
                Ok((socket, _)) => self.welcome(number, socket),
                Err(error) => {
                    warn!(%error, "cannot accept on the control socket");
                    thread::sleep(RETRY);
                }
            }
        }
    }

    fn welcome(&self, number: u64, socket: Socket) {
        if let Err(reason) = may_control(&socket) {
            warn!(reason, "control client turned away");
            return;
        }
        let socket = Arc::new(socket);
        let mut clients = self.shared.clients();
        if clients.len() >= MAX_CLIENTS {
            // Whoever came first has had the longest chance to say something.
            let oldest = clients.keys().min().copied();
            if let Some(oldest) = oldest.and_then(|number| clients.remove(&number)) {
                warn!(limit = MAX_CLIENTS, "too many control clients: the oldest has to go");
                let _ = oldest.shutdown(Shutdown::Both);
            }
        }
        clients.insert(number, Arc::clone(&socket));
        drop(clients);
        let service = self.clone();
        let spawned = thread::Builder::new().name(format!("control-{number}")).spawn(move || {
            if let Err(error) = service.serve(&socket) {
                debug!(%error, "control client left");
            }
            service.shared.clients().remove(&number);
        });
        if let Err(error) = spawned {
            warn!(%error, "cannot start a thread for a control client");
            self.shared.clients().remove(&number);
        }
    }

    fn serve(&self, mut socket: &Socket) -> io::Result<()> {
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut request = vec![0; MAX_DATAGRAM];
        while !self.shared.is_over.load(Ordering::Acquire) {
            let length = socket.read(&mut request)?;
            if length == 0 {
                return Ok(());
            }
            let mut sent = Ok(());
            self.handler.handle(&request[..length], (self.clock)(), &mut |datagram| {
                sent = socket.send(&datagram).map(drop);
                if sent.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            sent?;
        }
        Ok(())
    }
}

/// Only root and the daemon's own user may control it, whatever became of the file's mode.
fn may_control(socket: &Socket) -> Result<(), &'static str> {
    let peer = getsockopt(socket, PeerCredentials).map_err(|_| "no credentials")?;
    let is_allowed = peer.uid() == 0 || peer.uid() == geteuid().as_raw();
    if is_allowed { Ok(()) } else { Err("neither root nor the director's user") }
}

fn listen(path: &Path) -> io::Result<Socket> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        let mode = if geteuid().is_root() { 0o755 } else { 0o700 };
        fs::DirBuilder::new().recursive(true).mode(mode).create(directory)?;
        must_be_ours(directory)?;
    }
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    // Linux gives the file the mode of the socket, so it is never there with a wider one.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Refuses a directory in one that everybody may write to, such as /tmp, if somebody else has made it
/// or may write to it: who can replace the socket can stand in for the director.
fn must_be_ours(directory: &Path) -> io::Result<()> {
    let Some(around) = directory.parent() else { return Ok(()) };
    let around = if around.as_os_str().is_empty() { Path::new(".") } else { around };
    if fs::metadata(around)?.mode() & 0o002 == 0 {
        return Ok(());
    }
    let found = fs::symlink_metadata(directory)?;
    if found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    let text = "its directory must belong to the director's user, and nobody else may write to it; \
                remove it or choose another path";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// Removes the socket of a director that died.
fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        let text =
            "there is a file in its place that is no socket; remove it or choose another path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    match connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.raw_os_error() != Some(nix::libc::EPROTOTYPE) => Err(error),
        _ => {
            let text = "another director listens there already; stop it or choose another path";
            Err(io::Error::new(io::ErrorKind::AddrInUse, text))
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("control socket {}: {error}", path.display()))
}

/// As many as any management tools need, and no more threads than that.
const MAX_CLIENTS: usize = 64;
const BACKLOG: i32 = 16;
/// A client that does not take its reply for that long is dropped.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a failed accept, as when file descriptors run out.
const RETRY: Duration = Duration::from_millis(100);
