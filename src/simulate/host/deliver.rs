//! What the host's own protocols make of the packets to it.

use super::DirectorHost;
use super::answers::{Trouble, icmp_reply, tcp_reset};
use super::sockets::Delivery;
use crate::engine::fragments::Gathered;
use crate::packet::Headers;
use crate::packet::fragment::UNIT;
use crate::simulate::packet::{Packet, Proto, Sum, dissect};

impl DirectorHost {
    fn deliver_tcp(&mut self, packet: &Packet) -> Delivery {
        let mtu = self.path_towards(packet.src);
        self.sockets.deliver_tcp(packet, mtu, self.now)
    }

    /// Delivers a packet to the host's own protocols.
    pub(super) fn deliver(&mut self, packet: Packet) {
        if packet.fields.frag.is_some() {
            return self.gather(&packet);
        }
        if let Some(at) = packet.fields.ext.iter().position(|number| *number == ROUTING_HEADER) {
            // It is of a type that nobody knows; the type is its third byte.
            return self.report(&packet, Trouble::BadHeader(42 + 8 * at as u8));
        }
        let is_known = match packet.proto {
            Proto::Icmp => packet.src.is_ipv4(),
            Proto::Icmp6 => packet.src.is_ipv6(),
            proto => matches!(proto, Proto::Tcp | Proto::Udp),
        };
        if is_known && (packet.kind == "short" || packet.fields.sum == Sum::Bad) {
            return;
        }
        match packet.proto {
            Proto::Icmp | Proto::Icmp6 if is_known => {
                self.hear_error(&packet);
                if let Some(reply) = icmp_reply(&packet) {
                    self.send_own(reply);
                }
            }
            Proto::Tcp => match self.deliver_tcp(&packet) {
                Delivery::Taken(answer) => {
                    if let Some(answer) = answer {
                        self.send_own(*answer);
                    }
                }
                Delivery::Refused => {
                    if let Some(reset) = tcp_reset(&packet) {
                        self.send_own(reset);
                    }
                }
            },
            // Only IPv4 knows UDP without a checksum.
            Proto::Udp if packet.src.is_ipv6() && packet.fields.sum == Sum::Absent => {}
            Proto::Udp => {
                if self.sockets.deliver_udp(&packet) == Delivery::Refused {
                    self.report(&packet, Trouble::PortUnreachable);
                }
            }
            Proto::Igmp if packet.src.is_ipv4() => {}
            Proto::Other(number) if is_taken(number, packet.src.is_ipv6()) => {}
            _ => self.report(&packet, Trouble::ProtocolUnreachable),
        }
    }

    /// Keeps a fragment for the host itself until its datagram is whole.
    fn gather(&mut self, fragment: &Packet) {
        let ends_odd = !fragment.raw.len().is_multiple_of(UNIT);
        if fragment.src.is_ipv6() && ends_odd && fragment.fields.frag.is_some_and(|frag| frag.more)
        {
            return self.report(fragment, Trouble::BadHeader(PAYLOAD_LENGTH_AT));
        }
        let Ok(headers) = Headers::parse(&fragment.raw) else { return };
        let gathered = self.reassembly.add(&fragment.raw, &headers, false, self.now);
        if let Gathered::Whole(datagram) = gathered
            && let Some(whole) = dissect(datagram.bytes())
        {
            self.deliver(whole);
        }
    }
}

/// Where the length of an IPv6 packet's payload stands in its header.
const PAYLOAD_LENGTH_AT: u8 = 4;

/// The IPv6 extension header with a route to follow, RFC 8200 §4.4.
const ROUTING_HEADER: u8 = 43;

/// Whether the host's stack takes packets of a protocol without a word: no next header, PIM, and UDP-Lite,
/// whose checksums the notation does not write.
fn is_taken(number: u8, ipv6: bool) -> bool {
    match number {
        59 => ipv6,
        103 => !ipv6,
        136 => true,
        _ => false,
    }
}
