//! What the first process of a container owes to the others.

use std::io;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::getpid;
use signal_hook::consts::SIGCHLD;
use signal_hook::iterator::Signals;

/// Takes note of the ends of processes whose parents ended before them, as the first process of a
/// container has to; what `docker exec` leaves running would stay there as zombies else. Only for
/// commands that start no processes themselves.
pub(crate) fn adopt() -> io::Result<()> {
    if getpid().as_raw() != 1 {
        return Ok(());
    }
    let mut ends = Signals::new([SIGCHLD])?;
    let reap = move || ends.forever().for_each(|_| while has_reaped() {});
    std::thread::Builder::new().name("orphans".into()).spawn(reap)?;
    Ok(())
}

/// Whether there was an ended process to take note of.
fn has_reaped() -> bool {
    let ended = waitpid(None, Some(WaitPidFlag::WNOHANG));
    ended.is_ok_and(|status| status != WaitStatus::StillAlive)
}
