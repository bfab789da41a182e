//! Choosing a real server for a new connection: one file per scheduler.
//!
//! Owns the rules and what they remember between two connections. Refuses to know packets,
//! connections and clocks: a [`Flow`], the servers and `now` come in, an index goes out. A
//! service's pool calls the scheduler under the service's lock, so for new connections only.
//!
//! # All of them
//!
//! | name | takes | file |
//! |---|---|---|
//! | `rr` | each server in turn | `rr.rs` |
//! | `wrr` | each server in turn, as often as its weight says | `wrr.rs` |
//! | `lc` | the server with the fewest connections | `lc.rs` |
//! | `wlc` | the fewest connections for its weight; ipvsadm's default | `wlc.rs` |
//! | `sed` | the shortest expected delay, `(active + 1) / weight` | `sed.rs` |
//! | `nq` | an idle server, else as `sed` | `nq.rs` |
//! | `fo` | the heaviest server that can | `fo.rs` |
//! | `ovf` | the heaviest server whose connections do not exceed its weight | `ovf.rs` |
//! | `twos` | the less loaded of two drawn at random | `twos.rs` |
//! | `sh` | by the client's address (and port) | `sh.rs` |
//! | `dh` | by the destination address | `dh.rs` |
//! | `mh` | by the client's address (and port), a maglev table | `mh.rs` |
//! | `lblc` | the server an address was last sent to | `lblc.rs` |
//! | `lblcr` | the least loaded of an address's set of servers | `lblcr.rs` |
//! | `none` | nothing | `none.rs` |
//!
//! Drawn by `ulvs simulate --plot`:
//!
#![doc = include_str!("schedulers.svg")]
//!
//! # Adding one
//!
//! 1. Write `NAME.rs` here (`fo.rs` is the shortest to begin with): a struct, `impl Scheduler` for it, and
//!
//!    ```text
//!    pub(super) fn make(_: &Options, _: &Reals, _: Moment) -> Made {
//!        Ok(Box::new(MyScheduler::default()))
//!    }
//!    ```
//!
//!    [`Scheduler::pick`] and [`Scheduler::explain`] are required. A scheduler that keeps positions
//!    or tables also writes [`Scheduler::update`]; one with flags or timers the others.
//! 2. Add `mod NAME;` and a line to [`REGISTRY`], in the order of names.
//!
//! Everything that holds for all schedulers is then tested for it too: `tests` goes through the
//! registry with random servers, edits and connections, the bench measures it, `ulvs simulate
//! --explain` tells its figures, and `--plot` draws it.

use std::fmt::Debug;
use std::sync::Arc;

use super::service::{ConfigError, RealServer, SchedulerFlags};
use super::time::Moment;
use crate::packet::Endpoint;

pub use explain::Explanation;
pub use load::Overhead;

mod buckets;
mod dh;
mod explain;
mod fo;
mod hash;
mod lblc;
mod lblcr;
mod lc;
mod load;
mod locality;
mod mh;
mod none;
mod nq;
mod ovf;
mod rr;
mod sed;
mod sh;
mod twos;
mod wlc;
mod wrr;

/// The servers of a service, newest first: the order in which IPVS walks them.
pub type Reals = [Arc<RealServer>];

/// What happened to a service's servers since its scheduler last looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A server was put at the head of the list (index 0).
    Added,
    /// The server that was at this index is gone; those behind it moved up.
    Removed(usize),
    /// The server at this index changed its weight or another setting.
    Edited(usize),
}

/// What a scheduler may look at besides the servers.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Source of the packet.
    pub client: Endpoint,
    /// Destination of the packet.
    pub destination: Endpoint,
}

/// A source of random numbers that can be seeded.
pub trait Random {
    /// A number in `0..bound`; `bound` is not 0.
    fn below(&mut self, bound: u64) -> u64;
}

/// What can be set about a scheduler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Flags of its service (`-b`).
    pub flags: SchedulerFlags,
    /// What holds for all services of the director.
    pub tunables: Tunables,
}

/// Options that hold for the schedulers of all services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunables {
    /// `net.ipv4.vs.lblc_expiration`: how long lblc keeps an address that nobody asks for.
    pub lblc_expiration_ms: u64,
    /// `net.ipv4.vs.lblcr_expiration`: how long lblcr keeps an address that nobody asks for, and
    /// how long a set of servers rests before it shrinks.
    pub lblcr_expiration_ms: u64,
    /// What connections weigh in `lc`, `wlc`, `lblc`, `lblcr` and `twos`.
    pub overhead: Overhead,
}

impl Default for Tunables {
    fn default() -> Self {
        const DAY_MS: u64 = 24 * 3600 * 1000;
        Self {
            lblc_expiration_ms: DAY_MS,
            lblcr_expiration_ms: DAY_MS,
            overhead: Overhead::default(),
        }
    }
}

/// Picks real servers for the new connections of one service.
///
/// Lives under the service's lock, so it may keep state; established packets never come here.
/// Servers of weight 0 and overloaded ones are skipped or refused, in the way of IPVS's scheduler
/// of the same name.
pub trait Scheduler: Debug + Send {
    /// Index of the chosen server, `None` if none can take the connection.
    fn pick(
        &mut self,
        reals: &Reals,
        flow: &Flow,
        now: Moment,
        random: &mut dyn Random,
    ) -> Option<usize>;

    /// Tells what `pick` would look at for this flow, and changes nothing.
    fn explain(&self, reals: &Reals, flow: &Flow, now: Moment) -> Explanation;

    /// Adapts to a change of the server list. `reals` is the list after the change.
    ///
    /// **Errors** — `Invalid` if the scheduler cannot work with that list (mh with more servers
    /// than table slots); the caller undoes the change.
    fn update(&mut self, _reals: &Reals, _change: Change) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Takes over new options and keeps its state, as IPVS does when a service is edited without
    /// naming another scheduler.
    fn configure(&mut self, _options: &Options) {}

    /// Does what is due by time, and returns when it wants to be called next, if ever.
    fn handle_timeout(&mut self, _now: Moment) -> Option<Moment> {
        None
    }

    /// Lets go of every server it remembers: its service is being removed.
    fn forget(&mut self) {}
}

/// What making a scheduler comes to.
pub type Made = Result<Box<dyn Scheduler>, ConfigError>;

/// Makes a scheduler for a service that has `reals` already.
pub type Make = fn(&Options, &Reals, Moment) -> Made;

/// The schedulers there are, by the name ipvsadm gives them. A new one is a file here and a line
/// in this table.
pub static REGISTRY: &[(&str, Make)] = &[
    ("dh", dh::make),
    ("fo", fo::make),
    ("lblc", lblc::make),
    ("lblcr", lblcr::make),
    ("lc", lc::make),
    ("mh", mh::make),
    ("none", none::make),
    ("nq", nq::make),
    ("ovf", ovf::make),
    ("rr", rr::make),
    ("sed", sed::make),
    ("sh", sh::make),
    ("twos", twos::make),
    ("wlc", wlc::make),
    ("wrr", wrr::make),
];

/// Makes the scheduler of that name.
///
/// **Errors** — `NoSuchScheduler` for an unknown name; what the scheduler itself refuses.
pub fn make(name: &str, options: &Options, reals: &Reals, now: Moment) -> Made {
    let entry = REGISTRY.iter().find(|(known, _)| *known == name);
    let (_, make) = entry.ok_or(ConfigError::NoSuchScheduler)?;
    make(options, reals, now)
}

#[cfg(test)]
mod tests;
