//! The connection table of one worker.

use std::sync::Arc;

use super::expected::{Control, Family};
use super::extras::{Extras, FtpControl};
use super::hash::Hasher;
use super::index::Index;
use super::local::LocalEnd;
use super::sctp::SctpState;
use super::slab::Slab;
use super::state::State;
use super::tcp::TcpState;
use super::template::Template;
use super::wheel::{Links, Wheel};
use crate::engine::ftp;
use crate::engine::network::Hold;
use crate::engine::service::{Activity, ForwardingMethod, RealServer};
use crate::engine::sync::Sequence;
use crate::engine::sync::due::Told;
use crate::engine::time::Moment;
use crate::packet::{Addr, Endpoint};

/// Which way a packet of a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the real server.
    ToReal,
    /// From the real server to the client.
    ToClient,
}

/// A connection in the table. Valid until the connection is removed; what is removed while an id
/// is held is up to the holder, as everything happens in one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnId(u32);

/// What identifies a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnKey {
    /// IP protocol number.
    pub protocol: u8,
    /// The client.
    pub client: Endpoint,
    /// What the client talks to.
    pub virtual_endpoint: Endpoint,
    /// The server that answers.
    pub real_endpoint: Endpoint,
}

/// A tracked connection.
///
/// **Shape** — 96 bytes; with its share of the index about 120. Aligned so that none touches more
/// than two cache lines.
#[derive(Debug)]
#[repr(align(32))]
pub struct Connection {
    client: Addr,
    virtual_addr: Addr,
    real_addr: Addr,
    real: Option<Arc<RealServer>>,
    /// What only few connections have.
    extras: Option<Box<Extras>>,
    pub(super) links: Links,
    /// Low 32 bits of the moment of the last packet, in milliseconds.
    last_used: u32,
    timeout_ms: u32,
    /// Packets from the client, saturating.
    in_packets: u32,
    ports: Ports,
    protocol: u8,
    method: ForwardingMethod,
    state: State,
    flags: u8,
    /// The number of the state that it was told to other directors in last, and [`TRACKED`].
    aside: u8,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ports {
    client: u16,
    virtual_port: u16,
    real: u16,
}

const LIVE: u8 = 1;
const ONE_WAY: u8 = 2;
const OUTBOUND: u8 = 4;
const ONE_PACKET: u8 = 8;
const HOST_IS_CLIENT: u8 = 16;
const HOST_IS_SERVER: u8 = 32;
const ACTIVE: u8 = 64;
const HEARD: u8 = 128;

/// Among the numbers of states, of which there are fourteen at most.
const TRACKED: u8 = 128;

const _: () = assert!(size_of::<Connection>() == 96);

/// Which ends of a connection are the director's own host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostEnds {
    /// Whether the client is.
    pub client: bool,
    /// Whether the server is.
    pub server: bool,
}

impl HostEnds {
    fn flags(self) -> u8 {
        let client = if self.client { HOST_IS_CLIENT } else { 0 };
        client | if self.server { HOST_IS_SERVER } else { 0 }
    }
}

/// How a connection begins.
#[derive(Debug)]
pub struct NewConnection {
    /// Its identity.
    pub key: ConnKey,
    /// Its server; `None` for one that a server began through SNAT, and for one past all servers.
    pub real: Option<Arc<RealServer>>,
    /// Its template, if the service is persistent.
    pub template: Option<Arc<Template>>,
    /// The director's own end, by full NAT.
    pub local: Option<LocalEnd>,
    /// Whether it is for one packet only: no other packet finds it, and no timer ends it.
    pub one_packet: bool,
    /// How packets reach the server.
    pub method: ForwardingMethod,
    /// Which of its ends are the director's own host.
    pub host: HostEnds,
    /// Its first state.
    pub state: State,
    /// How long it lives without another packet, in milliseconds.
    pub timeout_ms: u32,
    /// What it is told to other directors with, and was heard with.
    pub sync: SyncTraits,
}

/// What a connection begins with of interest to other directors.
#[derive(Clone, Copy, Debug, Default)]
pub struct SyncTraits {
    /// The firewall mark of its first packet, or 0.
    pub mark: u32,
    /// Whether the kernel's connection tracking would follow it.
    pub tracked: bool,
    /// What another director told of it, if one did.
    pub heard: Option<Heard>,
}

