//! A port: an interface that the director works on.

use pnet_base::MacAddr;

use super::nd;
use super::view::Interface;
use crate::packet::{Addr, Family};

/// An interface that the director works on, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The interface's name, by which it is found again when it was away.
    pub name: String,
    /// The kernel's number for it; none while there is no such interface.
    pub index: Option<u32>,
    /// Its own link address.
    pub mac: MacAddr,
    /// The director's virtual link address on it.
    pub own_mac: MacAddr,
    /// Largest packet it takes, without link header.
    pub mtu_bytes: u32,
    /// The director's own link-local IPv6 address on it, which goes with that.
    pub own_link_local: Addr,
    /// Whether the kernel has no IPv4 address on it, so that nobody but us knows who is there.
    pub bare_v4: bool,
    /// The same for IPv6; link-local addresses do not count.
    pub bare_v6: bool,
    /// VLANs on it that the kernel has interfaces for.
    pub foreign_vlans: Vec<u16>,
}

impl Port {
    /// A port for an interface that is not there yet.
    pub fn absent(name: &str) -> Self {
        Self {
            name: name.into(),
            index: None,
            mac: MacAddr::zero(),
            own_mac: MacAddr::zero(),
            mtu_bytes: 0,
            own_link_local: Addr::UNSPECIFIED,
            bare_v4: false,
            bare_v6: false,
            foreign_vlans: Vec::new(),
        }
    }

    /// Whether the kernel has no address of a family on it, but for link-local ones.
    pub fn is_bare(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.bare_v4,
            Family::V6 => self.bare_v6,
        }
    }

    /// Takes over what the kernel says about the interface.
    pub(super) fn update(&mut self, interface: Option<&Interface>) {
        let usable = interface.and_then(|interface| Some((interface, interface.mac?)));
        let Some((interface, mac)) = usable else {
            *self = Self::absent(&self.name);
            return;
        };
        self.index = Some(interface.index);
        self.mac = mac;
        self.own_mac = own_mac(mac);
        self.own_link_local = nd::link_local(self.own_mac);
        self.mtu_bytes = interface.mtu_bytes;
    }

    /// The same where packets come and go without link headers, so that no link address is needed.
    pub(super) fn update_routed(&mut self, interface: Option<&Interface>) {
        self.index = interface.map(|interface| interface.index);
        self.mtu_bytes = interface.map_or(0, |interface| interface.mtu_bytes);
    }
}

/// The director's virtual link address on an interface: locally administered, and always the same
/// for the same interface, so that neighbours need not learn a new one when ulvs starts again.
pub fn own_mac(mac: MacAddr) -> MacAddr {
    // FNV-1a, 64 bits; any hash that is the same for ever would do.
    let hash = mac.octets().iter().chain(b"ulvs").fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let [_, _, _, b, c, d, e, f] = hash.to_be_bytes();
    MacAddr(0x02, b, c, d, e, f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_virtual_address_is_local_and_stays_the_same() {
        let first = own_mac(MacAddr(0, 0, 0x5e, 0, 0x53, 1));
        assert!(first.is_local() && !first.is_multicast());
        assert_eq!(first, own_mac(MacAddr(0, 0, 0x5e, 0, 0x53, 1)));
        assert_ne!(first, own_mac(MacAddr(0, 0, 0x5e, 0, 0x53, 2)));
    }
}
