//! One look at a packet's headers, validated once so that later stages cannot fail on shape.

use super::addr::{Addr, Endpoint, Family};
use super::checksum::Sum;
use super::sctp::COMMON_HEADER_LEN;

/// IP protocol numbers that are told apart.
pub mod protocol {
    /// ICMP, RFC 792.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP, RFC 2003.
    pub const IPV4: u8 = 4;
    /// TCP, RFC 9293.
    pub const TCP: u8 = 6;
    /// UDP, RFC 768.
    pub const UDP: u8 = 17;
    /// IPv6 in IP, RFC 4213.
    pub const IPV6: u8 = 41;
    /// GRE, RFC 2784.
    pub const GRE: u8 = 47;
    /// ESP, RFC 4303.
    pub const ESP: u8 = 50;
    /// AH, RFC 4302.
    pub const AH: u8 = 51;
    /// ICMPv6, RFC 4443.
    pub const ICMP6: u8 = 58;
    /// No next header, RFC 8200 §4.7.
    pub const NONE: u8 = 59;
    /// SCTP, RFC 9260.
    pub const SCTP: u8 = 132;
}

/// Which part of a fragmented datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// All of it, and yet it has a fragment header, as IPv6 allows (RFC 6946).
    Atomic,
    /// The first fragment: it has the ports.
    First,
    /// A later fragment: it has no transport header.
    Later,
}

/// Why bytes are not a packet that can be handled. An IP stack drops these as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than its headers say, or lengths that contradict each other.
    #[error("the packet is shorter than its headers say")]
    Truncated,
    /// Neither IPv4 nor IPv6.
    #[error("the packet is neither IPv4 nor IPv6")]
    Version,
    /// The IPv4 header checksum is wrong.
    #[error("the checksum of the IPv4 header is wrong")]
    HeaderChecksum,
    /// A transport header that does not fit.
    #[error("the transport header does not fit")]
    Transport,
    /// An address that cannot be a source or destination on a wire.
    #[error("an address cannot be on a wire")]
    Martian,
}

/// What the headers of an IP packet say.
///
/// **Shape** — offsets are bytes from the first byte of the IP header and lie within the packet;
/// for TCP, UDP and SCTP that are no fragments the fixed transport header does, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Address family.
    pub family: Family,
    /// Transport protocol number.
    pub protocol: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Whether the packet must not be fragmented (always for IPv6).
    pub dont_fragment: bool,
    /// Which part of a datagram it is.
    pub fragment: Fragment,
    /// Where the transport header starts.
    pub transport: usize,
    /// Length of the packet in bytes as its IP header says; what follows is padding.
    pub len: usize,
    /// Source address and port. For an ICMP echo request the port is its identifier.
    pub source: Endpoint,
    /// Destination address and port. For an ICMP echo reply the port is its identifier.
    pub destination: Endpoint,
}

