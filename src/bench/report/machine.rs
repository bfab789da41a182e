//! The machine that the figures belong to: without it they say nothing.

use std::fs;
use std::io;
use std::thread;

use nix::sys::utsname::uname;
use serde::{Deserialize, Serialize};

/// What a benchmark ran on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's own name.
    pub processor: String,
    /// Processors that the benchmark may use, for client, director and servers together.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// The architecture.
    pub architecture: String,
    /// Whether a hypervisor is below, as the processor tells.
    pub virtualized: bool,
    /// The version of `ulvs`.
    pub ulvs: String,
    /// Whether `ulvs` was built without optimization: then its figures mean nothing.
    pub debug_build: bool,
}

impl Machine {
    /// Looks at the machine at hand.
    ///
    /// **Errors** — the kernel does not tell.
    pub fn of_this() -> io::Result<Self> {
        let name = uname()?;
        let text = |field: &std::ffi::OsStr| field.to_string_lossy().into_owned();
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Ok(Self {
            processor: field(&processors, "model name").unwrap_or("unknown processor").to_owned(),
            cores: thread::available_parallelism()?.get(),
            kernel: text(name.release()),
            architecture: text(name.machine()),
            virtualized: has_flag(&processors, "hypervisor"),
            ulvs: env!("CARGO_PKG_VERSION").to_owned(),
            debug_build: cfg!(debug_assertions),
        })
    }

    /// One line that says all.
    pub fn summary(&self) -> String {
        let kind = if self.virtualized { ", virtual machine" } else { "" };
        format!(
            "{}, {} cores shared by client, director and servers{kind}, Linux {} {}",
            self.processor, self.cores, self.kernel, self.architecture
        )
    }
}

fn field<'a>(processors: &'a str, name: &str) -> Option<&'a str> {
    processors.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn has_flag(processors: &str, flag: &str) -> bool {
    field(processors, "flags").is_some_and(|flags| flags.split_whitespace().any(|f| f == flag))
}
