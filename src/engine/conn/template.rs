//! Persistence templates: which server a client's connections go to.
//!
//! One table for all workers, so that a client whose connections are spread over several of them
//! stays with one server. It is locked when a connection to a persistent service begins, and when
//! time passes; packets of connections never come here, because a connection holds its template
//! itself. Refuses to know packets; how long a template lives is its service's affair.

mod key;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

pub use key::TemplateKey;
pub use table::TemplateTable;

use super::connection::ConnKey;
use crate::engine::service::RealServer;
use crate::engine::sync::due::Told;
use crate::packet::Endpoint;

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
    /// Bits of [`flag`](crate::engine::sync::flag) beside those that every template has.
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

/// The port that a template gets when its server is gone, so that its client finds it no more.
///
/// **Source** — IPVS `ip_vs_check_template`.
const RETIRED_PORT: u16 = 0xffff;
const ASSURED: u8 = 1;