impl Headers {
    /// Reads and checks the headers of the IP packet in `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut headers = Self::parse_network(bytes)?;
        if headers.len > bytes.len() {
            return Err(Malformed::Truncated);
        }
        if headers.family == Family::V4
            && Sum::of(&bytes[..v4_header_len(bytes)]).folded() != 0xffff
        {
            return Err(Malformed::HeaderChecksum);
        }
        let transport = &bytes[headers.transport..headers.len];
        match headers.fragment {
            Fragment::Whole | Fragment::Atomic => headers.parse_transport(transport)?,
            Fragment::First => headers.parse_beginning(transport),
            Fragment::Later => {}
        }
        Ok(headers)
    }

    /// Reads the packet quoted in an ICMP error, of which only the beginning need be there.
    ///
    /// Asks for the IP header and four more bytes, so that the ports are known; checksums and
    /// lengths beyond are nobody's business here. A later fragment of IPv4 is read as if it began with
    /// ports, as IPVS does.
    pub fn parse_quoted(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut headers = Self::parse_network(bytes)?;
        let transport = bytes.get(headers.transport..).ok_or(Malformed::Truncated)?;
        if headers.fragment == Fragment::Later && !headers.is_quoted_with_ports() {
            return Ok(headers);
        }
        match headers.protocol {
            protocol::ICMP | protocol::ICMP6 => headers.parse_echo(transport)?,
            _ => headers.parse_ports(transport)?,
        }
        Ok(headers)
    }

    /// The packet that this one quotes, if it is an ICMP error of a kind that tells of a packet's
    /// fate and quotes enough of one of its own family.
    pub fn quoted(&self, bytes: &[u8]) -> Option<Self> {
        let quoted = Self::parse_quoted(self.quote(bytes)?).ok()?;
        (quoted.family == self.family && quoted.is_quoted_with_ports()).then_some(quoted)
    }

    /// The packet that this one quotes, if it is such an ICMP error and the quote ends before the
    /// ports would.
    pub fn quoted_without_ports(&self, bytes: &[u8]) -> Option<Self> {
        let quote = self.quote(bytes)?;
        let quoted = Self::parse_network(quote).ok()?;
        let is_cut = quote.len() < quoted.transport + PORTS_LEN;
        (quoted.family == self.family && is_cut).then_some(quoted)
    }

    /// Whether the ports of this packet, which an ICMP error quotes, were read: those of a first part,
    /// or what stands in the place of ports in a later fragment of IPv4.
    pub fn is_quoted_with_ports(&self) -> bool {
        self.has_ports() || self.family == Family::V4 && carries_ports(self.protocol)
    }

    /// What this packet quotes of another, if it is an ICMP error of a kind that tells of its fate.
    pub fn quote<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        if !self.is_icmp() || !self.has_ports() {
            return None;
        }
        let icmp = bytes.get(self.transport..self.len)?;
        let is_error = match (self.family, *icmp.first()?) {
            // Destination unreachable, source quench, time exceeded.
            (Family::V4, kind) => matches!(kind, 3 | 4 | 11),
            // Every error, RFC 4443 §2.1, known or not.
            (Family::V6, kind) => kind < 128,
        };
        if is_error { icmp.get(ICMP_HEADER_LEN..) } else { None }
    }

    /// Whether it is an ICMP message of its family.
    pub fn is_icmp(&self) -> bool {
        match self.family {
            Family::V4 => self.protocol == protocol::ICMP,
            Family::V6 => self.protocol == protocol::ICMP6,
        }
    }

    /// Bytes of the packet after its transport header's start.
    pub fn transport_len(&self) -> usize {
        self.len - self.transport
    }

    /// Whether it is a whole packet or the part of one that has the ports.
    pub fn has_ports(&self) -> bool {
        self.fragment != Fragment::Later
    }

    fn parse_network(bytes: &[u8]) -> Result<Self, Malformed> {
        match bytes.first().ok_or(Malformed::Truncated)? >> 4 {
            4 => Self::parse_v4(bytes),
            6 => Self::parse_v6(bytes),
            _ => Err(Malformed::Version),
        }
    }

    fn parse_v4(bytes: &[u8]) -> Result<Self, Malformed> {
        let header: &[u8; 20] = bytes.first_chunk().ok_or(Malformed::Truncated)?;
        let header_len = v4_header_len(bytes);
        let len = word(header, 2) as usize;
        if header_len < 20 || header_len > bytes.len() || len < header_len {
            return Err(Malformed::Truncated);
        }
        let flags_and_offset = word(header, 6);
        let source = Addr::v4(u32::from_be_bytes([header[12], header[13], header[14], header[15]]));
        let target = Addr::v4(u32::from_be_bytes([header[16], header[17], header[18], header[19]]));
        Ok(Self {
            family: Family::V4,
            protocol: header[9],
            ttl: header[8],
            dont_fragment: flags_and_offset & 0x4000 != 0,
            fragment: match (flags_and_offset & 0x1fff, flags_and_offset & 0x2000) {
                (0, 0) => Fragment::Whole,
                (0, _) => Fragment::First,
                _ => Fragment::Later,
            },
            transport: header_len,
            len,
            source: Endpoint::new(source, 0),
            destination: Endpoint::new(target, 0),
        })
    }

    fn parse_v6(bytes: &[u8]) -> Result<Self, Malformed> {
        let header: &[u8; 40] = bytes.first_chunk().ok_or(Malformed::Truncated)?;
        let (source, target) = (v6_addr(header, 8)?, v6_addr(header, 24)?);
        let len = 40 + word(header, 4) as usize;
        let walked = walk_extensions(bytes, header[6])?;
        if walked.transport > len {
            return Err(Malformed::Truncated);
        }
        Ok(Self {
            family: Family::V6,
            protocol: walked.protocol,
            ttl: header[7],
            dont_fragment: true,
            fragment: walked.fragment,
            transport: walked.transport,
            len,
            source: Endpoint::new(source, 0),
            destination: Endpoint::new(target, 0),
        })
    }

    /// Whether the fixed transport header is there, of protocols that are known.
    pub fn has_transport_header(&self) -> bool {
        self.transport_len() >= fixed_transport_len(self.protocol)
    }

    fn parse_transport(&mut self, transport: &[u8]) -> Result<(), Malformed> {
        if transport.len() < fixed_transport_len(self.protocol) {
            return Err(Malformed::Transport);
        }
        if self.protocol == protocol::TCP && usize::from(transport[12] >> 4) < 5 {
            return Err(Malformed::Transport);
        }
        match self.protocol {
            protocol::ICMP | protocol::ICMP6 => self.parse_echo(transport),
            number if carries_ports(number) => self.parse_ports(transport),
            _ => Ok(()),
        }
    }

    /// Reads what there is of the transport header in a first fragment: the rest may come in the next.
    fn parse_beginning(&mut self, transport: &[u8]) {
        // Without ports it is a fragment all the same.
        let _ = match self.protocol {
            protocol::ICMP | protocol::ICMP6 => self.parse_echo(transport),
            number if carries_ports(number) => self.parse_ports(transport),
            _ => Ok(()),
        };
    }

    fn parse_ports(&mut self, transport: &[u8]) -> Result<(), Malformed> {
        let ports: &[u8; 4] = transport.first_chunk().ok_or(Malformed::Truncated)?;
        self.source.port = word(ports, 0);
        self.destination.port = word(ports, 2);
        Ok(())
    }

    /// Takes an echo identifier for the port of whoever asked.
    fn parse_echo(&mut self, icmp: &[u8]) -> Result<(), Malformed> {
        let Some(header) = icmp.first_chunk::<8>() else { return Err(Malformed::Truncated) };
        match (self.protocol, header[0]) {
            (protocol::ICMP, 8) | (protocol::ICMP6, 128) => self.source.port = word(header, 4),
            (protocol::ICMP, 0) | (protocol::ICMP6, 129) => self.destination.port = word(header, 4),
            _ => {}
        }
        Ok(())
    }
}

