//! Which port and next hop lead to an address: longest prefix first.

use hashbrown::HashMap;

use super::frame::PortId;
use crate::packet::{Addr, Family, Prefix};

/// Where packets to some network go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The port they leave through.
    pub port: PortId,
    /// The router they go to; none if destinations are on the link.
    pub gateway: Option<Addr>,
    /// Whether it is a default route, which says little about where a host is.
    pub is_default: bool,
}

/// Routes by prefix length. Lookup costs one hash lookup per length in use.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// The longest prefixes first.
    depths: Vec<(u8, Networks)>,
}

/// Routes of one prefix length, with their metrics, by network.
type Networks = HashMap<u128, (u32, Route)>;

impl Routes {
    /// Adds a route; of two for the same network the one with the smaller metric stays, the first
    /// of equal ones.
    pub fn add(&mut self, prefix: Prefix, port: PortId, gateway: Option<Addr>, metric: u32) {
        let route = Route { port, gateway, is_default: prefix.is_empty() };
        let depth = depth(prefix);
        let index = match self.depths.binary_search_by(|(each, _)| depth.cmp(each)) {
            Ok(index) => index,
            Err(index) => {
                self.depths.insert(index, (depth, HashMap::new()));
                index
            }
        };
        let networks = &mut self.depths[index].1;
        let entry = networks.entry(masked(prefix.addr(), depth)).or_insert((metric, route));
        if metric < entry.0 {
            *entry = (metric, route);
        }
    }

    /// The route to an address.
    pub fn lookup(&self, addr: Addr) -> Option<Route> {
        self.depths.iter().find_map(|(depth, networks)| {
            // A short IPv6 prefix must not catch IPv4, which is mapped below ::/80.
            let in_family = *depth >= 96 || addr.family() == Family::V6;
            let network = masked(addr, *depth);
            in_family.then(|| networks.get(&network).map(|(_, route)| *route)).flatten()
        })
    }
}

/// Length of a prefix in the 128 bits of an address of either family.
fn depth(prefix: Prefix) -> u8 {
    match prefix.addr().family() {
        Family::V4 => prefix.len() + 96,
        Family::V6 => prefix.len(),
    }
}

fn masked(addr: Addr, depth: u8) -> u128 {
    let mask = u128::MAX.checked_shl(128 - u32::from(depth)).unwrap_or(0);
    addr.bits() & mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn prefix(text: &str, len: u8) -> Prefix {
        Prefix::new(addr(text), len).unwrap()
    }

    #[test]
    fn the_longest_prefix_wins_and_then_the_smallest_metric() {
        let mut routes = Routes::default();
        routes.add(prefix("0.0.0.0", 0), PortId(0), Some(addr("192.0.2.254")), 100);
        routes.add(prefix("198.51.100.0", 24), PortId(1), None, 10);
        routes.add(prefix("198.51.100.0", 24), PortId(2), None, 5);
        routes.add(prefix("198.51.100.0", 24), PortId(3), None, 5);
        routes.add(prefix("198.51.100.7", 32), PortId(4), None, 900);
        routes.add(prefix("::", 0), PortId(5), None, 0);
        let port = |text| routes.lookup(addr(text)).map(|route| route.port.0);
        assert_eq!(port("198.51.100.7"), Some(4));
        assert_eq!(port("198.51.100.8"), Some(2));
        assert_eq!(port("203.0.113.1"), Some(0));
        assert_eq!(port("2001:db8::1"), Some(5));
        assert!(routes.lookup(addr("203.0.113.1")).unwrap().is_default);
    }

    #[test]
    fn no_route_is_no_route() {
        let mut routes = Routes::default();
        routes.add(prefix("2001:db8::", 32), PortId(0), None, 0);
        routes.add(prefix("::", 0), PortId(0), None, 0);
        assert_eq!(routes.lookup(addr("192.0.2.1")), None);
    }
}
