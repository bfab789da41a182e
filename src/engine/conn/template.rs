//! Persistence templates: which server a client's connections go to.
//!
//! One table for all workers, so that a client whose connections are spread over several of them
//! stays with one server. It is locked when a connection to a persistent service begins, and when
//! time passes; packets of connections never come here, because a connection holds its template
//! itself. Refuses to know packets; how long a template lives is its service's affair.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use hashbrown::HashMap;

use super::connection::ConnKey;
use super::wheel::{Links, Records, Wheel};
use crate::engine::service::{Protocol, RealServer, ServiceKey, ServiceSpec};
use crate::engine::sync::due::Told;
use crate::engine::sync::flag;
use crate::engine::time::Moment;
use crate::packet::{Addr, Endpoint, Family};

/// What connections share a template.
///
/// **Source** — IPVS: (protocol, client's network, virtual address and port); the port is 0 for a
/// service on port 0, and on 21 together with the ports that come with FTP. For a marked service
/// the protocol is 0 and the mark stands in for the virtual address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TemplateKey {
    protocol: u8,
    client: Addr,
    /// 0, unless another director has it otherwise.
    client_port: u16,
    virtual_endpoint: Endpoint,
    /// The call that it is about, if the service's persistence engine tells calls apart.
    call: Option<Arc<[u8]>>,
}

/// A client's bond to a real server, as its connections hold it.
#[derive(Debug)]
pub struct Template {
    real: Arc<RealServer>,
    key: TemplateKey,
    /// What a listing shows of the server's port.
    real_port: u16,
    /// Bit 0 is set once one of its connections was answered; others only if another director says
    /// so.
    state: AtomicU8,
    /// Whether its client finds it no more.
    retired: AtomicBool,
    timeout_ms: AtomicU64,
    traits: TemplateTraits,
    /// Packets of its connections that it was asked about for other directors' sake.
    in_packets: AtomicU32,
    /// When it was told to other directors last: milliseconds, and retries in the two lowest bits.
    told: AtomicU64,
    /// Its record in the table.
    id: u32,
}

/// What a template is told to other directors with.
#[derive(Clone, Copy, Debug, Default)]
pub struct TemplateTraits {
    /// Bits of [`flag`] beside those that every template has.
    pub flags: u32,
    /// The firewall mark of the packet that it was made for, or 0.
    pub mark: u32,
}

/// A template as another director tells of it.
#[derive(Clone, Debug)]
pub struct HeardTemplate {
    /// What connections share it.
    pub key: TemplateKey,
    /// Its server.
    pub real_endpoint: Endpoint,
    /// The number of its state.
    pub state: u8,
    /// Milliseconds it lives without another connection.
    pub timeout_ms: u64,
    /// How it is told on.
    pub traits: TemplateTraits,
    /// Packets that it is taken to have been asked about.
    pub in_packets: u32,
}

/// What a listing shows of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateView {
    /// Its addresses; the client's are those of its network, port 0.
    pub key: ConnKey,
    /// The call that it is about: what the SIP persistence engine found.
    pub call: Option<Arc<[u8]>>,
    /// The number of its state.
    pub state: u8,
    /// Whether another director told of it.
    pub is_heard: bool,
    /// Milliseconds until it expires, if no connection begins or is left then.
    pub remaining_ms: u32,
}

/// The templates of all services.
#[derive(Debug)]
pub struct TemplateTable {
    records: Records32,
    free: Vec<u32>,
    index: HashMap<TemplateKey, u32>,
    /// Made for the first template, which tells the time.
    wheel: Option<Wheel>,
    limit: usize,
    /// Templates that were held when their time was up, if anybody wants to know.
    renewed: Option<Vec<Arc<Template>>>,
}

#[derive(Debug, Default)]
struct Records32(Vec<Record>);

#[derive(Debug)]
struct Record {
    deadline: Moment,
    links: Links,
    /// `None` in a record that is free.
    template: Option<Arc<Template>>,
}

/// Templates at most: about 200 MB. Clients beyond them are refused by persistent services.
const MAX_TEMPLATES: usize = 1 << 20;

/// A template whose time is up stays this long if connections hold it.
///
/// **Source** — IPVS `ip_vs_conn_expire`, which looks again after 60 s, and so from then on.
const HELD_TIMEOUT_MS: u64 = 60_000;

