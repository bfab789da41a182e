//! `sh`: the client's address decides.

use super::buckets::{BITS, Buckets, COUNT};
use super::load::is_eligible;
use super::{Change, Explanation, Flow, Made, Options, Random, Reals, Scheduler, hash};
use crate::engine::service::{ConfigError, SchedulerFlags};
use crate::engine::time::Moment;

/// Source hashing: 256 buckets, dealt in turn, each server as many in a row as its weight.
///
/// A server that is overloaded or has weight 0 keeps buckets (one for weight 0), and refuses;
/// with `sh-fallback` its clients are hashed again. With `sh-port` the client's port takes part.
///
/// **Source** — IPVS `ip_vs_sh`.
#[derive(Debug)]
struct SourceHash {
    buckets: Buckets,
    flags: SchedulerFlags,
}

pub(super) fn make(options: &Options, reals: &Reals, _: Moment) -> Made {
    Ok(Box::new(SourceHash { buckets: deal(reals), flags: options.flags }))
}

impl Scheduler for SourceHash {
    fn pick(&mut self, reals: &Reals, flow: &Flow, _: Moment, _: &mut dyn Random) -> Option<usize> {
        let hashed = self.hash(flow);
        let usable =
            |bucket| self.buckets.server(bucket).filter(|&index| is_eligible(&reals[index]));
        match usable(hashed) {
            None if self.flags.fallback => (0..COUNT)
                .map(|offset| ((offset + hashed) % COUNT + hashed) % COUNT)
                .find_map(usable),
            found => found,
        }
    }

    fn explain(&self, reals: &Reals, flow: &Flow, _: Moment) -> Explanation {
        self.buckets.explain(self.hash(flow), reals)
    }

    fn update(&mut self, reals: &Reals, _: Change) -> Result<(), ConfigError> {
        self.buckets = deal(reals);
        Ok(())
    }

    fn configure(&mut self, options: &Options) {
        self.flags = options.flags;
    }
}

impl SourceHash {
    fn hash(&self, flow: &Flow) -> usize {
        let port = if self.flags.port { u32::from(flow.client.port) } else { 0 };
        hash::bucket(hash::fold(flow.client.addr).wrapping_add(port), BITS)
    }
}

fn deal(reals: &Reals) -> Buckets {
    Buckets::deal(reals.iter().map(|real| real.weight().max(1) as usize))
}
