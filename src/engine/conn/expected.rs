//! Connections to be expected: what has been announced on a control connection.
//!
//! One table for all workers, as nobody knows to which of them the first packet comes. It is locked
//! when something is announced and, while anything is expected, when a packet of no connection
//! comes; otherwise it costs one read of a counter.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use super::connection::ConnKey;
use crate::engine::network::Hold;
use crate::engine::service::{Activity, RealServer};
use crate::engine::time::Moment;
use crate::packet::Endpoint;
use crate::packet::headers::protocol;

/// What ties data connections to the control connection that announced them: it does not expire
/// before they do.
pub type Family = Arc<Control>;

/// Which control connection it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Control {
    /// Its client.
    pub client: Endpoint,
    /// What that talks to.
    pub virtual_endpoint: Endpoint,
}

/// Connections that may be expected at once; further announcements are not heard.
const MAX_EXPECTED: usize = 1 << 16;
/// Data connections, expected and under way, of one control connection.
const MAX_FAMILY: usize = 64;

/// **Source** — IPVS `tcp_timeouts` of LISTEN: 120 seconds.
const TIMEOUT_MS: u64 = 120_000;

/// A TCP connection that has been announced.
#[derive(Debug)]
pub struct Expected {
    /// The client; port 0 for any.
    pub client: Endpoint,
    /// What the client talks to.
    pub virtual_endpoint: Endpoint,
    /// The server's end.
    pub real_endpoint: Endpoint,
    /// The server of the control connection.
    pub real: Arc<RealServer>,
    /// The control connection's.
    pub family: Family,
    /// What keeps the host's own stack away from the virtual endpoint.
    pub hold: Option<Arc<dyn Hold>>,
}

/// What a listing shows of an expected connection.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedView {
    /// Its addresses.
    pub key: ConnKey,
    /// Milliseconds until it is expected no more.
    pub remaining_ms: u32,
}

/// The connections that are expected.
#[derive(Debug, Default)]
pub struct Expectations {
    len: AtomicUsize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// By client and virtual endpoint.
    entries: HashMap<(Endpoint, Endpoint), Entry>,
    /// From real server and client to the key of the entry, where the client's port is known.
    answers: HashMap<(Endpoint, Endpoint), (Endpoint, Endpoint)>,
}

/// Counts as an inactive connection of its server as long as it lives.
#[derive(Debug)]
struct Entry {
    expected: Expected,
    deadline: Moment,
}

impl Expectations {
    /// Whether anything is expected.
    pub fn is_empty(&self) -> bool {
        self.len.load(Relaxed) == 0
    }

    /// Expects a connection for the next two minutes; `false` if there is no room.
    pub fn expect(&self, expected: Expected, now: Moment) -> bool {
        let mut table = self.lock();
        let key = (expected.client, expected.virtual_endpoint);
        let is_known = table.entries.contains_key(&key);
        let is_full = table.entries.len() >= MAX_EXPECTED
            || Arc::strong_count(&expected.family) > MAX_FAMILY + 1;
        if !is_known && is_full {
            return false;
        }
        table.remove(&key);
        if expected.client.port != 0 {
            table.answers.insert((expected.real_endpoint, expected.client), key);
        }
        expected.real.bind_connection(Activity::Inactive);
        let deadline = Moment::from_ms(now.as_ms() + TIMEOUT_MS);
        table.entries.insert(key, Entry { expected, deadline });
        self.len.store(table.entries.len(), Relaxed);
        true
    }

    /// What keeps the host's own stack away from the virtual endpoint of an expected connection.
    pub fn hold(&self, client: Endpoint, virtual_endpoint: Endpoint) -> Option<Arc<dyn Hold>> {
        self.lock().entries.get(&(client, virtual_endpoint))?.expected.hold.clone()
    }

    /// Takes the connection that a packet of a client begins.
    pub fn take_request(
        &self,
        client: Endpoint,
        virtual_endpoint: Endpoint,
        now: Moment,
    ) -> Option<Expected> {
        let any_port = Endpoint::new(client.addr, 0);
        let mut table = self.lock();
        let entry = table
            .remove(&(client, virtual_endpoint))
            .or_else(|| table.remove(&(any_port, virtual_endpoint)));
        self.taken(&table, entry, now)
    }

    /// Takes the connection that a packet of a real server begins.
    pub fn take_answer(&self, real: Endpoint, client: Endpoint, now: Moment) -> Option<Expected> {
        let mut table = self.lock();
        let key = *table.answers.get(&(real, client))?;
        let entry = table.remove(&key);
        self.taken(&table, entry, now)
    }

