//! ARP for IPv4 over Ethernet: reading it, and writing frames of it.
//!
//! **Source** — RFC 826, RFC 5227.

use pnet_base::MacAddr;
use pnet_packet::Packet;
use pnet_packet::arp::{
    ArpHardwareTypes, ArpOperation, ArpOperations, ArpPacket, MutableArpPacket,
};
use pnet_packet::ethernet::EtherTypes;

use super::frame::{ETHER_TYPE_ARP, Hop, Segment};
use super::message::is_host;
use crate::packet::Addr;

/// Whether a packet asks or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Asks.
    Request,
    /// Answers, or announces.
    Reply,
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// What it does.
    pub operation: Operation,
    /// Link address of its sender.
    pub sender_mac: MacAddr,
    /// Address of its sender; 0.0.0.0 if it only probes.
    pub sender: Addr,
    /// Link address it is meant for.
    pub target_mac: MacAddr,
    /// The address it asks for, or answers to.
    pub target: Addr,
}

impl Arp {
    /// Reads a packet; `None` if it is not well-formed ARP for IPv4 over Ethernet, or names a
    /// group as its sender.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let packet = ArpPacket::new(bytes)?;
        let ours = packet.get_hardware_type() == ArpHardwareTypes::Ethernet
            && packet.get_protocol_type() == EtherTypes::Ipv4
            && packet.get_hw_addr_len() == 6
            && packet.get_proto_addr_len() == 4;
        let operation = match packet.get_operation() {
            ArpOperations::Request => Operation::Request,
            ArpOperations::Reply => Operation::Reply,
            _ => return None,
        };
        let arp = Self {
            operation,
            sender_mac: packet.get_sender_hw_addr(),
            sender: packet.get_sender_proto_addr().into(),
            target_mac: packet.get_target_hw_addr(),
            target: packet.get_target_proto_addr().into(),
        };
        let sane = !arp.sender_mac.is_multicast() && !arp.sender_mac.is_zero();
        let sender_sane = arp.is_probe() || is_host(arp.sender);
        (ours && sane && sender_sane).then_some(arp)
    }

    /// Whether the sender only wants to know if an address is in use.
    pub fn is_probe(&self) -> bool {
        self.sender.v4_bits() == 0
    }

    /// The whole frame, to `destination` on a segment.
    pub fn frame(&self, segment: Segment, destination: MacAddr) -> Box<[u8]> {
        let hop = Hop::with_type(segment, self.sender_mac, destination, ETHER_TYPE_ARP);
        let mut bytes = [0; ARP_LEN];
        let mut packet = MutableArpPacket::new(&mut bytes).expect("the buffer has ARP's length");
        packet.set_hardware_type(ArpHardwareTypes::Ethernet);
        packet.set_protocol_type(EtherTypes::Ipv4);
        packet.set_hw_addr_len(6);
        packet.set_proto_addr_len(4);
        packet.set_operation(match self.operation {
            Operation::Request => ArpOperation(1),
            Operation::Reply => ArpOperation(2),
        });
        packet.set_sender_hw_addr(self.sender_mac);
        packet.set_sender_proto_addr(self.sender.v4_bits().into());
        packet.set_target_hw_addr(self.target_mac);
        packet.set_target_proto_addr(self.target.v4_bits().into());
        [hop.header(), packet.packet()].concat().into()
    }
}

const ARP_LEN: usize = 28;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::frame::{PortId, Tags};
    use crate::packet::PacketBuf;

    const REQUEST: Arp = Arp {
        operation: Operation::Request,
        sender_mac: MacAddr(2, 0, 0x5e, 0, 0x53, 1),
        sender: Addr::v4(0xc000_0201),
        target_mac: MacAddr(0, 0, 0, 0, 0, 0),
        target: Addr::v4(0xc000_0202),
    };

    #[test]
    fn a_frame_is_what_rfc_826_says() {
        let segment = Segment { port: PortId(0), tags: Tags::vlan(5) };
        let mut frame = REQUEST.frame(segment, MacAddr::broadcast());
        let expected = [
            &[0xff; 6][..],
            &[2, 0, 0x5e, 0, 0x53, 1, 0x81, 0, 0, 5, 8, 6],
            &[0, 1, 8, 0, 6, 4, 0, 1],
            &[2, 0, 0x5e, 0, 0x53, 1, 192, 0, 2, 1],
            &[0, 0, 0, 0, 0, 0, 192, 0, 2, 2],
        ];
        assert_eq!(*frame, *expected.concat());
        let end = frame.len();
        let packet = PacketBuf::new(&mut frame, 18, end);
        assert_eq!(Arp::parse(packet.bytes()), Some(REQUEST));
    }

    #[test]
    fn malformed_arp_is_refused() {
        let frame = REQUEST.frame(Segment::default(), MacAddr::broadcast());
        let good = &frame[14..];
        assert!(Arp::parse(good).is_some());
        for len in 0..good.len() {
            assert_eq!(Arp::parse(&good[..len]), None);
        }
        // Hardware type, protocol, lengths, operation, group sender, impossible sender address.
        for (at, value) in [(1, 6), (2, 9), (4, 8), (5, 16), (7, 9), (8, 1), (14, 127), (14, 240)] {
            let mut bad = good.to_vec();
            bad[at] = value;
            assert_eq!(Arp::parse(&bad), None, "byte {at} = {value}");
        }
    }
}
