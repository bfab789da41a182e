//! What arrives at this host in tunnels, as the kernel's own stack delivers it: whole datagrams, of
//! which fragments were put together, that the host's firewall let through.
//!
//! IP protocols come by raw sockets (CAP_NET_RAW), GUE by a UDP socket. While a raw socket of a
//! protocol is there, the kernel does not answer its packets with "protocol unreachable"; a UDP
//! socket does the same for its port. Nothing is left behind when they are closed.

mod socket;
mod steer;

pub use socket::{Carrier, TunnelSocket};

use std::net::IpAddr;

use super::{BATCH, HEADROOM};
use crate::packet::{Family, PacketBuf};

/// A datagram that has arrived.
#[derive(Debug)]
pub struct Arrived<'a> {
    /// What is behind the outer IP header, or behind the UDP header.
    ///
    /// **Shape** — has [`HEADROOM`] bytes in front, unless the kernel had joined it to others: then
    /// what is in front was theirs.
    pub packet: PacketBuf<'a>,
    /// How it came.
    pub carrier: Carrier,
    /// Who sent it.
    pub source: IpAddr,
    /// The outer type of service or traffic class.
    pub tos: u8,
}

/// What a socket counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketCounters {
    /// Datagrams received.
    pub datagrams: u64,
    /// Datagrams that the kernel dropped because the socket's buffer was full.
    pub lost: u64,
    /// Datagrams longer than any packet, or without a whole IP header.
    pub damaged: u64,
}

/// Memory for one batch of datagrams, which the sockets of one thread share.
#[derive(Debug)]
pub struct Memory(Box<[u8]>);

impl Default for Memory {
    fn default() -> Self {
        Self(vec![0; SLOT_BYTES * BATCH].into())
    }
}

impl Memory {
    fn slots(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.0.chunks_exact_mut(SLOT_BYTES)
    }
}

/// Length of an IP header that the kernel hands over with a raw socket's packet, if it does.
fn header_len(family: Family, bytes: &[u8]) -> Option<usize> {
    match family {
        Family::V4 => {
            let len = usize::from(bytes.first()? & 15) * 4;
            (len >= 20 && len <= bytes.len()).then_some(len)
        }
        Family::V6 => Some(0),
    }
}

const LONGEST_BYTES: usize = 65_535 + 1;
/// An odd number of cache lines: were the distance a multiple of 4096, the headers of all datagrams
/// would compete for the same few cache sets.
const SLOT_BYTES: usize = ((HEADROOM + LONGEST_BYTES).div_ceil(64) | 1) * 64;
