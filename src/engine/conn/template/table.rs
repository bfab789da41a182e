//! The templates of all services: who has one, and until when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use hashbrown::HashMap;

use super::{HeardTemplate, Template, TemplateKey, TemplateTraits, TemplateView};
use crate::engine::conn::wheel::{Links, Records, Wheel};
use crate::engine::service::RealServer;
use crate::engine::sync::flag;
use crate::engine::time::Moment;
use crate::packet::Endpoint;

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

impl Default for TemplateTable {
    fn default() -> Self {
        Self::with_limit(MAX_TEMPLATES)
    }
}

impl TemplateTable {
    /// An empty table that takes `limit` templates.
    pub(super) fn with_limit(limit: usize) -> Self {
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

/// Templates at most: about 200 MB. Clients beyond them are refused by persistent services.
const MAX_TEMPLATES: usize = 1 << 20;
/// A template whose time is up stays this long if connections hold it.
///
/// **Source** — IPVS `ip_vs_conn_expire`, which looks again after 60 s, and so from then on.
const HELD_TIMEOUT_MS: u64 = 60_000;
/// Renewed templates that wait to be told at most.
const MAX_RENEWED: usize = 4096;