/// Bytes of the fixed header of IPv6, RFC 8200 §3.
pub const V6_HEADER_LEN: usize = 40;

/// The port of ISAKMP, RFC 2408, which arranges what ESP and AH need.
pub const ISAKMP: u16 = 500;

/// Whether a transport protocol's header begins with two ports.
pub fn carries_ports(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP | protocol::SCTP)
}

/// Bytes of the transport header that every packet of a protocol has; 0 where that is not known.
fn fixed_transport_len(number: u8) -> usize {
    match number {
        protocol::TCP => 20,
        protocol::SCTP => COMMON_HEADER_LEN,
        protocol::UDP | protocol::ICMP | protocol::ICMP6 => 8,
        _ => 0,
    }
}

/// Bytes of an ICMP error before the packet it quotes.
pub const ICMP_HEADER_LEN: usize = 8;
/// Source and destination port, with which TCP, UDP and SCTP begin.
const PORTS_LEN: usize = 4;

/// What stands behind the IPv6 extension headers.
struct Walked {
    protocol: u8,
    transport: usize,
    fragment: Fragment,
}

/// Most extension headers that are walked; more is an attack.
const MAX_EXTENSIONS: usize = 8;

fn walk_extensions(bytes: &[u8], first: u8) -> Result<Walked, Malformed> {
    let mut walked = Walked { protocol: first, transport: 40, fragment: Fragment::Whole };
    for _ in 0..MAX_EXTENSIONS {
        let rest = bytes.get(walked.transport..).ok_or(Malformed::Truncated)?;
        let len = match walked.protocol {
            // Hop-by-hop, routing, destination options, mobility: RFC 8200 §4, RFC 6275.
            0 | 43 | 60 | 135 => 8 + 8 * usize::from(*rest.get(1).ok_or(Malformed::Truncated)?),
            44 => 8,
            // Its length counts words of four bytes, RFC 4302 §2.2. IPVS sees what is behind it, too.
            protocol::AH => 8 + 4 * usize::from(*rest.get(1).ok_or(Malformed::Truncated)?),
            _ => return Ok(walked),
        };
        let header = rest.get(..len).ok_or(Malformed::Truncated)?;
        if walked.protocol == 44 {
            walked.fragment = match (word(header, 2) & 0xfff8, header[3] & 1) {
                (0, 0) => Fragment::Atomic,
                (0, _) => Fragment::First,
                _ => Fragment::Later,
            };
        }
        walked.protocol = header[0];
        walked.transport += len;
        if walked.fragment == Fragment::Later {
            return Ok(walked);
        }
    }
    Err(Malformed::Truncated)
}

