//! A one-line notation for IP packets, and its translation to and from bytes.
//!
//! ```text
//! SRC[:PORT] > DST[:PORT] PROTOCOL [KIND] [FIELD[=VALUE]]... [{QUOTED OR INNER PACKET}]
//!
//! 12.0.0.2:1000 > 12.0.0.1:80 tcp S seq=1000 ttl=64
//! 192.168.200.1 > 192.168.200.110 ipip df {12.0.0.2:1000 > 12.0.0.1:80 tcp S}
//! 12.0.0.9 > 12.0.0.1 icmp 3/4 mtu=1400 {12.0.0.1:80 > 12.0.0.2:1000 tcp A len=10}
//! ```
//!
//! The same notation is read in scenarios and written in transcripts. It knows bytes and text; who
//! sends a packet, and over which link, is the business of the network.

mod build;
mod dissect;
mod format;
mod fragment;
mod parse;
#[cfg(test)]
mod tests;
mod wire;

use std::net::{IpAddr, Ipv4Addr};

pub use dissect::dissect;
pub use fragment::{fragments, reassemble};
pub use parse::NotationError;
pub(super) use wire::{internet_checksum, pseudo_header, to_hex};

/// The UDP port on which GUE packets are recognised.
pub const GUE_PORT: u16 = 6080;
/// The UDP port of connection synchronisation messages.
pub const SYNC_PORT: u16 = 8848;

/// The letters of the TCP flags, from the lowest bit on.
const TCP_FLAGS: &str = "FSRPAUEC";
/// The names of SCTP chunks, by their type.
const SCTP_CHUNKS: [&str; 15] = [
    "DATA",
    "INIT",
    "INIT_ACK",
    "SACK",
    "HEARTBEAT",
    "HEARTBEAT_ACK",
    "ABORT",
    "SHUTDOWN",
    "SHUTDOWN_ACK",
    "ERROR",
    "COOKIE_ECHO",
    "COOKIE_ACK",
    "ECNE",
    "CWR",
    "SHUTDOWN_COMPLETE",
];

/// IPv6 extension headers that are skipped: hop-by-hop, routing, destination options.
const IPV6_EXTENSIONS: [u8; 3] = [0, 43, 60];
const IPV6_FRAGMENT: u8 = 44;

/// What an IP packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proto {
    /// ICMP for IPv4.
    Icmp,
    /// IGMP.
    Igmp,
    /// Another IP packet, IPv4 or IPv6.
    IpIp,
    /// TCP.
    Tcp,
    /// UDP, also where it carries GUE.
    Udp,
    /// GRE, carrying an IP packet.
    Gre,
    /// IPsec ESP.
    Esp,
    /// IPsec AH.
    Ah,
    /// ICMP for IPv6.
    Icmp6,
    /// SCTP.
    Sctp,
    /// Any other protocol number.
    Other(u8),
}

const NAMED_PROTOCOLS: [(Proto, &str, u8); 10] = [
    (Proto::Icmp, "icmp", 1),
    (Proto::Igmp, "igmp", 2),
    (Proto::IpIp, "ipip", 4),
    (Proto::Tcp, "tcp", 6),
    (Proto::Udp, "udp", 17),
    (Proto::Gre, "gre", 47),
    (Proto::Esp, "esp", 50),
    (Proto::Ah, "ah", 51),
    (Proto::Icmp6, "icmp6", 58),
    (Proto::Sctp, "sctp", 132),
];
const IPV6_IN_IP: u8 = 41;

impl Proto {
    /// The protocol with a number in an IP header.
    pub fn from_number(number: u8) -> Self {
        if number == IPV6_IN_IP {
            return Self::IpIp;
        }
        let named = NAMED_PROTOCOLS.iter().find(|(_, _, each)| *each == number);
        named.map_or(Self::Other(number), |(proto, ..)| *proto)
    }

    /// Whether its packets have ports.
    pub fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp | Self::Sctp)
    }

    /// Whether it is ICMP of either family.
    pub fn is_icmp(self) -> bool {
        matches!(self, Self::Icmp | Self::Icmp6)
    }
}

/// A packet as the notation tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// What it carries.
    pub proto: Proto,
    /// Source and destination port, where they are known.
    pub ports: Option<(u16, u16)>,
    /// TCP flags, ICMP type/code, SCTP chunks or `gue`, as written; empty for other protocols.
    pub kind: String,
    /// Everything that has a default.
    pub fields: Fields,
    /// The packet inside a tunnel, or quoted by an ICMP error.
    pub inner: Option<Box<Packet>>,
    /// The bytes it was dissected from, from its IP header on; empty if it was written as text.
    pub raw: Vec<u8>,
}

