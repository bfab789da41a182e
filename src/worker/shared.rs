//! What all workers share: the clock and the link layer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::engine::{Awaited, Keeper, Moment};
use crate::link::LinkLayer;
use crate::packet::Endpoint;

/// The director's clock, the same for all threads.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time.
    pub fn now(&self) -> Moment {
        // Not from zero, so that differences to a time before the start can be told.
        const START_MS: u64 = 1 << 20;
        Moment::from_ms(START_MS + self.0.elapsed().as_millis() as u64)
    }
}

/// The link layer behind a lock, which is taken for ARP, for unknown next hops and by the
/// housekeeper, never for a packet whose next hop is known.
#[derive(Debug)]
pub struct SharedLink {
    layer: Mutex<LinkLayer>,
    epoch: AtomicU64,
    next_timeout_ms: AtomicU64,
    has_output: AtomicBool,
    has_rules: AtomicBool,
    keeper: Box<dyn Keeper>,
}

/// Keeps nobody away.
#[derive(Debug)]
struct Nobody;

impl Keeper for Nobody {
    fn await_connection(&self, at: Endpoint) -> Awaited {
        Awaited::at(at)
    }
}

/// No timeout is due, ever.
const NEVER: u64 = u64::MAX;

impl SharedLink {
    /// Shares a link layer, where no kernel has to be kept away from anything.
    pub fn new(layer: LinkLayer) -> Self {
        Self {
            keeper: Box::new(Nobody),
            epoch: AtomicU64::new(layer.epoch()),
            layer: Mutex::new(layer),
            next_timeout_ms: AtomicU64::new(0),
            has_output: AtomicBool::new(false),
            has_rules: AtomicBool::new(false),
        }
    }

    /// The same where somebody keeps the kernel away from its own addresses' ports.
    pub fn with_keeper(mut self, keeper: Box<dyn Keeper>) -> Self {
        self.keeper = keeper;
        self
    }

    /// Does something with the link layer. Frames that it wants to send are left for a worker,
    /// which has to be woken if it may be asleep.
    pub fn with<T>(&self, act: impl FnOnce(&mut LinkLayer) -> T) -> T {
        let mut layer = self.layer.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut layer);
        self.epoch.store(layer.epoch(), Ordering::Release);
        let due = layer.next_timeout().map_or(NEVER, Moment::as_ms);
        self.next_timeout_ms.store(due, Ordering::Release);
        if layer.has_transmits() {
            self.has_output.store(true, Ordering::Release);
        }
        result
    }

    /// Whether frames wait to be sent; whoever asks takes on sending them.
    pub fn take_output(&self) -> bool {
        self.has_output.load(Ordering::Acquire) && self.has_output.swap(false, Ordering::AcqRel)
    }

    /// Says whether guard rules keep services' packets from the kernel.
    pub fn set_rules(&self, has_rules: bool) {
        self.has_rules.store(has_rules, Ordering::Release);
    }

    /// Whether guard rules keep services' packets from the kernel.
    pub fn has_rules(&self) -> bool {
        self.has_rules.load(Ordering::Acquire)
    }

    /// Who keeps the kernel away from ports of its own addresses.
    pub fn keeper(&self) -> &dyn Keeper {
        &*self.keeper
    }

    /// Grows whenever what was learned from the link layer may have become wrong.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// When the link layer wants to be looked after next.
    pub fn next_timeout(&self) -> Option<Moment> {
        let due = self.next_timeout_ms.load(Ordering::Acquire);
        (due != NEVER).then(|| Moment::from_ms(due))
    }
}
