//! `rr`: the servers take turns.

use super::{Change, Flow, Random, Reals, Scheduler};
use crate::engine::service::{ConfigError, SchedulerFlags};
use crate::engine::time::Moment;

/// Round robin: the next server of weight other than 0 after the one picked last.
///
/// **Source** — IPVS `ip_vs_rr`. Removing the server picked last goes back to the one before it.
#[derive(Debug, Default)]
struct RoundRobin {
    /// The server picked last; `None` is the head of the list, before the first server.
    last: Option<usize>,
}

pub(super) fn make(
    _: SchedulerFlags,
    _: &Reals,
    _: Moment,
) -> Result<Box<dyn Scheduler>, ConfigError> {
    Ok(Box::new(RoundRobin::default()))
}

impl Scheduler for RoundRobin {
    fn update(&mut self, _: &Reals, change: Change) -> Result<(), ConfigError> {
        self.last = match (self.last, change) {
            (Some(last), Change::Added) => Some(last + 1),
            (Some(last), Change::Removed(index)) if index <= last => last.checked_sub(1),
            (last, _) => last,
        };
        Ok(())
    }

    fn pick(&mut self, reals: &Reals, _: &Flow, _: Moment, _: &mut dyn Random) -> Option<usize> {
        let first = self.last.map_or(0, |last| last + 1);
        let order = (first..reals.len()).chain(0..first.min(reals.len()));
        let picked =
            order.into_iter().find(|&i| reals[i].weight() > 0 && !reals[i].is_overloaded())?;
        self.last = Some(picked);
        Some(picked)
    }
}
