//! The Unix socket that carries the control protocol: where it is, and the client's end of it.

use std::env;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};

use super::client::Transport;
use super::netlink::frames;

/// Where the control socket is: `$ULVS_CONTROL` if that is set, else `/run/ulvs/control.sock` for
/// root, else `ulvs/control.sock` below `$XDG_RUNTIME_DIR`, else below the directory for temporary
/// files, with the user's number in its name.
pub fn default_path() -> PathBuf {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = variable(PATH_VARIABLE) {
        return path;
    }
    let user = geteuid();
    let directory = if user.is_root() {
        PathBuf::from("/run/ulvs")
    } else if let Some(runtime) = variable("XDG_RUNTIME_DIR") {
        runtime.join("ulvs")
    } else {
        env::temp_dir().join(format!("ulvs-{user}"))
    };
    directory.join("control.sock")
}

/// The environment variable that names the control socket.
pub const PATH_VARIABLE: &str = "ULVS_CONTROL";

/// A director behind a socket. Connects with the first request.
#[derive(Debug)]
pub struct SocketTransport {
    path: PathBuf,
    socket: Option<Socket>,
}

impl SocketTransport {
    /// A director that listens at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), socket: None }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn connect(&mut self) -> io::Result<&Socket> {
        if self.socket.is_none() {
            let socket = connect(&self.path).and_then(trusted).map_err(|source| {
                let path = self.path.clone();
                io::Error::new(source.kind(), Unreachable { path, source })
            })?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.set_write_timeout(Some(PATIENCE))?;
            self.socket = Some(socket);
        }
        Ok(self.socket.as_ref().expect("it was just connected"))
    }
}

impl Transport for SocketTransport {
    fn request(&mut self, request: &[u8], reply: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut socket = self.connect()?;
        socket.send(request)?;
        let mut datagram = vec![0; MAX_DATAGRAM];
        loop {
            let length = socket.read(&mut datagram)?;
            if length == 0 {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            reply(&datagram[..length]);
            if frames(&datagram[..length]).any(|frame| frame.outcome().is_some()) {
                return Ok(());
            }
        }
    }
}

/// There is no director at the other end.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.advice())]
pub struct Unreachable {
    /// The control socket that was tried.
    pub path: PathBuf,
    /// What went wrong.
    pub source: io::Error,
}

impl Unreachable {
    fn advice(&self) -> String {
        let path = self.path.display();
        match self.source.kind() {
            io::ErrorKind::PermissionDenied => {
                format!("only root and the user of the director may use its control socket {path}")
            }
            _ => format!(
                "no director answers at {path}; start one with `ulvs run`, or set {PATH_VARIABLE} \
                 to the control socket of the one that runs"
            ),
        }
    }
}

/// Connects to the director at `path`.
pub(super) fn connect(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

/// A connection to a director of this user or of root; not to one that somebody else has put in its
/// place, in a directory that everybody may write to. Root looks after itself.
fn trusted(socket: Socket) -> io::Result<Socket> {
    let (peer, user) = (getsockopt(&socket, PeerCredentials)?.uid(), geteuid());
    match user.is_root() || peer == 0 || peer == user.as_raw() {
        true => Ok(socket),
        false => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

/// The director sends no larger ones.
pub(super) const MAX_DATAGRAM: usize = 64 * 1024;
/// A director that is alive answers within that.
const PATIENCE: Duration = Duration::from_secs(15);