/// What another director tells of a connection beyond its identity, state and time.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// How it counts with its server.
    pub activity: Activity,
    /// Whether no packet of the server has been seen, and none is expected.
    pub one_way: bool,
    /// Packets from the client that it is taken to have had.
    pub in_packets: u32,
    /// How its sequence numbers are shifted.
    pub sequence: Option<Sequence>,
}

impl Connection {
    pub(super) const FREE: Self = Self {
        client: Addr::UNSPECIFIED,
        virtual_addr: Addr::UNSPECIFIED,
        real_addr: Addr::UNSPECIFIED,
        real: None,
        extras: None,
        links: Links::NONE,
        last_used: 0,
        timeout_ms: 0,
        in_packets: 0,
        ports: Ports { client: 0, virtual_port: 0, real: 0 },
        protocol: 0,
        method: ForwardingMethod::Masquerade,
        state: State::Udp,
        flags: 0,
        aside: 0,
    };

    /// Its identity.
    pub fn key(&self) -> ConnKey {
        ConnKey {
            protocol: self.protocol,
            client: self.client(),
            virtual_endpoint: self.virtual_endpoint(),
            real_endpoint: self.real_endpoint(),
        }
    }

    /// The client's address and port.
    pub fn client(&self) -> Endpoint {
        Endpoint::new(self.client, self.ports.client)
    }

    /// The virtual address and port.
    pub fn virtual_endpoint(&self) -> Endpoint {
        Endpoint::new(self.virtual_addr, self.ports.virtual_port)
    }

    /// The real server's address and port.
    pub fn real_endpoint(&self) -> Endpoint {
        Endpoint::new(self.real_addr, self.ports.real)
    }

    /// Its real server, unless it was begun by one or goes past all.
    pub fn real(&self) -> Option<&Arc<RealServer>> {
        self.real.as_ref()
    }

    /// What binds its client to the server, if the service is persistent.
    pub fn template(&self) -> Option<&Arc<Template>> {
        self.extras.as_ref()?.template.as_ref()
    }

    /// The director's own end, if its server is reached by full NAT.
    pub fn local(&self) -> Option<&LocalEnd> {
        self.extras.as_ref()?.local.as_ref()
    }

    /// The same, to change what is not its identity.
    pub fn local_mut(&mut self) -> Option<&mut LocalEnd> {
        self.extras.as_mut()?.local.as_mut()
    }

    /// Where its server sees the client.
    pub fn local_endpoint(&self) -> Option<Endpoint> {
        self.local().map(|local| local.endpoint)
    }

    /// Whether it is the control connection of an FTP service behind NAT.
    pub fn is_ftp_control(&self) -> bool {
        self.ports.virtual_port == ftp::CONTROL_PORT
            && self.method == ForwardingMethod::Masquerade
            && matches!(self.state, State::Tcp(_))
    }

    /// What has been said on a control connection of FTP, if it matters.
    pub fn ftp(&mut self) -> Option<&mut FtpControl> {
        self.extras.as_mut()?.ftp.as_mut()
    }

    /// What has been said on a control connection of FTP.
    pub fn ftp_or_new(&mut self) -> &mut FtpControl {
        let control = Control { client: self.client(), virtual_endpoint: self.virtual_endpoint() };
        let new = || FtpControl { family: Arc::new(control), ..FtpControl::default() };
        self.extras.get_or_insert_default().ftp.get_or_insert_with(new)
    }

    /// Ties it to the control connection that announced it, and to what keeps the host's own stack
    /// away from it.
    pub fn join(&mut self, family: Family, hold: Option<Arc<dyn Hold>>) {
        let extras = self.extras.get_or_insert_default();
        extras.family = Some(family);
        extras.hold = hold;
    }

