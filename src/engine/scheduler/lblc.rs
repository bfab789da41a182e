//! `lblc`: a destination address stays with the server it was first sent to.

use super::load::{eligible, least_weighted};
use super::locality::{Held, Memory, is_overburdened};
use super::{Explanation, Flow, Made, Options, Overhead, Random, Reals, Scheduler};
use crate::engine::time::Moment;

/// Locality-based least connection, for clusters of caches: the server an address is remembered
/// with, while it has a weight and is not overburdened; else, and at first, the choice of `wlc`.
///
/// A server beyond its upper threshold keeps the addresses it has.
///
/// **Source** — IPVS `ip_vs_lblc`.
#[derive(Debug)]
struct Locality {
    memory: Memory<Held>,
    overhead: Overhead,
}

pub(super) fn make(options: &Options, _: &Reals, now: Moment) -> Made {
    let memory = Memory::new(options.tunables.lblc_expiration_ms, now);
    Ok(Box::new(Locality { memory, overhead: options.tunables.overhead }))
}

impl Scheduler for Locality {
    fn pick(
        &mut self,
        reals: &Reals,
        flow: &Flow,
        now: Moment,
        _: &mut dyn Random,
    ) -> Option<usize> {
        let addr = flow.destination.addr;
        let known = self.memory.recall(addr, now);
        let known = known.filter(|held| keeps(held, reals)).and_then(|held| held.locate(reals));
        if known.is_some() {
            return known;
        }
        let index = least_weighted(eligible(reals), |real| self.overhead.of(real))?;
        match self.memory.recall(addr, now) {
            Some(held) => *held = Held::new(reals, index),
            None => self.memory.remember(addr, Held::new(reals, index), now),
        }
        Some(index)
    }

    fn explain(&self, reals: &Reals, flow: &Flow, _: Moment) -> Explanation {
        let addr = flow.destination.addr;
        let note = match self.memory.peek(addr) {
            None => format!("{addr} is new"),
            Some(held) if held.position(reals).is_none() => {
                format!("{addr} was with {}, which is gone", held.real.endpoint())
            }
            Some(held) if keeps(held, reals) => format!("{addr} is with {}", held.real.endpoint()),
            Some(held) => {
                format!("{addr} leaves {}, which cannot or has too many", held.real.endpoint())
            }
        };
        let rule = "an address stays with its server; new ones go where wlc sends them";
        Explanation::new(rule, note, reals, |_, real| self.overhead.quotient(real))
    }

    fn configure(&mut self, options: &Options) {
        self.memory.set_expiration(options.tunables.lblc_expiration_ms);
        self.overhead = options.tunables.overhead;
    }

    fn handle_timeout(&mut self, now: Moment) -> Option<Moment> {
        Some(self.memory.handle_timeout(now))
    }

    fn forget(&mut self) {
        self.memory.clear();
    }
}

/// Whether an address may stay with the server it is remembered with.
fn keeps(held: &Held, reals: &Reals) -> bool {
    held.real.weight() > 0 && !is_overburdened(&held.real, reals)
}
