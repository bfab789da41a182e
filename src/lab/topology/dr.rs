//! Balancing by direct routing: the real servers have the virtual address as well, and answer the
//! clients themselves.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{Content, Host, Port, Program, Topology, link, port, switched};

/// The textbook with a router between the client and everybody else.
pub mod tutorial {
    use super::*;

    /// The virtual service's address.
    pub const VIRTUAL: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 110);

    /// The topology.
    pub fn topology() -> Topology {
        let gateway = Ipv4Addr::new(192, 168, 0, 1);
        let real = |name, text| real_server(name, text, "192.168.0.110/32").gateway(gateway);
        let mut links = vec![link(
            port("client", "eth0", &["192.168.1.100/24"]),
            port("router", "out", &["192.168.1.1/24"]),
        )];
        links.extend(segment(
            port("router", "in", &["192.168.0.1/24"]),
            &["192.168.0.109/24", "192.168.0.110/32"],
            ["192.168.0.112/24", "192.168.0.113/24"],
        ));
        Topology {
            name: "dr",
            title: "real servers that answer by themselves (direct routing)",
            hosts: vec![
                Host::new("client", "client").gateway(Ipv4Addr::new(192, 168, 1, 1)),
                Host::router("router"),
                Host::switch("switch"),
                Host::director(&["eth0"]).gateway(gateway),
                real("real1", "this is rs1\n"),
                real("real2", "this is rs2\n"),
            ],
            links,
        }
    }
}

/// The textbook with the client in the same segment.
pub mod segment {
    use super::*;

    /// The virtual service's address.
    pub const VIRTUAL: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 100);

    /// The topology.
    pub fn topology() -> Topology {
        let real = |name, text| real_server(name, text, "172.16.1.100/32");
        Topology {
            name: "dr",
            title: "real servers that answer by themselves (direct routing, least connections)",
            hosts: vec![
                Host::new("client", "client"),
                Host::switch("switch"),
                Host::director(&["eth0"]),
                real("real1", "this is rs1\n"),
                real("real2", "this is rs2\n"),
            ],
            links: super::segment(
                port("client", "eth0", &["172.16.1.1/24"]),
                &["172.16.1.200/24"],
                ["172.16.1.10/24", "172.16.1.20/24"],
            ),
        }
    }
}

/// The textbook whose router sends a public address's connections to the virtual one.
pub mod router {
    use super::*;

    /// The address that clients know, which is the router's.
    pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 35);
    /// The virtual service's address.
    pub const VIRTUAL: Ipv4Addr = Ipv4Addr::new(192, 168, 122, 2);

    /// The topology.
    pub fn topology() -> Topology {
        let gateway = Ipv4Addr::new(192, 168, 122, 1);
        let real = |name, text| real_server(name, text, "192.168.122.2/32").gateway(gateway);
        let web = (SocketAddrV4::new(PUBLIC, 80), SocketAddrV4::new(VIRTUAL, 80));
        let mut links = vec![link(
            port("client", "eth0", &["10.1.1.11/24"]),
            port("router", "out", &["10.1.1.35/24"]),
        )];
        links.extend(segment(
            port("router", "in", &["192.168.122.1/24"]),
            &["192.168.122.127/24"],
            ["192.168.122.128/24", "192.168.122.129/24"],
        ));
        Topology {
            name: "dr-router",
            title: "direct routing behind a router with the public address (DNAT)",
            hosts: vec![
                Host::new("client", "client"),
                Host::router("router").runs(Program::Translate { translations: vec![web] }),
                Host::switch("switch"),
                Host::director(&["eth0"]).gateway(gateway),
                real("real1", "this is rs1\n"),
                real("real2", "this is rs2\n"),
            ],
            links,
        }
    }
}

/// A real server with the virtual address on `lo`.
pub(super) fn real_server(name: &'static str, text: &str, virtual_address: &str) -> Host {
    Host::web(name, Content::Text(text.into())).quiet_address(virtual_address)
}

/// The links of one segment: somebody from outside, the director, and two real servers.
pub(super) fn segment(outside: Port, director: &[&str], reals: [&str; 2]) -> Vec<super::Link> {
    let [real1, real2] = reals;
    let plugged = vec![
        outside,
        port("director", "eth0", director),
        port("real1", "eth0", &[real1]),
        port("real2", "eth0", &[real2]),
    ];
    switched("switch", plugged)
}
