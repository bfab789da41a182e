//! Whether the host knows a sensible way to a real server, and which address was meant if not.

use std::net::{IpAddr, Ipv4Addr};

use crate::link::{HostView, KernelRoute};
use crate::packet::{Addr, Family, Prefix};

/// What the kernel's routes say about a real server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteAdvice {
    /// It is in a network that the host is connected to, or has a route for.
    Reachable,
    /// The host has no network or route for it, except perhaps the default route to the clients.
    Unlikely {
        /// The interface of the default route, if there is one.
        default_via: Option<String>,
        /// An address in a connected network that this one may be a mistyping of.
        meant: Option<Addr>,
    },
    /// It is one of the host's own addresses.
    Own,
    /// The host has no addresses, so nothing can be said.
    Unknown,
}

/// Judges a real server's address.
pub fn advise(view: &HostView, server: Addr) -> RouteAdvice {
    if view.owns(server) {
        return RouteAdvice::Own;
    }
    let connected: Vec<Prefix> =
        view.addresses.iter().map(|own| own.prefix).filter(is_network).collect();
    let leads_there = |route: &&KernelRoute| route.prefix.contains(server);
    let mut routes = view.routes.iter().filter(leads_there);
    let routed = routes.clone().any(|route| !route.prefix.is_empty());
    if routed || connected.iter().any(|prefix| prefix.contains(server)) {
        return RouteAdvice::Reachable;
    }
    if connected.is_empty() {
        return RouteAdvice::Unknown;
    }
    let default_via = routes.find_map(|route| {
        let mut interfaces = view.interfaces.iter();
        interfaces.find(|each| each.index == route.interface).map(|each| each.name.clone())
    });
    // Nobody who adds a real server means the director itself.
    let meant = meant(server, &connected).filter(|addr| !view.owns(*addr));
    RouteAdvice::Unlikely { default_via, meant }
}

/// A network that has room for servers, loopback excepted.
fn is_network(prefix: &Prefix) -> bool {
    let first = IpAddr::from(prefix.addr());
    let single = match prefix.addr().family() {
        Family::V4 => prefix.len() == 32,
        Family::V6 => prefix.len() >= 127,
    };
    let link_local = matches!(first, IpAddr::V6(addr) if addr.is_unicast_link_local());
    !single && !first.is_loopback() && !link_local
}

/// The address in a connected network that is one slip of the hand away.
fn meant(server: Addr, connected: &[Prefix]) -> Option<Addr> {
    let IpAddr::V4(server) = IpAddr::from(server) else { return None };
    let octets = server.octets();
    let slips = (0..4).flat_map(|place| {
        connected.iter().filter_map(move |network| {
            let IpAddr::V4(first) = IpAddr::from(network.addr()) else { return None };
            let mut corrected = octets;
            corrected[place] = first.octets()[place];
            let likely = is_slip(octets[place], corrected[place]);
            let addr = Addr::from(Ipv4Addr::from(corrected));
            (likely && network.contains(addr)).then_some(addr)
        })
    });
    let swaps = (0..3).map(|place| {
        let mut swapped = octets;
        swapped.swap(place, place + 1);
        Addr::from(Ipv4Addr::from(swapped))
    });
    let swaps = swaps.filter(|addr| connected.iter().any(|network| network.contains(*addr)));
    let mut candidates: Vec<Addr> = slips.chain(swaps).collect();
    candidates.dedup();
    match candidates[..] {
        [only] => Some(only),
        // Two corrections are a guess.
        _ => None,
    }
}

/// Whether one number is easily typed for the other: two digits exchanged, or one digit wrong,
/// missing or too many.
fn is_slip(typed: u8, meant: u8) -> bool {
    let (typed, meant) = (typed.to_string(), meant.to_string());
    typed != meant && distance(typed.as_bytes(), meant.as_bytes()) == 1
}

/// Edits between two short words, with the exchange of neighbours as one.
fn distance(a: &[u8], b: &[u8]) -> usize {
    match (a, b) {
        ([], rest) | (rest, []) => rest.len(),
        ([x, a @ ..], [y, b @ ..]) if x == y => distance(a, b),
        ([x0, x1, a_rest @ ..], [y0, y1, b_rest @ ..]) if x0 == y1 && x1 == y0 => {
            1 + distance(a_rest, b_rest)
        }
        ([_, a_rest @ ..], [_, b_rest @ ..]) => {
            1 + distance(a_rest, b_rest).min(distance(a_rest, b)).min(distance(a, b_rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{Interface, KernelAddress};

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn host() -> HostView {
        let own = |interface, text: &str, len| KernelAddress {
            interface,
            addr: addr(text),
            prefix: Prefix::new(addr(text), len).unwrap(),
        };
        let default = KernelRoute {
            prefix: Prefix::new(addr("0.0.0.0"), 0).unwrap(),
            interface: 2,
            gateway: Some(addr("12.0.0.254")),
            metric: 0,
        };
        HostView {
            interfaces: vec![Interface { index: 2, name: "out".into(), ..Interface::default() }],
            addresses: vec![
                own(1, "127.0.0.1", 8),
                own(2, "12.0.0.1", 24),
                own(3, "192.168.200.1", 24),
            ],
            routes: vec![default],
            ..HostView::default()
        }
    }

    fn unlikely(meant: Option<&str>) -> RouteAdvice {
        RouteAdvice::Unlikely { default_via: Some("out".into()), meant: meant.map(addr) }
    }

    #[test]
    fn the_typo_everybody_makes_is_recognised() {
        assert_eq!(advise(&host(), addr("129.168.200.110")), unlikely(Some("192.168.200.110")));
        assert_eq!(advise(&host(), addr("192.168.20.110")), unlikely(Some("192.168.200.110")));
        assert_eq!(advise(&host(), addr("168.192.200.110")), unlikely(Some("192.168.200.110")));
    }

    #[test]
    fn the_directors_own_address_is_never_what_was_meant() {
        assert_eq!(advise(&host(), addr("10.0.0.1")), unlikely(None));
        assert_eq!(advise(&host(), addr("129.168.200.1")), unlikely(None));
    }

    #[test]
    fn an_address_that_is_merely_elsewhere_is_not_corrected() {
        assert_eq!(advise(&host(), addr("203.0.113.9")), unlikely(None));
    }

    #[test]
    fn connected_and_routed_servers_need_no_advice() {
        assert_eq!(advise(&host(), addr("192.168.200.110")), RouteAdvice::Reachable);
        let mut routed = host();
        routed.routes[0].prefix = Prefix::new(addr("203.0.113.0"), 24).unwrap();
        assert_eq!(advise(&routed, addr("203.0.113.9")), RouteAdvice::Reachable);
        assert_eq!(advise(&host(), addr("12.0.0.1")), RouteAdvice::Own);
    }

    #[test]
    fn a_host_without_addresses_says_nothing() {
        assert_eq!(advise(&HostView::default(), addr("203.0.113.9")), RouteAdvice::Unknown);
    }
}
