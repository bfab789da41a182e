//! A socket that has a port, or a protocol, and never says anything.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol as Transport, SockFilter, Socket, Type};

use super::{Guarded, sys};
use crate::engine::Hold;
use crate::packet::headers::protocol;
use crate::packet::{Addr, Endpoint, Family};

/// A bound socket that drops every packet before it is looked at: the kernel neither answers nor
/// rejects what comes to its port, or, to a raw one, of its protocol.
#[derive(Debug)]
pub struct GuardSocket(Socket);

impl GuardSocket {
    /// Takes a port of one of the kernel's addresses, or what a protocol has there.
    pub fn open(guarded: Guarded) -> io::Result<Self> {
        Self::open_by(guarded, Means::ALL)
    }

    /// The same at an address that is the kernel's only by a route, perhaps.
    pub fn open_routed(guarded: Guarded) -> io::Result<Self> {
        match Self::open(guarded) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                let kind = kind_of(guarded)?;
                Self::bound(guarded, kind, Means::ALL, |socket| match guarded.at.addr.family() {
                    Family::V4 => socket.set_freebind_v4(true),
                    Family::V6 => socket.set_freebind_v6(true),
                })
            }
            result => result,
        }
    }

    /// The same by some means only.
    pub(super) fn open_by(guarded: Guarded, means: &[Means]) -> io::Result<Self> {
        Self::bound(guarded, kind_of(guarded)?, means, |_| Ok(()))
    }

    /// Takes a TCP port of one of the kernel's addresses that nobody has, and says which.
    pub(super) fn open_any(addr: Addr) -> io::Result<(Self, u16)> {
        let at = Endpoint::new(addr, 0);
        let guarded = Guarded { protocol: protocol::TCP, at, interface: 0 };
        let socket = Self::bound(guarded, Type::STREAM, Means::ALL, |_| Ok(()))?;
        let bound = socket.0.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok((socket, bound.port()))
    }

    fn bound(
        guarded: Guarded,
        kind: Type,
        means: &[Means],
        prepare: impl FnOnce(&Socket) -> io::Result<()>,
    ) -> io::Result<Self> {
        let domain = match guarded.at.addr.family() {
            Family::V4 => Domain::IPV4,
            Family::V6 => Domain::IPV6,
        };
        let transport = Transport::from(i32::from(guarded.protocol));
        let socket = Socket::new(domain, kind, Some(transport))?;
        // First of all: there must be no moment at which it would answer.
        match guarded.protocol {
            protocol::TCP => silence(&socket, guarded, means)?,
            // A port that is open takes datagrams silently.
            protocol::UDP => drop(drop_all(&socket)),
            _ => drop_all(&socket)?,
        }
        // What is not dropped at once fills a buffer as small as can be.
        socket.set_recv_buffer_size(0)?;
        if guarded.protocol == protocol::TCP {
            // A server that used the port before may have left connections in TIME_WAIT.
            socket.set_reuse_address(true)?;
        }
        prepare(&socket)?;
        socket.bind(&address(guarded).into())?;
        if kind == Type::STREAM {
            socket.listen(1)?;
        }
        Ok(Self(socket))
    }
}

impl Hold for GuardSocket {}

fn kind_of(guarded: Guarded) -> io::Result<Type> {
    Ok(match guarded.protocol {
        _ if guarded.at.port == 0 => Type::RAW,
        protocol::TCP | protocol::SCTP => Type::STREAM,
        protocol::UDP => Type::DGRAM,
        _ => return Err(io::ErrorKind::Unsupported.into()),
    })
}

fn address(guarded: Guarded) -> SocketAddr {
    let port = guarded.at.port;
    match IpAddr::from(guarded.at.addr) {
        IpAddr::V4(addr) => SocketAddr::new(addr.into(), port),
        IpAddr::V6(addr) => SocketAddrV6::new(addr, port, 0, guarded.interface).into(),
    }
}

/// How a socket is made to drop what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// A filter that keeps nothing. Some kernels want CAP_NET_ADMIN for it.
    Filter,
    /// A signature that no client can make. Needs a kernel with TCP-MD5, no privilege.
    Signature,
    /// A time to live that few clients' packets have.
    TimeToLive,
}

impl Means {
    /// All, the surest first.
    pub(super) const ALL: &[Self] = &[Self::Filter, Self::Signature, Self::TimeToLive];
}

/// Applies the first means that works.
fn silence(socket: &Socket, guarded: Guarded, means: &[Means]) -> io::Result<()> {
    let family = guarded.at.addr.family();
    let apply = |means: &Means| match means {
        Means::Filter => drop_all(socket),
        Means::Signature => sys::require_signature(socket.as_fd(), family, &random_key()?),
        Means::TimeToLive => sys::require_largest_ttl(socket.as_fd(), family),
    };
    let mut result = Ok(());
    for each in means {
        result = apply(each);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn drop_all(socket: &Socket) -> io::Result<()> {
    socket.attach_filter(&[SockFilter::new(DROP_ALL, 0, 0, 0)])
}

/// A key that nobody knows.
fn random_key() -> io::Result<[u8; 16]> {
    let mut key = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
    Ok(key)
}

/// `BPF_RET | BPF_K`; with the constant 0 it keeps no byte of the packet.
const DROP_ALL: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
