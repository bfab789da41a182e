//! The processes of a running lab, and how one gets into it.
//!
//! ```text
//! ulvs lab nat            keeper: terminal, signals, tells `lab exec` the way
//!  └ ulvs lab supervise   supervisor: first process of the lab's own process namespace
//!     ├ ulvs lab host client
//!     ├ ulvs lab host director ── ulvs run
//!     ├ ulvs lab host real1        (web server, in the host's process)
//!     └ …
//! ```
//!
//! Whatever ends, everything ends: with the keeper the kernel kills the supervisor (parent death
//! signal), with the supervisor the kernel kills all processes of its namespace, and the
//! supervisor ends with a message when a host does. Namespaces, links, mounts and files belong to
//! those processes alone, so they go with them; nothing has a name on the machine.

mod channel;
mod enter;
mod etc;
mod host;
mod isolate;
mod keeper;
mod registry;
mod supervisor;

pub use enter::{Visit, list, visit};
pub use host::be_host;
pub(crate) use isolate::refusal;
pub use keeper::{Plan, keep};
pub use supervisor::{Lab, LabHost, supervise};

use std::path::Path;

/// Where a host keeps what belongs to the lab; on a file system of the host's own.
const HOST_DIRECTORY: &str = "/run/lab";

/// Programs that a host has besides the machine's: `ulvs` and `ipvsadm`.
const HOST_PROGRAMS: &str = "/run/lab/bin";

/// The control socket of a host's director.
pub const CONTROL_SOCKET: &str = "/run/ulvs/ulvs.sock";

/// This program, for starting it once more.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Makes this process show up by its name, although it was started by way of [`THIS_PROGRAM`].
fn take_name() {
    // Without it the process only looks strange in a list.
    let _ = nix::sys::prctl::set_name(c"ulvs");
}

/// The search path of programs on a host.
fn host_path() -> std::ffi::OsString {
    let mut path = std::ffi::OsString::from(HOST_PROGRAMS);
    let rest = std::env::var_os("PATH").filter(|rest| !rest.is_empty());
    path.push(":");
    path.push(
        rest.unwrap_or_else(|| {
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()
        }),
    );
    path
}

/// The path of this program for people to type.
pub(super) fn typed_program() -> String {
    let Ok(program) = std::env::current_exe() else { return "ulvs".to_owned() };
    let here = std::env::current_dir().ok();
    let shown = here.as_deref().and_then(|here| program.strip_prefix(here).ok());
    shown.unwrap_or_else(|| Path::new(&program)).display().to_string()
}
