//! `lblcr`: a destination address has a set of servers, which grows under load.

use super::load::{Ratio, eligible, is_eligible, least_weighted};
use super::locality::{Held, Memory, is_overburdened};
use super::{Explanation, Flow, Made, Options, Overhead, Random, Reals, Scheduler};
use crate::engine::time::Moment;

/// Locality-based least connection with replication: the least loaded server of the address's set.
/// If there is none or it is overburdened, the choice of `wlc` among all, which joins the set. A
/// set that has not changed for a while loses its most loaded server.
///
/// **Source** — IPVS `ip_vs_lblcr`.
#[derive(Debug)]
struct Replication {
    memory: Memory<Set>,
    expiration_ms: u64,
    overhead: Overhead,
}

/// The servers of an address.
#[derive(Debug)]
struct Set {
    /// The one that joined last comes first.
    members: Vec<Held>,
    last_change: Moment,
}

pub(super) fn make(options: &Options, _: &Reals, now: Moment) -> Made {
    let expiration_ms = options.tunables.lblcr_expiration_ms;
    let memory = Memory::new(expiration_ms, now);
    Ok(Box::new(Replication { memory, expiration_ms, overhead: options.tunables.overhead }))
}

impl Scheduler for Replication {
    fn pick(
        &mut self,
        reals: &Reals,
        flow: &Flow,
        now: Moment,
        _: &mut dyn Random,
    ) -> Option<usize> {
        let addr = flow.destination.addr;
        if let Some(set) = self.memory.recall(addr, now) {
            let least = set.least(reals, self.overhead);
            set.shrink(self.overhead, self.expiration_ms, now);
            if let Some(index) = least.filter(|&index| !is_overburdened(&reals[index], reals)) {
                return Some(index);
            }
        }
        let index = least_weighted(eligible(reals), |real| self.overhead.of(real))?;
        let joining = Held::new(reals, index);
        match self.memory.recall(addr, now) {
            Some(set) => set.join(joining, now),
            None => {
                let set = Set { members: vec![joining], last_change: now };
                self.memory.remember(addr, set, now);
            }
        }
        Some(index)
    }

    fn explain(&self, reals: &Reals, flow: &Flow, _: Moment) -> Explanation {
        let addr = flow.destination.addr;
        let note = match self.memory.peek(addr) {
            None => format!("{addr} is new"),
            Some(set) => {
                let members = set.members.iter().map(|held| held.real.endpoint().to_string());
                format!("{addr} is with {}", members.collect::<Vec<_>>().join(", "))
            }
        };
        let rule = "the least loaded of an address's set of servers, which grows as wlc chooses";
        Explanation::new(rule, note, reals, |_, real| self.overhead.quotient(real))
    }

    fn configure(&mut self, options: &Options) {
        self.expiration_ms = options.tunables.lblcr_expiration_ms;
        self.memory.set_expiration(self.expiration_ms);
        self.overhead = options.tunables.overhead;
    }

    fn handle_timeout(&mut self, now: Moment) -> Option<Moment> {
        Some(self.memory.handle_timeout(now))
    }

    fn forget(&mut self) {
        self.memory.clear();
    }
}

impl Set {
    /// Index of the least loaded member that can take a connection.
    fn least(&mut self, reals: &Reals, overhead: Overhead) -> Option<usize> {
        let present = self.members.iter_mut().filter_map(|held| {
            let index = held.locate(reals)?;
            is_eligible(&reals[index]).then(|| (index, &*reals[index]))
        });
        least_weighted(present, |real| overhead.of(real))
    }

    /// Drops the most loaded of several members if the set has not changed for `rest_ms`.
    fn shrink(&mut self, overhead: Overhead, rest_ms: u64, now: Moment) {
        if self.members.len() < 2 || now.ms_since(self.last_change) <= rest_ms {
            return;
        }
        let weighty = self.members.iter().enumerate().filter(|(_, held)| held.real.weight() > 0);
        let loads = weighty
            .map(|(at, Held { real, .. })| (at, Ratio::new(overhead.of(real), real.weight())));
        let most = loads.reduce(|most, next| if next.1 > most.1 { next } else { most });
        if let Some((at, _)) = most {
            self.members.remove(at);
            self.last_change = now;
        }
    }

    /// Takes a server in, unless it is a member.
    fn join(&mut self, joining: Held, now: Moment) {
        let is_member = |held: &Held| std::sync::Arc::ptr_eq(&held.real, &joining.real);
        if !self.members.iter().any(is_member) {
            self.members.insert(0, joining);
            self.last_change = now;
        }
    }
}
