//! A real server at work: its configuration, its connection counts and its counters.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU16, AtomicU32, Ordering::Relaxed};

use crossbeam_utils::CachePadded;

use super::spec::{ClientAddress, ForwardingMethod, RealSpec, Tunnel, TunnelChecksum, TunnelKind};
use crate::engine::stats::Counters;
use crate::packet::{Addr, Endpoint};

/// A real server of one virtual service, shared by all workers and the control plane.
///
/// Identity never changes; everything else is a relaxed atomic, because a decision taken a packet
/// too early or too late is as good. Counters are one padded cell per worker, each written by its
/// worker alone.
#[derive(Debug)]
pub struct RealServer {
    endpoint: Endpoint,
    method: AtomicU8,
    weight: AtomicI32,
    last_weight: AtomicI32,
    upper_threshold: AtomicU32,
    lower_threshold: AtomicU32,
    tunnel_kind: AtomicU8,
    tunnel_checksum: AtomicU8,
    tunnel_port: AtomicU16,
    client_address: AtomicU8,
    available: AtomicBool,
    overloaded: AtomicBool,
    edits: AtomicU32,
    absent: bool,
    load: CachePadded<Load>,
    counters: Box<[CachePadded<Counters>]>,
}

#[derive(Debug, Default)]
struct Load {
    active: AtomicU32,
    inactive: AtomicU32,
    persistent: AtomicU32,
}

/// Whether a connection counts as active or inactive with its real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Established or about to be.
    Active,
    /// Closing, closed, or of a protocol without states.
    Inactive,
}

impl RealServer {
    /// A server as configured, without connections, counted by `workers` workers.
    pub fn new(spec: &RealSpec, workers: usize) -> Self {
        let real = Self {
            endpoint: Endpoint::new(spec.addr, spec.port),
            method: AtomicU8::new(0),
            weight: AtomicI32::new(0),
            last_weight: AtomicI32::new(0),
            upper_threshold: AtomicU32::new(0),
            lower_threshold: AtomicU32::new(0),
            tunnel_kind: AtomicU8::new(0),
            tunnel_checksum: AtomicU8::new(0),
            tunnel_port: AtomicU16::new(0),
            client_address: AtomicU8::new(0),
            available: AtomicBool::new(true),
            overloaded: AtomicBool::new(false),
            edits: AtomicU32::new(0),
            absent: false,
            load: CachePadded::default(),
            counters: (0..workers.max(1)).map(|_| CachePadded::default()).collect(),
        };
        real.configure(spec);
        real
    }

    /// Stands in for a server that no service has: it is never available.
    pub fn absent(addr: Addr, port: u16) -> Self {
        let real = Self { absent: true, ..Self::new(&RealSpec::new(addr, port), 1) };
        real.set_available(false);
        real
    }

    /// Whether it only stands in for a server that no service has.
    pub fn is_absent(&self) -> bool {
        self.absent
    }

    /// Takes over everything of `spec` but the identity.
    ///
    /// **Source** — IPVS `__ip_vs_update_dest`: the last weight other than 0 is remembered, and an
    /// upper threshold that is lifted or raised ends the overload.
    pub fn configure(&self, spec: &RealSpec) {
        let raised = spec.upper_threshold == 0 || spec.upper_threshold > self.upper_threshold();
        self.method.store(encode_method(spec.method), Relaxed);
        self.weight.store(spec.weight, Relaxed);
        if spec.weight != 0 {
            self.last_weight.store(spec.weight, Relaxed);
        }
        self.upper_threshold.store(spec.upper_threshold, Relaxed);
        self.lower_threshold.store(spec.lower_threshold, Relaxed);
        self.tunnel_kind.store(encode_kind(spec.tunnel.kind), Relaxed);
        self.tunnel_checksum.store(encode_checksum(spec.tunnel.checksum), Relaxed);
        self.tunnel_port.store(spec.tunnel.port, Relaxed);
        self.client_address.store(position(&TELLINGS, spec.client_address), Relaxed);
        if raised {
            self.overloaded.store(false, Relaxed);
        }
        self.edits.fetch_add(1, Relaxed);
    }

    /// How often it was configured: what somebody found out for it before need not hold any more.
    pub fn edits(&self) -> u32 {
        self.edits.load(Relaxed)
    }

    /// Takes over `spec` like a new server that keeps its connections and counters.
    ///
    /// **Source** — IPVS, adding a server that was removed a while ago: its former weight does not
    /// count any more.
    pub fn revive(&self, spec: &RealSpec) {
        self.last_weight.store(0, Relaxed);
        self.configure(spec);
    }

    /// The configuration as it is now.
    pub fn spec(&self) -> RealSpec {
        RealSpec {
            addr: self.endpoint.addr,
            port: self.endpoint.port,
            method: self.method(),
            weight: self.weight(),
            upper_threshold: self.upper_threshold(),
            lower_threshold: self.lower_threshold.load(Relaxed),
            tunnel: self.tunnel(),
            client_address: self.client_address(),
        }
    }

    /// Address and port.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Address.
    pub fn addr(&self) -> Addr {
        self.endpoint.addr
    }

    /// Port in host order.
    pub fn port(&self) -> u16 {
        self.endpoint.port
    }

    /// How packets reach it.
    pub fn method(&self) -> ForwardingMethod {
        METHODS[self.method.load(Relaxed) as usize]
    }

