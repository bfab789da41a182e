//! `twos`: the less loaded of two servers drawn at random.

use super::load::{Ratio, eligible};
use super::{Explanation, Flow, Made, Options, Overhead, Random, Reals, Scheduler};
use crate::engine::service::RealServer;
use crate::engine::time::Moment;

/// The power of two choices: draws two servers, each with a probability in proportion to its
/// weight, and takes the one with less overhead for its weight; of equals the first drawn.
///
/// **Source** — IPVS `ip_vs_twos`.
#[derive(Debug)]
struct TwoChoices {
    overhead: Overhead,
}

pub(super) fn make(options: &Options, _: &Reals, _: Moment) -> Made {
    Ok(Box::new(TwoChoices { overhead: options.tunables.overhead }))
}

impl Scheduler for TwoChoices {
    fn pick(
        &mut self,
        reals: &Reals,
        _: &Flow,
        _: Moment,
        random: &mut dyn Random,
    ) -> Option<usize> {
        let total: u64 = eligible(reals).map(|(_, real)| weight(real)).sum();
        if total == 0 {
            return None;
        }
        let (one, two) = (random.below(total + 1), random.below(total + 1));
        let (first, second) = (drawn(reals, one)?, drawn(reals, two)?);
        let ratio =
            |index: usize| Ratio::new(self.overhead.of(&reals[index]), reals[index].weight());
        Some(if ratio(second) < ratio(first) { second } else { first })
    }

    fn explain(&self, reals: &Reals, _: &Flow, _: Moment) -> Explanation {
        let total: u64 = eligible(reals).map(|(_, real)| weight(real)).sum();
        let rule = "the less loaded of two drawn at random by weight";
        Explanation::new(rule, "", reals, |_, real| {
            format!("weight {} of {total}, {}", weight(real), self.overhead.quotient(real))
        })
    }

    fn configure(&mut self, options: &Options) {
        self.overhead = options.tunables.overhead;
    }
}

/// The server at which the weights before and including it amount to `number`.
fn drawn(reals: &Reals, number: u64) -> Option<usize> {
    let mut sum = 0;
    let reached = eligible(reals).find(|(_, real)| {
        sum += weight(real);
        number <= sum
    });
    // Another worker may overload a server after the weights were added up.
    reached.or_else(|| eligible(reals).last()).map(|(index, _)| index)
}

fn weight(real: &RealServer) -> u64 {
    u64::from(real.weight().unsigned_abs())
}
