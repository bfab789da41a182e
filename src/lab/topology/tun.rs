//! Balancing by tunnels: real servers in networks of their own, which answer the clients themselves.

use std::net::{IpAddr, Ipv4Addr};

use super::{Content, Host, Program, Topology, link, port};

/// The virtual address.
pub const VIRTUAL: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 100);
/// The director's own address, the near end of all tunnels.
pub const DIRECTOR: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 200);
/// The first real server.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 11);
/// The second real server, in another network.
pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 12);

/// The topology, with tunnels of a kind.
pub fn topology(kind: &str) -> Topology {
    let real = |name: &'static str, text: &str, gateway| {
        let decap = Program::Decap {
            virtual_address: IpAddr::V4(VIRTUAL),
            kind: kind.to_owned(),
            from: IpAddr::V4(DIRECTOR),
        };
        Host::web(name, Content::Text(text.to_owned())).runs(decap).gateway(gateway)
    };
    Topology {
        name: "tun",
        title: "real servers in other networks, that answer by themselves (tunnels)",
        hosts: vec![
            Host::new("client", "client").gateway(Ipv4Addr::new(12, 0, 0, 1)),
            Host::router("router"),
            Host::director(&["eth0"]).gateway(Ipv4Addr::new(172, 16, 1, 1)),
            real("real1", "this is rs1\n", Ipv4Addr::new(192, 168, 10, 1)),
            real("real2", "this is rs2\n", Ipv4Addr::new(10, 20, 0, 1)),
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
