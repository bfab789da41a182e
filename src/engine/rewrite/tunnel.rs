//! Tunnels: the packet travels inside another.

use crate::engine::service::{Tunnel, TunnelChecksum, TunnelKind};
use crate::packet::encap::{Envelope, RemoteChecksum, Wrapping};
use crate::packet::headers::protocol;
use crate::packet::segment::finish_checksum;
use crate::packet::{Addr, Checksum, Endpoint, Family, Headers, PacketBuf};

/// What a tunnel needs to know beyond its configuration and the packet.
#[derive(Clone, Copy, Debug)]
pub struct Passage {
    /// The director's end.
    pub source: Addr,
    /// The real server's end.
    pub destination: Addr,
    /// Whether the outer packet may not be fragmented if the inner one may not.
    pub keeps_df: bool,
    /// Whether the fragments of an outer IPv4 packet may not be fragmented again in any case.
    pub marks_df: bool,
    /// The identification of an outer IPv4 packet that may be fragmented.
    pub id: u16,
    /// Whether packets that may not be fragmented are numbered as well.
    pub numbers_all: bool,
}

/// What a tunnel puts between the IP headers of this packet.
///
/// An unfinished checksum is left to the other end where the tunnel says so.
pub fn wrapping(tunnel: Tunnel, packet: &PacketBuf<'_>, headers: &Headers) -> Wrapping {
    match tunnel.kind {
        TunnelKind::IpIp => Wrapping::IpIp,
        TunnelKind::Gre => Wrapping::Gre { checksum: tunnel.checksum == TunnelChecksum::On },
        TunnelKind::Gue => Wrapping::Gue {
            source_port: source_port(headers.source, headers.destination),
            port: tunnel.port,
            checksum: tunnel.checksum != TunnelChecksum::Off,
            remote: (tunnel.checksum == TunnelChecksum::Remote)
                .then(|| remote_checksum(packet, headers))
                .flatten(),
        },
    }
}

/// Puts a packet, whose time to live was counted down already, into a tunnel.
///
/// The outer header has the inner one's time to live and type of service; congestion experienced
/// becomes ECN-capable, as RFC 3168 §9.1.1 wants it.
///
/// Answers `false` where it does not fit; then the packet is to be dropped.
///
/// **Source** — IPVS `ip_vs_tunnel_xmit`, `ip_vs_prepare_tunneled_skb`.
#[must_use]
pub fn encapsulate(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    wrapping: Wrapping,
    passage: Passage,
) -> bool {
    let bytes = packet.bytes();
    let (ttl, tos) = match headers.family {
        Family::V4 => (bytes[8], bytes[1]),
        Family::V6 => (bytes[7], bytes[0] << 4 | bytes[1] >> 4),
    };
    let dont_fragment = passage.keeps_df && headers.family == Family::V4 && headers.dont_fragment;
    let envelope = Envelope {
        source: passage.source,
        destination: passage.destination,
        ttl,
        tos: if tos & ECN == ECN { tos & !ECN | ECN_CAPABLE } else { tos },
        dont_fragment: dont_fragment || passage.marks_df,
        id: if dont_fragment && !passage.numbers_all { 0 } else { passage.id },
        wrapping,
    };
    if matches!(wrapping, Wrapping::Gue { remote: Some(_), .. }) {
        packet.offload.checksum = Checksum::Complete;
    }
    // Devices that sum up what they send look for TCP and UDP behind the first IP header. A
    // super-frame is cut and summed up before any sees it.
    let is_super = packet.offload.segmentation.kind.is_super_frame();
    (is_super || finish_checksum(packet).is_ok()) && envelope.push(packet, headers.family)
}

/// What is left to the other end to sum up: nothing, if the packet will be cut and summed up anyway,
/// or if its checksum is not of the kind that others sum up.
fn remote_checksum(packet: &PacketBuf<'_>, headers: &Headers) -> Option<RemoteChecksum> {
    let is_super = packet.offload.segmentation.kind.is_super_frame();
    if is_super || headers.protocol == protocol::SCTP {
        return None;
    }
    let (start, field) = packet.unfinished_checksum()?;
    Some(RemoteChecksum { start: u16::try_from(start).ok()?, field: u16::try_from(field).ok()? })
}

/// A UDP source port that is the same for all packets of a flow.
///
/// **Source** — Linux `udp_flow_src_port`: from `net.ipv4.ip_local_port_range`.
fn source_port(client: Endpoint, destination: Endpoint) -> u16 {
    let fold = |addr: Addr| (0..4).fold(0, |all, word| all ^ (addr.bits() >> (32 * word)) as u32);
    let ports = u32::from(client.port) << 16 | u32::from(destination.port);
    let mixed = (fold(client.addr) ^ fold(destination.addr).rotate_left(16) ^ ports)
        .wrapping_mul(FACTOR)
        >> 16;
    FIRST_PORT + ((mixed * PORTS) >> 16) as u16
}

/// **Source** — 2^32 divided by the golden ratio (Knuth, TAOCP 6.4).
const FACTOR: u32 = 0x9e37_79b1;
const FIRST_PORT: u16 = 32_768;
const PORTS: u32 = 28_232;

/// Congestion experienced, and what it becomes.
const ECN: u8 = 3;
const ECN_CAPABLE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn endpoint(addr: &str, port: u16) -> Endpoint {
        Endpoint::new(addr.parse::<IpAddr>().unwrap().into(), port)
    }

    #[test]
    fn flows_spread_over_the_source_ports_and_stay_on_theirs() {
        let to = endpoint("198.51.100.1", 80);
        let ports: Vec<_> =
            (1000..2000).map(|port| source_port(endpoint("192.0.2.7", port), to)).collect();
        let mut distinct = ports.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert!(distinct.len() > 900, "{}", distinct.len());
        assert!(ports.iter().all(|port| (32_768..61_000).contains(port)));
        assert_eq!(source_port(endpoint("192.0.2.7", 1500), to), ports[500]);
    }
}
