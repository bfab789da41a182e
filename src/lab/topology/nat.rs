//! Balancing by NAT: the real servers have the director as their gateway.

use std::net::{Ipv4Addr, SocketAddr};

use super::{Content, Host, Program, Topology, between};

/// The client outside.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(12, 0, 0, 12);
/// The director's address outside, which is also the virtual service's.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(12, 0, 0, 1);
/// The director's address inside, which is the real servers' gateway.
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 200, 1);
/// The first real server, "this is accp web".
pub const ACCP: Ipv4Addr = Ipv4Addr::new(192, 168, 200, 110);
/// The second real server, "this is benet web".
pub const BENET: Ipv4Addr = Ipv4Addr::new(192, 168, 200, 120);
/// The storage with both servers' pages.
pub const STORAGE: Ipv4Addr = Ipv4Addr::new(192, 168, 200, 130);

const NFS_PORT: u16 = 2049;

/// The topology.
pub fn topology() -> Topology {
    let links = between(
        ["12.0.0.12/24", "12.0.0.1/24"],
        "192.168.200.1/24",
        &[
            ("real1", "192.168.200.110/24"),
            ("real2", "192.168.200.120/24"),
            ("storage", "192.168.200.130/24"),
        ],
    );
    Topology {
        name: "nat",
        title: "one virtual service, two real servers behind the director (NAT, round robin)",
        hosts: vec![
            Host::new("client", "client"),
            Host::director(&["out", "in"]),
            Host::switch("switch"),
            real_server("real1", "accp"),
            real_server("real2", "benet"),
            storage(),
        ],
        links,
    }
}

fn real_server(name: &'static str, site: &str) -> Host {
    let storage = SocketAddr::new(STORAGE.into(), NFS_PORT);
    let page = Content::Stored { storage, file: format!("/opt/{site}/index.html") };
    Host::web(name, page).gateway(INSIDE)
}

fn storage() -> Host {
    let page = |site| (format!("/opt/{site}/index.html"), format!("this is {site} web\n"));
    Host::new("storage", "NFS server").gateway(INSIDE).runs(Program::Storage {
        listen: SocketAddr::new(STORAGE.into(), NFS_PORT),
        files: vec![page("accp"), page("benet")],
    })
}
