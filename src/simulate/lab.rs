//! The links: packets from hosts to the director, and what it emits to them.

use std::collections::VecDeque;

use super::host::{Datagram, DirectorHost};
use super::packet::{Packet, Proto, dissect, internet_checksum, pseudo_header};
use super::topology::{Host, Link};

/// A packet that a host on a link received from the director.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The host it was addressed to.
    pub host: Host,
    /// The packet.
    pub packet: Packet,
}

/// The network around one director.
#[derive(Debug)]
pub struct Lab {
    /// The director's host.
    pub host: DirectorHost,
    /// Whether packets arrive as from a virtual machine, their checksums unfinished.
    pub offload: bool,
}

impl Lab {
    /// A network around `host`.
    pub fn new(host: DirectorHost) -> Self {
        Self { host, offload: false }
    }

    /// Puts one packet on a link, for the director.
    pub fn inject(&mut self, link: Link, bytes: Vec<u8>) {
        let datagram = Datagram::plain(bytes);
        let datagram = if self.offload { leave_checksum_to_card(datagram) } else { datagram };
        self.host.receive(datagram, link);
    }

    /// Everything that the director emitted since the last call: in turn one packet from each link
    /// that has one.
    pub fn collect(&mut self) -> Vec<Frame> {
        let mut queues = [VecDeque::new(), VecDeque::new()];
        while let Some(emission) = self.host.poll_emission() {
            let frame =
                dissect(&emission.bytes).map(|packet| Frame { host: emission.host, packet });
            queues[emission.host.link as usize]
                .extend(frame.filter(|frame| !is_noise(&frame.packet)));
        }
        let mut frames = Vec::new();
        while queues.iter().any(|queue| !queue.is_empty()) {
            frames.extend(Link::ALL.iter().filter_map(|link| queues[*link as usize].pop_front()));
        }
        frames
    }
}

/// Group membership and neighbour discovery are not shown.
fn is_noise(packet: &Packet) -> bool {
    let kind = packet.icmp_type();
    match packet.proto {
        Proto::Igmp => true,
        Proto::Icmp6 => kind.is_some_and(|kind| matches!(kind, 130..=137 | 143)),
        _ => false,
    }
}

/// The packet with only the pseudo-header summed up, as it comes from a virtual machine.
fn leave_checksum_to_card(datagram: Datagram) -> Datagram {
    let mut bytes = datagram.bytes;
    let header = dissect(&bytes).map(|packet| (packet.src, packet.dst, bytes[0] >> 4 == 6));
    let Some((src, dst, ipv6)) = header else { return Datagram::plain(bytes) };
    let (start, protocol) =
        if ipv6 { (40, bytes[6]) } else { (usize::from(bytes[0] & 15) * 4, bytes[9]) };
    let offset: u16 = match protocol {
        1 | 58 => 2,
        6 => 16,
        17 => 6,
        _ => return Datagram::plain(bytes),
    };
    let field = start + usize::from(offset);
    if field + 2 > bytes.len() {
        return Datagram::plain(bytes);
    }
    let pseudo = match protocol {
        1 => Vec::new(),
        _ => pseudo_header(src, dst, protocol, bytes.len() - start),
    };
    bytes[field..field + 2].copy_from_slice(&(!internet_checksum(&pseudo)).to_be_bytes());
    Datagram { bytes, unfinished: Some((start, offset)), pieces: None }
}
