//! Removed real servers that may come back: their connections and counters wait for that.

use std::sync::Arc;

use super::pool::{Retired, VirtualService};
use super::spec::{RealSpec, ServiceKey};
use crate::engine::time::Moment;

/// Removed servers, as long as connections hold them and a while longer.
#[derive(Debug, Default)]
pub(super) struct Trash(Vec<Trashed>);

/// A removed server whose connections may still live.
#[derive(Debug)]
struct Trashed {
    retired: Retired,
    /// The service it belonged to, compared by identity and by instance.
    key: ServiceKey,
    service: Arc<VirtualService>,
    idle_since: Option<Moment>,
}

/// A removed server without connections is forgotten after this long.
///
/// **Source** — IPVS `IP_VS_DEST_TRASH_PERIOD`, 120 s, looked at every 60 s.
const PERIOD_MS: u64 = 120_000;
/// How often to look.
pub(super) const SWEEP_MS: u64 = 60_000;

impl Trash {
    /// Keeps a server that was removed from `service`.
    pub(super) fn keep(&mut self, retired: Retired, service: Arc<VirtualService>) {
        let key = service.key();
        self.0.push(Trashed { retired, key, service, idle_since: None });
    }

    /// Takes out the server that `spec` names, with the service it was removed from.
    pub(super) fn take(
        &mut self,
        key: &ServiceKey,
        spec: &RealSpec,
    ) -> Option<(Retired, Arc<VirtualService>)> {
        let is_meant = |trashed: &Trashed| {
            let real = &trashed.retired.real;
            trashed.key == *key && real.addr() == spec.addr && real.port() == spec.port
        };
        let index = self.0.iter().position(is_meant)?;
        let Trashed { retired, service, .. } = self.0.swap_remove(index);
        Some((retired, service))
    }

    /// Forgets servers that nobody has held for long enough.
    pub(super) fn sweep(&mut self, now: Moment) {
        self.0.retain_mut(|trashed| {
            if Arc::strong_count(&trashed.retired.real) > 1 {
                trashed.idle_since = None;
                return true;
            }
            let idle_since = *trashed.idle_since.get_or_insert(now);
            now.ms_since(idle_since) < PERIOD_MS
        });
    }
}
