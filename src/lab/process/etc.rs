//! An /etc of the host's own, so that rules can be saved where textbooks save them.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use super::HOST_DIRECTORY;

/// Puts a directory over /etc that has everything the machine's has, by symbolic links, and an empty
/// `sysconfig`. What is written there is the host's, and gone with it.
///
/// **Errors** — what is refused; /etc is the machine's then.
pub(super) fn cover() -> io::Result<()> {
    let directory = Path::new(HOST_DIRECTORY);
    let (machines, own) = (directory.join("etc.machine"), directory.join("etc"));
    fs::create_dir_all(&machines)?;
    fs::create_dir_all(own.join(SAVED))?;
    bind(Path::new("/etc"), &machines)?;
    for entry in fs::read_dir(&machines)? {
        let entry = entry?;
        if entry.file_name() == SAVED {
            continue;
        }
        // Where a link leads is seen from /etc.
        let target = if entry.file_type()?.is_symlink() {
            fs::read_link(entry.path())?
        } else {
            entry.path()
        };
        symlink(target, own.join(entry.file_name()))?;
    }
    bind(&own, Path::new("/etc"))
}

/// Where `ipvsadm --save` goes on systems of Red Hat's kind.
const SAVED: &str = "sysconfig";

fn bind(from: &Path, to: &Path) -> io::Result<()> {
    // What is mounted below comes along; a user namespace may not leave it out.
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    Ok(mount(Some(from), to, None::<&str>, flags, None::<&str>)?)
}
