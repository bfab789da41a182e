//! Protocols that the kernel does not speak.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use ulvs::lab::net::Namespace;
use ulvs::packet::sctp::write_checksum;

use crate::bed::PATIENCE;

pub const SCTP: u8 = 132;
pub const ESP: u8 = 50;
pub const AH: u8 = 51;

/// All that a host has of a protocol. While it is open, the host refuses nothing of it.
pub struct Raw {
    socket: Socket,
    is_v4: bool,
}

impl Raw {
    pub fn open(host: &Namespace, addr: IpAddr, protocol: u8) -> Self {
        let socket = || {
            let domain = if addr.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
            let protocol = Protocol::from(i32::from(protocol));
            let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
            socket.bind(&SocketAddr::new(addr, 0).into())?;
            socket.set_read_timeout(Some(PATIENCE))?;
            std::io::Result::Ok(socket)
        };
        Self { socket: host.run(socket).unwrap().unwrap(), is_v4: addr.is_ipv4() }
    }

    pub fn send(&self, to: IpAddr, payload: &[u8]) {
        self.socket.send_to(payload, &SocketAddr::new(to, 0).into()).unwrap();
    }

    /// What comes next, without the IP header.
    pub fn receive(&mut self) -> Vec<u8> {
        let mut buffer = [0; 2048];
        let len = self.socket.read(&mut buffer).expect("something comes");
        let start = if self.is_v4 { usize::from(buffer[0] & 0xf) * 4 } else { 0 };
        buffer[start..len].to_vec()
    }
}

/// An SCTP packet with one chunk.
pub fn sctp(from: u16, to: u16, tag: u32, chunk: u8) -> Vec<u8> {
    let mut packet =
        [&from.to_be_bytes()[..], &to.to_be_bytes(), &tag.to_be_bytes(), &[0; 4]].concat();
    packet.extend([chunk, 0, 0, 20]);
    // Tag, window, streams out and in, first number.
    packet.extend([0, 0, 0, 1, 0, 0, 0x10, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    write_checksum(&mut packet);
    packet
}

/// A packet of ESP, or of AH around nothing: what each calls its index, then its number.
pub fn ipsec(protocol: u8, index: u32) -> Vec<u8> {
    let nothing = 59;
    let mut packet = if protocol == AH { vec![nothing, 4, 0, 0] } else { Vec::new() };
    packet.extend(index.to_be_bytes());
    packet.extend([0, 0, 0, 1]);
    packet.extend([0xa5; 12]);
    packet
}
