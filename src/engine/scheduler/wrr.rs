//! `wrr`: the servers take turns, as often as their weights say.

use super::{Change, Explanation, Flow, Made, Options, Random, Reals, Scheduler};
use crate::engine::service::{ConfigError, RealServer};
use crate::engine::time::Moment;

/// Weighted round robin: passes over the list with a falling bar that a weight must reach.
///
/// The bar starts at the greatest weight and goes down by the weights' common divisor at the end
/// of every pass, so that a server of weight 3 has its turn in three passes out of the highest
/// weight's. After the last pass, in which all servers take part, it starts anew.
///
/// **Source** — IPVS `ip_vs_wrr`.
#[derive(Debug)]
struct WeightedRoundRobin {
    /// The server picked last; `None` is the head of the list, before the first server.
    last: Option<usize>,
    /// The bar.
    current: i64,
    /// Where the bar starts: the greatest weight, less `step - 1` so that the last pass is at 1.
    highest: i64,
    /// The greatest common divisor of the weights.
    step: i64,
}

pub(super) fn make(_: &Options, reals: &Reals, _: Moment) -> Made {
    let (highest, step) = bounds(reals);
    Ok(Box::new(WeightedRoundRobin { last: None, current: highest, highest, step }))
}

impl Scheduler for WeightedRoundRobin {
    fn pick(&mut self, reals: &Reals, _: &Flow, _: Moment, _: &mut dyn Random) -> Option<usize> {
        if self.highest == 0 {
            return None;
        }
        let picked = self.scan(reals);
        self.last = picked.or(self.last);
        picked
    }

    fn explain(&self, reals: &Reals, _: &Flow, _: Moment) -> Explanation {
        let after = self.last.map_or_else(String::new, |last| match reals.get(last) {
            Some(real) => format!(", after {}", real.endpoint()),
            None => String::new(),
        });
        let rule = "in turn, if the weight reaches a bar that falls with every round";
        let note = format!("the bar is at {} of {}{after}", self.current, self.highest);
        Explanation::new(rule, note, reals, |_, real| format!("weight {}", real.weight()))
    }

    fn update(&mut self, reals: &Reals, _: Change) -> Result<(), ConfigError> {
        self.last = None;
        (self.highest, self.step) = bounds(reals);
        if self.current > self.highest || self.current == 0 {
            self.current = self.highest;
        } else if self.step > 1 {
            self.current = self.current / self.step * self.step + 1;
        }
        Ok(())
    }
}

impl WeightedRoundRobin {
    /// Goes through the list from the server picked last until one reaches the bar, lowering the
    /// bar at the end of each pass.
    fn scan(&mut self, reals: &Reals) -> Option<usize> {
        let mut next = self.last.map_or(0, |last| last + 1);
        let mut end = reals.len();
        let (mut restarted, mut is_last_pass) = (false, false);
        loop {
            let reaches = |real: &RealServer| {
                !real.is_overloaded() && i64::from(real.weight()) >= self.current
            };
            if let Some(found) = (next..end).find(|&index| reaches(&reals[index])) {
                return Some(found);
            }
            if restarted && is_last_pass {
                return None;
            }
            next = 0;
            self.current -= self.step;
            if self.current <= 0 {
                self.current = self.highest;
                if is_last_pass || self.last.is_none() {
                    return None;
                }
                restarted = true;
            }
            self.skip_vain_passes(reals);
            is_last_pass = self.current <= self.step;
            if restarted && is_last_pass {
                end = self.last.map_or(reals.len(), |last| last + 1);
            }
        }
    }

    /// Lowers the bar at once to where some server reaches it, but not beyond the last pass.
    ///
    /// With the heaviest servers overloaded and weights up to 2^31, going pass by pass as IPVS
    /// does could take minutes; the outcome is the same.
    fn skip_vain_passes(&mut self, reals: &Reals) {
        let usable = reals.iter().filter(|real| !real.is_overloaded());
        let reachable = usable.map(|real| i64::from(real.weight())).max().unwrap_or(0);
        let above = self.current - reachable.max(self.step);
        if above > 0 {
            self.current -= (above + self.step - 1) / self.step * self.step;
        }
    }
}

/// Where the bar starts and how far it falls with each pass.
fn bounds(reals: &Reals) -> (i64, i64) {
    let weights = || reals.iter().map(|real| i64::from(real.weight())).filter(|&w| w > 0);
    let step = weights().fold(0, greatest_common_divisor).max(1);
    let greatest = weights().max().unwrap_or(0);
    ((greatest - (step - 1)).max(0), step)
}

/// The greatest number that divides both; 0 divides like the other number alone.
pub(super) fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}
