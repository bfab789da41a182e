//! `fo`: everything to the heaviest server, while it can.

use super::load::{eligible, heaviest};
use super::{Explanation, Flow, Made, Options, Random, Reals, Scheduler};
use crate::engine::time::Moment;

/// Weighted failover: the greatest weight; of equals the first in the list.
///
/// **Source** — IPVS `ip_vs_fo`.
#[derive(Debug)]
struct Failover;

pub(super) fn make(_: &Options, _: &Reals, _: Moment) -> Made {
    Ok(Box::new(Failover))
}

impl Scheduler for Failover {
    fn pick(&mut self, reals: &Reals, _: &Flow, _: Moment, _: &mut dyn Random) -> Option<usize> {
        heaviest(eligible(reals))
    }

    fn explain(&self, reals: &Reals, _: &Flow, _: Moment) -> Explanation {
        let rule = "the heaviest server; of equals the first";
        Explanation::new(rule, "", reals, |_, real| format!("weight {}", real.weight()))
    }
}
