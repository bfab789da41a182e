//! FTP by NAT, at an address that no kernel has.

use std::net::{Ipv4Addr, SocketAddr};

use super::{Host, Program, Topology, between};

/// The virtual address.
pub const VIRTUAL: Ipv4Addr = Ipv4Addr::new(12, 0, 0, 100);
/// The client outside.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(12, 0, 0, 12);
/// The director's address inside, which is the real servers' gateway.
const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 200, 1);

/// The topology.
pub fn topology() -> Topology {
    let links = between(
        ["12.0.0.12/24", "12.0.0.1/24"],
        "192.168.200.1/24",
        &[("real1", "192.168.200.110/24"), ("real2", "192.168.200.120/24")],
    );
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
