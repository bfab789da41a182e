//! `nq`: nobody queues while a server is idle.

use super::load::eligible;
use super::sed::{describe, shortest};
use super::{Explanation, Flow, Made, Options, Random, Reals, Scheduler};
use crate::engine::time::Moment;

/// Never queue: the first server without active connections, else the shortest expected delay.
///
/// For UDP, whose connections are never active, it always takes the first server of the list.
///
/// **Source** — IPVS `ip_vs_nq`.
#[derive(Debug)]
struct NeverQueue;

pub(super) fn make(_: &Options, _: &Reals, _: Moment) -> Made {
    Ok(Box::new(NeverQueue))
}

impl Scheduler for NeverQueue {
    fn pick(&mut self, reals: &Reals, _: &Flow, _: Moment, _: &mut dyn Random) -> Option<usize> {
        let idle = eligible(reals).find(|(_, real)| real.active() == 0);
        idle.map(|(index, _)| index).or_else(|| shortest(reals))
    }

    fn explain(&self, reals: &Reals, _: &Flow, _: Moment) -> Explanation {
        let rule = "the first idle server, otherwise as sed";
        Explanation::new(rule, "", reals, |_, real| match real.active() {
            0 => "idle".into(),
            _ => describe(real),
        })
    }
}
