//! `sed`: the shortest expected delay.

use super::load::{Ratio, eligible, least_weighted};
use super::{Explanation, Flow, Made, Options, Random, Reals, Scheduler};
use crate::engine::service::RealServer;
use crate::engine::time::Moment;

/// Shortest expected delay: the least `(active + 1) / weight`; of equals the first in the list.
///
/// Inactive connections do not count, so for UDP, whose connections are never active, it always
/// takes the heaviest server.
///
/// **Source** — IPVS `ip_vs_sed`.
#[derive(Debug)]
struct ShortestDelay;

pub(super) fn make(_: &Options, _: &Reals, _: Moment) -> Made {
    Ok(Box::new(ShortestDelay))
}

impl Scheduler for ShortestDelay {
    fn pick(&mut self, reals: &Reals, _: &Flow, _: Moment, _: &mut dyn Random) -> Option<usize> {
        shortest(reals)
    }

    fn explain(&self, reals: &Reals, _: &Flow, _: Moment) -> Explanation {
        let rule =
            "the fewest active connections, with the new one, for the weight; of equals the first";
        Explanation::new(rule, "", reals, |_, real| describe(real))
    }
}

/// The server with the shortest expected delay.
pub(super) fn shortest(reals: &Reals) -> Option<usize> {
    least_weighted(eligible(reals), delay)
}

/// How the delay of a server comes about: `(2 + 1) / 3 = 1`.
pub(super) fn describe(real: &RealServer) -> String {
    let delay = Ratio::new(delay(real), real.weight());
    format!("({} + 1) / {} = {delay}", real.active(), real.weight())
}

/// Connections there will be with the new one, for a server of weight 1 the delay itself.
pub(super) fn delay(real: &RealServer) -> u64 {
    u64::from(real.active()) + 1
}
