//! One socket.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Arrived, Memory, SocketCounters, header_len, steer};
use crate::driver::HEADROOM;
use crate::driver::sys::{Message, receive_messages, turn_on};
use crate::packet::{Family, PacketBuf};

/// What tunnelled packets come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// Packets of an IP protocol.
    Ip {
        /// The outer family.
        family: Family,
        /// The protocol's number.
        protocol: u8,
    },
    /// Datagrams to a UDP port.
    Udp {
        /// The outer family.
        family: Family,
        /// The port.
        port: u16,
    },
}

impl Carrier {
    /// The family of the outer packets.
    pub fn family(self) -> Family {
        match self {
            Self::Ip { family, .. } | Self::Udp { family, .. } => family,
        }
    }
}

/// A socket that receives what comes by one carrier; where several share the work, a share of it.
#[derive(Debug)]
pub struct TunnelSocket {
    socket: Socket,
    carrier: Carrier,
    counters: SocketCounters,
}

impl TunnelSocket {
    /// Opens the socket of one of `sharers` that share the work; `number` counts them from 0.
    ///
    /// All packets of a connection inside a tunnel come to the same one.
    ///
    /// **Errors** — `Unsupported` if the host does not have the family; else the carrier and what
    /// failed.
    pub fn open(carrier: Carrier, number: u32, sharers: u32) -> io::Result<Self> {
        let socket = match carrier {
            Carrier::Ip { family, protocol } => open_raw(family, protocol, number, sharers),
            Carrier::Udp { family, port } => open_udp(family, port, sharers),
        };
        let socket = socket.map_err(|error| failed(carrier, &error))?;
        Ok(Self { socket, carrier, counters: SocketCounters::default() })
    }

