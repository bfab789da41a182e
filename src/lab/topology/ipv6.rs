//! Balancing by NAT over IPv6: the same network as over IPv4, with other addresses.

use std::net::Ipv6Addr;

use super::{Content, Host, Topology, between};

/// The client outside.
pub const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x12, 0, 0, 0, 0, 0x12);
/// The director's address outside, which is also the virtual service's.
pub const OUTSIDE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x12, 0, 0, 0, 0, 1);
/// The director's address inside, which is the real servers' gateway.
pub const INSIDE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x200, 0, 0, 0, 0, 1);
/// The first real server, "this is accp web".
pub const ACCP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x200, 0, 0, 0, 0, 0x110);
/// The second real server, "this is benet web".
pub const BENET: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x200, 0, 0, 0, 0, 0x120);

/// The topology.
pub fn topology() -> Topology {
    let links = between(
        ["2001:db8:12::12/64", "2001:db8:12::1/64"],
        "2001:db8:200::1/64",
        &[("real1", "2001:db8:200::110/64"), ("real2", "2001:db8:200::120/64")],
    );
    let real = |name, site: &str| {
        let page = Content::Text(format!("this is {site} web\n"));
        Host::web_v6(name, page).gateway(INSIDE)
    };
    Topology {
        name: "ipv6",
        title: "the NAT lab over IPv6, with neighbour discovery in place of ARP",
        hosts: vec![
            Host::new("client", "client"),
            Host::director(&["out", "in"]).sysctl("net.ipv6.conf.all.forwarding", "0"),
            Host::switch("switch"),
            real("real1", "accp"),
            real("real2", "benet"),
        ],
        links,
    }
}
