//! Ports held at the kernel's addresses for connections by full NAT.
//!
//! A real server answers to the director's address. Where that is the kernel's, the kernel would
//! reset what it knows nothing of, so each local port has a socket that listens and says nothing.
//! It also keeps the kernel from using the port for connections of the host's own.

use std::io;
use std::ops::RangeInclusive;

use hashbrown::{HashMap, HashSet};

use super::plan::kernel_has_sctp;
use super::socket::GuardSocket;
use super::{Guarded, raise_descriptor_limit};
use crate::engine::local::PortSet;
use crate::engine::service::Protocol;
use crate::packet::{Addr, Endpoint};

/// The ports that are held at an address: beyond Linux's ephemeral ports, which end at 60999, and
/// beyond those that are held for source NAT.
///
/// A port serves any number of connections as long as they go to different servers; to one and the
/// same there can be as many as there are ports.
pub const LOCAL_PORTS: RangeInclusive<u16> = 61_512..=65_535;

/// Descriptors that are left for everything else.
const RESERVE: usize = 256;

/// What is held at one address.
#[derive(Debug)]
struct Held {
    ports: PortSet,
    _sockets: Vec<GuardSocket>,
}

/// All that is held.
#[derive(Debug, Default)]
pub struct LocalPorts {
    held: HashMap<(Addr, Protocol), Held>,
    refused: HashSet<(Addr, Protocol)>,
}

impl LocalPorts {
    /// Holds the ports of an address for a protocol, all that are free and there are descriptors
    /// for, and returns them. Held ports stay as they are.
    ///
    /// **Errors** — if not one could be held; without a reason if that was said before.
    pub fn hold(&mut self, addr: Addr, protocol: Protocol) -> Result<&PortSet, Option<io::Error>> {
        let key = (addr, protocol);
        if self.refused.contains(&key) {
            return Err(None);
        }
        if !self.held.contains_key(&key) {
            match hold_all(addr, protocol) {
                Ok(held) => drop(self.held.insert(key, held)),
                Err(error) => {
                    self.refused.insert(key);
                    return Err(Some(error));
                }
            }
        }
        Ok(&self.held[&key].ports)
    }

    /// Lets go of the ports of all addresses but those to keep, and forgets what could not be held
    /// at others than those that are wanted.
    pub fn keep(&mut self, keeps: impl Fn(Addr) -> bool, wants: impl Fn(Addr) -> bool) {
        self.held.retain(|(addr, _), _| keeps(*addr));
        self.refused.retain(|(addr, _)| wants(*addr));
    }

    /// How many ports are held.
    pub fn len(&self) -> usize {
        self.held.values().map(|held| held.ports.len()).sum()
    }
}

fn hold_all(addr: Addr, protocol: Protocol) -> io::Result<Held> {
    let most = raise_descriptor_limit().saturating_sub(RESERVE + open_descriptors());
    if protocol == Protocol::Sctp && !kernel_has_sctp() {
        // One socket keeps the kernel from all ports of a protocol that it does not speak.
        let whole =
            Guarded { protocol: protocol.number(), at: Endpoint::new(addr, 0), interface: 0 };
        let _sockets = vec![GuardSocket::open(whole)?];
        return Ok(Held { ports: LOCAL_PORTS.collect(), _sockets });
    }
    let protocol = protocol.number();
    let (mut ports, mut sockets) = (PortSet::default(), Vec::new());
    let mut refused = io::Error::from(io::ErrorKind::QuotaExceeded);
    for port in LOCAL_PORTS.take(most) {
        match GuardSocket::open(Guarded { protocol, at: Endpoint::new(addr, port), interface: 0 }) {
            Ok(socket) => {
                sockets.push(socket);
                ports.insert(port);
            }
            // Somebody else's.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => refused = error,
            Err(error) => {
                refused = error;
                break;
            }
        }
    }
    if ports.is_empty() { Err(refused) } else { Ok(Held { ports, _sockets: sockets }) }
}

/// How many descriptors this process has open, as far as can be seen.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}
