//! What the kernel counts about a device.

/// Packets that the kernel could not put into a queue of the device, because it was full; `None` if
/// that cannot be told.
///
/// **Source** — proc_pid_net(5), `dev`.
pub fn queue_drops(name: &str) -> Option<u64> {
    // Of the thread's network namespace, which need not be the process's.
    drops(&std::fs::read_to_string("/proc/thread-self/net/dev").ok()?, name)
}

fn drops(table: &str, name: &str) -> Option<u64> {
    let line =
        table.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'));
    line?.split_ascii_whitespace().nth(TRANSMIT_DROPS)?.parse().ok()
}

/// Behind eight columns about receiving: bytes, packets, errors, and drops.
const TRANSMIT_DROPS: usize = 8 + 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_column_of_the_right_device_is_read() {
        let table = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo:     100       2    0    0    0     0          0         0      100       2    0    5    0
 ulvs0:       0       0    0    3    0     0          0         0       0       0    0    7    0
 ulvs01:      0       0    0    3    0     0          0         0       0       0    0    9    0
";
        assert_eq!(drops(table, "ulvs0"), Some(7));
        assert_eq!(drops(table, "lo"), Some(5));
        assert_eq!(drops(table, "ulvs"), None);
    }
}
