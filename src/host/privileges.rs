//! What the calling thread may do.

use std::io;

use rustix::thread::capabilities;

pub use rustix::thread::CapabilitySet;

/// Whether the calling thread has all of these capabilities in effect, in its user namespace.
pub fn has(needed: CapabilitySet) -> bool {
    effective().is_ok_and(|effective| effective.contains(needed))
}

fn effective() -> io::Result<CapabilitySet> {
    Ok(capabilities(None)?.effective)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_those_that_proc_tells() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let told = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        let told = u64::from_str_radix(told.trim(), 16).unwrap();
        for capability in CapabilitySet::all().iter() {
            assert_eq!(has(capability), told & capability.bits() != 0, "{capability:?}");
        }
    }
}
