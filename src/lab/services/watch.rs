//! Watching a link: what arrives at an interface, and who answers for an address there.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use pnet_base::MacAddr;
use pnet_packet::Packet;
use pnet_packet::arp::{ArpHardwareTypes, ArpOperations, ArpPacket, MutableArpPacket};
use pnet_packet::ethernet::{EtherTypes, EthernetPacket, MutableEthernetPacket};
use pnet_packet::ipv4::Ipv4Packet;
use pnet_packet::ipv6::Ipv6Packet;

use crate::driver::af_packet::{AfPacket, AfPacketConfig, RingConfig};
use crate::driver::{HEADROOM, Receiver, Sender, wait};
use crate::packet::PacketBuf;

/// Sees all frames that arrive at an interface, also those that are for somebody else. Needs
/// CAP_NET_RAW in its namespace.
#[derive(Debug)]
pub struct LinkWatch {
    socket: AfPacket,
}

/// An IP packet that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The link address that it came from.
    pub from: MacAddr,
    /// The address that its sender has in its IP header.
    pub source: IpAddr,
    /// The address that it is for.
    pub destination: IpAddr,
}

impl LinkWatch {
    /// Watches from now on, in the namespace of the calling thread.
    ///
    /// **Shape** — some thousand packets can wait to be taken; what comes beyond is not seen.
    pub fn open(interface: &str) -> io::Result<Self> {
        let ring = RingConfig { bytes: RING_BYTES, ..RingConfig::default() };
        let socket = AfPacket::open(interface, &AfPacketConfig { ring, virtual_mac: None })?;
        Ok(LinkWatch { socket })
    }

    /// The IP packets that have arrived since the last call.
    pub fn arrivals(&mut self) -> io::Result<Vec<Arrival>> {
        let mut seen = Vec::new();
        while self.receive(|frame| seen.extend(arrival(frame)))? > 0 {}
        Ok(seen)
    }

    /// The IP packets that have arrived since the last call, as they are.
    pub fn packets(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut seen = Vec::new();
        let mut keep = |frame: &[u8]| {
            if arrival(frame).is_some() {
                seen.push(frame[EthernetPacket::minimum_packet_size()..].to_vec());
            }
        };
        while self.receive(&mut keep)? > 0 {}
        Ok(seen)
    }

    /// Asks everybody on the link who has an address. Returns the link addresses that answer: the
    /// first within `patience`, further ones within a moment after it.
    pub fn who_has(
        &mut self,
        target: Ipv4Addr,
        own: (MacAddr, Ipv4Addr),
        patience: Duration,
    ) -> io::Result<Vec<MacAddr>> {
        self.send(&question(target, own));
        let mut deadline = Instant::now() + patience;
        let mut answers = Vec::new();
        loop {
            let before = answers.len();
            self.receive(|frame| answers.extend(answer(frame, target)))?;
            if before == 0 && !answers.is_empty() {
                deadline = Instant::now() + MOMENT;
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                break;
            }
            wait(&self.socket.receiver.readiness(), Some(rest))?;
        }
        answers.sort_unstable();
        answers.dedup();
        Ok(answers)
    }

    fn receive(&mut self, mut look: impl FnMut(&[u8])) -> io::Result<usize> {
        self.socket.receiver.receive(&mut |frames| {
            frames.iter().for_each(|frame| look(frame.bytes()));
        })
    }

    fn send(&mut self, frame: &[u8]) {
        let mut storage = vec![0; HEADROOM];
        storage.extend_from_slice(frame);
        let end = storage.len();
        self.socket.sender.send(&mut [&mut PacketBuf::new(&mut storage, HEADROOM, end)]);
    }
}

/// How long further answers are waited for; they take far less than a millisecond.
const MOMENT: Duration = Duration::from_millis(300);
const RING_BYTES: usize = 4 << 20;

fn arrival(frame: &[u8]) -> Option<Arrival> {
    let frame = EthernetPacket::new(frame)?;
    let (source, destination) = match frame.get_ethertype() {
        EtherTypes::Ipv4 => {
            let packet = Ipv4Packet::new(frame.payload())?;
            (packet.get_source().into(), packet.get_destination().into())
        }
        EtherTypes::Ipv6 => {
            let packet = Ipv6Packet::new(frame.payload())?;
            (packet.get_source().into(), packet.get_destination().into())
        }
        _ => return None,
    };
    Some(Arrival { from: frame.get_source(), source, destination })
}

fn question(target: Ipv4Addr, (mac, own): (MacAddr, Ipv4Addr)) -> [u8; ARP_FRAME_BYTES] {
    let mut bytes = [0; ARP_FRAME_BYTES];
    let (head, body) = bytes.split_at_mut(EthernetPacket::minimum_packet_size());
    let mut frame = MutableEthernetPacket::new(head).expect("the frame has room for its header");
    frame.set_destination(MacAddr::broadcast());
    frame.set_source(mac);
    frame.set_ethertype(EtherTypes::Arp);
    let mut arp = MutableArpPacket::new(body).expect("the frame has room for a question");
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(6);
    arp.set_proto_addr_len(4);
    arp.set_operation(ArpOperations::Request);
    arp.set_sender_hw_addr(mac);
    arp.set_sender_proto_addr(own);
    arp.set_target_proto_addr(target);
    bytes
}

const ARP_FRAME_BYTES: usize =
    EthernetPacket::minimum_packet_size() + ArpPacket::minimum_packet_size();

fn answer(frame: &[u8], target: Ipv4Addr) -> Option<MacAddr> {
    let frame = EthernetPacket::new(frame).filter(|f| f.get_ethertype() == EtherTypes::Arp)?;
    let arp = ArpPacket::new(frame.payload())?;
    let answers = arp.get_operation() == ArpOperations::Reply;
    (answers && arp.get_sender_proto_addr() == target).then(|| arp.get_sender_hw_addr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::net::{self, Namespace, sandbox};
    use crate::lab::services::ping::ping;

    #[test]
    fn the_one_with_the_address_answers_and_its_packets_are_seen() {
        sandbox::run(
            "lab::services::watch::tests::the_one_with_the_address_answers_and_its_packets_are_seen",
            || {
                let (near, far) = (Namespace::new("near").unwrap(), Namespace::new("far").unwrap());
                net::connect(&near.end("eth0"), &far.end("eth0")).unwrap();
                near.add_address("eth0", "192.0.2.1/24".parse().unwrap()).unwrap();
                far.add_address("eth0", "192.0.2.2/24".parse().unwrap()).unwrap();
                // For anybody who is to ping in a namespace.
                near.set_sysctl("net.ipv4.ping_group_range", "0 0").unwrap();
                let own = (near.mac("eth0").unwrap().into(), Ipv4Addr::new(192, 0, 2, 1));
                let (there, nowhere) = (Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 3));
                let mut watch = near.run(|| LinkWatch::open("eth0")).unwrap().unwrap();
                let answers = watch.who_has(there, own, Duration::from_secs(20)).unwrap();
                let far_mac: MacAddr = far.mac("eth0").unwrap().into();
                assert_eq!(answers, [far_mac]);
                assert!(watch.who_has(nowhere, own, MOMENT).unwrap().is_empty());

                near.run(|| ping(there, 1, Duration::from_secs(20))).unwrap().unwrap();
                let seen = watch.arrivals().unwrap();
                let expected =
                    Arrival { from: far_mac, source: there.into(), destination: own.1.into() };
                assert!(seen.contains(&expected), "{seen:?}");
                assert_eq!(watch.arrivals().unwrap(), []);
            },
        );
    }
}
