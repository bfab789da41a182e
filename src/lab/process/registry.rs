//! How a running lab is found: an abstract socket that vanishes with the keeper.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Uid, geteuid};
use serde::{Deserialize, Serialize};

use super::channel;

/// What a lab tells about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Description {
    /// The process id of the keeper.
    pub(super) keeper: u32,
    /// The topology's name.
    pub(super) topology: String,
    /// Whether the lab is in a user namespace of its own.
    pub(super) user_namespace: bool,
    /// The hosts, in the order of the descriptors that come with this.
    pub(super) hosts: Vec<HostDescription>,
}

/// What a lab tells about a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct HostDescription {
    pub(super) name: String,
    /// The first address, for people.
    pub(super) address: String,
    /// Whether a director runs on it.
    pub(super) director: bool,
}

/// A lab that was found, with a process descriptor of each host.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) description: Description,
    pub(super) hosts: Vec<OwnedFd>,
}

/// Opens the socket under which `user`'s lab of this process is found.
pub(super) fn open(user: Uid) -> io::Result<UnixListener> {
    let name = format!("{}{}", prefix(user), std::process::id());
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers one who asks, if it is the lab's own user.
pub(super) fn answer(
    listener: &UnixListener,
    description: &Description,
    hosts: &[OwnedFd],
) -> io::Result<()> {
    let (visitor, _) = listener.accept()?;
    visitor.set_nonblocking(false)?;
    visitor.set_write_timeout(Some(PATIENCE))?;
    if !is_own(&visitor)? {
        return Ok(());
    }
    let hosts: Vec<_> = hosts.iter().map(AsFd::as_fd).collect();
    channel::send_with_descriptors(&visitor, description, &hosts)
}

/// The running labs of this user, oldest first.
pub(super) fn find_all() -> io::Result<Vec<Found>> {
    let sockets = fs::read_to_string("/proc/net/unix")?;
    let prefix = format!("@{}", prefix(geteuid()));
    let mut names: Vec<&str> = sockets
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().last())
        .filter(|path| path.starts_with(&prefix))
        .map(|path| &path[1..])
        .collect();
    names.sort_unstable_by_key(|name| (name.len(), *name));
    // One line for the listener and one for each connection that waits.
    names.dedup();
    // A lab may end between listing and asking.
    Ok(names.into_iter().filter_map(|name| ask(name).ok().flatten()).collect())
}

const PATIENCE: Duration = Duration::from_secs(5);

fn prefix(user: Uid) -> String {
    format!("ulvs-lab/{user}/")
}

fn ask(name: &str) -> io::Result<Option<Found>> {
    let stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    // Anybody can take such a name; what somebody else says must not be entered.
    if !is_own(&stream)? {
        return Ok(None);
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    let (description, hosts): (Description, _) = channel::receive_with_descriptors(&stream)?;
    let complete = description.hosts.len() == hosts.len();
    Ok(complete.then_some(Found { description, hosts }))
}

fn is_own(stream: &UnixStream) -> io::Result<bool> {
    Ok(getsockopt(stream, PeerCredentials)?.uid() == geteuid().as_raw())
}
