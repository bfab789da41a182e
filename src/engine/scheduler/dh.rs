//! `dh`: the destination address decides.

use super::buckets::{BITS, Buckets};
use super::load::is_eligible;
use super::{Change, Explanation, Flow, Made, Options, Random, Reals, Scheduler, hash};
use crate::engine::service::ConfigError;
use crate::engine::time::Moment;

/// Destination hashing: 256 buckets, dealt to the servers in turn, whatever their weights.
///
/// A server that is overloaded or has weight 0 keeps its buckets, and refuses. For services by
/// firewall mark, whose packets have many destinations.
///
/// **Source** — IPVS `ip_vs_dh`, which deals anew when servers come and go, not when they are
/// edited.
#[derive(Debug)]
struct DestinationHash {
    buckets: Buckets,
}

pub(super) fn make(_: &Options, reals: &Reals, _: Moment) -> Made {
    Ok(Box::new(DestinationHash { buckets: deal(reals) }))
}

impl Scheduler for DestinationHash {
    fn pick(&mut self, reals: &Reals, flow: &Flow, _: Moment, _: &mut dyn Random) -> Option<usize> {
        self.buckets.server(bucket(flow)).filter(|&index| is_eligible(&reals[index]))
    }

    fn explain(&self, reals: &Reals, flow: &Flow, _: Moment) -> Explanation {
        let rule = "the destination address decides";
        self.buckets.explain(rule, flow.destination.addr, bucket(flow), reals)
    }

    fn update(&mut self, reals: &Reals, change: Change) -> Result<(), ConfigError> {
        match change {
            Change::Added | Change::Removed(_) => self.buckets = deal(reals),
            Change::Edited(_) => {}
        }
        Ok(())
    }
}

fn bucket(flow: &Flow) -> usize {
    hash::bucket(hash::fold(flow.destination.addr), BITS)
}

fn deal(reals: &Reals) -> Buckets {
    Buckets::deal(reals.iter().map(|_| 1))
}