/// The fields of a packet that are written only where they differ from their default.
///
/// **Shape** — one flat set for all protocols; which of them a protocol has is told by the table in
/// `parse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Sequence number of TCP, ICMP echo, ESP or AH.
    pub seq: u32,
    /// TCP acknowledgement number.
    pub ack: u32,
    /// TCP window.
    pub win: u16,
    /// TCP options.
    pub opts: Vec<u8>,
    /// Identifier of ICMP echo.
    pub ident: u16,
    /// The rest of an ICMP error's header; the MTU where one was exceeded.
    pub mtu: u32,
    /// The gateway of an ICMP redirect.
    pub gw: Option<Ipv4Addr>,
    /// SCTP verification tag.
    pub tag: u32,
    /// Security parameters index of ESP or AH.
    pub spi: u32,
    /// Whether a GRE header has a checksum.
    pub csum: bool,
    /// What follows the transport header.
    pub payload: Payload,
    /// The transport checksum.
    pub sum: Sum,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Type of service, or traffic class.
    pub tos: u8,
    /// Whether an IPv4 packet must not be fragmented.
    pub df: bool,
    /// IP identification.
    pub id: u32,
    /// Where it belongs, if it is a fragment.
    pub frag: Option<Fragment>,
    /// IPv4 options.
    pub ipopts: Vec<u8>,
    /// Protocol numbers of the IPv6 extension headers.
    pub ext: Vec<u8>,
    /// Whether the IPv4 header checksum is wrong.
    pub bad_ip_sum: bool,
    /// Bytes that are there of a packet that was cut short; 0 for a whole one.
    pub quote: usize,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            seq: 0,
            ack: 0,
            win: 1024,
            opts: Vec::new(),
            ident: 0,
            mtu: 0,
            gw: None,
            tag: 0,
            spi: 0,
            csum: false,
            payload: Payload::Filler(0),
            sum: Sum::Good,
            ttl: 64,
            tos: 0,
            df: false,
            id: 1,
            frag: None,
            ipopts: Vec::new(),
            ext: Vec::new(),
            bad_ip_sum: false,
            quote: 0,
        }
    }
}

/// The bytes a packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// So many bytes of `abc...zabc...`.
    Filler(usize),
    /// Printable text, percent-encoded.
    Text(String),
    /// Other bytes.
    Data(Vec<u8>),
}

impl Payload {
    /// The bytes themselves.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Filler(len) => filler(*len),
            Self::Text(text) => wire::percent_decode(text),
            Self::Data(data) => data.clone(),
        }
    }
}

/// The state of a transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// Right, or not to be checked because part of the packet is missing.
    Good,
    /// Wrong.
    Bad,
    /// Zero, which for UDP means there is none.
    Absent,
}

/// The place of a fragment in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Bytes before it.
    pub offset: u16,
    /// Whether more follow.
    pub more: bool,
}

impl Packet {
    /// A packet with every field at its default.
    pub fn new(src: IpAddr, dst: IpAddr, proto: Proto) -> Self {
        Self {
            src,
            dst,
            proto,
            ports: None,
            kind: String::new(),
            fields: Fields::default(),
            inner: None,
            raw: Vec::new(),
        }
    }

    /// The packet without its tunnel headers.
    pub fn innermost(&self) -> &Self {
        match &self.inner {
            Some(inner) if !self.is_icmp_error() => inner.innermost(),
            _ => self,
        }
    }

    /// Whether it is an ICMP message that quotes a packet.
    pub fn is_icmp_error(&self) -> bool {
        self.proto.is_icmp() && self.inner.is_some()
    }

    /// The type of an ICMP message.
    pub fn icmp_type(&self) -> Option<u8> {
        let (kind, _) = self.proto.is_icmp().then(|| self.kind.split_once('/'))??;
        kind.parse().ok()
    }

    /// The number its IP header carries.
    fn protocol_number(&self) -> u8 {
        match self.proto {
            Proto::Other(number) => number,
            Proto::IpIp if self.inner.as_ref().is_some_and(|inner| inner.src.is_ipv6()) => {
                IPV6_IN_IP
            }
            proto => {
                let named = NAMED_PROTOCOLS.iter().find(|(each, ..)| *each == proto);
                named.expect("every other protocol is in the table").2
            }
        }
    }
}

/// The name of a protocol number, or the number itself.
pub(super) fn proto_name(number: u8) -> String {
    let named = NAMED_PROTOCOLS.iter().find(|(_, _, each)| *each == number);
    named.map_or_else(|| number.to_string(), |(_, name, _)| (*name).to_string())
}

/// `len` bytes of `abc...zabc...`.
fn filler(len: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(len).collect()
}