    /// Hands the datagrams that have arrived, at most a batch, to `handle` one by one in their
    /// order. Never waits. Returns how many there were.
    pub fn receive(
        &mut self,
        memory: &mut Memory,
        handle: &mut dyn FnMut(Arrived<'_>),
    ) -> io::Result<usize> {
        let slots = memory.slots().map(|slot| &mut slot[HEADROOM..]);
        let messages = match receive_messages(self.socket.as_fd(), slots) {
            Err(error) if is_nothing(&error) => return Ok(0),
            other => other?,
        };
        for (slot, message) in memory.slots().zip(&messages) {
            if let Some(told) = message.lost {
                self.counters.lost += newly_lost(self.counters.lost, told);
            }
            self.open_message(slot, message, handle);
        }
        Ok(messages.len())
    }

    fn open_message(
        &mut self,
        slot: &mut [u8],
        message: &Message,
        handle: &mut dyn FnMut(Arrived<'_>),
    ) {
        if message.is_cut_off {
            self.counters.damaged += 1;
            return;
        }
        let end = HEADROOM + message.len;
        match self.carrier {
            Carrier::Ip { family, .. } => {
                let bytes = &slot[HEADROOM..end];
                let Some(len) = header_len(family, bytes) else {
                    self.counters.damaged += 1;
                    return;
                };
                let tos = if family == Family::V4 { bytes[1] } else { message.tos };
                let packet = PacketBuf::new(slot, HEADROOM + len, end);
                self.hand_over(packet, &Message { tos, ..*message }, handle);
            }
            Carrier::Udp { .. } => {
                let joined = message.joined_bytes;
                let each = if joined == 0 { message.len } else { joined }.max(1);
                for start in (HEADROOM..end).step_by(each) {
                    // Only as much memory as was received, so that later ones stay as they are.
                    let end = (start + each).min(end);
                    let packet = PacketBuf::new(&mut slot[..end], start, end);
                    self.hand_over(packet, message, handle);
                }
            }
        }
    }

    fn hand_over(
        &mut self,
        packet: PacketBuf<'_>,
        message: &Message,
        handle: &mut dyn FnMut(Arrived<'_>),
    ) {
        self.counters.datagrams += 1;
        let Message { source, tos, .. } = *message;
        handle(Arrived { packet, carrier: self.carrier, source, tos });
    }

    /// What it receives.
    pub fn carrier(&self) -> Carrier {
        self.carrier
    }

    /// What it has counted.
    pub fn counters(&self) -> SocketCounters {
        self.counters
    }

    /// Clears an error that waits on the socket, so that it does not end every wait.
    pub fn clear_error(&self) {
        let _ = self.socket.take_error();
    }
}

impl AsFd for TunnelSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open_raw(family: Family, protocol: u8, number: u32, sharers: u32) -> io::Result<Socket> {
    let socket = Socket::new(domain(family), Type::RAW, Some(Protocol::from(i32::from(protocol))))?;
    if sharers > 1 {
        socket.attach_filter(&steer::program(family, protocol, number, sharers))?;
    }
    set_up(&socket, family)?;
    Ok(socket)
}

fn open_udp(family: Family, port: u16, sharers: u32) -> io::Result<Socket> {
    let socket = Socket::new(domain(family), Type::DGRAM, Some(Protocol::UDP))?;
    if family == Family::V6 {
        socket.set_only_v6(true)?;
        // Tunnels may leave the checksum out over IPv6, too: RFC 6935.
        turn_on(socket.as_fd(), libc::SOL_UDP, UDP_NO_CHECK6_RX)?;
    }
    // The kernel chooses by addresses and ports, and a tunnel's source port stands for its flow.
    socket.set_reuse_port(sharers > 1)?;
    // Without it the kernel hands over one datagram at a time, as it always did.
    let _ = setsockopt(&socket, sockopt::UdpGroSegment, &true);
    set_up(&socket, family)?;
    let any = match family {
        Family::V4 => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        Family::V6 => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
    };
    socket.bind(&any.into())?;
    Ok(socket)
}

fn set_up(socket: &Socket, family: Family) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    match family {
        Family::V4 => socket.set_recv_tos_v4(true)?,
        Family::V6 => socket.set_recv_tclass_v6(true)?,
    }
    setsockopt(socket, sockopt::RxqOvfl, &1)?;
    // Beyond the host's limit with CAP_NET_ADMIN only.
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    }
    Ok(())
}

fn domain(family: Family) -> Domain {
    match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    }
}

/// Whether an error means that there is nothing to receive now.
fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// How many more datagrams were lost than were known to be, where the kernel tells the lowest 32
/// bits of their number.
fn newly_lost(known: u64, told: u32) -> u64 {
    told.wrapping_sub(known as u32).into()
}

fn failed(carrier: Carrier, error: &io::Error) -> io::Error {
    let (family, what, permission) = match carrier {
        Carrier::Ip { family, protocol } => {
            (family, format!("raw socket of protocol {protocol}"), " (needs CAP_NET_RAW)")
        }
        Carrier::Udp { family, port } => (family, format!("UDP port {port}"), ""),
    };
    let hint = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => permission,
        Some(libc::EADDRINUSE) => " (another program has it)",
        _ => "",
    };
    let kind = match error.raw_os_error() {
        Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) => io::ErrorKind::Unsupported,
        _ => error.kind(),
    };
    let version = if family == Family::V4 { "IPv4" } else { "IPv6" };
    io::Error::new(kind, format!("{what} over {version}: {error}{hint}"))
}

/// A burst of what one connection sends in a round trip.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// **Source** — Linux include/uapi/linux/udp.h.
const UDP_NO_CHECK6_RX: libc::c_int = 102;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_of_lost_datagrams_goes_on_where_the_kernels_begins_again() {
        assert_eq!(newly_lost(0, 7), 7);
        assert_eq!(newly_lost(7, 7), 0);
        let most = u64::from(u32::MAX);
        assert_eq!(newly_lost(most - 1, 3), 5);
        assert_eq!(newly_lost(most + 4, 3), 0);
    }
}
