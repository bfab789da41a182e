//! What the kernel knows about the host, as plain data.

use pnet_base::MacAddr;

use crate::packet::{Addr, Family, Prefix};

/// The kernel's interfaces, addresses, routes and neighbours at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostView {
    /// Grows with every change.
    pub epoch: u64,
    /// All interfaces.
    pub interfaces: Vec<Interface>,
    /// The number of the director's own device, if it has one, whose addresses are none of the
    /// kernel's. Nor are those of doors.
    pub own_device: Option<u32>,
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
    /// Whether the kernel forwards IPv6 packets.
    pub forwards_v6: bool,
}

/// The address with the longest beginning in common, rather one that is not virtual, so that the
/// answer does not depend on the order of a hash table.
pub(super) fn nearest(
    addrs: impl Iterator<Item = Addr>,
    is_virtual: impl Fn(Addr) -> bool,
    to: Addr,
) -> Option<Addr> {
    let likeness = |addr: &Addr| (addr.bits() ^ to.bits()).leading_zeros();
    addrs.max_by_key(|addr| (!is_virtual(*addr), likeness(addr), std::cmp::Reverse(*addr)))
}

/// Whether an interface leads some director to its own host.
pub fn is_door(name: &str) -> bool {
    let rest = name.strip_prefix("ulvs-lo");
    rest.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}

impl HostView {
    /// Whether an interface is a director's own.
    pub fn is_directors(&self, index: u32) -> bool {
        let is_door = |each: &Interface| each.index == index && is_door(&each.name);
        self.own_device == Some(index) || self.interfaces.iter().any(is_door)
    }

    /// Whether the kernel forwards packets of a family.
    pub fn forwards(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.forwards_v4,
            Family::V6 => self.forwards_v6,
        }
    }

    /// The interface with this name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// The kernel's own address that is most like another, to talk to it from.
    pub fn nearest_address(&self, to: Addr) -> Option<Addr> {
        let is_usable = |from: &Addr| {
            from.family() == to.family() && !from.is_loopback() && !from.is_link_local()
        };
        let usable = self.addresses.iter().map(|own| own.addr).filter(is_usable);
        nearest(usable, |_| false, to)
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
    /// The network it is in; on a point-to-point link that of its peer.
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
