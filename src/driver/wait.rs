//! How a worker sleeps until there is something to do.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use arrayvec::ArrayVec;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use socket2::SockRef;

use super::Patience;

/// What ended a wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wakened {
    /// Descriptors that became readable; 0 if the time was up.
    pub ready: usize,
    /// Whether one of them reported an error, such as a link that went down: every receiver is to
    /// be asked [whether it is gone](super::Receiver::is_gone).
    pub trouble: bool,
}

/// Sleeps until one of the descriptors becomes readable or `patience` runs out; a signal ends it
/// early, as if the time was up.
///
/// **Errors** — more than [`MOST_DESCRIPTORS`], or what poll reports.
pub fn wait(descriptors: &[BorrowedFd<'_>], patience: Patience) -> io::Result<Wakened> {
    let mut polled = ArrayVec::<PollFd<'_>, MOST_DESCRIPTORS>::new();
    for fd in descriptors {
        let entry = PollFd::new(*fd, PollFlags::POLLIN);
        polled.try_push(entry).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    }
    let ready = match ppoll(&mut polled, patience.map(TimeSpec::from_duration), None) {
        Err(Errno::EINTR) => return Ok(Wakened::default()),
        other => other?.unsigned_abs() as usize,
    };
    let mut trouble = false;
    for (entry, fd) in polled.iter().zip(descriptors) {
        if entry.revents().is_some_and(|events| events.intersects(TROUBLE)) {
            trouble = true;
            // Left unread, a socket's error would end every later wait at once.
            let _ = SockRef::from(fd).take_error();
        }
    }
    Ok(Wakened { ready, trouble })
}

/// Ends the wait of a worker from another thread.
///
/// **Shape** — clones wake the same worker. The worker adds its descriptor to those it waits for
/// and calls [`clear`](Self::clear) before it looks for what it was woken for, so that nothing
/// that is announced while it looks is missed.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// Makes one that nobody has used yet.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(Arc::new(EventFd::from_flags(flags)?)))
    }

    /// Ends the current wait, or the next one if there is none.
    pub fn wake(&self) {
        // Fails only when the counter is full, and then the wait has ended already.
        let _ = self.0.write(1);
    }

    /// Forgets earlier calls of [`wake`](Self::wake).
    pub fn clear(&self) {
        // Fails only when there is nothing to forget.
        let _ = self.0.read();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// How many descriptors one worker can wait for: its own, and those of as many ports as there may be.
pub const MOST_DESCRIPTORS: usize = 128;

const TROUBLE: PollFlags = PollFlags::POLLERR.union(PollFlags::POLLHUP).union(PollFlags::POLLNVAL);

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const LONG: Patience = Some(Duration::from_secs(20));

    #[test]
    fn another_thread_ends_the_wait() {
        let waker = Waker::new().unwrap();
        let other = waker.clone();
        let thread = std::thread::spawn(move || other.wake());
        assert_eq!(wait(&[waker.as_fd()], LONG).unwrap(), Wakened { ready: 1, trouble: false });
        thread.join().unwrap();
        waker.clear();
        let start = Instant::now();
        let patience = Duration::from_millis(5);
        assert_eq!(wait(&[waker.as_fd()], Some(patience)).unwrap(), Wakened::default());
        assert!(start.elapsed() >= patience);
    }

    #[test]
    fn too_many_descriptors_are_an_error() {
        let waker = Waker::new().unwrap();
        assert!(wait(&[waker.as_fd(); MOST_DESCRIPTORS + 1], LONG).is_err());
    }
}