    /// Whether a control connection announced it.
    fn is_announced(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.family.is_some())
    }

    /// Whether connections that it announced are left.
    fn has_family(&self) -> bool {
        let ftp = self.extras.as_ref().and_then(|extras| extras.ftp.as_ref());
        ftp.is_some_and(|ftp| Arc::strong_count(&ftp.family) > 1)
    }

    /// How packets reach the real server.
    pub fn method(&self) -> ForwardingMethod {
        self.method
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Milliseconds it lives after a packet.
    pub fn timeout_ms(&self) -> u32 {
        self.timeout_ms
    }

    /// Packets from the client so far.
    pub fn in_packets(&self) -> u32 {
        self.in_packets
    }

    /// Whether a real server began it through the director's SNAT.
    pub fn is_outbound(&self) -> bool {
        self.flags & OUTBOUND != 0
    }

    /// Whether it is for one packet only.
    pub fn is_one_packet(&self) -> bool {
        self.flags & ONE_PACKET != 0
    }

    /// Whether no packet of the server has been seen, and none is expected.
    pub fn is_one_way(&self) -> bool {
        self.flags & ONE_WAY != 0
    }

    /// Which of its ends are the director's own host.
    pub fn host(&self) -> HostEnds {
        let has = |flag| self.flags & flag != 0;
        HostEnds { client: has(HOST_IS_CLIENT), server: has(HOST_IS_SERVER) }
    }

    /// Notes that a packet of the server was seen after all.
    pub fn set_two_way(&mut self) {
        self.flags &= !ONE_WAY;
    }

    /// Moves to a state, and from one of the real server's gauges to the other if need be.
    ///
    /// What another director told it to count as stays until its state changes.
    pub fn set_state(&mut self, state: State) {
        if state != self.state && self.real.is_some() {
            self.count_as(state.activity());
        }
        self.state = state;
    }

    /// How it counts with its server.
    pub fn activity(&self) -> Activity {
        if self.flags & ACTIVE != 0 { Activity::Active } else { Activity::Inactive }
    }

    fn count_as(&mut self, activity: Activity) {
        if activity == self.activity() {
            return;
        }
        self.flags ^= ACTIVE;
        if let Some(real) = &self.real {
            real.move_connection(activity);
        }
    }

    /// Whether another director told of it.
    pub fn is_heard(&self) -> bool {
        self.flags & HEARD != 0
    }

    /// Whether the kernel's connection tracking would follow it.
    pub fn is_tracked(&self) -> bool {
        self.aside & TRACKED != 0
    }

    /// The firewall mark of its first packet, or 0.
    pub fn mark(&self) -> u32 {
        self.extras.as_ref().map_or(0, |extras| extras.mark)
    }

    /// How its sequence numbers are shifted, as another director told.
    pub fn sequence(&self) -> Option<&Sequence> {
        self.extras.as_ref()?.sequence.as_deref()
    }

    /// The control connection that announced it, by its client and virtual endpoint.
    pub fn announced_by(&self) -> Option<&Family> {
        self.extras.as_ref()?.family.as_ref()
    }

    /// When it was told to other directors last, as far as that matters.
    pub fn told(&self) -> Told {
        self.extras.as_ref().map_or_else(Told::default, |extras| extras.told)
    }

    /// The number of the state that it was told to other directors in last.
    pub fn told_state(&self) -> u8 {
        self.aside & !TRACKED
    }

    /// Takes note of having been told. `lasting` if it matters when.
    pub fn set_told(&mut self, state: u8, told: Told, lasting: bool) {
        self.aside = state | self.aside & TRACKED;
        if lasting {
            self.extras.get_or_insert_default().told = told;
        } else if let Some(extras) = &mut self.extras {
            extras.told = told;
        }
    }

    /// Takes over what another director tells of it.
    pub fn hear(&mut self, heard: &Heard, state: State, state_number: u8) {
        self.count_as(heard.activity);
        self.in_packets = heard.in_packets;
        self.state = state;
        self.aside = state_number | self.aside & TRACKED;
        if heard.sequence.is_some() || self.sequence().is_some() {
            self.extras.get_or_insert_default().sequence = heard.sequence.map(Box::new);
        }
    }

    /// Counts it with a server, which it had none of yet.
    pub fn bind(&mut self, real: Arc<RealServer>) {
        debug_assert!(self.real.is_none(), "a connection is bound once");
        real.bind_connection(self.activity());
        self.real = Some(real);
    }

    /// Counts a packet from the client.
    pub fn count_in(&mut self) {
        self.in_packets = self.in_packets.saturating_add(1);
    }

    /// Whether a SYN or INIT may open a new connection in this one's place: it is in TIME_WAIT,
    /// CLOSE or CLOSED, or in FIN_WAIT without any packet of the server (`with_fin_wait`). Never that of a persistent
    /// client, or one that another connection announced.
    ///
    /// **Source** — IPVS `is_new_conn_expected`.
    pub fn may_be_reused(&self, with_fin_wait: bool) -> bool {
        match self.state {
            _ if self.template().is_some() || self.is_announced() => false,
            State::Tcp(TcpState::TimeWait | TcpState::Close) => true,
            State::Tcp(TcpState::FinWait) => with_fin_wait && self.is_one_way(),
            State::Sctp(SctpState::Closed) => true,
            _ => false,
        }
    }

    /// Milliseconds until it expires if no packet comes.
    pub fn remaining_ms(&self, now: Moment) -> u32 {
        self.timeout_ms.saturating_sub(self.idle_ms(now))
    }

    /// Milliseconds since its last packet.
    pub fn idle_ms(&self, now: Moment) -> u32 {
        now.low().wrapping_sub(self.last_used)
    }

    /// The direction of a packet with these addresses, if it belongs to this connection.
    fn direction(
        &self,
        source: Endpoint,
        destination: Endpoint,
        protocol: u8,
    ) -> Option<Direction> {
        if self.protocol != protocol || self.flags & LIVE == 0 {
            return None;
        }
        if self.client() == source && self.virtual_endpoint() == destination {
            return Some(Direction::ToReal);
        }
        (self.answers() == (source, destination)).then_some(Direction::ToClient)
    }

    /// Where the server's answers come from and go to: from itself if it is reached by NAT, else
    /// from the virtual address; to the client, or what full NAT puts in its place.
    fn answers(&self) -> (Endpoint, Endpoint) {
        match self.method {
            ForwardingMethod::Masquerade => (self.real_endpoint(), self.client()),
            ForwardingMethod::FullNat => {
                (self.real_endpoint(), self.local_endpoint().unwrap_or(self.client()))
            }
            ForwardingMethod::Local
            | ForwardingMethod::Tunnel
            | ForwardingMethod::Direct
            | ForwardingMethod::Bypass => (self.virtual_endpoint(), self.client()),
        }
    }
}

