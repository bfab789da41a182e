//! Messages between the processes of a lab: one line of JSON each, some with descriptors.

use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The most that one message may be long.
const MAX_MESSAGE_BYTES: u64 = 16 << 20;

/// The channel that a process got as its standard input.
pub(super) fn inherited() -> io::Result<UnixStream> {
    Ok(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// Sends a message.
pub(super) fn send(mut to: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    to.write_all(&line(message)?)
}

/// Receives messages.
#[derive(Debug)]
pub(super) struct Incoming {
    lines: BufReader<UnixStream>,
}

impl Incoming {
    pub(super) fn new(from: UnixStream) -> Self {
        Incoming { lines: BufReader::new(from) }
    }

    /// The next message; nothing when the sender is gone.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut line = Vec::new();
        let mut limited = io::Read::take(&mut self.lines, MAX_MESSAGE_BYTES);
        limited.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&line)?))
    }
}

/// Sends a message with descriptors.
///
/// **Shape** — at most [`MAX_DESCRIPTORS`], and the message at most some 100 KiB.
pub(super) fn send_with_descriptors(
    to: &UnixStream,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = line(message)?;
    let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    let vectors = [IoSlice::new(&bytes)];
    let sent = rustix::net::sendmsg(to, &vectors, &mut ancillary, SendFlags::NOSIGNAL)?;
    let mut to = to;
    to.write_all(&bytes[sent..])
}

/// Receives a message with descriptors.
pub(super) fn receive_with_descriptors<T: DeserializeOwned>(
    from: &UnixStream,
) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut bytes = Vec::new();
    let mut descriptors = Vec::new();
    while bytes.last() != Some(&b'\n') {
        let mut piece = [0; 4096];
        let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut vectors = [IoSliceMut::new(&mut piece)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let read = rustix::net::recvmsg(from, &mut vectors, &mut ancillary, flags)?.bytes;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        if read == 0 || bytes.len() as u64 > MAX_MESSAGE_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&piece[..read]);
    }
    Ok((serde_json::from_slice(&bytes)?, descriptors))
}

/// Descriptors that one message may carry: more hosts than any topology has.
const MAX_DESCRIPTORS: usize = 64;
const ANCILLARY_BYTES: usize = rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS));

fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(message)?;
    bytes.push(b'\n');
    Ok(bytes)
}
