//! A route of a namespace.

use std::net::IpAddr;

use super::Prefix;

/// Where packets for some addresses go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The addresses that it is for.
    pub destination: Prefix,
    /// The gateway, if the addresses are not on the link itself.
    pub via: Option<IpAddr>,
    /// The interface; with a gateway the kernel can find it by itself.
    pub interface: Option<String>,
}

impl Route {
    /// A default route through a gateway.
    pub fn default_via(gateway: IpAddr) -> Self {
        let any: IpAddr = if gateway.is_ipv4() { [0u8; 4].into() } else { [0u8; 16].into() };
        let destination = Prefix::new(any, 0).expect("0 is no longer than any address");
        Route { destination, via: Some(gateway), interface: None }
    }
}
