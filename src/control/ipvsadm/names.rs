//! Names of hosts and services, to and fro.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use dns_lookup::{AddrInfoHints, getaddrinfo, getnameinfo};
use nix::libc;

use crate::engine::service::Protocol;

/// Knows names.
pub trait Names {
    /// The IPv4 address of a host.
    fn address(&mut self, host: &str) -> Option<Ipv4Addr>;

    /// All IPv4 addresses of a host.
    fn addresses(&mut self, host: &str) -> Vec<Ipv4Addr> {
        self.address(host).into_iter().collect()
    }

    /// The port of a service.
    fn port(&mut self, service: &str, protocol: Protocol) -> Option<u16>;

    /// The name of the host with an address.
    fn host(&mut self, addr: IpAddr) -> Option<String>;

    /// The name of the service at a port.
    fn service(&mut self, port: u16, protocol: Protocol) -> Option<String>;
}

/// Knows no names.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNames;

impl Names for NoNames {
    fn address(&mut self, _: &str) -> Option<Ipv4Addr> {
        None
    }

    fn port(&mut self, _: &str, _: Protocol) -> Option<u16> {
        None
    }

    fn host(&mut self, _: IpAddr) -> Option<String> {
        None
    }

    fn service(&mut self, _: u16, _: Protocol) -> Option<String> {
        None
    }
}

/// The names that the system knows: /etc/hosts, /etc/services, DNS.
///
/// The names of all hosts together may take three seconds; after that, addresses stay numbers.
/// ipvsadm waits for each of them for as long as the resolver does.
#[derive(Debug, Default)]
pub struct SystemNames {
    hosts: HashMap<IpAddr, Option<String>>,
    services: HashMap<(u16, Protocol), Option<String>>,
    waited: Duration,
}

impl Names for SystemNames {
    fn address(&mut self, host: &str) -> Option<Ipv4Addr> {
        self.addresses(host).first().copied()
    }

    fn addresses(&mut self, host: &str) -> Vec<Ipv4Addr> {
        let (address, socktype) = (libc::AF_INET, libc::SOCK_RAW);
        let hints = AddrInfoHints { address, socktype, ..AddrInfoHints::default() };
        let Ok(found) = getaddrinfo(Some(host), None, Some(hints)) else { return Vec::new() };
        let addrs = found.filter_map(|entry| match entry.ok()?.sockaddr.ip() {
            IpAddr::V4(addr) => Some(addr),
            IpAddr::V6(_) => None,
        });
        addrs.collect()
    }

    fn port(&mut self, service: &str, protocol: Protocol) -> Option<u16> {
        // The resolver takes numbers as well, whatever their size, and `*' and nothing for port 0;
        // every name has a letter (RFC 6335 §5.1).
        if !service.contains(|letter: char| letter.is_ascii_alphabetic()) {
            return None;
        }
        let (socktype, protocol) = match protocol {
            Protocol::Tcp => (libc::SOCK_STREAM, libc::IPPROTO_TCP),
            Protocol::Udp => (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
            // The resolver has no names of SCTP services.
            Protocol::Sctp => return None,
        };
        let address = libc::AF_INET;
        let hints = AddrInfoHints { address, socktype, protocol, ..AddrInfoHints::default() };
        let found = getaddrinfo(None, Some(service), Some(hints)).ok()?.next()?;
        Some(found.ok()?.sockaddr.port())
    }

    fn host(&mut self, addr: IpAddr) -> Option<String> {
        if let Some(known) = self.hosts.get(&addr) {
            return known.clone();
        }
        let left = PATIENCE.checked_sub(self.waited)?;
        let start = Instant::now();
        let (tell, told) = mpsc::channel();
        // The resolver cannot be interrupted. A thread that is still waiting ends with the process.
        thread::spawn(move || tell.send(dns_lookup::lookup_addr(&addr).ok()));
        let name = told.recv_timeout(left).ok().flatten();
        self.waited += start.elapsed();
        self.hosts.insert(addr, name.clone());
        name
    }

    fn service(&mut self, port: u16, protocol: Protocol) -> Option<String> {
        if port == 0 || protocol == Protocol::Sctp {
            return None;
        }
        let look_up = || {
            let datagrams = if protocol == Protocol::Udp { libc::NI_DGRAM } else { 0 };
            let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
            let (_, name) = getnameinfo(&at, libc::NI_NUMERICHOST | datagrams).ok()?;
            // A port without a name comes back as its number.
            name.parse::<u16>().is_err().then_some(name)
        };
        self.services.entry((port, protocol)).or_insert_with(look_up).clone()
    }
}

/// Long enough for any resolver that works.
const PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_is_no_port() {
        for text in ["99999", "800000", "-2", " 70000", "*", ""] {
            assert_eq!(SystemNames::default().port(text, Protocol::Tcp), None, "{text:?}");
        }
    }
}
