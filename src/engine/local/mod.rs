//! Local endpoints: the director's own addresses and ports, from which real servers reached by full
//! NAT see their clients come.
//!
//! [`Locals`] is what holds for all workers: which ports may be used at which address. Each worker
//! has its own [`Pools`] of those that answers to are steered to it, so that no two workers ever use
//! the same one and none has to ask another.

mod pools;
mod ports;

pub use pools::Pools;
pub use ports::PortSet;

use hashbrown::{HashMap, HashSet};

use crate::packet::{Addr, Endpoint, Headers};

/// The ports that may be used where nobody says which, first and last.
///
/// They lie beyond those of ordinary services, so that frames to an address which is both a
/// service's and a local one can be told apart by a glance at the port, and before those that
/// source NAT uses.
pub const DEFAULT_LOCAL_PORTS: std::ops::RangeInclusive<u16> = FIRST_LOCAL_PORT..=60_999;

/// No local port is lower.
pub const FIRST_LOCAL_PORT: u16 = 32_768;

/// Which local endpoints there are, the same for all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locals {
    /// Ports by address and protocol number.
    pub ports: HashMap<(Addr, u8), PortSet>,
    /// The real servers that are reached by full NAT.
    pub servers: HashSet<Addr>,
    /// Whether only ports that are listed may be used at addresses of the kernel, which otherwise
    /// resets what it knows nothing of.
    pub guarded: bool,
}

impl Locals {
    /// Whether a packet comes from a real server to a local endpoint.
    pub fn is_answer(&self, headers: &Headers) -> bool {
        self.is_between(headers.source.addr, headers.destination, headers.protocol)
    }

    /// Whether a packet that an ICMP error quotes went from a local endpoint to a real server.
    pub fn is_request(&self, quoted: &Headers) -> bool {
        self.is_between(quoted.destination.addr, quoted.source, quoted.protocol)
    }

    fn is_between(&self, server: Addr, local: Endpoint, protocol: u8) -> bool {
        self.servers.contains(&server)
            && match self.ports.get(&(local.addr, protocol)) {
                Some(ports) => ports.contains(local.port),
                None => DEFAULT_LOCAL_PORTS.contains(&local.port),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::headers::protocol::{TCP, UDP};

    const SERVER: Addr = Addr::v4(0xc0a8_c86e);
    const LOCAL: Addr = Addr::v4(0x0c00_0001);

    #[test]
    fn only_servers_answer_and_only_to_local_ports() {
        let mut locals = Locals::default();
        locals.servers.insert(SERVER);
        locals.ports.insert((LOCAL, TCP), [40_000, 40_001].into_iter().collect());
        let answer =
            |from, port, protocol| locals.is_between(from, Endpoint::new(LOCAL, port), protocol);
        assert!(answer(SERVER, 40_001, TCP));
        assert!(!answer(SERVER, 40_002, TCP) && !answer(SERVER, 80, TCP));
        assert!(!answer(LOCAL, 40_001, TCP));
        assert!(answer(SERVER, 40_002, UDP) && !answer(SERVER, 80, UDP), "the default ports");
    }
}