    /// Forgets what did not come in time.
    pub fn expire(&self, now: Moment) {
        if self.is_empty() {
            return;
        }
        let mut table = self.lock();
        table.entries.retain(|_, entry| now < entry.deadline);
        let Table { entries, answers } = &mut *table;
        answers.retain(|_, key| entries.contains_key(key));
        self.len.store(entries.len(), Relaxed);
    }

    /// All that is expected.
    pub fn list(&self, now: Moment) -> Vec<ExpectedView> {
        let view = |entry: &Entry| {
            let Expected { client, virtual_endpoint, real_endpoint, .. } = entry.expected;
            ExpectedView {
                key: ConnKey { protocol: protocol::TCP, client, virtual_endpoint, real_endpoint },
                remaining_ms: entry.deadline.ms_since(now) as u32,
            }
        };
        self.lock().entries.values().map(view).filter(|view| view.remaining_ms > 0).collect()
    }

    fn taken(&self, table: &Table, entry: Option<Entry>, now: Moment) -> Option<Expected> {
        self.len.store(table.entries.len(), Relaxed);
        let entry = entry.filter(|entry| now < entry.deadline)?;
        Some(entry.expected())
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn remove(&mut self, key: &(Endpoint, Endpoint)) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.answers.remove(&(entry.expected.real_endpoint, entry.expected.client));
        Some(entry)
    }
}

impl Entry {
    fn expected(&self) -> Expected {
        let Expected { client, virtual_endpoint, real_endpoint, .. } = self.expected;
        let (real, family) = (Arc::clone(&self.expected.real), Arc::clone(&self.expected.family));
        let hold = self.expected.hold.clone();
        Expected { client, virtual_endpoint, real_endpoint, real, family, hold }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.expected.real.unbind_connection(Activity::Inactive);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::service::RealSpec;
    use crate::packet::Addr;

    const CLIENT: Addr = Addr::v4(0x0c00_0002);
    const VIRTUAL: Endpoint = Endpoint::new(Addr::v4(0x0c00_0001), 1025);
    const REAL: Endpoint = Endpoint::new(Addr::v4(0xc0a8_c86e), 1025);

    fn at(seconds: u64) -> Moment {
        Moment::from_ms(9_000_000 + seconds * 1000)
    }

    fn real() -> Arc<RealServer> {
        Arc::new(RealServer::new(&RealSpec::new(REAL.addr, 21), 1))
    }

    fn expected(port: u16, real: &Arc<RealServer>, family: &Family) -> Expected {
        Expected {
            client: Endpoint::new(CLIENT, port),
            virtual_endpoint: VIRTUAL,
            real_endpoint: REAL,
            real: Arc::clone(real),
            family: Arc::clone(family),
            hold: None,
        }
    }

    #[test]
    fn what_is_announced_is_taken_once() {
        let (all, real, family) = (Expectations::default(), real(), Family::default());
        assert!(all.expect(expected(0, &real, &family), at(0)));
        assert_eq!((real.inactive(), all.is_empty()), (1, false));
        let other = Endpoint::new(Addr::v4(7), 9);
        assert!(all.take_request(other, VIRTUAL, at(1)).is_none());
        let client = Endpoint::new(CLIENT, 1001);
        assert!(all.take_request(client, VIRTUAL, at(1)).is_some());
        assert_eq!((real.inactive(), all.is_empty()), (0, true));
        assert!(all.take_request(client, VIRTUAL, at(1)).is_none());
        assert_eq!(Arc::strong_count(&family), 1);
    }

    #[test]
    fn either_side_may_begin_if_the_port_is_known() {
        let (all, real, family) = (Expectations::default(), real(), Family::default());
        let client = Endpoint::new(CLIENT, 2049);
        all.expect(expected(2049, &real, &family), at(0));
        assert!(all.take_answer(REAL, client, at(1)).is_some());
        all.expect(expected(2049, &real, &family), at(0));
        assert!(all.take_request(client, VIRTUAL, at(1)).is_some());
        assert!(all.take_answer(REAL, client, at(1)).is_none());
    }

    #[test]
    fn nothing_is_expected_for_ever() {
        let (all, real, family) = (Expectations::default(), real(), Family::default());
        all.expect(expected(2049, &real, &family), at(0));
        assert_eq!(all.list(at(20))[0].remaining_ms, 100_000);
        all.expire(at(119));
        assert!(!all.is_empty());
        all.expire(at(120));
        assert_eq!((all.is_empty(), real.inactive()), (true, 0));
        assert!(all.lock().answers.is_empty());
    }

    #[test]
    fn a_control_connection_announces_so_many_and_no_more() {
        let (all, real, family) = (Expectations::default(), real(), Family::default());
        let heard = (1..200).filter(|port| all.expect(expected(*port, &real, &family), at(0)));
        assert_eq!(heard.count(), MAX_FAMILY);
        assert!(all.expect(expected(1, &real, &family), at(1)), "the same once more");
    }
}
