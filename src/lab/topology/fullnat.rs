//! Balancing by full NAT: real servers in networks of their own, which know nothing of the director.

use std::net::{Ipv4Addr, SocketAddr};

pub use super::routed::{DIRECTOR, FAR, NEAR, VIRTUAL};
use super::routed::{hosts, links};
use super::{Content, Host, Program, Topology};

/// The client.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(12, 0, 0, 12);
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
        hosts: hosts([Host::web("real1", page("real1")), far]),
        links: links(),
    }
}
