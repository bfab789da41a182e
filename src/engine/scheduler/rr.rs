//! `rr`: the servers take turns.

use super::load::is_eligible;
use super::{Change, Explanation, Flow, Made, Options, Random, Reals, Scheduler};
use crate::engine::service::ConfigError;
use crate::engine::time::Moment;

/// Round robin: the next server of weight other than 0 after the one picked last.
///
/// **Source** — IPVS `ip_vs_rr`. Removing the server picked last goes back to the one before it.
#[derive(Debug, Default)]
struct RoundRobin {
    /// The server picked last; `None` is the head of the list, before the first server.
    last: Option<usize>,
}

pub(super) fn make(_: &Options, _: &Reals, _: Moment) -> Made {
    Ok(Box::new(RoundRobin::default()))
}

impl Scheduler for RoundRobin {
    fn pick(&mut self, reals: &Reals, _: &Flow, _: Moment, _: &mut dyn Random) -> Option<usize> {
        let picked = self.turns(reals).find(|&index| is_eligible(&reals[index]))?;
        self.last = Some(picked);
        Some(picked)
    }

    fn explain(&self, reals: &Reals, _: &Flow, _: Moment) -> Explanation {
        let turn = |index| self.turns(reals).position(|next| next == index).unwrap_or(0) + 1;
        Explanation::new("each in turn", "", reals, |index, _| match turn(index) {
            1 => "next".into(),
            turn => format!("turn {turn}"),
        })
    }

    fn update(&mut self, _: &Reals, change: Change) -> Result<(), ConfigError> {
        self.last = match (self.last, change) {
            (Some(last), Change::Added) => Some(last + 1),
            (Some(last), Change::Removed(index)) if index <= last => last.checked_sub(1),
            (last, Change::Added | Change::Removed(_) | Change::Edited(_)) => last,
        };
        Ok(())
    }
}

impl RoundRobin {
    /// The order in which the servers have their turns, the one picked last at the end.
    fn turns(&self, reals: &Reals) -> impl Iterator<Item = usize> + use<> {
        let next = self.last.map_or(0, |last| last + 1).min(reals.len());
        (next..reals.len()).chain(0..next)
    }
}