fn v4_header_len(bytes: &[u8]) -> usize {
    usize::from(bytes[0] & 0x0f) * 4
}

fn v6_addr(header: &[u8; 40], at: usize) -> Result<Addr, Malformed> {
    let bits = header[at..at + 16].iter().fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
    let addr = Addr::v6(bits);
    // Reserved groups, which `Addr` takes for IPv4 addresses.
    if addr.family() == Family::V6 { Ok(addr) } else { Err(Malformed::Martian) }
}

/// The big-endian word at byte `at`.
///
/// **Panics** if it lies outside; callers have checked the length.
pub fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Writes the big-endian word at byte `at`.
///
/// **Panics** if it lies outside; callers have checked the length.
pub fn set_word(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    #[test]
    fn a_tcp_segment_is_read_and_padding_is_not_part_of_it() {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([192, 0, 2, 1], [198, 51, 100, 2], 33)
            .tcp(1000, 80, 7, 1024)
            .syn()
            .write(&mut bytes, b"abc")
            .unwrap();
        bytes.extend([0xa5; 9]);
        let headers = Headers::parse(&bytes).unwrap();
        assert_eq!(headers.source.to_string(), "192.0.2.1:1000");
        assert_eq!(headers.destination.to_string(), "198.51.100.2:80");
        assert_eq!((headers.ttl, headers.transport, headers.len), (33, 20, 43));
        bytes[8] = 32;
        assert_eq!(Headers::parse(&bytes), Err(Malformed::HeaderChecksum));
    }

    #[test]
    fn an_ipv6_datagram_behind_extension_headers_is_read() {
        let mut bytes = Vec::new();
        let (from, to) = ([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], [0x20; 16]);
        PacketBuilder::ipv6(from, to, 9).udp(53, 54).write(&mut bytes, b"abcd").unwrap();
        let plain = Headers::parse(&bytes).unwrap();
        assert_eq!((plain.protocol, plain.transport, plain.len), (protocol::UDP, 40, 52));
        // A destination options header of eight bytes (PadN) in front of UDP.
        bytes[6] = 60;
        set_word(&mut bytes, 4, 20);
        bytes.splice(40..40, [17, 0, 1, 4, 0, 0, 0, 0]);
        let behind = Headers::parse(&bytes).unwrap();
        assert_eq!((behind.protocol, behind.transport, behind.len), (protocol::UDP, 48, 60));
        assert_eq!(behind.source.port, 53);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_offsets_stay_inside(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..120),
            version in 3u8..8,
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = version << 4 | (*first & 0x0f);
            }
            let _ = Headers::parse_quoted(&bytes);
            if let Ok(headers) = Headers::parse(&bytes) {
                prop_assert!(headers.transport <= headers.len && headers.len <= bytes.len());
            }
        }
    }
}