/// A connection that is gone, but counts with its real server until this is dropped.
#[derive(Debug)]
#[must_use = "dropping it counts the connection out"]
pub struct StillCounted {
    real: Arc<RealServer>,
    activity: Activity,
}

impl Drop for StillCounted {
    fn drop(&mut self) {
        self.real.unbind_connection(self.activity);
    }
}

/// The connections of one worker: records in segments that are never moved, an index by both
/// directions of each, and a timer wheel.
#[derive(Debug)]
pub struct ConnTable {
    records: Slab,
    index: Index,
    wheel: Wheel,
    hasher: Hasher,
    len: usize,
    limit: usize,
}

/// A control connection whose time is up stays this long if connections that it announced are left.
///
/// **Source** — IPVS `ip_vs_conn_expire`.
const HELD_TIMEOUT_MS: u32 = 60_000;

/// A packet's place in the table, computed ahead of its turn.
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    hash: u64,
    source: Endpoint,
    destination: Endpoint,
    protocol: u8,
}

impl ConnTable {
    /// An empty table that takes `limit` connections; `seed` keys its hash.
    pub fn new(limit: usize, seed: u64, now: Moment) -> Self {
        Self {
            records: Slab::default(),
            index: Index::new(),
            wheel: Wheel::new(now),
            hasher: Hasher::new(seed),
            len: 0,
            limit: limit.min(MAX_CONNECTIONS),
        }
    }

    /// Prepares the look-up of a packet.
    #[inline]
    pub fn prepare(&self, source: Endpoint, destination: Endpoint, protocol: u8) -> Lookup {
        let hash = self.hasher.hash(source, destination, protocol);
        Lookup { hash, source, destination, protocol }
    }

    /// The connection that a packet belongs to, and which way it goes.
    #[inline]
    pub fn find(&self, lookup: &Lookup) -> Option<(ConnId, Direction)> {
        let mut direction = None;
        let Lookup { hash, source, destination, protocol } = *lookup;
        let entry = self.index.find(hash, |entry| {
            let found = self.records.get(entry >> 1).direction(source, destination, protocol);
            direction = found;
            found.is_some()
        })?;
        Some((ConnId(entry >> 1), direction?))
    }

