//! Balancing by tunnels: real servers in networks of their own, which answer the clients themselves.
//! The director's own address is the near end of all tunnels.

use std::net::IpAddr;

pub use super::routed::{DIRECTOR, FAR, NEAR, VIRTUAL};
use super::routed::{hosts, links};
use super::{Content, Host, Program, Topology};

/// The topology, with tunnels of a kind.
pub fn topology(kind: &str) -> Topology {
    let real = |name: &'static str, text: &str| {
        let decap = Program::Decap {
            virtual_address: IpAddr::V4(VIRTUAL),
            kind: kind.to_owned(),
            from: IpAddr::V4(DIRECTOR),
        };
        Host::web(name, Content::Text(text.to_owned())).runs(decap)
    };
    Topology {
        name: "tun",
        title: "real servers in other networks, that answer by themselves (tunnels)",
        hosts: hosts([real("real1", "this is rs1\n"), real("real2", "this is rs2\n")]),
        links: links(),
    }
}
