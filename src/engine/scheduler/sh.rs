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
        match self.usable(reals, hashed) {
            None if self.flags.fallback => (0..COUNT)
                .map(|offset| ((offset + hashed) % COUNT + hashed) % COUNT)
                .find_map(|bucket| self.usable(reals, bucket)),
            found => found,
        }
    }

    fn explain(&self, reals: &Reals, flow: &Flow, _: Moment) -> Explanation {
        let rule = "the client's address decides";
        let bucket = self.hash(flow);
        let mut explanation = match self.flags.port {
            true => self.buckets.explain(rule, flow.client, bucket, reals),
            false => self.buckets.explain(rule, flow.client.addr, bucket, reals),
        };
        if self.flags.fallback && self.usable(reals, bucket).is_none() {
            explanation.note += ", whose server cannot; it is hashed again";
        }
        explanation
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
    /// The server of a bucket, if it can take connections.
    fn usable(&self, reals: &Reals, bucket: usize) -> Option<usize> {
        self.buckets.server(bucket).filter(|&index| is_eligible(&reals[index]))
    }

    fn hash(&self, flow: &Flow) -> usize {
        let port = if self.flags.port { u32::from(flow.client.port) } else { 0 };
        hash::bucket(hash::fold(flow.client.addr).wrapping_add(port), BITS)
    }
}

fn deal(reals: &Reals) -> Buckets {
    Buckets::deal(reals.iter().map(|real| real.weight().max(1) as usize))
}
