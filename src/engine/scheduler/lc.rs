//! `lc`: the fewest connections.

use super::load::eligible;
use super::{Explanation, Flow, Made, Options, Overhead, Random, Reals, Scheduler};
use crate::engine::time::Moment;

/// Least connection: the least overhead, whatever the weight; of equals the first in the list.
///
/// **Source** — IPVS `ip_vs_lc`.
#[derive(Debug)]
struct LeastConnection {
    overhead: Overhead,
}

pub(super) fn make(options: &Options, _: &Reals, _: Moment) -> Made {
    Ok(Box::new(LeastConnection { overhead: options.tunables.overhead }))
}

impl Scheduler for LeastConnection {
    fn pick(&mut self, reals: &Reals, _: &Flow, _: Moment, _: &mut dyn Random) -> Option<usize> {
        let least = eligible(reals).min_by_key(|(_, real)| self.overhead.of(real));
        least.map(|(index, _)| index)
    }

    fn explain(&self, reals: &Reals, _: &Flow, _: Moment) -> Explanation {
        let rule = "the fewest connections, active ones counting 256 times; of equals the first";
        Explanation::new(rule, "", reals, |_, real| {
            format!("{} = {}", self.overhead.sum(real), self.overhead.of(real))
        })
    }

    fn configure(&mut self, options: &Options) {
        self.overhead = options.tunables.overhead;
    }
}
