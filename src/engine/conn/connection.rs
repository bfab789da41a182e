//! A connection: who it is between, how it is forwarded, and what became of it so far.

use std::sync::Arc;

use super::begin::{Heard, NewConnection, SyncTraits};
use super::expected::{Control, Family};
use super::extras::{Extras, FtpControl};
use super::local::LocalEnd;
use super::sctp::SctpState;
use super::state::State;
use super::tcp::TcpState;
use super::template::Template;
use super::wheel::Links;
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

    /// A connection that begins, counted with its real server.
    pub(super) fn begin(new: NewConnection, now: Moment) -> Self {
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
        Self {
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
        }
    }

    /// Whether it is in the table, and not a record that is free.
    #[inline]
    pub(super) fn is_live(&self) -> bool {
        self.flags & LIVE != 0
    }

    /// Reads something of each cache line: the identity and the rest lie in different ones.
    #[inline]
    pub(super) fn touch(&self) -> u32 {
        self.client.v4_bits() ^ self.timeout_ms
    }

    /// Gives it `timeout_ms` to live from `now` on. Returns whether that is less than it had.
    #[inline]
    pub(super) fn renew(&mut self, timeout_ms: u32, now: Moment) -> bool {
        self.last_used = now.low();
        timeout_ms < std::mem::replace(&mut self.timeout_ms, timeout_ms)
    }

    /// Makes it a record that is free. Returns the real server that it still counts with, and as
    /// what.
    pub(super) fn end(&mut self) -> Option<(Arc<RealServer>, Activity)> {
        let activity = self.activity();
        self.flags = 0;
        self.extras = None;
        self.real.take().map(|real| (real, activity))
    }

    /// Its identity.
    pub fn key(&self) -> ConnKey {
        ConnKey {
            protocol: self.protocol,
            client: self.client(),
            virtual_endpoint: self.virtual_endpoint(),
            real_endpoint: self.real_endpoint(),
        }
    }

    /// IP protocol number.
    pub(super) fn protocol(&self) -> u8 {
        self.protocol
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
    pub(super) fn has_family(&self) -> bool {
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
    #[inline]
    pub(super) fn direction(
        &self,
        source: Endpoint,
        destination: Endpoint,
        protocol: u8,
    ) -> Option<Direction> {
        if self.protocol != protocol || !self.is_live() {
            return None;
        }
        if self.client() == source && self.virtual_endpoint() == destination {
            return Some(Direction::ToReal);
        }
        (self.answers() == (source, destination)).then_some(Direction::ToClient)
    }

    /// Where the server's answers come from and go to: from itself if it is reached by NAT, else
    /// from the virtual address; to the client, or what full NAT puts in its place.
    #[inline]
    pub(super) fn answers(&self) -> (Endpoint, Endpoint) {
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

/// Whether servers' answers do not come back through the director.
fn is_one_way(method: ForwardingMethod) -> bool {
    !matches!(method, ForwardingMethod::Masquerade | ForwardingMethod::FullNat)
}