/// The port that a template gets when its server is gone, so that its client finds it no more.
///
/// **Source** — IPVS `ip_vs_check_template`.
const RETIRED_PORT: u16 = 0xffff;

const FTP: u16 = 21;
/// Renewed templates that wait to be told at most.
const MAX_RENEWED: usize = 4096;
const ASSURED: u8 = 1;

impl TemplateKey {
    /// The key of what `client` sends to `destination` of a persistent service.
    pub fn new(
        service: &ServiceSpec,
        protocol: Protocol,
        client: Addr,
        destination: Endpoint,
    ) -> Self {
        let client = network(client, service.netmask);
        match service.key {
            ServiceKey::Address { port, .. } => {
                let own = destination.port == port && port != FTP;
                let port = if own { port } else { 0 };
                let virtual_endpoint = Endpoint::new(destination.addr, port);
                Self::heard(protocol.number(), without_port(client), virtual_endpoint, None)
            }
            ServiceKey::Mark { mark, family } => {
                let addr = match family {
                    Family::V4 => Addr::v4(mark),
                    Family::V6 => Addr::v6(u128::from(mark) << 96),
                };
                let virtual_endpoint = Endpoint::new(addr, 0);
                Self::heard(0, without_port(client), virtual_endpoint, None)
            }
        }
    }

    /// The same for one call of the client.
    #[must_use]
    pub fn of_call(self, call: &[u8]) -> Self {
        Self { call: Some(call.into()), ..self }
    }

    /// The key that another director tells.
    pub fn heard(
        protocol: u8,
        client: Endpoint,
        virtual_endpoint: Endpoint,
        call: Option<&[u8]>,
    ) -> Self {
        let Endpoint { addr: client, port: client_port } = client;
        Self { protocol, client, client_port, virtual_endpoint, call: call.map(Arc::from) }
    }

    /// IP protocol number, or 0.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The virtual address and port, as far as it depends on them.
    pub fn virtual_endpoint(&self) -> Endpoint {
        self.virtual_endpoint
    }

    /// The call that it is about.
    pub fn call(&self) -> Option<&[u8]> {
        self.call.as_deref()
    }

    /// The client, or the network of clients, that it binds.
    pub fn client(&self) -> Addr {
        self.client
    }

    /// Whether it holds for one port only.
    pub fn has_port(&self) -> bool {
        self.virtual_endpoint.port != 0
    }
}

fn without_port(addr: Addr) -> Endpoint {
    Endpoint::new(addr, 0)
}

/// The client's network: `netmask` is a mask for IPv4 and a prefix length for IPv6.
fn network(client: Addr, netmask: u32) -> Addr {
    match client.family() {
        Family::V4 => Addr::v4(client.v4_bits() & netmask),
        Family::V6 => {
            let host_bits = 128 - netmask.min(128);
            Addr::v6(client.bits() & u128::MAX.checked_shl(host_bits).unwrap_or(0))
        }
    }
}

impl Template {
    /// The server.
    pub fn real(&self) -> &Arc<RealServer> {
        &self.real
    }

    /// What connections share it.
    pub fn key(&self) -> &TemplateKey {
        &self.key
    }

    /// Its addresses, as they are listed and told.
    pub fn addresses(&self) -> ConnKey {
        let port_of = |port| if self.retired.load(Relaxed) { RETIRED_PORT } else { port };
        let TemplateKey { protocol, client, client_port, virtual_endpoint, .. } = self.key;
        let client_port = if self.retired.load(Relaxed) { 0 } else { client_port };
        ConnKey {
            protocol,
            client: Endpoint::new(client, client_port),
            virtual_endpoint: Endpoint::new(virtual_endpoint.addr, port_of(virtual_endpoint.port)),
            real_endpoint: Endpoint::new(self.real.addr(), port_of(self.real_port)),
        }
    }

    /// What it is told to other directors with.
    pub fn traits(&self) -> TemplateTraits {
        self.traits
    }

    /// The number of its state.
    pub fn state(&self) -> u8 {
        self.state.load(Relaxed)
    }

    /// Milliseconds it lives without another connection.
    pub fn timeout_ms(&self) -> u64 {
        self.timeout_ms.load(Relaxed)
    }

    /// Counts a packet that it is asked about, and tells how many there were.
    pub fn count_in(&self) -> u32 {
        self.in_packets.fetch_add(1, Relaxed).wrapping_add(1)
    }

