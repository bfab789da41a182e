//! Connections that other directors are told of, and those they tell of.
//!
//! A packet of a known connection that is not to be told costs a look at its own record: no lock,
//! no allocation. What is told is gathered in this director's own messages.

use std::sync::Arc;

use super::Director;
use super::onhost::host_ends;
use super::transit::Transit;
use crate::engine::conn::{
    ConnId, ConnKey, Connection, Control, Direction, Heard, HeardTemplate, NewConnection, State,
    SyncTraits, Template, TemplateKey, TemplateTraits, lasting_ms,
};
use crate::engine::network::Network;
use crate::engine::service::{Activity, ForwardingMethod, Protocol};
use crate::engine::sync::due::{Candidate, due};
use crate::engine::sync::master::Master;
use crate::engine::sync::message::{self, Refusal, Version};
use crate::engine::sync::{Engine, Entry, MasterCounters, Outgoing, Sequence, flag};
use crate::engine::time::Moment;
use crate::packet::{Endpoint, Family};

/// What a director has counted of synchronisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncCounters {
    /// Connections and templates that were told.
    pub told: u64,
    /// Messages that were lost because too many waited to be sent.
    pub lost: u64,
    /// Connections and templates taken over from other directors.
    pub heard: u64,
    /// Entries of other directors' messages that were not: of unknown protocols or states, that
    /// came too late, or for which there was no room.
    pub ignored: u64,
    /// Messages that broke off at an entry that could not be read.
    pub broken: u64,
}

/// How long a template lives that came without a time.
///
/// **Source** — IPVS `ip_vs_proc_conn`: three minutes.
const TEMPLATE_TIMEOUT_MS: u64 = 180_000;
/// The name of the one persistence engine there is.
const SIP: &[u8] = b"sip";

impl Director {
    /// The next message for other directors.
    #[must_use]
    pub fn poll_sync(&mut self) -> Option<Outgoing> {
        self.master.as_mut()?.poll()
    }

    /// Takes back the memory of a message that was sent.
    pub fn recycle_sync(&mut self, bytes: Vec<u8>) {
        if let Some(master) = &mut self.master {
            master.recycle(bytes);
        }
    }

    /// What it has counted of synchronisation.
    pub fn sync_counters(&self) -> SyncCounters {
        let running = self.master.as_ref().map(|master| master.counters()).unwrap_or_default();
        SyncCounters {
            told: self.heard.told + running.entries,
            lost: self.heard.lost + running.lost,
            ..self.heard
        }
    }

    /// Takes over the connections of a message, as far as it owns them.
    ///
    /// **Errors** — why none was looked at.
    pub fn handle_sync(
        &mut self,
        message: &[u8],
        id: u8,
        owns: impl Fn(&Entry) -> bool,
        network: &impl Network,
        now: Moment,
    ) -> Result<(), Refusal> {
        for entry in message::read(message, id)? {
            match entry {
                Ok(entry) if !owns(&entry) => {}
                Ok(entry) => match self.hear(&entry, network, now) {
                    true => self.heard.heard += 1,
                    false => self.heard.ignored += 1,
                },
                Err(Refusal::Senseless) => self.heard.ignored += 1,
                Err(_) => self.heard.broken += 1,
            }
        }
        Ok(())
    }

    /// Starts or ends telling connections.
    pub(super) fn follow_sync(&mut self) {
        let wanted = self.snapshot.sync.master;
        if self.master.as_ref().map(|master| master.config()) == wanted {
            return;
        }
        if let Some(ended) = self.master.take() {
            let MasterCounters { entries, lost } = ended.counters();
            self.heard.told += entries;
            self.heard.lost += lost;
        }
        self.master = wanted.map(|config| Box::new(Master::new(config)));
    }

    /// Whether it leaves packets of clients to the host, as a backup that only listens.
    ///
    /// **Source** — IPVS `sysctl_backup_only`.
    pub(super) fn stands_by(&self) -> bool {
        self.snapshot.settings.backup_only != 0 && self.snapshot.sync.is_backup
    }

    /// What a connection begins with that is of interest to other directors.
    pub(super) fn traits(&self, transit: &Transit<'_, '_, impl Network>) -> SyncTraits {
        SyncTraits {
            mark: self.snapshot.mark(transit.subject(), transit.network),
            tracked: self.snapshot.settings.conntrack != 0,
            heard: None,
        }
    }

