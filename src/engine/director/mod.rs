//! The director: one worker's engine instance.
//!
//! # A packet's way
//!
//! 1. [`Headers::parse`](crate::packet::Headers::parse): malformed packets end here.
//! 2. `gather`: a fragment waits for the rest of its datagram, which then goes this way as a whole.
//! 3. One look-up in the connection table by (source, destination, protocol). It finds packets of
//!    both directions, because every connection is entered twice.
//! 4. `forward`: a packet of a connection moves its state, is counted, transmitted
//!    in place. No lock, no allocation.
//! 5. `transmit` does what the forwarding method asks for.
//! 6. `schedule`: a packet that may open a connection asks its service for a real server, under
//!    that service's lock.
//! 7. `call` and `outbound`: a call that a real server begins belongs to its service, any other
//!    connection to the outside gets a source port of ours.
//!    `ftp` enters those that a control connection announced.
//! 8. `related`: an ICMP error goes where the packet it quotes came from.
//! 9. `unbound`, `leave`: what has no connection and gets none is refused, if anybody is to know.
//! 10. `host`: where the director itself is the host, it answers as one.
//!
//! # Calls
//!
//! Between batches [`refresh`](Director::refresh) picks up edits. For each batch
//! [`handle_batch`](Director::handle_batch), then [`poll_output`](Director::poll_output) until
//! `None`, then [`poll_datagram`](Director::poll_datagram) until `None`, each judged like a packet
//! (by the director that owns its connection, if there are several).
//! [`poll_sync`](Director::poll_sync) until `None` brings what other directors are to be told;
//! [`handle_sync`](Director::handle_sync) takes what they tell.
//! [`handle_timeout`](Director::handle_timeout) and [`expire_fragments`](Director::expire_fragments)
//! ten times a second or more often: that is how exactly connections expire. `now` never goes back.

mod call;
mod chores;
mod errors;
mod forward;
mod ftp;
mod gather;
mod host;
mod leave;
mod local;
mod onhost;
mod outbound;
mod paths;
mod related;
mod schedule;
mod sync;
#[cfg(test)]
mod tests;
mod transit;
mod transmit;
mod tunnelled;
mod unbound;

use std::collections::VecDeque;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::conn::{ConnTable, Direction, Lookup, split_mix};
use super::defence::Defence;
use super::event::{Event, Sight};
use super::fragments::{Datagram, FragmentCounters, Reassembly};
use super::local::Pools;
use super::network::Network;
use super::scheduler::Random;
use super::service::{Protocol, ServiceTable, Snapshot};
use super::sync::master::Master;
use super::time::Moment;
use super::verdict::{DropReason, Verdict, VerdictCounters};
use crate::packet::headers::{ISAKMP, protocol};
use crate::packet::sctp::write_checksum;
use crate::packet::{Addr, Checksum, Endpoint, Fragment, Headers, PacketBuf};
use chores::Chores;
use errors::ErrorLimit;
use paths::Paths;
pub use sync::SyncCounters;
use transit::Transit;
pub use transmit::FullNatCounters;
use unbound::Masqueraded;

/// Packets of one batch at most.
pub const MAX_BATCH: usize = 64;

/// How a director is set up.
#[derive(Clone, Copy, Debug)]
pub struct DirectorConfig {
    /// Its number among the workers that share the service table.
    pub worker: usize,
    /// Keys the hash of the connection table and the random numbers of schedulers.
    pub seed: u64,
    /// Connections it tracks at most.
    pub max_connections: usize,
    /// ICMP errors it sends per second at most; `None` for no limit.
    pub icmp_errors_per_s: Option<u32>,
    /// Memory for datagrams of which some fragments are missing, in bytes.
    pub fragments_bytes: usize,
    /// Whether to misread IPv6 where Linux's IPVS does, to tell what that makes of a packet.
    pub misreads_ipv6: bool,
}

