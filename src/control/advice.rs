//! What to tell a person beside the bare error: the hints of a director that wants to be learnt.

use std::fmt::Write as _;

use crate::engine::scheduler::REGISTRY;
use crate::engine::service::{ForwardingMethod, Protocol, RealSpec, ServiceKey, ServiceView};
use crate::packet::{Addr, Endpoint};

/// What the director knows of the way to a real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Nothing.
    Unknown,
    /// There is a way.
    Reachable,
    /// The server is the director itself.
    Own,
    /// The address is everybody's on a link, and so no server's.
    Broadcast,
    /// The address is in no network of the director and there is no route made for it.
    Unlikely {
        /// The interface of the default route, if there is one.
        default_via: Option<String>,
        /// The address that was probably meant.
        meant: Option<Addr>,
    },
}

/// What is odd about a new real server, `None` if nothing is.
pub fn about_real(real: &RealSpec, route: &Route) -> Option<String> {
    let is_translated = real.method == ForwardingMethod::Masquerade;
    if *route == Route::Own && is_translated && real.addr.is_loopback() {
        return Some(format!(
            "by -m only this host's own clients reach {}, as with IPVS; for others name an address of \
             this host that is not a loopback one, use --fullnat, or use -g if the server listens at \
             the service's own address and port",
            real.addr
        ));
    }
    about_route(real, route)
}

fn about_route(real: &RealSpec, route: &Route) -> Option<String> {
    let Route::Unlikely { default_via, meant } = route else { return None };
    // Servers of a tunnel or of full NAT are far away by design.
    let is_far = matches!(real.method, ForwardingMethod::Tunnel | ForwardingMethod::FullNat);
    let is_usual = is_far && default_via.is_some();
    if is_usual && meant.is_none() {
        return None;
    }
    let addr = real.addr;
    let way = match default_via {
        Some(interface) => format!("only the default route through {interface} leads there"),
        None => "no route leads there".into(),
    };
    let question = meant.map_or(String::new(), |meant| format!("; did you mean {meant}?"));
    Some(format!("{addr} is in no network of the director, {way}{question}"))
}

/// Why a real server with a link-local address is refused.
pub fn about_link_local(addr: Addr) -> String {
    format!(
        "{addr} is valid on one link only and does not say on which; give the server's other \
         address"
    )
}

/// Why a real server was not found: most often its port is another.
pub fn about_missing_real(service: &ServiceView, addr: Addr, port: u16) -> String {
    let all = || service.reals.iter().map(|real| Endpoint::new(real.spec.addr, real.spec.port));
    let same: Vec<_> = all().filter(|real| real.addr == addr).collect();
    if !same.is_empty() {
        return format!(
            "the port is part of a real server's identity: at {addr} this service has {}, not port \
             {port}; to move a server to another port, delete it (-d) and add it anew (-a)",
            listed(same)
        );
    }
    match listed(all()) {
        none if none.is_empty() => "this service has no real servers; add one with -a".into(),
        servers => format!("this service has {servers}"),
    }
}

/// Why a service was not found: most often it is one of another port or protocol.
pub fn about_missing_service<'a>(
    key: &ServiceKey,
    services: impl Iterator<Item = &'a ServiceKey>,
) -> Option<String> {
    let ServiceKey::Address { addr: wanted, .. } = key else {
        return Some("add the service first, with -A".into());
    };
    let mut same = services
        .filter(|other| matches!(other, ServiceKey::Address { addr, .. } if addr == wanted))
        .map(name)
        .collect::<Vec<_>>();
    same.sort();
    Some(match listed(same) {
        none if none.is_empty() => format!("{} does not exist; -A adds it", name(key)),
        others => format!("{} does not exist, but {others}", name(key)),
    })
}

/// Which schedulers there are.
pub fn about_schedulers(wanted: &str) -> Option<String> {
    if REGISTRY.iter().any(|(name, _)| *name == wanted) {
        return Some("the only persistence engine is sip".into());
    }
    let names: Vec<_> = REGISTRY.iter().map(|(name, _)| *name).collect();
    Some(format!("there is no scheduler {wanted}; there are {}", names.join(" ")))
}

fn name(key: &ServiceKey) -> String {
    match key {
        ServiceKey::Mark { mark, .. } => format!("fwmark {mark}"),
        ServiceKey::Address { protocol, addr, port } => {
            let option = match protocol {
                Protocol::Tcp => "-t",
                Protocol::Udp => "-u",
                Protocol::Sctp => "--sctp-service",
            };
            format!("{option} {}", Endpoint::new(*addr, *port))
        }
    }
}

fn listed(names: impl IntoIterator<Item = impl std::fmt::Display>) -> String {
    let mut text = String::new();
    for (index, name) in names.into_iter().enumerate() {
        if index == MAX_LISTED {
            text.push_str(" …");
            break;
        }
        let separator = if index == 0 { "" } else { ", " };
        write!(text, "{separator}{name}").expect("a string takes everything");
    }
    text
}

/// A hint is a line, no listing.
const MAX_LISTED: usize = 8;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn unlikely(meant: Option<&str>) -> Route {
        Route::Unlikely { default_via: Some("out".into()), meant: meant.map(addr) }
    }

    #[test]
    fn the_typo_that_everybody_makes_is_told() {
        let real = RealSpec::new(addr("129.168.200.110"), 80);
        let hint = about_route(&real, &unlikely(Some("192.168.200.110"))).unwrap();
        assert!(hint.ends_with("; did you mean 192.168.200.110?"), "{hint}");
    }

    #[test]
    fn only_tunnels_lead_far_away() {
        let direct = RealSpec::new(addr("10.1.2.3"), 80);
        assert!(about_route(&direct, &unlikely(None)).is_some());
        let tunnel = RealSpec { method: ForwardingMethod::Tunnel, ..direct };
        assert_eq!(about_route(&tunnel, &unlikely(None)), None);
        let nowhere = Route::Unlikely { default_via: None, meant: None };
        assert!(about_route(&tunnel, &nowhere).is_some());
    }

    #[test]
    fn nat_does_not_lead_from_outside_to_loopback() {
        let real = RealSpec::new(addr("127.0.0.1"), 8080);
        assert_eq!(about_real(&real, &Route::Own), None);
        let real = RealSpec { method: ForwardingMethod::Masquerade, ..real };
        assert!(about_real(&real, &Route::Own).unwrap().contains("--fullnat"));
        let real = RealSpec { addr: addr("12.0.0.1"), ..real };
        assert_eq!(about_real(&real, &Route::Own), None);
    }

    #[test]
    fn a_server_on_a_link_is_fine() {
        let real = RealSpec::new(addr("192.168.200.110"), 80);
        assert_eq!(about_route(&real, &Route::Reachable), None);
    }
}
