//! Local endpoints for connections by full NAT.

use std::sync::Arc;

use super::Director;
use super::transit::Transit;
use crate::engine::conn::local::LocalEnd;
use crate::engine::conn::sctp::SctpState;
use crate::engine::conn::tcp::{TcpFlags, TcpState};
use crate::engine::conn::{ConnId, ConnKey, Connection, State};
use crate::engine::network::{Network, Owner};
use crate::engine::scheduler::Random;
use crate::engine::service::ClientAddress;
use crate::engine::verdict::DropReason;
use crate::packet::{Addr, Endpoint};

/// Endpoints tried for a connection before giving up: with nine in ten taken at random, one in a
/// million connections would find none.
const ATTEMPTS: usize = 128;

/// The best endpoint found so far that is not free, how good it is, and who has it.
type Second = Option<(Rank, Endpoint, ConnId)>;

/// What makes a connection's endpoint worth taking, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It is over, and only kept for packets that come late.
    Over,
    /// Its client has not finished opening it.
    HalfOpen,
}

impl Director {
    /// A local end from which no other connection talks to the server, at one of `addresses` or, if
    /// there is none, at the director's address on the way to the server. The packet is the
    /// connection's first.
    ///
    /// Where all ports are taken, a connection that is over gives its endpoint away, then one that
    /// is half open, so that neither many short connections nor a flood of SYNs keeps others out.
    pub(super) fn local_end(
        &mut self,
        transit: &Transit<'_, '_, impl Network>,
        key: &ConnKey,
        wanted: &WantedEnd,
    ) -> Result<LocalEnd, DropReason> {
        let (network, addresses) = (transit.network, &wanted.addresses[..]);
        let default = match addresses {
            [] => network.address_towards(key.real_endpoint.addr),
            _ => None,
        };
        let addresses = if addresses.is_empty() { default.as_slice() } else { addresses };
        let first = self.random.below(addresses.len().max(1) as u64) as usize;
        let (before, from) = addresses.split_at(first);
        let (mut budget, mut second, mut any) = (ATTEMPTS, None, false);
        for addr in from.iter().chain(before) {
            let is_kernels = network.owner(*addr) == Owner::Kernel;
            if is_kernels && !self.pools.may_use(*addr, key.protocol) {
                continue;
            }
            any = true;
            if let Some(free) = self.free_endpoint(*addr, key, &mut budget, &mut second) {
                return Ok(LocalEnd::new(free, wanted.client_address));
            }
        }
        match second {
            Some((_, endpoint, id)) => {
                self.full_nat.reused += 1;
                let end = self.conns.get(id).local().and_then(|local| local.end);
                self.conns.remove(id);
                let local = LocalEnd::new(endpoint, wanted.client_address);
                Ok(match (end, first_number(transit)) {
                    (Some(end), Some(first)) => local.after(end, first),
                    _ => local,
                })
            }
            None if any => Err(DropReason::LocalPortsExhausted),
            None => Err(DropReason::NoLocalAddress),
        }
    }

    fn free_endpoint(
        &mut self,
        addr: Addr,
        key: &ConnKey,
        budget: &mut usize,
        second: &mut Second,
    ) -> Option<Endpoint> {
        let pool = self.pools.pool(addr, key.protocol);
        for _ in 0..pool.len().min(*budget) {
            *budget -= 1;
            let endpoint = Endpoint::new(addr, pool.take()?);
            let lookup = self.conns.prepare(key.real_endpoint, endpoint, key.protocol);
            let Some((id, _)) = self.conns.find(&lookup) else { return Some(endpoint) };
            let Some(rank) = rank(self.conns.get(id)) else { continue };
            if second.is_none_or(|(best, ..)| rank < best) {
                *second = Some((rank, endpoint, id));
            }
        }
        None
    }
}

/// What a connection by full NAT asks for.
#[derive(Clone, Debug)]
pub(super) struct WantedEnd {
    /// The service's local addresses.
    pub addresses: Arc<[Addr]>,
    /// How the server is told who its clients are.
    pub client_address: ClientAddress,
}

/// The sequence number of a SYN.
fn first_number(transit: &Transit<'_, '_, impl Network>) -> Option<u32> {
    let number = transit.transport().get(4..8)?.first_chunk()?;
    transit.flags.is_some_and(TcpFlags::syn).then(|| u32::from_be_bytes(*number))
}

/// `None` for a connection that lives.
fn rank(conn: &Connection) -> Option<Rank> {
    match conn.state() {
        // Whatever it is, it did not take its endpoint from a pool.
        _ if conn.local().is_none() => None,
        State::Tcp(TcpState::TimeWait | TcpState::Close) => Some(Rank::Over),
        State::Sctp(SctpState::Closed | SctpState::Rejected) => Some(Rank::Over),
        State::Tcp(TcpState::None | TcpState::SynRecv) => Some(Rank::HalfOpen),
        State::Sctp(SctpState::Init1 | SctpState::Init) => Some(Rank::HalfOpen),
        State::Tcp(_) | State::Sctp(_) | State::Udp | State::Echo => None,
    }
}