    /// What a template of a server reached so begins with that is of interest to other directors.
    pub(super) fn template_traits(
        &self,
        method: ForwardingMethod,
        transit: &Transit<'_, '_, impl Network>,
    ) -> TemplateTraits {
        let SyncTraits { mark, tracked, .. } = self.traits(transit);
        let tracked = if tracked { flag::TRACKED } else { 0 };
        TemplateTraits { flags: flag::of_method(method) | tracked, mark }
    }

    // --- telling ---

    /// Tells other directors of a connection that has just forwarded a packet of its client, if it
    /// is time to, and of what it belongs to.
    ///
    /// **Source** — IPVS `ip_vs_sync_conn`.
    pub(super) fn announce(&mut self, id: ConnId, now: Moment) {
        let conn = self.conns.get(id);
        let told = !conn.is_one_packet() && self.announce_connection(id, conn.in_packets(), now);
        // The old version tells a template only together with one of its connections.
        if told || self.version() == Version::V1 {
            self.announce_parent(id, now);
        }
    }

    /// Tells of what a connection belongs to: its template, or the control connection of FTP.
    fn announce_parent(&mut self, id: ConnId, now: Moment) {
        let conn = self.conns.get(id);
        if let Some(template) = conn.template() {
            let template = Arc::clone(template);
            let packets = template.count_in();
            return self.announce_template(&template, packets, now);
        }
        let Some(family) = conn.announced_by() else { return };
        let Control { client, virtual_endpoint } = **family;
        let lookup = self.conns.prepare(client, virtual_endpoint, conn.key().protocol);
        // Another worker's is told with its own packets.
        if let Some((control, Direction::ToReal)) = self.conns.find(&lookup)
            && control != id
        {
            self.announce_kept(control, now);
        }
    }

    /// Tells of a connection that has had no packet itself.
    fn announce_kept(&mut self, id: ConnId, now: Moment) {
        let packets = self.snapshot.settings.sync_threshold[0].max(0).unsigned_abs();
        self.announce_connection(id, packets, now);
        if let Some(template) = self.conns.get(id).template() {
            let template = Arc::clone(template);
            let packets = template.count_in();
            self.announce_template(&template, packets, now);
        }
    }

    fn announce_connection(&mut self, id: ConnId, packets: u32, now: Moment) -> bool {
        let settings = &self.snapshot.settings;
        let conn = self.conns.get(id);
        // Others could not know which of their own addresses stands in for the client.
        if conn.is_outbound() || conn.method() == ForwardingMethod::FullNat {
            return false;
        }
        let is_persistent = settings.sync_persist_mode != 0 && conn.template().is_some();
        let version = self.version();
        if is_persistent || !suits(version, conn.client()) {
            return false;
        }
        let number = conn.state().number();
        let candidate = Candidate {
            state: Some(conn.state()),
            is_in_told_state: conn.told_state() == number,
            packets,
            timeout_ms: conn.timeout_ms().into(),
            told: conn.told(),
        };
        let Some(told) = due(&candidate, settings, now) else { return false };
        let lasting = settings.sync_refresh_period > 0;
        let limit = settings.sync_qlen_max;
        if let Some(master) = &mut self.master {
            let spread = spread(conn.client());
            master.tell(&entry_of(conn), version, spread, limit, now);
        }
        self.conns.get_mut(id).set_told(number, told, lasting);
        true
    }

    fn announce_template(&mut self, template: &Template, packets: u32, now: Moment) {
        let settings = &self.snapshot.settings;
        let version = self.version();
        let ConnKey { protocol, client, virtual_endpoint, real_endpoint } = template.addresses();
        if template.real().method() == ForwardingMethod::FullNat || !suits(version, client) {
            return;
        }
        let candidate = Candidate {
            state: None,
            is_in_told_state: true,
            packets,
            timeout_ms: template.timeout_ms(),
            told: template.told(),
        };
        let Some(told) = due(&candidate, settings, now) else { return };
        let entry = Entry {
            protocol,
            client,
            virtual_endpoint,
            real_endpoint,
            flags: template.traits().flags | flag::TEMPLATE | flag::INACTIVE,
            state: template.state().into(),
            mark: template.traits().mark,
            timeout_s: (template.timeout_ms() / 1000).min(u32::MAX.into()) as u32,
            shifts: None,
            engine: template.key().call().map(|data| Engine { name: SIP, data }),
        };
        let limit = settings.sync_qlen_max;
        if let Some(master) = &mut self.master {
            master.tell(&entry, version, spread(client), limit, now);
        }
        template.set_told(told);
    }