    /// Reads what packets will need of the index, then their records, to have all of it on its way
    /// from memory at once.
    ///
    /// The loops do nothing else, so that a processor has many of their reads under way together:
    /// with a million connections that halves what a packet costs.
    #[inline]
    pub fn fetch<'a>(&self, lookups: impl Iterator<Item = &'a Lookup> + Clone) {
        let mut seen = 0;
        for lookup in lookups.clone() {
            seen ^= self.index.touch(lookup.hash);
        }
        std::hint::black_box(seen);
        for lookup in lookups {
            if let Some(entry) = self.index.find(lookup.hash, |_| true) {
                let record = self.records.get(entry >> 1);
                // The identity and the rest lie in different cache lines.
                seen ^= record.client.v4_bits() ^ record.timeout_ms;
            }
        }
        std::hint::black_box(seen);
    }

    /// Removes all connections.
    pub fn clear(&mut self) {
        for id in 0..self.records.used {
            self.remove(ConnId(id));
        }
    }

    /// The connection.
    pub fn get(&self, id: ConnId) -> &Connection {
        self.records.get(id.0)
    }

    /// The connection, to change what is not its identity.
    pub fn get_mut(&mut self, id: ConnId) -> &mut Connection {
        self.records.get_mut(id.0)
    }

    /// Adds a connection and counts it with its real server; `None` if the table is full.
    ///
    /// An older connection whose server would answer with the very same addresses is no longer
    /// found by those answers: they belong to the newer one, as in IPVS.
    pub fn insert(&mut self, new: NewConnection, now: Moment) -> Option<ConnId> {
        if self.len >= self.limit {
            return None;
        }
        let NewConnection { key, real, template, local, .. } = new;
        let NewConnection { one_packet, method, host, state, timeout_ms, .. } = new;
        let NewConnection { sync: SyncTraits { mark, tracked, heard }, .. } = new;
        // Only what goes past all servers begins as active, as it counts nowhere.
        let activity = heard.map_or_else(|| state.activity(), |heard| heard.activity);
        if let Some(real) = &real {
            real.bind_connection(activity);
        }
        let one_way = heard.map_or_else(|| is_one_way(method), |heard| heard.one_way);
        let bypasses = method == ForwardingMethod::Bypass;
        let outbound = real.is_none() && !bypasses && heard.is_none();
        let active = activity == Activity::Active || bypasses;
        let sequence = heard.and_then(|heard| heard.sequence);
        let id = self.records.take();
        *self.records.get_mut(id) = Connection {
            client: key.client.addr,
            virtual_addr: key.virtual_endpoint.addr,
            real_addr: key.real_endpoint.addr,
            real,
            extras: Extras::new(template, local, mark, sequence),
            links: Links::NONE,
            last_used: now.low(),
            timeout_ms,
            in_packets: heard.map_or(0, |heard| heard.in_packets),
            ports: Ports {
                client: key.client.port,
                virtual_port: key.virtual_endpoint.port,
                real: key.real_endpoint.port,
            },
            protocol: key.protocol,
            method,
            state,
            flags: LIVE
                | if one_way { ONE_WAY } else { 0 }
                | if outbound { OUTBOUND } else { 0 }
                | if one_packet { ONE_PACKET } else { 0 }
                | host.flags()
                | if active { ACTIVE } else { 0 }
                | if heard.is_some() { HEARD } else { 0 },
            aside: if tracked { TRACKED } else { 0 },
        };
        self.len += 1;
        if one_packet {
            return Some(ConnId(id));
        }
        self.enter(id);
        let deadline = Moment::from_ms(now.as_ms() + u64::from(timeout_ms));
        self.wheel.insert(&mut self.records, id, deadline);
        Some(ConnId(id))
    }

    /// Removes a connection and counts it out at its real server.
    pub fn remove(&mut self, id: ConnId) {
        drop(self.retire(id));
    }

    /// Removes a connection, which counts with its real server until what is returned is dropped.
    pub fn retire(&mut self, id: ConnId) -> Option<StillCounted> {
        let record = self.records.get_mut(id.0);
        if record.flags & LIVE == 0 {
            return None;
        }
        if record.flags & ONE_PACKET == 0 {
            let (forward, reverse) = hashes(&self.hasher, record);
            self.index.remove(forward, id.0 << 1);
            self.index.remove(reverse, id.0 << 1 | 1);
        }
        let activity = record.activity();
        let counted = record.real.take().map(|real| StillCounted { real, activity });
        record.flags = 0;
        record.extras = None;
        self.wheel.remove(&mut self.records, id.0);
        self.records.free.push(id.0);
        self.len -= 1;
        counted
    }

    /// Gives a connection `timeout_ms` to live from `now` on.
    pub fn extend(&mut self, id: ConnId, timeout_ms: u32, now: Moment) {
        let record = self.records.get_mut(id.0);
        record.last_used = now.low();
        let nearer = timeout_ms < record.timeout_ms;
        record.timeout_ms = timeout_ms;
        if nearer {
            let deadline = Moment::from_ms(now.as_ms() + u64::from(timeout_ms));
            self.wheel.remove(&mut self.records, id.0);
            self.wheel.insert(&mut self.records, id.0, deadline);
        }
    }

    /// Removes connections whose time is up, looking at `budget` of them or empty ticks at most.
    /// `kept` is told of those that stay for what they announced.
    pub fn expire(&mut self, now: Moment, mut budget: u32, mut kept: impl FnMut(ConnId)) {
        while budget > 0 {
            let Some(id) = self.wheel.poll(&mut self.records, now, &mut budget) else { return };
            budget = budget.saturating_sub(1);
            let record = self.records.get_mut(id);
            if record.remaining_ms(now) == 0 && record.has_family() {
                record.timeout_ms = HELD_TIMEOUT_MS;
                record.last_used = now.low();
                kept(ConnId(id));
            }
            let remaining = record.remaining_ms(now);
            if remaining == 0 {
                self.remove(ConnId(id));
            } else {
                let deadline = Moment::from_ms(now.as_ms() + u64::from(remaining));
                self.wheel.insert(&mut self.records, id, deadline);
            }
        }
    }

    /// Connections in the table.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many more connections it takes.
    pub fn room(&self) -> usize {
        self.limit - self.len
    }

    /// Positions at which there may be connections, which [`at`](Self::at) takes.
    pub fn positions(&self) -> usize {
        self.records.used as usize
    }

    /// The connection at a position, if there is one.
    pub fn at(&self, position: usize) -> Option<ConnId> {
        let id = u32::try_from(position).ok().filter(|id| *id < self.records.used)?;
        (self.records.get(id).flags & LIVE != 0).then_some(ConnId(id))
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.records.memory_bytes() + self.index.memory_bytes()
    }

    /// All connections, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.records.iter().filter(|record| record.flags & LIVE != 0)
    }

    /// Connections from position `from` on, at most `count` records looked at, and the position to
    /// go on from; `None` at the end. For listings that must not hold up the packets.
    pub fn page(&self, from: usize, count: usize) -> (Vec<&Connection>, Option<usize>) {
        let end = (from + count).min(self.records.used as usize);
        let live = (from..end).map(|id| self.records.get(id as u32));
        let page = live.filter(|record| record.flags & LIVE != 0).collect();
        (page, (end < self.records.used as usize).then_some(end))
    }

    fn enter(&mut self, id: u32) {
        let record = self.records.get(id);
        let (forward, reverse) = hashes(&self.hasher, record);
        let (source, destination) = record.answers();
        let answers = Lookup { hash: reverse, source, destination, protocol: record.protocol };
        if let Some((older, Direction::ToClient)) = self.find(&answers) {
            self.index.remove(reverse, older.0 << 1 | 1);
        }
        self.index.insert(forward, id << 1);
        self.index.insert(reverse, id << 1 | 1);
    }
}

/// Whether servers' answers do not come back through the director.
fn is_one_way(method: ForwardingMethod) -> bool {
    !matches!(method, ForwardingMethod::Masquerade | ForwardingMethod::FullNat)
}

/// The hashes of what the client sends and of the answers.
fn hashes(hasher: &Hasher, record: &Connection) -> (u64, u64) {
    let (from, to) = record.answers();
    let forward = hasher.hash(record.client(), record.virtual_endpoint(), record.protocol);
    (forward, hasher.hash(from, to, record.protocol))
}

/// Entries of the index are a record's number and a direction in 32 bits, one value is taken.
const MAX_CONNECTIONS: usize = (u32::MAX >> 1) as usize;
