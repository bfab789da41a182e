//! The director host's addresses, routes and link sizes.

use std::net::{IpAddr, Ipv4Addr};

use super::story::Journal;
use crate::simulate::topology::{DIRECTOR, Link, ROUTER};

/// The smallest MTU that IPv4 allows on a link. **Source** — RFC 791 §3.2.
const MIN_MTU: u32 = 68;
/// The largest MTU that the host's links take, as TAP devices do.
const MAX_MTU: u32 = 65_521;

/// Where a packet goes by its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the host itself.
    Local,
    /// Over a link, to the owner of an address on it.
    Link(Link, IpAddr),
    /// Nowhere, because a route says so.
    Unreachable,
}

/// Why a command about addresses or routes was refused, in iproute2's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The address or the route is there already.
    #[error("RTNETLINK answers: File exists")]
    Exists,
    /// There is no such route.
    #[error("RTNETLINK answers: No such process")]
    NoSuchRoute,
    /// There is no such link.
    #[error("Cannot find device")]
    NoSuchLink,
    /// There is no such address.
    #[error("RTNETLINK answers: Cannot assign requested address")]
    NoSuchAddress,
    /// The router is not on a link of the host.
    #[error("Error: Nexthop has invalid gateway.")]
    BadGateway,
    /// A link cannot have that MTU.
    #[error("Error: mtu {} than device {}.", if *.0 { "greater" } else { "less" }, if *.0 { "maximum" } else { "minimum" })]
    BadMtu(bool),
    /// What is no prefix, as `10.0.0.0/33`.
    #[error("Error: any valid prefix is expected rather than the one given.")]
    BadPrefix,
    /// A rule that the simulator does not know.
    #[error("Error: argument of the rule is wrong or not known to the simulator.")]
    BadRule,
}

/// An address and how many of its bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

impl Prefix {
    /// Reads `ADDRESS`, `ADDRESS/BITS` or, for IPv4, `default`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "default" {
            return Self::parse("0.0.0.0/0");
        }
        let (addr, len) = text.split_once('/').unwrap_or((text, ""));
        let addr: IpAddr = addr.parse().ok()?;
        let width = width(addr);
        let len = if len.is_empty() { width } else { len.parse().ok()? };
        (len <= width).then_some(Self { addr, len })
    }

    /// One address.
    pub fn host(addr: IpAddr) -> Self {
        Self { addr, len: width(addr) }
    }

    /// The address that it was made of.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Whether an address lies in it.
    pub fn contains(&self, addr: IpAddr) -> bool {
        let shift = u32::from(width(self.addr) - self.len);
        let network = |addr| bits(addr).checked_shr(shift).unwrap_or(0);
        addr.is_ipv6() == self.addr.is_ipv6() && network(addr) == network(self.addr)
    }
}

fn width(addr: IpAddr) -> u8 {
    if addr.is_ipv6() { 128 } else { 32 }
}

fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().into(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

/// What a route does with the packets it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Delivers them to the host itself.
    Local,
    /// Sends them to their destination on a link.
    OnLink(Link),
    /// Sends them to a router.
    Via(IpAddr),
    /// Refuses them.
    Unreachable,
}

/// Addresses, routes and link sizes of the director host.
#[derive(Clone, Debug)]
pub struct Routes {
    routes: Vec<(Prefix, Target)>,
    mtus: [u32; 2],
    /// Further addresses on the outer link, in the order in which they came.
    added: Vec<IpAddr>,
    changes: u64,
    /// What the director considers while it asks.
    pub journal: Journal,
}