    fn version(&self) -> Version {
        if self.snapshot.settings.sync_version == 0 { Version::V0 } else { Version::V1 }
    }

    /// Expires connections; tells of those that are kept for others, and lets messages leave.
    pub(super) fn expire(&mut self, now: Moment, budget: u32) {
        let mut kept = Vec::new();
        let is_master = self.master.is_some();
        self.conns.expire(now, budget, |id| {
            if is_master {
                kept.push(id);
            }
        });
        if !is_master {
            return;
        }
        kept.into_iter().for_each(|id| self.announce_kept(id, now));
        if self.worker == 0 {
            let renewed = self.services.templates().take_renewed();
            let packets = self.snapshot.settings.sync_threshold[0].max(0).unsigned_abs();
            renewed.iter().for_each(|template| self.announce_template(template, packets, now));
        }
        let limit = self.snapshot.settings.sync_qlen_max;
        if let Some(master) = &mut self.master {
            master.handle_timeout(now, limit);
        }
    }

    // --- hearing ---

    /// Takes over a connection or template; `false` if it is none for this director.
    ///
    /// **Source** — IPVS `ip_vs_proc_sync_conn`, `ip_vs_proc_conn`.
    fn hear(&mut self, entry: &Entry, network: &impl Network, now: Moment) -> bool {
        let call = match entry.engine {
            None => None,
            Some(Engine { name: SIP, data }) => Some(data),
            Some(_) => return false,
        };
        if entry.is_template() {
            return self.hear_template(entry, call, now);
        }
        let Some(protocol) = Protocol::from_number(entry.protocol) else { return false };
        let Some(state) = State::from_number(protocol, entry.state) else { return false };
        self.hear_connection(entry, state, network, now)
    }

    fn hear_connection(
        &mut self,
        entry: &Entry,
        state: State,
        network: &impl Network,
        now: Moment,
    ) -> bool {
        let is_active = entry.flags & flag::INACTIVE == 0;
        let heard = Heard {
            activity: if is_active { Activity::Active } else { Activity::Inactive },
            one_way: entry.flags & flag::ONE_WAY != 0,
            in_packets: self.snapshot.settings.sync_threshold[0].max(0).unsigned_abs(),
            sequence: sequence(entry),
        };
        let timeout_ms = match entry.timeout_s {
            0 => state.timeout_ms(&self.snapshot.timeouts),
            seconds => lasting_ms(seconds),
        };
        let lookup = self.conns.prepare(entry.client, entry.virtual_endpoint, entry.protocol);
        if let Some((id, Direction::ToReal)) = self.conns.find(&lookup) {
            let conn = self.conns.get(id);
            if conn.is_outbound() {
                return false;
            }
            if conn.real_endpoint() == entry.real_endpoint {
                self.hear_again(id, entry, &heard, state);
                self.conns.extend(id, timeout_ms, now);
                return true;
            }
            // The end of a connection whose place another has taken.
            if !is_active {
                return false;
            }
            self.conns.remove(id);
        }
        self.enter_heard(entry, heard, state, timeout_ms, network, now)
    }

    fn hear_again(&mut self, id: ConnId, entry: &Entry, heard: &Heard, state: State) {
        let unbound = self.conns.get(id).real().is_none();
        let server = if unbound { self.snapshot.server_of(entry) } else { None };
        let conn = self.conns.get_mut(id);
        conn.hear(heard, state, state.number());
        if let Some(real) = server.filter(|real| real.method() == conn.method()) {
            conn.bind(real);
        }
    }

