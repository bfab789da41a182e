//! Balancing by NAT between two networks, for weights.

use std::net::Ipv4Addr;

use super::{Content, Host, Topology, between};

/// The director's address outside, which is also the virtual service's.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 109);
/// The director's address inside, which is the real servers' gateway.
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 109);

/// The topology.
pub fn topology() -> Topology {
    let links = between(
        ["192.168.1.100/24", "192.168.1.109/24"],
        "192.168.0.109/24",
        &[("real1", "192.168.0.112/24"), ("real2", "192.168.0.113/24")],
    );
    let real = |name, text: &str| Host::web(name, Content::Text(text.into())).gateway(INSIDE);
    Topology {
        name: "weights",
        title: "servers that take unequal shares (NAT, round robin, then weighted)",
        hosts: vec![
            Host::new("client", "client"),
            Host::director(&["out", "in"]),
            Host::switch("switch"),
            real("real1", "this is rs1\n"),
            real("real2", "this is rs2\n"),
        ],
        links,
    }
}