impl DirectorConfig {
    /// The defaults: four million connections (about half a gigabyte when full), and as many ICMP
    /// errors as Linux sends (`icmp_msgs_per_sec`), and as much memory for fragments as it has
    /// (`ipfrag_high_thresh`).
    pub fn new(worker: usize, seed: u64) -> Self {
        Self {
            worker,
            seed,
            max_connections: 4 << 20,
            icmp_errors_per_s: Some(1000),
            fragments_bytes: 4 << 20,
            misreads_ipv6: false,
        }
    }
}

/// The engine instance of one worker.
#[derive(Debug)]
pub struct Director {
    worker: usize,
    services: Arc<ServiceTable>,
    epoch: u64,
    snapshot: Arc<Snapshot>,
    defence: Defence,
    /// How many new connections `drop_packet` lets pass until it drops one.
    until_drop: i32,
    chores: Chores,
    dropped_connections: u64,
    masqueraded: Masqueraded,
    conns: ConnTable,
    pools: Pools,
    random: SeededRandom,
    /// See [`DirectorConfig::misreads_ipv6`].
    misreads_ipv6: bool,
    limit: ErrorLimit,
    paths: Paths,
    outbox: VecDeque<Output>,
    spare: Vec<Vec<u8>>,
    ip_id: u16,
    fragments: Reassembly,
    whole: VecDeque<Datagram>,
    verdicts: VerdictCounters,
    full_nat: FullNatCounters,
    /// Tells connections to other directors, while it is to.
    master: Option<Box<Master>>,
    heard: SyncCounters,
}

/// A packet that the director sends by itself.
#[derive(Debug)]
pub struct Output {
    /// From the IP header on, checksums complete.
    pub bytes: Vec<u8>,
    /// The address to route to.
    pub to: Addr,
}

/// A packet with what was read of it ahead of its turn.
struct Prepared {
    headers: Headers,
    lookup: Lookup,
}

impl Director {
    /// A director without connections that balances `services`.
    pub fn new(services: Arc<ServiceTable>, config: DirectorConfig, now: Moment) -> Self {
        let mut state = config.seed;
        services.report_room(config.worker, config.max_connections as u64);
        let workers = services.workers();
        let mut director = Self {
            worker: config.worker,
            epoch: services.epoch(),
            snapshot: services.snapshot(),
            defence: Defence::default(),
            until_drop: 0,
            chores: Chores::default(),
            dropped_connections: 0,
            masqueraded: Masqueraded::default(),
            services,
            conns: ConnTable::new(config.max_connections, split_mix(&mut state), now),
            random: SeededRandom(split_mix(&mut state)),
            misreads_ipv6: config.misreads_ipv6,
            limit: ErrorLimit::new(config.icmp_errors_per_s, now),
            paths: Paths::default(),
            outbox: VecDeque::new(),
            spare: Vec::new(),
            ip_id: split_mix(&mut state) as u16,
            pools: Pools::new(config.worker, workers, split_mix(&mut state)),
            fragments: Reassembly::new(config.fragments_bytes),
            whole: VecDeque::new(),
            verdicts: VerdictCounters::default(),
            full_nat: FullNatCounters::default(),
            master: None,
            heard: SyncCounters::default(),
        };
        director.follow_sync();
        director.pools.follow(&director.snapshot.locals);
        director
    }

    /// Picks up edits to the services since the last call.
    pub fn refresh(&mut self) {
        let defence = self.services.defence();
        if defence.round != self.defence.round {
            self.until_drop = defence.drop_rate;
        }
        self.defence = defence;
        let epoch = self.services.epoch();
        if epoch != self.epoch {
            self.epoch = epoch;
            self.snapshot = self.services.snapshot();
            self.pools.follow(&self.snapshot.locals);
            self.follow_sync();
        }
        if self.services.workers() > 1 {
            self.follow_masqueraded();
        }
    }

    /// Judges one packet. See [`handle_batch`](Self::handle_batch).
    pub fn handle_packet(
        &mut self,
        packet: &mut PacketBuf<'_>,
        network: &impl Network,
        now: Moment,
    ) -> Verdict {
        let prepared = self.prepare(packet);
        self.judge(packet, &prepared, network, now)
    }

