//! ICMP echo: asking, and watching who asks.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use pnet_packet::Packet;
use pnet_packet::icmp::{IcmpTypes, echo_reply, echo_request};
use pnet_packet::ipv4::Ipv4Packet;
use socket2::{Domain, Protocol, Socket, Type};

/// Sends one echo request and waits for its answer. Returns how long it took.
///
/// **Errors** — when the answer does not come within `patience`, and when an ICMP error does.
pub fn ping(target: Ipv4Addr, sequence: u16, patience: Duration) -> io::Result<Duration> {
    // A ping socket: the kernel keeps the identifier, the checksum, and everybody else's answers.
    // Where net.ipv4.ping_group_range has no room for us, root takes a raw one.
    let (mut socket, head_bytes) = match icmp_socket(Type::DGRAM) {
        Ok(socket) => (socket, 0),
        Err(_) => (icmp_socket(Type::RAW)?, IPV4_HEADER_BYTES),
    };
    socket.set_read_timeout(Some(patience))?;
    socket.connect(&SocketAddr::new(IpAddr::V4(target), 0).into())?;
    let start = Instant::now();
    socket.send(&request(sequence)?)?;
    let mut answer = [0; 128];
    while start.elapsed() < patience {
        let length = socket.read(&mut answer)?;
        if answer[..length].get(head_bytes..).is_some_and(|it| is_answer(it, sequence)) {
            return Ok(start.elapsed());
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Sees the echo requests that come to a host. Needs CAP_NET_RAW in its namespace.
#[derive(Debug)]
pub struct EchoWatch {
    socket: Socket,
}

impl EchoWatch {
    /// Watches from now on, in the namespace of the calling thread.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        socket.set_nonblocking(true)?;
        Ok(EchoWatch { socket })
    }

    /// From where the requests came since the last call.
    pub fn sources(&mut self) -> io::Result<Vec<Ipv4Addr>> {
        let mut sources = Vec::new();
        let mut packet = [0; 2048];
        loop {
            match self.socket.read(&mut packet) {
                Ok(length) => sources.extend(requester(&packet[..length])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(sources),
                Err(error) => return Err(error),
            }
        }
    }
}

fn icmp_socket(kind: Type) -> io::Result<Socket> {
    Socket::new(Domain::IPV4, kind, Some(Protocol::ICMPV4))
}

/// Without options, which nobody here sends.
const IPV4_HEADER_BYTES: usize = 20;
/// Which 16-bit word of an ICMP message is its checksum.
const CHECKSUM_WORD: usize = 1;
/// As many bytes as ping(8) sends.
const PAYLOAD_BYTES: usize = 56;

fn request(sequence: u16) -> io::Result<Vec<u8>> {
    let mut bytes =
        vec![0; echo_request::MutableEchoRequestPacket::minimum_packet_size() + PAYLOAD_BYTES];
    let mut packet = echo_request::MutableEchoRequestPacket::new(&mut bytes)
        .ok_or(io::ErrorKind::InvalidInput)?;
    packet.set_icmp_type(IcmpTypes::EchoRequest);
    // Ping sockets put their own in its place.
    packet.set_identifier(std::process::id() as u16 | 1);
    packet.set_sequence_number(sequence);
    let sum = pnet_packet::util::checksum(packet.packet(), CHECKSUM_WORD);
    packet.set_checksum(sum);
    Ok(bytes)
}

fn is_answer(bytes: &[u8], sequence: u16) -> bool {
    echo_reply::EchoReplyPacket::new(bytes).is_some_and(|reply| {
        reply.get_icmp_type() == IcmpTypes::EchoReply && reply.get_sequence_number() == sequence
    })
}

fn requester(bytes: &[u8]) -> Option<Ipv4Addr> {
    let packet = Ipv4Packet::new(bytes)?;
    let request = echo_request::EchoRequestPacket::new(packet.payload())?;
    (request.get_icmp_type() == IcmpTypes::EchoRequest).then(|| packet.get_source())
}
