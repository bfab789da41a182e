//! What the kernel knows about the host, as plain data.

use pnet_base::MacAddr;

use crate::packet::{Addr, Family};

/// The kernel's interfaces, addresses, routes and neighbours at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostView {
    /// Grows with every change.
    pub epoch: u64,
    /// All interfaces.
    pub interfaces: Vec<Interface>,
    /// All addresses.
    pub addresses: Vec<KernelAddress>,
    /// Unicast routes of the main table.
    pub routes: Vec<KernelRoute>,
    /// Neighbours with a known link address.
    pub neighbours: Vec<KernelNeighbour>,
    /// What the kernel takes as its own addresses, also beyond those on interfaces.
    pub locals: Vec<Prefix>,
    /// Whether the kernel forwards IPv4 packets.
    pub forwards_v4: bool,
}

impl HostView {
    /// The interface with this name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// Whether an address is the kernel's own, on any interface.
    pub fn owns(&self, addr: Addr) -> bool {
        self.addresses.iter().any(|own| own.addr == addr)
            || self.locals.iter().any(|prefix| prefix.contains(addr))
    }
}

/// An interface of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number for it; changes if it is deleted and made anew.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its link address, if it has one of Ethernet's length.
    pub mac: Option<MacAddr>,
    /// Largest packet it takes, without link header.
    pub mtu_bytes: u32,
    /// Whether it is configured up.
    pub up: bool,
    /// Whether its link works.
    pub running: bool,
    /// Whether its frames have Ethernet headers, loopback excepted.
    pub ethernet: bool,
    /// The bridge, bond or VRF that it belongs to.
    pub master: Option<u32>,
    /// The interface it is a VLAN of, and the VLAN's number.
    pub vlan: Option<(u32, u16)>,
    /// What kind of virtual device it is, as the kernel calls it (`veth`, `bridge`, `vlan`).
    pub kind: Option<String>,
}

/// An address of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelAddress {
    /// The interface it is on.
    pub interface: u32,
    /// The address.
    pub addr: Addr,
    /// The network it is in.
    pub prefix: Prefix,
}

/// A unicast route of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelRoute {
    /// The destinations it is for.
    pub prefix: Prefix,
    /// The interface it leads out of.
    pub interface: u32,
    /// The next hop; none if destinations are on the link.
    pub gateway: Option<Addr>,
    /// The smaller, the better.
    pub metric: u32,
}

/// A neighbour whose link address the kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelNeighbour {
    /// The interface it is on.
    pub interface: u32,
    /// Its address.
    pub addr: Addr,
    /// Its link address.
    pub mac: MacAddr,
    /// Whether an administrator set it for ever.
    pub permanent: bool,
}

/// A network: the leading bits that its addresses share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    bits: u128,
    /// In the 128-bit space of [`Addr`]; an IPv4 network's length plus 96.
    len: u8,
}

impl Prefix {
    /// The network of `addr` with a prefix length of its family; `None` if that is too long.
    pub fn new(addr: Addr, len: u8) -> Option<Self> {
        let (most, base) = match addr.family() {
            Family::V4 => (32, 96),
            Family::V6 => (128, 0),
        };
        let len = (len <= most).then_some(len + base)?;
        Some(Self { bits: addr.bits() & mask(len), len })
    }

    /// The network of a single address.
    pub fn host(addr: Addr) -> Self {
        Self { bits: addr.bits(), len: 128 }
    }

    /// Whether an address belongs to it.
    pub fn contains(&self, addr: Addr) -> bool {
        addr.family() == self.family() && addr.bits() & mask(self.len) == self.bits
    }

    /// Prefix length in bits of its own family.
    pub fn len_bits(&self) -> u8 {
        match self.family() {
            Family::V4 => self.len - 96,
            Family::V6 => self.len,
        }
    }

    /// Whether it contains every address of its family.
    pub fn is_default(&self) -> bool {
        self.len_bits() == 0
    }

    /// Length in the shared 128-bit space, to compare how narrow networks are.
    pub(super) fn depth(&self) -> u8 {
        self.len
    }

    /// This network's address part shortened to `depth`.
    pub(super) fn at_depth(addr: Addr, depth: u8) -> u128 {
        addr.bits() & mask(depth)
    }

    /// Family of its addresses.
    pub fn family(&self) -> Family {
        if self.len >= 96 && self.bits >> 32 == 0xffff { Family::V4 } else { Family::V6 }
    }

    /// Its first address.
    pub fn first(&self) -> Addr {
        Addr::v6(self.bits)
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.first(), self.len_bits())
    }
}

const fn mask(len: u8) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - len as u32) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn networks_contain_their_own_family_only() {
        let net = Prefix::new(addr("192.0.2.77"), 24).unwrap();
        assert_eq!(net.to_string(), "192.0.2.0/24");
        assert!(net.contains(addr("192.0.2.255")) && !net.contains(addr("192.0.3.0")));
        let any4 = Prefix::new(addr("0.0.0.0"), 0).unwrap();
        assert!(any4.contains(addr("203.0.113.1")) && !any4.contains(addr("2001:db8::1")));
        assert!(any4.is_default());
        let any6 = Prefix::new(addr("::"), 0).unwrap();
        assert!(any6.contains(addr("2001:db8::1")) && !any6.contains(addr("203.0.113.1")));
        assert_eq!(Prefix::new(addr("192.0.2.1"), 33), None);
    }
}