    /// Judges up to [`MAX_BATCH`] packets, each from its IP header on, in their order.
    ///
    /// All are read first, so that the memory their connections lie in is on its way while the
    /// first ones are handled.
    ///
    /// **Panics** if there are more.
    pub fn handle_batch(
        &mut self,
        packets: &mut [PacketBuf<'_>],
        network: &impl Network,
        now: Moment,
        verdicts: &mut ArrayVec<Verdict, MAX_BATCH>,
    ) {
        verdicts.clear();
        // Filled and read in place: moving it would copy all of its capacity.
        let mut prepared = ArrayVec::<_, MAX_BATCH>::new();
        for packet in packets.iter_mut() {
            prepared.push(self.prepare(packet));
        }
        self.conns.fetch(prepared.iter().flatten().map(|each| &each.lookup));
        for (packet, prepared) in packets.iter_mut().zip(&prepared) {
            verdicts.push(self.judge(packet, prepared, network, now));
        }
    }

    /// The next packet that the director sends by itself.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.pop_front()
    }

    /// Takes back the memory of a packet that was sent.
    pub fn recycle(&mut self, output: Output) {
        if self.spare.len() < MAX_BATCH {
            self.spare.push(output.bytes);
        }
    }

    /// The next datagram whose fragments have all come, to be judged like a packet.
    #[must_use]
    pub fn poll_datagram(&mut self) -> Option<Datagram> {
        self.whole.pop_front()
    }

    /// Takes back the memory of a datagram that was sent.
    pub fn recycle_datagram(&mut self, datagram: Datagram) {
        self.fragments.recycle(datagram);
    }

    /// What became of datagrams that came in fragments.
    pub fn fragments(&self) -> FragmentCounters {
        self.fragments.counters()
    }

    /// Bytes of memory that datagrams take of which fragments are missing.
    pub fn fragments_bytes(&self) -> usize {
        self.fragments.used_bytes()
    }

    /// The connections.
    pub fn connections(&self) -> &ConnTable {
        &self.conns
    }

    /// Expires all connections at once.
    pub fn clear_connections(&mut self) {
        self.conns.clear();
    }

    /// How many packets had which verdict.
    pub fn verdicts(&self) -> &VerdictCounters {
        &self.verdicts
    }

    /// Connections that `drop_entry` has dropped.
    pub fn dropped_connections(&self) -> u64 {
        self.dropped_connections
    }

    /// What full NAT has counted beyond packets.
    pub fn full_nat(&self) -> FullNatCounters {
        self.full_nat
    }

