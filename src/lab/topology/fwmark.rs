//! Direct routing for a service of several ports, which a firewall mark joins.

use std::net::Ipv4Addr;

use super::dr::{real_server, segment};
use super::{Host, Topology, port};

/// The virtual service's address.
pub const VIRTUAL: Ipv4Addr = Ipv4Addr::new(192, 168, 122, 2);

/// The topology.
pub fn topology() -> Topology {
    let real = |name, text| real_server(name, text, "192.168.122.2/32").database();
    Topology {
        name: "fwmark",
        title: "a web and a database port as one service (firewall mark, direct routing)",
        hosts: vec![
            Host::new("client", "client"),
            Host::switch("switch"),
            Host::director(&["eth0"]),
            real("real1", "this is rs1\n"),
            real("real2", "this is rs2\n"),
        ],
        links: segment(
            port("client", "eth0", &["192.168.122.10/24"]),
            &["192.168.122.127/24"],
            ["192.168.122.128/24", "192.168.122.129/24"],
        ),
    }
}
