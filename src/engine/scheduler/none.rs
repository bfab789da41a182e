//! `none`: no scheduler.

use super::{Explanation, Flow, Made, Options, Random, Reals, Scheduler};
use crate::engine::time::Moment;

/// Never picks a server: new connections are refused, those there are go on.
///
/// **Source** — IPVS takes `-s none` for a service without a scheduler, and lists it so.
#[derive(Debug)]
struct NoScheduler;

pub(super) fn make(_: &Options, _: &Reals, _: Moment) -> Made {
    Ok(Box::new(NoScheduler))
}

impl Scheduler for NoScheduler {
    fn pick(&mut self, _: &Reals, _: &Flow, _: Moment, _: &mut dyn Random) -> Option<usize> {
        None
    }

    fn explain(&self, reals: &Reals, _: &Flow, _: Moment) -> Explanation {
        Explanation::new("nothing", "", reals, |_, _| "never".into())
    }
}
