//! Which program has a port.

use std::fs;

use crate::packet::headers::protocol::{TCP, UDP};

/// The program that has a port of this network namespace, as `name (pid)`; `None` if it cannot be
/// seen, as when it belongs to another user.
pub fn find(protocol: u8, port: u16) -> Option<String> {
    let tables: &[&str] = match protocol {
        TCP => &["tcp", "tcp6"],
        UDP => &["udp", "udp6"],
        _ => &[],
    };
    let inodes = tables.iter().filter_map(|table| {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok()?;
        text.lines().find_map(|line| inode_of(line, protocol, port))
    });
    inodes.into_iter().find_map(|inode| process_with(&format!("socket:[{inode}]")))
}

/// The inode in a line of `/proc/net/tcp`, if it is of a socket that receives at the port.
fn inode_of(line: &str, protocol: u8, port: u16) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let receives = protocol != TCP || state == LISTEN;
    let (_, hex) = local.rsplit_once(':')?;
    let matches = receives && u16::from_str_radix(hex, 16) == Ok(port);
    matches.then(|| fields.nth(5)?.parse().ok()).flatten()
}

fn process_with(socket: &str) -> Option<String> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find_map(|pid| {
        let mut descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let has_it = |entry: fs::DirEntry| {
            fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == socket)
        };
        descriptors.any(has_it).then(|| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("{} (process {pid})", name.trim())
        })
    })
}

const LISTEN: &str = "0A";

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_holder_of_a_port_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let named = find(TCP, port).unwrap();
        assert!(named.contains(&format!("(process {})", std::process::id())), "{named}");
        drop(listener);
        assert_eq!(find(TCP, port), None);
    }

    #[test]
    fn lines_that_are_no_sockets_are_skipped() {
        for line in ["", "  sl  local_address rem_address   st tx_queue", "0: x:y 0 0A", "0: :zz"] {
            assert_eq!(inode_of(line, TCP, 80), None);
        }
    }
}