impl Default for Routes {
    /// The director of the oracle's network, with both links at 1500 bytes.
    fn default() -> Self {
        let mut routes = Vec::new();
        let mut add = |prefix: &str, target| {
            routes.push((Prefix::parse(prefix).expect("a written prefix is one"), target));
        };
        add("127.0.0.0/8", Target::Local);
        add("::1", Target::Local);
        for (network, default, ipv6) in [(24, "0.0.0.0/0", false), (64, "::/0", true)] {
            for link in Link::ALL {
                let own = own_address(link, ipv6);
                add(&own.to_string(), Target::Local);
                add(&format!("{own}/{network}"), Target::OnLink(link));
            }
            let router = Link::Out.address(ROUTER, ipv6).expect("the router has addresses");
            add(default, Target::Via(router));
        }
        let (mtus, added) = ([1500; 2], Vec::new());
        Self { routes, mtus, added, changes: 0, journal: Journal::default() }
    }
}

impl Routes {
    /// Gives the host one more address.
    pub fn add_address(&mut self, addr: IpAddr) -> Result<(), RouteError> {
        self.add(Prefix::host(addr), Target::Local)?;
        self.added.push(addr);
        Ok(())
    }

    /// Takes an address away that [`Self::add_address`] gave.
    pub fn remove_address(&mut self, addr: IpAddr) -> Result<(), RouteError> {
        let index = self.added.iter().position(|each| *each == addr);
        let index = index.ok_or(RouteError::NoSuchAddress)?;
        self.added.remove(index);
        self.remove(&Prefix::host(addr))
    }

    /// Adds a route.
    pub fn add(&mut self, prefix: Prefix, target: Target) -> Result<(), RouteError> {
        if self.position(&prefix).is_some() {
            return Err(RouteError::Exists);
        }
        if let Target::Via(router) = target
            && !matches!(self.find(router), Some(Target::OnLink(_)))
        {
            return Err(RouteError::BadGateway);
        }
        self.routes.push((prefix, target));
        self.changes += 1;
        Ok(())
    }

    /// Removes a route.
    pub fn remove(&mut self, prefix: &Prefix) -> Result<(), RouteError> {
        let index = self.position(prefix).ok_or(RouteError::NoSuchRoute)?;
        self.routes.remove(index);
        self.changes += 1;
        Ok(())
    }

    fn position(&self, prefix: &Prefix) -> Option<usize> {
        self.routes.iter().position(|(each, _)| {
            each.len == prefix.len
                && each.addr.is_ipv6() == prefix.addr.is_ipv6()
                && each.contains(prefix.addr)
        })
    }

    /// Sets the MTU of a link.
    pub fn set_mtu(&mut self, link: Link, mtu: u32) -> Result<(), RouteError> {
        if !(MIN_MTU..=MAX_MTU).contains(&mtu) {
            return Err(RouteError::BadMtu(mtu > MAX_MTU));
        }
        self.mtus[link as usize] = mtu;
        self.changes += 1;
        Ok(())
    }

    /// The largest packet that a link takes.
    pub fn link_mtu(&self, link: Link) -> usize {
        self.mtus[link as usize] as usize
    }

    /// How often something has changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Where packets to an address go.
    pub fn way(&self, to: IpAddr) -> Way {
        match self.find(to) {
            Some(Target::Local) => Way::Local,
            Some(Target::OnLink(link)) => Way::Link(link, to),
            Some(Target::Via(router)) => match self.find(router) {
                Some(Target::OnLink(link)) => Way::Link(link, router),
                _ => Way::Unreachable,
            },
            Some(Target::Unreachable) | None => Way::Unreachable,
        }
    }

    /// The largest packet that the way to an address takes; `None` if there is none.
    pub fn mtu_towards(&self, to: IpAddr) -> Option<usize> {
        match self.way(to) {
            Way::Local => Some(usize::from(u16::MAX)),
            Way::Link(link, _) => Some(self.link_mtu(link)),
            Way::Unreachable => None,
        }
    }

    /// The host's address on the way to `to`: the source of what it sends there.
    pub fn source_towards(&self, to: IpAddr) -> Option<IpAddr> {
        match self.way(to) {
            Way::Local => Some(to),
            Way::Link(link, _) => Some(self.source_on(link, to)),
            Way::Unreachable => None,
        }
    }

