//! Network addresses of either family in sixteen bytes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Address family of a packet, a service or a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// An IPv4 or IPv6 address that is cheap to copy, compare and hash.
///
/// **Shape** — 128 bits in host order; an IPv4 address is held behind 96 bits that are all ones, so
/// that both families share one key layout. No host has an IPv6 address that begins so (RFC 4291
/// §2.7: groups of a reserved kind); packets from or to one are rejected when parsed. An IPv4-mapped
/// IPv6 address (`::ffff:a.b.c.d`) is an IPv6 address like others. IPv4 addresses sort first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Addr(u128);

/// What stands in front of the bits of an IPv4 address.
const V4_FRONT: u128 = u128::MAX << 32;

impl Addr {
    /// The all-zero IPv6 address, used where a key has no address.
    pub const UNSPECIFIED: Self = Self(0);

    /// An IPv4 address from its 32 bits in host order.
    pub const fn v4(bits: u32) -> Self {
        Self(V4_FRONT | bits as u128)
    }

    /// An IPv6 address from its 128 bits in host order.
    pub const fn v6(bits: u128) -> Self {
        Self(bits)
    }

    /// All 128 bits; of an IPv4 address with ones in front.
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// The family this address belongs to.
    pub const fn family(self) -> Family {
        if self.0 >> 32 == V4_FRONT >> 32 { Family::V4 } else { Family::V6 }
    }

    /// The low 32 bits: the whole of an IPv4 address in host order.
    pub const fn v4_bits(self) -> u32 {
        self.0 as u32
    }

    /// Whether it is an IPv6 address that is valid on one link only.
    pub const fn is_link_local(self) -> bool {
        self.0 >> 118 == 0xfe80 >> 6
    }

    /// Whether it means the very host that uses it: 127.0.0.0/8 and ::1.
    pub const fn is_loopback(self) -> bool {
        match self.family() {
            Family::V4 => self.v4_bits() >> 24 == 127,
            Family::V6 => self.0 == 1,
        }
    }

    /// Whether it is an IPv4-mapped IPv6 address, which sockets use and wires do not.
    pub const fn is_mapped(self) -> bool {
        self.0 >> 32 == 0xffff
    }

    /// Whether a packet can be from it at all. A host's stack drops others at its door as "martian",
    /// so that IPVS never sees them. Of loopback addresses IPVS sees the host's own clients.
    ///
    /// **Source** — Linux `ip_route_input_slow` (groups, everybody, this network) and `ip6_rcv_core`
    /// (groups); RFC 4291 §2.5.2 for packets from nobody.
    pub const fn can_be_source(self) -> bool {
        match self.family() {
            Family::V4 => {
                !matches!(self.v4_bits() >> 24, 0 | 224..=239) && self.v4_bits() != u32::MAX
            }
            Family::V6 => self.0 != 0 && self.0 >> 120 != 0xff,
        }
    }
}

impl Ord for Addr {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Around the end of the numbers, IPv4 addresses come before all others.
        let place = |addr: &Self| addr.0.wrapping_add(1 << 32);
        place(self).cmp(&place(other))
    }
}

impl PartialOrd for Addr {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(addr: Ipv4Addr) -> Self {
        Self::v4(addr.to_bits())
    }
}

impl From<Ipv6Addr> for Addr {
    fn from(addr: Ipv6Addr) -> Self {
        Self::v6(addr.to_bits())
    }
}

impl From<IpAddr> for Addr {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => addr.into(),
            IpAddr::V6(addr) => addr.into(),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        match addr.family() {
            Family::V4 => Ipv4Addr::from_bits(addr.v4_bits()).into(),
            Family::V6 => Ipv6Addr::from_bits(addr.0).into(),
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        address_text(IpAddr::from(*self)).fmt(f)
    }
}