    /// Encapsulation for the tunnel method.
    pub fn tunnel(&self) -> Tunnel {
        Tunnel {
            kind: KINDS[self.tunnel_kind.load(Relaxed) as usize],
            port: self.tunnel_port.load(Relaxed),
            checksum: CHECKSUMS[self.tunnel_checksum.load(Relaxed) as usize],
        }
    }

    /// How it is told who its clients are.
    pub fn client_address(&self) -> ClientAddress {
        TELLINGS[self.client_address.load(Relaxed) as usize]
    }

    /// Weight; 0 takes no new connections.
    pub fn weight(&self) -> i32 {
        self.weight.load(Relaxed)
    }

    /// The last weight that was not 0, which `mh` builds its table from.
    pub fn last_weight(&self) -> i32 {
        self.last_weight.load(Relaxed)
    }

    /// Connections at which it is overloaded; 0 for no limit.
    pub fn upper_threshold(&self) -> u32 {
        self.upper_threshold.load(Relaxed)
    }

    /// Whether it still belongs to its service.
    pub fn is_available(&self) -> bool {
        self.available.load(Relaxed)
    }

    /// Marks it as belonging to its service, or as removed.
    pub fn set_available(&self, available: bool) {
        self.available.store(available, Relaxed);
    }

    /// Whether its upper threshold was reached and the lower one not yet left.
    pub fn is_overloaded(&self) -> bool {
        self.overloaded.load(Relaxed)
    }

    /// Active connections.
    pub fn active(&self) -> u32 {
        self.load.active.load(Relaxed)
    }

    /// Inactive connections.
    pub fn inactive(&self) -> u32 {
        self.load.inactive.load(Relaxed)
    }

    /// Persistence templates.
    pub fn persistent(&self) -> u32 {
        self.load.persistent.load(Relaxed)
    }

    /// Counts a new connection, and overloads the server if that reaches its upper threshold.
    pub fn bind_connection(&self, activity: Activity) {
        self.gauge(activity).fetch_add(1, Relaxed);
        let upper = self.upper_threshold();
        if upper != 0 && self.active().wrapping_add(self.inactive()) >= upper {
            self.overloaded.store(true, Relaxed);
        }
    }

    /// Counts a connection out, and ends the overload once it is below the lower threshold.
    ///
    /// **Source** — IPVS `ip_vs_unbind_dest`, before the 2026 rework.
    pub fn unbind_connection(&self, activity: Activity) {
        self.gauge(activity).fetch_sub(1, Relaxed);
        self.relieve();
    }

    /// Counts a new persistence template. Templates do not count towards the thresholds.
    pub fn bind_template(&self) {
        self.load.persistent.fetch_add(1, Relaxed);
    }

    /// Counts a persistence template out.
    pub fn unbind_template(&self) {
        self.load.persistent.fetch_sub(1, Relaxed);
        self.relieve();
    }

    /// Moves a connection from one gauge to the other.
    pub fn move_connection(&self, to: Activity) {
        let from = match to {
            Activity::Active => Activity::Inactive,
            Activity::Inactive => Activity::Active,
        };
        self.gauge(from).fetch_sub(1, Relaxed);
        self.gauge(to).fetch_add(1, Relaxed);
    }

    /// The counters that `worker` alone writes.
    pub fn counters(&self, worker: usize) -> &Counters {
        &self.counters[worker]
    }

    /// The counters of all workers.
    pub fn all_counters(&self) -> impl Iterator<Item = &Counters> {
        self.counters.iter().map(|padded| &**padded)
    }

    fn relieve(&self) {
        let total = self.active().wrapping_add(self.inactive());
        let (upper, lower) = (self.upper_threshold(), self.lower_threshold.load(Relaxed));
        let relieved = match (lower, upper) {
            (0, 0) => true,
            (0, upper) => u64::from(total) * 4 < u64::from(upper) * 3,
            (lower, _) => total < lower,
        };
        if relieved {
            self.overloaded.store(false, Relaxed);
        }
    }

    fn gauge(&self, activity: Activity) -> &AtomicU32 {
        match activity {
            Activity::Active => &self.load.active,
            Activity::Inactive => &self.load.inactive,
        }
    }
}

const METHODS: [ForwardingMethod; 6] = [
    ForwardingMethod::Masquerade,
    ForwardingMethod::Local,
    ForwardingMethod::Tunnel,
    ForwardingMethod::Direct,
    ForwardingMethod::Bypass,
    ForwardingMethod::FullNat,
];
const KINDS: [TunnelKind; 3] = [TunnelKind::IpIp, TunnelKind::Gue, TunnelKind::Gre];
const CHECKSUMS: [TunnelChecksum; 3] =
    [TunnelChecksum::Off, TunnelChecksum::On, TunnelChecksum::Remote];

const TELLINGS: [ClientAddress; 3] =
    [ClientAddress::Untold, ClientAddress::Toa, ClientAddress::ProxyV2];

fn encode_method(method: ForwardingMethod) -> u8 {
    position(&METHODS, method)
}

fn encode_kind(kind: TunnelKind) -> u8 {
    position(&KINDS, kind)
}

fn encode_checksum(checksum: TunnelChecksum) -> u8 {
    position(&CHECKSUMS, checksum)
}

fn position<T: PartialEq + Copy>(all: &[T], one: T) -> u8 {
    all.iter().position(|each| *each == one).expect("every variant is in its table") as u8
}
