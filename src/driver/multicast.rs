//! UDP multicast on one interface, for messages between directors.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};

/// A group, a port, and the interface on which it is talked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The group's address.
    pub addr: IpAddr,
    /// The first UDP port.
    pub port: u16,
    /// The interface's name.
    pub interface: String,
    /// The interface's number.
    pub index: u32,
    /// Size asked for of the socket's buffer in bytes; `None` for the host's default.
    pub buffer_bytes: Option<usize>,
}

/// Sends to a group.
#[derive(Debug)]
pub struct MulticastSender {
    socket: Socket,
    group: Group,
}

impl MulticastSender {
    /// Opens a socket whose datagrams pass `ttl` links, and do not come back to this host.
    ///
    /// **Errors** — what the host refuses, such as an interface that is gone.
    pub fn open(group: Group, ttl: u8) -> io::Result<Self> {
        let socket = open(&group)?;
        match group.addr {
            IpAddr::V4(_) => {
                socket.set_multicast_ttl_v4(ttl.into())?;
                socket.set_multicast_loop_v4(false)?;
            }
            IpAddr::V6(_) => {
                socket.set_multicast_if_v6(group.index)?;
                socket.set_multicast_hops_v6(ttl.into())?;
                socket.set_multicast_loop_v6(false)?;
            }
        }
        if let Some(bytes) = group.buffer_bytes {
            socket.set_send_buffer_size(bytes)?;
        }
        Ok(Self { socket, group })
    }

    /// Sends a datagram to a port of the group, so many above the first. Never waits.
    ///
    /// **Errors** — it did not leave.
    pub fn send(&self, datagram: &[u8], port_offset: u8) -> io::Result<()> {
        let to = self.group.at(port_offset);
        self.socket.send_to(datagram, &to).map(drop)
    }
}

/// Receives what is sent to a port of a group.
#[derive(Debug)]
pub struct MulticastReceiver(Socket);

impl MulticastReceiver {
    /// Joins a group and listens to its port, so many above the first.
    ///
    /// **Errors** — what the host refuses, such as a port that is taken.
    pub fn open(group: &Group, port_offset: u8) -> io::Result<Self> {
        let socket = open(group)?;
        socket.set_reuse_address(true)?;
        socket.bind(&group.at(port_offset))?;
        match group.addr {
            IpAddr::V4(addr) => {
                socket.join_multicast_v4_n(&addr, &InterfaceIndexOrAddress::Index(group.index))?;
            }
            IpAddr::V6(addr) => socket.join_multicast_v6(&addr, group.index)?,
        }
        if let Some(bytes) = group.buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        Ok(Self(socket))
    }

    /// Reads the next datagram into `buffer`, of which it fills the front; what does not fit is cut
    /// off. `None` if there is none now.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let result = io::Read::read(&mut &self.0, buffer);
        match result {
            Ok(length) => Ok(Some(length)),
            Err(error) if is_nothing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for MulticastReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Group {
    fn at(&self, port_offset: u8) -> SockAddr {
        SocketAddr::new(self.addr, self.port.wrapping_add(port_offset.into())).into()
    }
}

fn open(group: &Group) -> io::Result<Socket> {
    let domain = if group.addr.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(group.interface.as_bytes()))?;
    Ok(socket)
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::driver::wait;

    fn loopback(port: u16) -> Group {
        let addr = Ipv4Addr::new(239, 255, 17, 1).into();
        Group { addr, port, interface: "lo".into(), index: 1, buffer_bytes: Some(1 << 16) }
    }

    #[test]
    fn what_is_sent_to_a_port_of_the_group_comes_there() {
        let group = loopback(48_848);
        let receivers = [0, 1].map(|offset| MulticastReceiver::open(&group, offset).unwrap());
        let sender = MulticastSender::open(group, 1).unwrap();
        // Loopback is the one link on which a host has to hear itself.
        sender.socket.set_multicast_loop_v4(true).unwrap();
        sender.send(b"to the second", 1).unwrap();
        let patience = Some(Duration::from_secs(20));
        assert_eq!(wait(&[receivers[1].as_fd()], patience).unwrap().ready, 1);
        let mut buffer = [0xa5; 6];
        assert_eq!(receivers[1].receive(&mut buffer).unwrap(), Some(6));
        assert_eq!(&buffer, b"to the");
        assert_eq!(receivers[1].receive(&mut buffer).unwrap(), None);
        assert_eq!(receivers[0].receive(&mut buffer).unwrap(), None);
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        let group = Group { interface: "nosuch0".into(), index: 9999, ..loopback(48_850) };
        assert!(MulticastSender::open(group.clone(), 1).is_err());
        assert!(MulticastReceiver::open(&group, 0).is_err());
    }
}
