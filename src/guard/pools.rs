//! Ports held at the kernel's addresses for connections that real servers begin, by source NAT.
//!
//! Several rules may use one address with other ports each: all of them are held.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::ops::RangeInclusive;

use hashbrown::{HashMap, HashSet};

use super::socket::GuardSocket;
use super::{Guarded, raise_descriptor_limit};
use crate::packet::headers::protocol;
use crate::packet::{Addr, Endpoint};

/// All that is held.
#[derive(Debug, Default)]
pub struct Pools {
    /// By address and port, for TCP and UDP.
    held: HashMap<Addr, BTreeMap<u16, [GuardSocket; 2]>>,
    /// What was reported already, so that it is said once.
    refused: HashSet<Addr>,
}

impl Pools {
    /// Holds TCP and UDP ports of an address, and returns those that are held: as many from the
    /// start of the range as there are free ones and descriptors for.
    ///
    /// **Errors** — if not even the first could be held; without a reason if that was said before.
    pub fn hold(
        &mut self,
        addr: Addr,
        range: RangeInclusive<u16>,
    ) -> Result<RangeInclusive<u16>, Option<io::Error>> {
        let held = self.held.entry(addr).or_default();
        if range.clone().any(|port| !held.contains_key(&port)) {
            raise_descriptor_limit();
        }
        let mut last = None;
        for port in range.clone() {
            if let Entry::Vacant(free) = held.entry(port) {
                match hold_both(Endpoint::new(addr, port)) {
                    Ok(pair) => drop(free.insert(pair)),
                    Err(error) if last.is_none() => {
                        return Err(self.refused.insert(addr).then_some(error));
                    }
                    Err(_) => break,
                }
            }
            last = Some(port);
        }
        let Some(last) = last else { return Err(None) };
        self.refused.remove(&addr);
        Ok(*range.start()..=last)
    }

    /// Lets go of all ports but these.
    pub fn keep(&mut self, wanted: &[(Addr, RangeInclusive<u16>)]) {
        let is_wanted = |addr: Addr| wanted.iter().any(|(each, _)| *each == addr);
        self.held.retain(|addr, ports| {
            let ranges = || wanted.iter().filter(|(each, _)| each == addr).map(|(_, ports)| ports);
            ports.retain(|port, _| ranges().any(|range| range.contains(port)));
            !ports.is_empty()
        });
        self.refused.retain(|addr| is_wanted(*addr));
    }
}

fn hold_both(at: Endpoint) -> io::Result<[GuardSocket; 2]> {
    let open = |protocol| GuardSocket::open(Guarded { protocol, at, interface: 0 });
    Ok([open(protocol::TCP)?, open(protocol::UDP)?])
}
