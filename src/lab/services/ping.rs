//! ICMP echo: asking, and watching who asks.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{SockaddrStorage, recvfrom};
use pnet_packet::Packet;
use pnet_packet::icmp::echo_request::{EchoRequestPacket, MutableEchoRequestPacket};
use pnet_packet::icmp::{IcmpType, IcmpTypes};
use pnet_packet::icmpv6::Icmpv6Types;
use socket2::{Domain, Protocol, Socket, Type};

/// Sends one echo request and waits for its answer. Returns how long it took.
///
/// **Errors** — when the answer does not come within `patience`, and when an ICMP error does.
pub fn ping(target: impl Into<IpAddr>, sequence: u16, patience: Duration) -> io::Result<Duration> {
    let target = target.into();
    let types = Types::of(target);
    // A ping socket: the kernel keeps the identifier, the checksum, and everybody else's answers.
    // Where net.ipv4.ping_group_range has no room for us, root takes a raw one.
    let (mut socket, head_bytes) = match types.socket(Type::DGRAM) {
        Ok(socket) => (socket, 0),
        Err(_) => (types.socket(Type::RAW)?, types.header_bytes),
    };
    socket.set_read_timeout(Some(patience))?;
    socket.connect(&SocketAddr::new(target, 0).into())?;
    let start = Instant::now();
    socket.send(&request(&types, sequence)?)?;
    let mut answer = [0; 128];
    while start.elapsed() < patience {
        let length = socket.read(&mut answer)?;
        let message = answer[..length].get(head_bytes..);
        if message.is_some_and(|message| is_answer(&types, message, sequence)) {
            return Ok(start.elapsed());
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Sees the echo requests that come to a host. Needs CAP_NET_RAW in its namespace.
#[derive(Debug)]
pub struct EchoWatch {
    socket: Socket,
    types: Types,
}

impl EchoWatch {
    /// Watches from now on, in the namespace of the calling thread, for requests to addresses of
    /// the same family as this one.
    pub fn open(at: impl Into<IpAddr>) -> io::Result<Self> {
        let types = Types::of(at.into());
        let socket = types.socket(Type::RAW)?;
        socket.set_nonblocking(true)?;
        Ok(EchoWatch { socket, types })
    }

    /// From where the requests came since the last call.
    pub fn sources(&mut self) -> io::Result<Vec<IpAddr>> {
        let mut sources = Vec::new();
        let mut packet = [0; 2048];
        loop {
            match recvfrom::<SockaddrStorage>(self.socket.as_raw_fd(), &mut packet) {
                Ok((length, from)) => {
                    let asks = is_request(&self.types, &packet[..length]);
                    sources.extend(from.filter(|_| asks).and_then(address));
                }
                Err(Errno::EWOULDBLOCK) => return Ok(sources),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What ICMP has for an address family.
#[derive(Clone, Copy, Debug)]
struct Types {
    domain: Domain,
    protocol: Protocol,
    request: IcmpType,
    reply: IcmpType,
    /// Bytes of the IP header that a raw socket shows in front of a message, without options,
    /// which nobody here sends.
    header_bytes: usize,
}

impl Types {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Types {
                domain: Domain::IPV4,
                protocol: Protocol::ICMPV4,
                request: IcmpTypes::EchoRequest,
                reply: IcmpTypes::EchoReply,
                header_bytes: 20,
            },
            // Behind type and code, echo messages of both families are alike.
            IpAddr::V6(_) => Types {
                domain: Domain::IPV6,
                protocol: Protocol::ICMPV6,
                request: IcmpType(Icmpv6Types::EchoRequest.0),
                reply: IcmpType(Icmpv6Types::EchoReply.0),
                header_bytes: 0,
            },
        }
    }

    fn socket(&self, kind: Type) -> io::Result<Socket> {
        Socket::new(self.domain, kind, Some(self.protocol))
    }
}

/// Which 16-bit word of an ICMP message is its checksum.
const CHECKSUM_WORD: usize = 1;
/// As many bytes as ping(8) sends.
const PAYLOAD_BYTES: usize = 56;

fn request(types: &Types, sequence: u16) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; MutableEchoRequestPacket::minimum_packet_size() + PAYLOAD_BYTES];
    let mut packet =
        MutableEchoRequestPacket::new(&mut bytes).ok_or(io::ErrorKind::InvalidInput)?;
    packet.set_icmp_type(types.request);
    // Ping sockets put their own in its place.
    packet.set_identifier(std::process::id() as u16 | 1);
    packet.set_sequence_number(sequence);
    let sum = pnet_packet::util::checksum(packet.packet(), CHECKSUM_WORD);
    packet.set_checksum(sum);
    Ok(bytes)
}

fn is_answer(types: &Types, bytes: &[u8], sequence: u16) -> bool {
    EchoRequestPacket::new(bytes).is_some_and(|reply| {
        reply.get_icmp_type() == types.reply && reply.get_sequence_number() == sequence
    })
}

fn is_request(types: &Types, bytes: &[u8]) -> bool {
    let message = bytes.get(types.header_bytes..).and_then(EchoRequestPacket::new);
    message.is_some_and(|packet| packet.get_icmp_type() == types.request)
}

fn address(from: SockaddrStorage) -> Option<IpAddr> {
    let v4 = from.as_sockaddr_in().map(|from| from.ip().into());
    v4.or_else(|| from.as_sockaddr_in6().map(|from| from.ip().into()))
}
