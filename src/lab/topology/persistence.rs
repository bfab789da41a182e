//! Balancing by NAT for two clients, each of which is to stay with its server.

use std::net::Ipv4Addr;

use super::{Content, Host, Topology, port, switched};

/// The first client.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 11);
/// The second client.
pub const CLIENT2: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 12);
/// The director's address outside, which is also the virtual services'.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 35);
/// The director's address inside, which is the real servers' gateway.
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 122, 1);

/// The topology.
pub fn topology() -> Topology {
    let mut links = switched(
        "outside",
        vec![
            port("client", "eth0", &["10.1.1.11/24"]),
            port("client2", "eth0", &["10.1.1.12/24"]),
            port("director", "out", &["10.1.1.35/24"]),
        ],
    );
    links.extend(switched(
        "inside",
        vec![
            port("director", "in", &["192.168.122.1/24"]),
            port("real1", "eth0", &["192.168.122.128/24"]),
            port("real2", "eth0", &["192.168.122.129/24"]),
        ],
    ));
    let real = |name, text: &str| Host::web(name, Content::Text(text.into())).gateway(INSIDE);
    Topology {
        name: "persistence",
        title: "clients that stay with their servers (NAT, persistent round robin)",
        hosts: vec![
            Host::new("client", "client"),
            Host::switch("outside"),
            Host::new("client2", "client"),
            Host::director(&["out", "in"]),
            Host::switch("inside"),
            real("real1", "this is rs1\n"),
            real("real2", "this is rs2\n"),
        ],
        links,
    }
}