    fn enter_heard(
        &mut self,
        entry: &Entry,
        mut heard: Heard,
        state: State,
        timeout_ms: u32,
        network: &impl Network,
        now: Moment,
    ) -> bool {
        let Entry { protocol, client, virtual_endpoint, real_endpoint, mark, .. } = *entry;
        let real = self.snapshot.server_of(entry);
        let method = match &real {
            Some(real) => {
                let method = real.method();
                heard.one_way = flag::of_method(method) & flag::ONE_WAY != 0;
                if method == ForwardingMethod::FullNat {
                    return false;
                }
                method
            }
            None => match flag::method(entry.flags) {
                Some(method) => method,
                None => return false,
            },
        };
        let key = ConnKey { protocol, client, virtual_endpoint, real_endpoint };
        let new = NewConnection {
            key,
            real,
            template: None,
            local: None,
            one_packet: false,
            method,
            host: host_ends(&key, network),
            state,
            timeout_ms,
            sync: SyncTraits {
                mark,
                tracked: self.snapshot.settings.conntrack != 0,
                heard: Some(heard),
            },
        };
        let Some(id) = self.conns.insert(new, now) else { return false };
        let told = self.conns.get(id).told();
        self.conns.get_mut(id).set_told(state.number(), told, false);
        true
    }

    fn hear_template(&mut self, entry: &Entry, call: Option<&[u8]>, now: Moment) -> bool {
        let Entry { protocol, client, virtual_endpoint, .. } = *entry;
        let timeout_ms = match entry.timeout_s {
            0 => TEMPLATE_TIMEOUT_MS,
            seconds => u64::from(seconds) * 1000,
        };
        let tracked = if self.snapshot.settings.conntrack != 0 { flag::TRACKED } else { 0 };
        let kept = entry.flags & (flag::METHOD | flag::ONE_WAY);
        let key = TemplateKey::heard(protocol, client, virtual_endpoint, call);
        // One that is known keeps to its server.
        let unbound = self.services.templates().unbound(&key);
        let real_endpoint = unbound.unwrap_or(entry.real_endpoint);
        let heard = HeardTemplate {
            key,
            real_endpoint,
            state: entry.state.min(u8::MAX.into()) as u8,
            timeout_ms,
            traits: TemplateTraits { flags: kept | flag::HEARD | tracked, mark: entry.mark },
            in_packets: self.snapshot.settings.sync_threshold[0].max(0).unsigned_abs(),
        };
        // A service's lock comes before that of the templates.
        let real = self.snapshot.server_of(&Entry { real_endpoint, ..*entry });
        self.services.templates().hear(heard, real, now)
    }
}

/// A connection as it is told.
fn entry_of(conn: &Connection) -> Entry<'_> {
    let ConnKey { protocol, client, virtual_endpoint, real_endpoint } = conn.key();
    let of_method = flag::of_method(conn.method());
    let mut flags = of_method & flag::METHOD;
    let sequence = conn.sequence();
    for (is_set, bits) in [
        (conn.is_one_way(), of_method & flag::ONE_WAY),
        (conn.activity() == Activity::Inactive, flag::INACTIVE),
        (conn.is_heard(), flag::HEARD),
        (conn.is_tracked(), flag::TRACKED),
    ] {
        flags |= if is_set { bits } else { 0 };
    }
    flags |= sequence.map_or(0, |sequence| sequence.ways);
    Entry {
        protocol,
        client,
        virtual_endpoint,
        real_endpoint,
        flags,
        state: conn.state().number().into(),
        mark: conn.mark(),
        timeout_s: conn.timeout_ms() / 1000,
        shifts: sequence.map(|sequence| sequence.shifts),
        engine: None,
    }
}

/// How the sequence numbers of a connection are shifted that another director told of.
fn sequence(entry: &Entry) -> Option<Sequence> {
    let ways = entry.flags & flag::SEQUENCE;
    (ways != 0).then(|| Sequence { ways, shifts: entry.shifts.unwrap_or_default() })
}

/// Whether a client can be told of in a version.
fn suits(version: Version, client: Endpoint) -> bool {
    version == Version::V1 || client.addr.family() == Family::V4
}

/// Spreads clients over the ports of messages.
fn spread(client: Endpoint) -> u64 {
    let bits = client.addr.bits();
    let folded = (bits as u64 ^ (bits >> 64) as u64).wrapping_add(client.port.into());
    folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48
}
