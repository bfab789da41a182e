//! The network as the director of one worker sees it.

use hashbrown::HashMap;

use super::shared::SharedLink;
use crate::engine::{Awaited, Copies, Moment, Network, Owner};
use crate::link::{DOOR, HopCache, Learned, LinkLayer, PortId};
use crate::packet::{Addr, Endpoint, Family, Prefix};

/// What a worker keeps of the link layer, renewed whenever that moved on.
#[derive(Debug)]
pub(super) struct View {
    /// Link headers of known next hops.
    pub hops: HopCache,
    /// Where packets came from.
    pub learned: Learned,
    owners: HashMap<Addr, Owner>,
    /// Networks that are the kernel's own as a whole.
    kernels: Vec<Prefix>,
    mtus: Vec<usize>,
    /// Ports that the kernel has no IPv4 address, and no IPv6 address, on: only there matters
    /// where packets came from.
    bare: Vec<[bool; 2]>,
    smallest_mtu: usize,
    names: Vec<String>,
    routed: bool,
    /// The link layer's when this was renewed.
    epoch: u64,
}

/// Next hops, and senders, remembered per worker.
const HOPS: usize = 4096;
const SENDERS: usize = 16_384;

impl View {
    pub fn new() -> Self {
        Self {
            hops: HopCache::new(HOPS),
            learned: Learned::new(SENDERS),
            owners: HashMap::new(),
            kernels: Vec::new(),
            mtus: Vec::new(),
            bare: Vec::new(),
            smallest_mtu: 0,
            names: Vec::new(),
            routed: false,
            epoch: 0,
        }
    }

    /// Takes over what the link layer knows now.
    pub fn renew(&mut self, layer: &LinkLayer) {
        self.hops.set_epoch(layer.epoch());
        self.epoch = layer.epoch();
        self.owners.clear();
        self.owners.extend(layer.met_at().map(|addr| (addr, Owner::Director)));
        self.owners.extend(layer.kernel_addresses().map(|addr| (addr, Owner::Kernel)));
        self.kernels = layer.kernel_networks().collect();
        self.mtus = layer.ports().iter().map(|port| port.mtu_bytes as usize).collect();
        self.bare = layer.ports().iter().map(|port| [port.bare_v4, port.bare_v6]).collect();
        self.names = layer.ports().iter().map(|port| port.name.clone()).collect();
        self.routed = layer.is_routed();
        self.smallest_mtu = layer.smallest_mtu_bytes() as usize;
    }

    /// The longest packet that every link takes.
    pub fn smallest_mtu(&self) -> usize {
        self.smallest_mtu
    }

    /// Whether packets come and go without link headers, and the kernel routes them.
    pub fn is_routed(&self) -> bool {
        self.routed
    }

    /// Whether packets to an address that go to the kernel would come back.
    pub fn is_diverted(&self, addr: Addr) -> bool {
        self.owners.get(&addr) == Some(&Owner::Director)
    }

    /// Who answers for an address.
    pub fn owner(&self, addr: Addr) -> Owner {
        let is_kernels = || self.kernels.iter().any(|network| network.contains(addr));
        match self.owners.get(&addr) {
            Some(owner) => *owner,
            None if is_kernels() => Owner::Kernel,
            None => Owner::Other,
        }
    }

    /// Whether an address is the kernel's or the director's own.
    pub fn is_own(&self, addr: Addr) -> bool {
        self.owners.contains_key(&addr)
    }

    /// Whether it is worth remembering that packets from an address came by a port.
    pub fn learns(&self, port: PortId, from: Addr) -> bool {
        let Some([bare_v4, bare_v6]) = self.bare.get(usize::from(port.0)) else { return false };
        match from.family() {
            Family::V4 => *bare_v4,
            Family::V6 => *bare_v6 || from.is_link_local(),
        }
    }
}

/// A [`View`] at one moment, with the link layer behind it for what it does not have.
pub(super) struct WorkerNetwork<'a> {
    pub view: &'a View,
    pub link: &'a SharedLink,
    pub now: Moment,
    /// The port by which the packets in question came.
    pub arrival: PortId,
}

impl WorkerNetwork<'_> {
    fn port_towards(&self, to: Addr) -> Option<PortId> {
        if let Some(hop) = self.view.hops.lookup(to, self.now) {
            return Some(hop.exit);
        }
        self.link.with(|layer| layer.port_towards(to, self.view.learned.lookup(to)))
    }
}

impl Network for WorkerNetwork<'_> {
    fn mtu(&self, to: Addr) -> Option<usize> {
        if self.view.hops.lookup(to, self.now).is_none() && self.is_local(to) {
            return Some(usize::from(u16::MAX));
        }
        if let Some(port) = self.port_towards(to) {
            return self.view.mtus.get(usize::from(port.0)).copied();
        }
        // Whoever has yet to be found is found on some port.
        self.link.with(|layer| layer.leads_to(to)).then_some(self.view.smallest_mtu)
    }

    fn address_towards(&self, to: Addr) -> Option<Addr> {
        let learned = self.view.learned.lookup(to);
        self.link.with(|layer| layer.address_towards(to, learned))
    }

    fn owner(&self, addr: Addr) -> Owner {
        self.view.owner(addr)
    }

    fn epoch(&self) -> u64 {
        self.view.epoch
    }

    fn is_from_host(&self) -> bool {
        // What the kernel routes here it has looked at, and nftables before it.
        self.view.is_routed() || self.arrival == DOOR
    }

    fn copies(&self) -> Copies {
        match (self.view.is_routed(), self.link.has_rules()) {
            (true, _) => Copies::None,
            (false, false) => Copies::All,
            (false, true) => Copies::ButServices,
        }
    }

    fn await_connection(&self, at: Endpoint) -> Awaited {
        // What is routed to the director is not the kernel's to answer.
        if self.view.is_routed() || self.owner(at.addr) != Owner::Kernel {
            return Awaited::at(at);
        }
        self.link.keeper().await_connection(at)
    }

    fn leaves_by(&self, to: Addr, interface: &str) -> bool {
        let port = self.port_towards(to);
        let name = port.and_then(|port| self.view.names.get(usize::from(port.0)));
        name.is_some_and(|name| matches_interface(interface, name))
    }

    fn arrived_by(&self, interface: &str) -> bool {
        let name = self.view.names.get(usize::from(self.arrival.0));
        name.is_some_and(|name| matches_interface(interface, name))
    }
}

/// Whether an interface name fits a pattern of iptables: a trailing `+` is any ending.
fn matches_interface(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('+') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    }
}

/// Where a packet says that it comes from.
pub(super) fn source_of(packet: &[u8]) -> Option<Addr> {
    match packet.first()? >> 4 {
        4 => addr_v4(packet.get(12..16)?),
        6 => addr_v6(packet.get(8..24)?),
        _ => None,
    }
}

/// Where a packet is to go.
pub(super) fn destination_of(packet: &[u8]) -> Option<Addr> {
    match packet.first()? >> 4 {
        4 => addr_v4(packet.get(16..20)?),
        6 => addr_v6(packet.get(24..40)?),
        _ => None,
    }
}

fn addr_v4(bytes: &[u8]) -> Option<Addr> {
    Some(Addr::v4(u32::from_be_bytes(*bytes.first_chunk()?)))
}

fn addr_v6(bytes: &[u8]) -> Option<Addr> {
    Some(Addr::v6(u128::from_be_bytes(*bytes.first_chunk()?)))
}
