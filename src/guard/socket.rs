//! A socket that has a port and never says anything.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol as Transport, SockFilter, Socket, Type};

use super::Guarded;
use crate::engine::service::Protocol;
use crate::packet::Family;

/// A bound socket whose filter drops every packet before it is looked at: the kernel neither
/// answers nor rejects what comes to its port.
#[derive(Debug)]
pub struct GuardSocket(#[expect(dead_code, reason = "held, not used")] Socket);

impl GuardSocket {
    /// Takes a port of one of the kernel's addresses.
    pub fn open(guarded: Guarded) -> io::Result<Self> {
        let domain = match guarded.at.addr.family() {
            Family::V4 => Domain::IPV4,
            Family::V6 => Domain::IPV6,
        };
        let (kind, transport) = match guarded.protocol {
            Protocol::Tcp => (Type::STREAM, Transport::TCP),
            Protocol::Udp => (Type::DGRAM, Transport::UDP),
            Protocol::Sctp => return Err(io::ErrorKind::Unsupported.into()),
        };
        let socket = Socket::new(domain, kind, Some(transport))?;
        // First of all: there must be no moment at which it would answer.
        socket.attach_filter(&[SockFilter::new(DROP_ALL, 0, 0, 0)])?;
        if guarded.protocol == Protocol::Tcp {
            // A server that used the port before may have left connections in TIME_WAIT.
            socket.set_reuse_address(true)?;
        }
        let addr = SocketAddr::new(IpAddr::from(guarded.at.addr), guarded.at.port);
        socket.bind(&addr.into())?;
        if guarded.protocol == Protocol::Tcp {
            socket.listen(1)?;
        }
        Ok(Self(socket))
    }
}

/// `BPF_RET | BPF_K`; with the constant 0 it keeps no byte of the packet.
const DROP_ALL: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