    /// When it was told to other directors last.
    pub fn told(&self) -> Told {
        let told = self.told.load(Relaxed);
        Told { until_ms: told >> 2, retries: (told & 3) as u8 }
    }

    /// Takes note of having been told.
    pub fn set_told(&self, told: Told) {
        self.told.store(told.until_ms << 2 | u64::from(told.retries & 3), Relaxed);
    }

    /// Notes that one of its connections was answered.
    pub fn assure(&self) {
        // Read first, so that workers do not take the line from each other for nothing.
        if !self.is_assured() {
            self.state.fetch_or(ASSURED, Relaxed);
        }
    }

    /// Whether one of its connections was ever answered.
    pub fn is_assured(&self) -> bool {
        self.state() & ASSURED != 0
    }

    /// Whether its server is one of the services'; else another director told of it before its
    /// service was there.
    fn is_bound(&self) -> bool {
        !self.real.is_absent()
    }

    fn hear(&self, heard: &HeardTemplate) {
        self.state.store(heard.state, Relaxed);
        self.timeout_ms.store(heard.timeout_ms, Relaxed);
        self.in_packets.store(heard.in_packets, Relaxed);
    }

    /// Whether new connections may follow it. A weight of 0 ends that only with
    /// `expire_quiescent_template`, an overload never.
    fn is_valid(&self, expire_quiescent: bool) -> bool {
        self.real.is_available() && !(expire_quiescent && self.real.weight() == 0)
    }
}

impl TemplateView {
    /// The state's name, as `ipvsadm -Lc` shows it.
    pub fn state(&self) -> &'static str {
        match self.state {
            0 => "NONE",
            ASSURED => "ASSURED",
            _ => "ERR!",
        }
    }
}

impl Default for TemplateTable {
    fn default() -> Self {
        Self::with_limit(MAX_TEMPLATES)
    }
}

impl TemplateTable {
    /// An empty table that takes `limit` templates.
    fn with_limit(limit: usize) -> Self {
        Self {
            records: Records32::default(),
            free: Vec::new(),
            index: HashMap::new(),
            wheel: None,
            limit,
            renewed: None,
        }
    }

    /// Takes note of templates that are renewed because connections hold them, or no longer.
    pub fn note_renewals(&mut self, wanted: bool) {
        match wanted {
            true => drop(self.renewed.get_or_insert_default()),
            false => self.renewed = None,
        }
    }

