//! Balancing by full NAT: real servers in networks of their own, which know nothing of the director.

use std::net::{Ipv4Addr, SocketAddr};

use super::{Content, Host, Program, Topology, link, port};

/// The client.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(12, 0, 0, 12);
/// The virtual address.
pub const VIRTUAL: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 100);
/// The director's own address, on its only interface.
pub const DIRECTOR: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 200);
/// The first real server.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 11);
/// The second real server, in another network.
pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 12);
/// The port of the second real server.
pub const FAR_PORT: u16 = 8080;

/// The topology.
pub fn topology() -> Topology {
    let page = |name: &str| Content::Text(format!("this is {name}\n"));
    let listen = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), FAR_PORT);
    let far = Host::new("real2", "web server").runs(Program::Web { listen, page: page("real2") });
    Topology {
        name: "fullnat",
        title: "real servers anywhere, behind routers of their own (full NAT, one-arm director)",
        hosts: vec![
            Host::new("client", "client").gateway(Ipv4Addr::new(12, 0, 0, 1)),
            Host::new("router", "router").sysctl("net.ipv4.ip_forward", "1"),
            Host::director(&["eth0"]).gateway(Ipv4Addr::new(172, 16, 1, 1)),
            Host::web("real1", page("real1")).gateway(Ipv4Addr::new(192, 168, 10, 1)),
            far.gateway(Ipv4Addr::new(10, 20, 0, 1)),
        ],
        links: vec![
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
            link(
                port("router", "far", &["10.20.0.1/24"]),
                port("real2", "eth0", &["10.20.0.12/24"]),
            ),
        ],
    }
}
