//! FTP by NAT, at an address that no kernel has.

use std::net::{Ipv4Addr, SocketAddr};

use super::{Host, Program, Topology, link, port, switched};

/// The virtual address.
pub const VIRTUAL: Ipv4Addr = Ipv4Addr::new(12, 0, 0, 100);
/// The client outside.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(12, 0, 0, 12);
/// The director's address inside, which is the real servers' gateway.
const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 200, 1);

/// The topology.
pub fn topology() -> Topology {
    let mut links = vec![link(
        port("client", "eth0", &["12.0.0.12/24"]),
        port("director", "out", &["12.0.0.1/24"]),
    )];
    links.extend(switched(
        "switch",
        vec![
            port("director", "in", &["192.168.200.1/24"]),
            port("real1", "eth0", &["192.168.200.110/24"]),
            port("real2", "eth0", &["192.168.200.120/24"]),
        ],
    ));
    let real = |name| {
        let listen = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 21);
        Host::new(name, "FTP server").runs(Program::Files { listen }).gateway(INSIDE)
    };
    Topology {
        name: "ftp",
        title: "FTP through NAT, with data connections either way",
        hosts: vec![
            Host::new("client", "client"),
            Host::director(&["out", "in"]),
            Host::switch("switch"),
            real("real1"),
            real("real2"),
        ],
        links,
    }
}