    /// The services as this director sees them.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    fn prepare(&mut self, packet: &mut PacketBuf<'_>) -> Result<Prepared, DropReason> {
        let headers = Headers::parse(packet.bytes())?;
        // What follows the packet is padding of its link.
        let trimmed = packet.resize(headers.len);
        debug_assert!(trimmed, "parsing checked that the packet is that long");
        finish_sctp(packet, &headers);
        let Identity { source, destination, protocol } = Identity::of(&headers);
        let lookup = self.conns.prepare(source, destination, protocol);
        Ok(Prepared { headers, lookup })
    }

    fn judge(
        &mut self,
        packet: &mut PacketBuf<'_>,
        prepared: &Result<Prepared, DropReason>,
        network: &impl Network,
        now: Moment,
    ) -> Verdict {
        let verdict = match prepared {
            Ok(prepared) => {
                let mut transit = Transit::new(packet, &prepared.headers, network, now);
                self.route(&mut transit, &prepared.lookup)
            }
            Err(reason) => Verdict::Drop(*reason),
        };
        self.verdicts.count(verdict);
        verdict
    }

    /// Sends a packet to the part of the director that handles its kind.
    fn route(&mut self, transit: &mut Transit<'_, '_, impl Network>, lookup: &Lookup) -> Verdict {
        let headers = transit.headers;
        if headers.fragment != Fragment::Whole
            && let Some(verdict) = self.gather(transit, lookup)
        {
            return verdict;
        }
        if let Some((id, direction)) = self.conns.find(lookup)
            && (self.balances() || self.conns.get(id).is_outbound())
            && (direction == Direction::ToClient || !self.stands_by())
        {
            transit.tell(|| Event::Found { connection: Sight::of(self.conns.get(id)), direction });
            return match direction {
                Direction::ToReal => self.forward_to_real(transit, id),
                Direction::ToClient => self.forward_to_client(transit, id),
            };
        }
        // No connection is known of such a one: none is ever begun.
        if !headers.source.addr.can_be_source() {
            return Verdict::Drop(DropReason::BadHeader);
        }
        if let Some(verdict) = self.begin_expected(transit) {
            return verdict;
        }
        if let Some(verdict) = self.judge_related(transit) {
            return verdict;
        }
        if let Some(verdict) = self.refuse_unbound(transit) {
            return verdict;
        }
        self.judge_unknown(transit)
    }

    /// Judges a packet that belongs to no connection.
    fn judge_unknown(&mut self, transit: &mut Transit<'_, '_, impl Network>) -> Verdict {
        if self.stands_by() {
            return self.act_as_host(transit);
        }
        if let Some(verdict) = self.schedule(transit) {
            return verdict;
        }
        if let Some(verdict) = self.begin_call(transit) {
            return verdict;
        }
        if let Some(verdict) = self.begin_outbound(transit) {
            return verdict;
        }
        self.act_as_host(transit)
    }

    /// Whether there is any service. Without one, IPVS leaves even its connections alone.
    fn balances(&self) -> bool {
        !self.snapshot.is_empty()
    }
}

/// A SplitMix64 generator.
#[derive(Debug)]
struct SeededRandom(u64);

impl Random for SeededRandom {
    fn below(&mut self, bound: u64) -> u64 {
        // Lemire's multiplication without the rejection: the bias is below 2^-32 for any bound
        // that weights can add up to.
        let product = u128::from(split_mix(&mut self.0)) * u128::from(bound);
        (product >> 64) as u64
    }
}

/// The service protocol of a packet, if its services are balanced.
fn service_protocol(headers: &Headers) -> Option<Protocol> {
    Protocol::from_number(headers.protocol)
}

/// What names the connection that a packet belongs to.
struct Identity {
    source: Endpoint,
    destination: Endpoint,
    protocol: u8,
}

impl Identity {
    /// ESP and AH belong to the ISAKMP exchange between the same addresses.
    ///
    /// **Source** — IPVS `ah_esp_conn_fill_param_proto`.
    fn of(headers: &Headers) -> Self {
        let Headers { source, destination, protocol, .. } = *headers;
        if !matches!(protocol, protocol::ESP | protocol::AH) {
            return Self { source, destination, protocol };
        }
        let at_isakmp = |endpoint: Endpoint| Endpoint::new(endpoint.addr, ISAKMP);
        let (source, destination) = (at_isakmp(source), at_isakmp(destination));
        Self { source, destination, protocol: protocol::UDP }
    }
}

/// Completes the checksum of an SCTP packet that left it to a network card.
///
/// What sends frames takes an unfinished checksum for an Internet checksum, so SCTP's cannot
/// travel on unfinished.
fn finish_sctp(packet: &mut PacketBuf<'_>, headers: &Headers) {
    let unfinished = headers.protocol == protocol::SCTP
        && headers.fragment == Fragment::Whole
        && packet.unfinished_checksum().is_some_and(|(start, _)| start == headers.transport);
    if unfinished {
        write_checksum(&mut packet.bytes_mut()[headers.transport..headers.len]);
        packet.offload.checksum = Checksum::Complete;
    }
}

/// The endpoint with the same address and no port.
fn without_port(endpoint: Endpoint) -> Endpoint {
    Endpoint::new(endpoint.addr, 0)
}
