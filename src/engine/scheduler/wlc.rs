//! `wlc`: the fewest connections for the weight. ipvsadm's default.

use super::load::{eligible, least_weighted};
use super::{Explanation, Flow, Made, Options, Overhead, Random, Reals, Scheduler};
use crate::engine::time::Moment;

/// Weighted least connection: the least overhead in proportion to the weight; of equals the first
/// in the list.
///
/// **Source** — IPVS `ip_vs_wlc`.
#[derive(Debug)]
struct WeightedLeastConnection {
    overhead: Overhead,
}

pub(super) fn make(options: &Options, _: &Reals, _: Moment) -> Made {
    Ok(Box::new(WeightedLeastConnection { overhead: options.tunables.overhead }))
}

impl Scheduler for WeightedLeastConnection {
    fn pick(&mut self, reals: &Reals, _: &Flow, _: Moment, _: &mut dyn Random) -> Option<usize> {
        least_weighted(eligible(reals), |real| self.overhead.of(real))
    }

    fn explain(&self, reals: &Reals, _: &Flow, _: Moment) -> Explanation {
        let rule = "the fewest connections for the weight, active ones counting 256 times; of equals the first";
        Explanation::new(rule, "", reals, |_, real| self.overhead.quotient(real))
    }

    fn configure(&mut self, options: &Options) {
        self.overhead = options.tunables.overhead;
    }
}
