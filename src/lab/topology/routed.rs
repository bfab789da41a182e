//! A network with a router in the middle: a client, a director on one arm, and two real servers,
//! each in a network of its own.

use std::net::Ipv4Addr;

use super::{Host, Link, link, port};

/// The virtual address.
pub const VIRTUAL: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 100);
/// The director's own address, on its only interface.
pub const DIRECTOR: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 200);
/// The first real server.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 11);
/// The second real server, in another network.
pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 12);

/// The hosts, with these for the real servers `real1` and `real2`.
pub fn hosts([near, far]: [Host; 2]) -> Vec<Host> {
    vec![
        Host::new("client", "client").gateway(Ipv4Addr::new(12, 0, 0, 1)),
        Host::router("router"),
        Host::director(&["eth0"]).gateway(Ipv4Addr::new(172, 16, 1, 1)),
        near.gateway(Ipv4Addr::new(192, 168, 10, 1)),
        far.gateway(Ipv4Addr::new(10, 20, 0, 1)),
    ]
}

/// The links, each to the router.
pub fn links() -> Vec<Link> {
    vec![
        link(
            port("client", "eth0", &["12.0.0.12/24"]),
            port("router", "clients", &["12.0.0.1/24"]),
        ),
        link(
            port("router", "balancers", &["172.16.1.1/24"]),
            port("director", "eth0", &["172.16.1.200/24"]),
        ),
        link(
            port("router", "near", &["192.168.10.1/24"]),
            port("real1", "eth0", &["192.168.10.11/24"]),
        ),
        link(port("router", "far", &["10.20.0.1/24"]), port("real2", "eth0", &["10.20.0.12/24"])),
    ]
}