/// How the C library writes an address: IPv6 addresses that only have their last 32 bits end like
/// IPv4 addresses.
///
/// **Source** — inet_ntop(3) of the GNU C library.
pub fn address_text(addr: IpAddr) -> String {
    match addr {
        IpAddr::V6(addr) if (0x1_0000..1 << 32).contains(&addr.to_bits()) => {
            format!("::{}", Ipv4Addr::from_bits(addr.to_bits() as u32))
        }
        _ => addr.to_string(),
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

/// An address and a transport port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Endpoint {
    /// The address.
    pub addr: Addr,
    /// The port in host order; the identifier for ICMP echo, 0 where there is none.
    pub port: u16,
}

impl Endpoint {
    /// Joins an address and a port.
    pub const fn new(addr: Addr, port: u16) -> Self {
        Self { addr, port }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr.family() {
            Family::V4 => write!(f, "{}:{}", self.addr, self.port),
            Family::V6 => write!(f, "[{}]:{}", self.addr, self.port),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An address range that shares its first bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    addr: Addr,
    len: u8,
}

impl Prefix {
    /// The range of `addr` with a prefix of `len` bits; `None` if the family has fewer.
    pub fn new(addr: Addr, len: u8) -> Option<Self> {
        let limit = match addr.family() {
            Family::V4 => 32,
            Family::V6 => 128,
        };
        (len <= limit).then_some(Self { addr, len })
    }

    /// The address it was made with, host bits included.
    pub fn addr(&self) -> Addr {
        self.addr
    }

    /// How many bits are fixed.
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether it takes every address of its family.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it takes a single address.
    pub fn is_single(&self) -> bool {
        match self.addr.family() {
            Family::V4 => self.len == 32,
            Family::V6 => self.len == 128,
        }
    }

    /// Whether `addr` lies in it.
    pub fn contains(&self, addr: Addr) -> bool {
        let fixed = match self.addr.family() {
            Family::V4 => u32::from(self.len) + 96,
            Family::V6 => u32::from(self.len),
        };
        let differing = (self.addr.bits() ^ addr.bits()).checked_shr(128 - fixed).unwrap_or(0);
        self.addr.family() == addr.family() && differing == 0
    }
}

impl std::str::FromStr for Prefix {
    type Err = String;

    /// Reads `ADDRESS` or `ADDRESS/BITS`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (addr, len) =
            text.split_once('/').map_or((text, None), |(addr, len)| (addr, Some(len)));
        let parsed: IpAddr = addr.parse().map_err(|_| format!("`{addr}' is not an IP address"))?;
        let whole = if parsed.is_ipv4() { 32 } else { 128 };
        let len = match len {
            None => whole,
            Some(len) => len.parse().map_err(|_| format!("`{len}' is not a prefix length"))?,
        };
        Self::new(parsed.into(), len).ok_or_else(|| format!("`/{len}' is longer than /{whole}"))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_survive_the_round_trip() {
        for text in ["192.0.2.1", "0.0.0.0", "2001:db8::1", "::", "::1", "::ffff:192.0.2.1"] {
            let addr: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Addr::from(addr)), addr);
        }
    }

    #[test]
    fn ipv4_addresses_sort_first() {
        let addrs =
            ["0.0.0.0", "10.0.0.1", "255.255.255.255", "::", "::1", "2001:db8::1", "ff02::1"];
        let addrs = addrs.map(|text| Addr::from(text.parse::<IpAddr>().unwrap()));
        assert!(addrs.is_sorted());
    }

    #[test]
    fn a_prefix_takes_its_own_family_only() {
        let prefix: Prefix = "192.168.200.1/24".parse().unwrap();
        let contains = |text: &str| prefix.contains(text.parse::<IpAddr>().unwrap().into());
        assert!(contains("192.168.200.0") && contains("192.168.200.255"));
        assert!(!contains("192.168.201.0") && !contains("::1"));
        let everything: Prefix = "::/0".parse().unwrap();
        assert!(everything.contains(Addr::v6(7)) && !everything.contains(Addr::v4(7)));
        for wrong in ["192.0.2.1/33", "::/129", "x/8", "192.0.2.1/", "192.0.2.1/-1"] {
            assert!(wrong.parse::<Prefix>().is_err(), "{wrong}");
        }
    }
}
