//! `ovf`: the heaviest server until it overflows into the next.

use super::load::{eligible, heaviest};
use super::{Explanation, Flow, Made, Options, Random, Reals, Scheduler};
use crate::engine::service::RealServer;
use crate::engine::time::Moment;

/// Weighted overflow: the greatest weight among servers with no more active connections than
/// weight; of equals the first in the list. None if all are full.
///
/// A server of weight 4 gets five connections: the fifth finds four, which is not more than 4.
///
/// **Source** — IPVS `ip_vs_ovf`.
#[derive(Debug)]
struct Overflow;

pub(super) fn make(_: &Options, _: &Reals, _: Moment) -> Made {
    Ok(Box::new(Overflow))
}

impl Scheduler for Overflow {
    fn pick(&mut self, reals: &Reals, _: &Flow, _: Moment, _: &mut dyn Random) -> Option<usize> {
        heaviest(eligible(reals).filter(|(_, real)| !is_full(real)))
    }

    fn explain(&self, reals: &Reals, _: &Flow, _: Moment) -> Explanation {
        let rule = "the heaviest server with no more active connections than its weight";
        Explanation::new(rule, "", reals, |_, real| {
            let full = if is_full(real) { ", full" } else { "" };
            format!("weight {}, {} active{full}", real.weight(), real.active())
        })
    }
}

fn is_full(real: &RealServer) -> bool {
    i64::from(real.active()) > i64::from(real.weight())
}