    /// The address on a link that has most in common with `to`, among equals the newest; IPv4 has
    /// one that is always taken.
    ///
    /// **Source** — RFC 6724 §5 rule 8, Linux `ipv6_get_saddr_eval`.
    fn source_on(&self, link: Link, to: IpAddr) -> IpAddr {
        let own = own_address(link, to.is_ipv6());
        if to.is_ipv4() || link == Link::In {
            return own;
        }
        let common = |addr: IpAddr, len: u32| (bits(addr) ^ bits(to)).leading_zeros().min(len);
        let added = self.added.iter().filter(|addr| addr.is_ipv6());
        let oldest_first = std::iter::once((own, common(own, NETWORK_V6)))
            .chain(added.map(|addr| (*addr, common(*addr, u128::BITS))));
        oldest_first.max_by_key(|(_, common)| *common).map_or(own, |(addr, _)| addr)
    }

    /// Whether an address is one of the host's own.
    pub fn is_local(&self, addr: IpAddr) -> bool {
        self.way(addr) == Way::Local
    }

    /// Whether an address means everybody on a link.
    pub fn is_broadcast(&self, addr: Ipv4Addr) -> bool {
        let last_on_link = |(prefix, target): &(Prefix, Target)| match (prefix.addr, target) {
            (IpAddr::V4(network), Target::OnLink(_)) => {
                network.to_bits() | u32::MAX >> prefix.len == addr.to_bits()
            }
            _ => false,
        };
        addr.is_broadcast() || self.routes.iter().any(last_on_link)
    }

    fn find(&self, to: IpAddr) -> Option<Target> {
        let matching = self.routes.iter().filter(|(prefix, _)| prefix.contains(to));
        matching.max_by_key(|(prefix, _)| prefix.len).map(|(_, target)| *target)
    }
}

/// Bits of an IPv6 address that tell the network.
const NETWORK_V6: u32 = 64;

fn own_address(link: Link, ipv6: bool) -> IpAddr {
    link.address(DIRECTOR, ipv6).expect("the director has addresses")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_decides() {
        let mut routes = Routes::default();
        let gateway = addr("12.0.0.254");
        assert_eq!(routes.way(addr("12.0.0.1")), Way::Local);
        assert_eq!(routes.way(addr("12.0.0.7")), Way::Link(Link::Out, addr("12.0.0.7")));
        assert_eq!(routes.way(addr("10.1.1.1")), Way::Link(Link::Out, gateway));
        assert_eq!(
            routes.way(addr("2001:db8:99::1")),
            Way::Link(Link::Out, addr("2001:db8:12::254"))
        );
        let router = addr("192.168.200.254");
        routes.add(Prefix::parse("10.0.0.0/8").unwrap(), Target::Via(router)).unwrap();
        routes.add(Prefix::parse("10.9.0.0/16").unwrap(), Target::Unreachable).unwrap();
        assert_eq!(routes.way(addr("10.1.1.1")), Way::Link(Link::In, router));
        assert_eq!(routes.way(addr("10.9.1.1")), Way::Unreachable);
        assert_eq!(routes.source_towards(addr("10.1.1.1")), Some(addr("192.168.200.1")));
        routes.add_address(addr("12.0.0.30")).unwrap();
        assert!(routes.is_local(addr("12.0.0.30")));
    }

    #[test]
    fn what_iproute2_refuses_changes_nothing() {
        let mut routes = Routes::default();
        assert_eq!(routes.add_address(addr("12.0.0.1")), Err(RouteError::Exists));
        let far = Target::Via(addr("10.0.0.1"));
        assert_eq!(
            routes.add(Prefix::parse("10.0.0.0/8").unwrap(), far),
            Err(RouteError::BadGateway)
        );
        assert_eq!(
            routes.remove(&Prefix::parse("10.0.0.0/8").unwrap()),
            Err(RouteError::NoSuchRoute)
        );
        assert_eq!(routes.set_mtu(Link::In, 67), Err(RouteError::BadMtu(false)));
        assert_eq!(routes.link_mtu(Link::In), 1500);
        assert_eq!(Prefix::parse("10.0.0.0/33"), None);
    }
}