    /// The templates that were renewed since the last call.
    pub fn take_renewed(&mut self) -> Vec<Arc<Template>> {
        self.renewed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The template under `key`, whose time begins anew.
    ///
    /// One whose server is gone (or of weight 0, with `expire_quiescent`) is retired: it is listed
    /// until it expires, its time running on, but found no more.
    pub fn find(
        &mut self,
        key: &TemplateKey,
        expire_quiescent: bool,
        now: Moment,
    ) -> Option<Arc<Template>> {
        let id = *self.index.get(key)?;
        if !self.settle(id, now) {
            self.remove(id);
            return None;
        }
        let record = &mut self.records.0[id as usize];
        let template = record.template.clone()?;
        if template.is_valid(expire_quiescent) {
            record.deadline = record.from(now);
            return Some(template);
        }
        template.retired.store(true, Relaxed);
        self.index.remove(key);
        None
    }

    /// Binds a client to a server for `timeout_s` seconds; `None` if the table is full.
    ///
    /// `real_port` is what a listing shows of the server's port.
    pub fn insert(
        &mut self,
        key: TemplateKey,
        real: Arc<RealServer>,
        real_port: u16,
        timeout_s: u32,
        now: Moment,
    ) -> Option<Arc<Template>> {
        let traits = TemplateTraits::default();
        self.insert_with(key, real, real_port, u64::from(timeout_s) * 1000, traits, now)
    }

    /// The same, of interest to other directors.
    pub fn insert_with(
        &mut self,
        key: TemplateKey,
        real: Arc<RealServer>,
        real_port: u16,
        timeout_ms: u64,
        traits: TemplateTraits,
        now: Moment,
    ) -> Option<Arc<Template>> {
        if self.len() >= self.limit {
            return None;
        }
        real.bind_template();
        let id = self.free.last().copied().unwrap_or(self.records.0.len() as u32);
        let template = Arc::new(Template {
            real,
            key: key.clone(),
            real_port,
            state: AtomicU8::new(0),
            retired: AtomicBool::new(false),
            timeout_ms: AtomicU64::new(timeout_ms),
            traits,
            in_packets: AtomicU32::new(0),
            told: AtomicU64::new(0),
            id,
        });
        let record =
            Record { deadline: now, links: Links::NONE, template: Some(Arc::clone(&template)) };
        let put = self.put(record);
        debug_assert_eq!(put, id, "the record is the next free one");
        self.index.insert(key, id);
        self.wheel.get_or_insert_with(|| Wheel::new(now));
        self.schedule(id, now);
        Some(template)
    }

    /// The server of a template that is known, but still has none of the services' servers.
    pub fn unbound(&self, key: &TemplateKey) -> Option<Endpoint> {
        let template = self.records.0[*self.index.get(key)? as usize].template.as_ref()?;
        (!template.is_bound()).then(|| Endpoint::new(template.real.addr(), template.real_port))
    }

    /// Takes over what another director tells of a template, with its server if there is one for
    /// it; `false` if the table is full.
    ///
    /// **Source** — IPVS `ip_vs_proc_conn`.
    pub fn hear(
        &mut self,
        heard: HeardTemplate,
        real: Option<Arc<RealServer>>,
        now: Moment,
    ) -> bool {
        let known = self.index.get(&heard.key).copied();
        let known = known.and_then(|id| {
            if self.settle(id, now) {
                return Some(id);
            }
            self.remove(id);
            None
        });
        let Some(id) = known else { return self.insert_heard(heard, real, now).is_some() };
        let template = self.records.0[id as usize].template.clone();
        let Some(template) = template else { return false };
        if !template.is_bound() && real.is_some() {
            self.remove(id);
            return self.insert_heard(heard, real, now).is_some();
        }
        template.hear(&heard);
        self.schedule(id, now);
        true
    }

    fn insert_heard(
        &mut self,
        heard: HeardTemplate,
        real: Option<Arc<RealServer>>,
        now: Moment,
    ) -> Option<Arc<Template>> {
        let Endpoint { addr, port } = heard.real_endpoint;
        let mut traits = heard.traits;
        let real = match real {
            Some(real) => {
                traits.flags &= !(flag::METHOD | flag::ONE_WAY);
                traits.flags |= flag::of_method(real.method());
                real
            }
            None => Arc::new(RealServer::absent(addr, port)),
        };
        let (key, timeout_ms) = (heard.key.clone(), heard.timeout_ms);
        let template = self.insert_with(key, real, port, timeout_ms, traits, now)?;
        template.hear(&heard);
        Some(template)
    }

    /// Sets a record's timer to its template's time, from now on.
    fn schedule(&mut self, id: u32, now: Moment) {
        let record = &mut self.records.0[id as usize];
        record.deadline = record.from(now);
        let deadline = record.deadline;
        if let Some(wheel) = &mut self.wheel {
            wheel.remove(&mut self.records, id);
            wheel.insert(&mut self.records, id, deadline);
        }
    }

    /// Removes templates whose time is up and that no connection holds; looks at `budget` of them,
    /// or empty ticks, at most. Returns whether there may be more.
    pub fn expire(&mut self, now: Moment, mut budget: u32) -> bool {
        while budget > 0 {
            let Some(wheel) = &mut self.wheel else { return false };
            let Some(id) = wheel.poll(&mut self.records, now, &mut budget) else {
                return budget == 0;
            };
            budget = budget.saturating_sub(1);
            if self.settle(id, now) {
                let deadline = self.records.0[id as usize].deadline;
                if let Some(wheel) = &mut self.wheel {
                    wheel.insert(&mut self.records, id, deadline);
                }
            } else {
                self.remove(id);
            }
        }
        true
    }

    /// Removes a template, unless connections beside the caller hold it.
    pub fn drop_unheld(&mut self, template: Arc<Template>) {
        let record = self.records.0.get_mut(template.id as usize);
        let known = record.and_then(|record| record.template.as_ref());
        if known.is_some_and(|known| Arc::ptr_eq(known, &template))
            && Arc::strong_count(&template) == 2
        {
            self.remove(template.id);
        }
    }

    /// Removes templates of removed servers that no connection holds. Looks at `count` records from
    /// position `from` on, and returns the position to go on from; `None` at the end.
    pub fn drop_removed(&mut self, from: usize, count: usize) -> Option<usize> {
        let end = from.saturating_add(count).min(self.records.0.len());
        for id in from..end {
            let record = &self.records.0[id];
            let template = record.template.as_ref();
            if template.is_some_and(|template| !template.real.is_available()) && !record.is_held() {
                self.remove(id as u32);
            }
        }
        (end < self.records.0.len()).then_some(end)
    }

    /// Templates in the table.
    pub fn len(&self) -> usize {
        self.records.0.len() - self.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Templates from position `from` on, at most `count` records looked at, and the position to go
    /// on from; `None` at the end. For listings that must not hold up new connections.
    pub fn page(
        &self,
        from: usize,
        count: usize,
        now: Moment,
    ) -> (Vec<TemplateView>, Option<usize>) {
        let end = from.saturating_add(count).min(self.records.0.len());
        let records = self.records.0.get(from..end).unwrap_or_default();
        let page = records.iter().filter_map(|record| record.view(now)).collect();
        (page, (end < self.records.0.len()).then_some(end))
    }

    /// Does what its timer would have done to a record by `now`; `false` if it has expired.
    fn settle(&mut self, id: u32, now: Moment) -> bool {
        let record = &mut self.records.0[id as usize];
        if now < record.deadline {
            return true;
        }
        let Some(template) = record.template.as_ref().filter(|_| record.is_held()) else {
            return false;
        };
        template.timeout_ms.store(HELD_TIMEOUT_MS, Relaxed);
        if let Some(renewed) = self.renewed.as_mut().filter(|all| all.len() < MAX_RENEWED) {
            renewed.push(Arc::clone(template));
        }
        record.deadline = record.from(now);
        true
    }

    fn put(&mut self, record: Record) -> u32 {
        if let Some(id) = self.free.pop() {
            self.records.0[id as usize] = record;
            return id;
        }
        self.records.0.push(record);
        self.records.0.len() as u32 - 1
    }

    fn remove(&mut self, id: u32) {
        if let Some(wheel) = &mut self.wheel {
            wheel.remove(&mut self.records, id);
        }
        let record = &mut self.records.0[id as usize];
        let Some(template) = record.template.take() else { return };
        template.real.unbind_template();
        if self.index.get(&template.key) == Some(&id) {
            self.index.remove(&template.key);
        }
        self.free.push(id);
    }
}

impl Record {
    /// When its time is up if it begins now.
    fn from(&self, now: Moment) -> Moment {
        let timeout_ms = self.template.as_ref().map_or(0, |template| template.timeout_ms());
        Moment::from_ms(now.as_ms().saturating_add(timeout_ms))
    }

    /// Whether connections hold the template. None can come to do so while the table is locked.
    fn is_held(&self) -> bool {
        self.template.as_ref().is_some_and(|template| Arc::strong_count(template) > 1)
    }

    fn view(&self, now: Moment) -> Option<TemplateView> {
        let template = self.template.as_ref()?;
        let remaining_ms = self.deadline.ms_since(now);
        if remaining_ms == 0 && !self.is_held() {
            return None;
        }
        Some(TemplateView {
            key: template.addresses(),
            call: template.key.call.clone(),
            state: template.state(),
            is_heard: template.traits.flags & flag::HEARD != 0,
            remaining_ms: remaining_ms.min(u64::from(u32::MAX)) as u32,
        })
    }
}

impl Records for Records32 {
    fn links(&mut self, id: u32) -> &mut Links {
        &mut self.0[id as usize].links
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::service::RealSpec;

    const CLIENT: Addr = Addr::v4(0x0c00_0002);
    const VIRTUAL: Addr = Addr::v4(0x0c00_0001);

    fn service(port: u16) -> ServiceSpec {
        let protocol = Protocol::Tcp;
        ServiceSpec::new(ServiceKey::Address { protocol, addr: VIRTUAL, port })
    }

    fn key(service: &ServiceSpec, client: Addr, port: u16) -> TemplateKey {
        TemplateKey::new(service, Protocol::Tcp, client, Endpoint::new(VIRTUAL, port))
    }

    fn real() -> Arc<RealServer> {
        Arc::new(RealServer::new(&RealSpec::new(Addr::v4(0xc0a8_c86e), 80), 1))
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_ms(5_000_000 + seconds * 1000)
    }

    #[test]
    fn keys_follow_the_services_port_and_netmask() {
        let other = Addr::v4(0x0c00_00ff);
        let mut web = service(80);
        assert_ne!(key(&web, CLIENT, 80), key(&web, other, 80));
        web.netmask = 0xffff_ff00;
        assert_eq!(key(&web, CLIENT, 80), key(&web, other, 80));
        assert_eq!(key(&web, CLIENT, 80).virtual_endpoint.port, 80);
        for port in [0, FTP] {
            let every = service(port);
            assert_eq!(key(&every, CLIENT, 21), key(&every, CLIENT, 2000));
        }
        let mut six = service(80);
        let client = Addr::v6(0x2001_0db8_00aa_0000_0000_0000_0000_0001);
        six.netmask = 64;
        assert_eq!(key(&six, client, 80).client, Addr::v6(client.bits() >> 64 << 64));
        six.netmask = 0;
        assert_eq!(key(&six, client, 80).client, Addr::UNSPECIFIED);
    }

    #[test]
    fn an_idle_template_expires_and_a_held_one_gets_minutes() {
        let (mut table, real) = (TemplateTable::default(), real());
        let key = key(&service(80), CLIENT, 80);
        let held = table.insert(key.clone(), Arc::clone(&real), 80, 3, at(0)).unwrap();
        table.expire(at(4), u32::MAX);
        let (page, _) = table.page(0, 10, at(4));
        // Its timer runs from when it was looked at, here a second late.
        assert_eq!((page.len(), page[0].remaining_ms), (1, 60_000));
        drop(held);
        assert_eq!(real.persistent(), 1);
        assert!(table.find(&key, false, at(63)).is_some(), "its time begins anew");
        table.expire(at(122), u32::MAX);
        assert_eq!(table.len(), 1);
        table.expire(at(124), u32::MAX);
        assert_eq!((table.len(), real.persistent()), (0, 0));
        assert!(table.find(&key, false, at(124)).is_none());
    }

    #[test]
    fn a_template_is_not_followed_after_its_time_even_before_its_timer_ran() {
        let (mut table, real) = (TemplateTable::default(), real());
        let key = key(&service(80), CLIENT, 80);
        table.insert(key.clone(), Arc::clone(&real), 80, 3, at(0)).unwrap();
        assert!(table.page(0, 10, at(3)).0.is_empty());
        assert!(table.find(&key, false, at(3)).is_none());
        assert_eq!((table.len(), real.persistent()), (0, 0));
    }

    #[test]
    fn a_retired_template_makes_room_for_the_next() {
        let (mut table, gone, next) = (TemplateTable::default(), real(), real());
        let key = key(&service(80), CLIENT, 80);
        table.insert(key.clone(), Arc::clone(&gone), 80, 60, at(0)).unwrap();
        gone.set_available(false);
        assert!(table.find(&key, false, at(1)).is_none());
        table.insert(key.clone(), Arc::clone(&next), 80, 60, at(1)).unwrap();
        gone.set_available(true);
        let found = table.find(&key, false, at(2)).unwrap();
        assert!(Arc::ptr_eq(found.real(), &next));
        let (page, _) = table.page(0, 10, at(2));
        let ports: Vec<_> = page.iter().map(|view| view.key.virtual_endpoint.port).collect();
        assert_eq!(ports, [RETIRED_PORT, 80]);
        table.expire(at(62), u32::MAX);
        drop(found);
        assert_eq!((gone.persistent(), next.persistent()), (0, 1));
        assert!(table.find(&key, false, at(61)).is_some());
    }

    #[test]
    fn a_full_table_takes_no_more_and_pages_are_whole() {
        let (mut table, real, web) = (TemplateTable::with_limit(5), real(), service(80));
        let mut clients = (0..6).map(|client| {
            let key = key(&web, Addr::v4(client), 80);
            table.insert(key, Arc::clone(&real), 80, 60, at(0)).is_some()
        });
        assert_eq!(clients.by_ref().filter(|taken| *taken).count(), 5);
        let (first, next) = table.page(0, 3, at(0));
        let (second, end) = table.page(next.unwrap(), 3, at(0));
        assert_eq!((first.len(), second.len(), end), (3, 2, None));
    }
}
