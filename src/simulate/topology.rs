//! The network around the director: its two links, and how their hosts are named.
//!
//! ```text
//! clients 12.0.0.2 - 12.0.0.40 ---.
//!                                 out  12.0.0.1 [director] 192.168.200.1  in --- servers 192.168.200.101 - .140
//! other networks -- gw 12.0.0.254 -'                                        '--- router 192.168.200.254
//! ```
//!
//! Every host has an IPv6 address beside its IPv4 one, with the same number as its last part, in
//! decimal digits: `rs110` is 192.168.200.110 and 2001:db8:200::110.

use std::fmt;
use std::net::IpAddr;

/// One of the director's two links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Link {
    /// Towards clients and the default gateway.
    Out,
    /// Towards real servers.
    In,
}

impl Link {
    /// Both, in the order in which they are looked at.
    pub const ALL: [Self; 2] = [Self::Out, Self::In];

    /// The link's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
        }
    }

    /// The link of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|link| link.name() == name)
    }

    /// What the addresses of its hosts begin with.
    fn prefix(self, ipv6: bool) -> &'static str {
        match (self, ipv6) {
            (Self::Out, false) => "12.0.0.",
            (Self::Out, true) => "2001:db8:12::",
            (Self::In, false) => "192.168.200.",
            (Self::In, true) => "2001:db8:200::",
        }
    }

    /// The address of its host with a number; `None` above 255 for IPv4, or 9999 for IPv6.
    pub fn address(self, number: u16, ipv6: bool) -> Option<IpAddr> {
        format!("{}{number}", self.prefix(ipv6)).parse().ok()
    }

    /// The number of the host on this link that owns an address, or of the router that leads to it.
    pub fn host_number(self, address: IpAddr) -> u16 {
        let text = address.to_string();
        let own = text.strip_prefix(self.prefix(address.is_ipv6()));
        own.and_then(|number| number.parse().ok()).unwrap_or(ROUTER)
    }

    /// Whether a host with this number exists; packets to others wait for an answer to ARP in vain.
    pub fn has_host(self, number: u16) -> bool {
        let known = match self {
            Self::Out => 2..=40,
            Self::In => 101..=140,
        };
        number == ROUTER || known.contains(&number)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The number of the router on either link.
pub const ROUTER: u16 = 254;
/// The number under which whoever listens to a multicast group is known on either link.
pub const MULTICAST: u16 = u16::MAX;
/// The number of the director on either link.
pub const DIRECTOR: u16 = 1;

/// A host on one of the links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// Its link.
    pub link: Link,
    /// The last part of its addresses.
    pub number: u16,
}

impl Host {
    /// The host that owns an address on a link, or the router that leads to it.
    pub fn owner_of(link: Link, address: IpAddr) -> Self {
        Self { link, number: link.host_number(address) }
    }

    /// Whether the host exists and has this address itself; packets to others wait for an answer to
    /// ARP or neighbour discovery in vain.
    pub fn answers_for(self, address: IpAddr) -> bool {
        self.link.has_host(self.number)
            && self.link.address(self.number, address.is_ipv6()) == Some(address)
    }

    /// Reads a name such as `rs110`, `c2` or `gw`.
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "gw" {
            return Some(Self { link: Link::Out, number: ROUTER });
        }
        let (link, digits) = match name.strip_prefix("rs") {
            Some(digits) => (Link::In, digits),
            None => (Link::Out, name.strip_prefix('c')?),
        };
        let number =
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
        link.address(number, false).map(|_| Self { link, number })
    }

    /// Its link address: host 110 on `in` has 02:00:00:02:01:10.
    pub fn link_address(self) -> String {
        let link = match self.link {
            Link::Out => 1,
            Link::In => 2,
        };
        format!("02:00:00:{link:02}:{:02}:{:02}", self.number / 100, self.number % 100)
    }

    /// Its address.
    pub fn address(self, ipv6: bool) -> IpAddr {
        self.link.address(self.number, ipv6).expect("numbers of hosts are below 256")
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.link, self.number) {
            (_, MULTICAST) => f.write_str("multicast"),
            (Link::In, number) => write!(f, "rs{number}"),
            (Link::Out, ROUTER) => f.write_str("gw"),
            (Link::Out, number) => write!(f, "c{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_tell_the_same_host() {
        for (name, v4, v6) in [
            ("rs110", "192.168.200.110", "2001:db8:200::110"),
            ("c2", "12.0.0.2", "2001:db8:12::2"),
            ("gw", "12.0.0.254", "2001:db8:12::254"),
        ] {
            let host = Host::from_name(name).unwrap();
            assert_eq!(host.to_string(), name);
            for (text, ipv6) in [(v4, false), (v6, true)] {
                let address: IpAddr = text.parse().unwrap();
                assert_eq!(host.address(ipv6), address);
                assert_eq!(Host::owner_of(host.link, address), host);
            }
        }
        assert_eq!(Link::Out.host_number("10.1.2.3".parse().unwrap()), ROUTER);
        for bad in ["rs", "c", "x1", "rs300", "c-1", "c+1", "server"] {
            assert_eq!(Host::from_name(bad), None, "{bad}");
        }
    }
}
