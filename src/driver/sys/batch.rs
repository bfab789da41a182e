//! Sending many frames with one system call.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use arrayvec::ArrayVec;

use crate::driver::BATCH;

/// Sends each of the first [`BATCH`] frames as a message of its own. Returns how many the kernel
/// took.
///
/// **Errors** — that of the first frame, if it was not taken; one that hits a later frame is met
/// again when sending goes on from there.
pub fn send_frames(fd: BorrowedFd<'_>, frames: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut messages: ArrayVec<libc::mmsghdr, BATCH> =
        frames.iter().take(BATCH).map(message).collect();
    let count = messages.len() as libc::c_uint;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: each message points to one `IoSlice`, which has the layout of `iovec`, and both it
    // and its bytes are borrowed by `frames` beyond this call; the kernel only reads the bytes.
    let sent = unsafe { libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), count, flags as _) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn message(frame: &IoSlice<'_>) -> libc::mmsghdr {
    // SAFETY: all fields are integers and pointers, for which zero is valid.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = ptr::from_ref(frame).cast_mut().cast();
    message.msg_hdr.msg_iovlen = 1;
    message
}
