//! Choosing a real server for a new connection: one file per scheduler.

use std::fmt::Debug;
use std::sync::Arc;

use super::service::{ConfigError, RealServer, SchedulerFlags};
use super::time::Moment;
use crate::packet::Endpoint;

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

/// Picks real servers for the new connections of one service.
///
/// Lives under the service's lock, so it may keep state; established packets never come here.
/// Everybody skips servers of weight 0 and overloaded ones, in the way of IPVS's scheduler of the
/// same name.
pub trait Scheduler: Debug + Send {
    /// Adapts to a change of the server list. `reals` is the list after the change.
    ///
    /// **Errors** — `Invalid` if the scheduler cannot work with that list (mh with more servers
    /// than table slots); the caller undoes the change.
    fn update(&mut self, reals: &Reals, change: Change) -> Result<(), ConfigError>;

    /// Index of the chosen server, `None` if none can take the connection.
    fn pick(
        &mut self,
        reals: &Reals,
        flow: &Flow,
        now: Moment,
        random: &mut dyn Random,
    ) -> Option<usize>;
}

/// Makes a scheduler for a service that has `reals` already.
pub type Make = fn(SchedulerFlags, &Reals, Moment) -> Result<Box<dyn Scheduler>, ConfigError>;

/// The schedulers there are, by the name ipvsadm gives them. A new one is a file here and a line
/// in this table.
pub static REGISTRY: &[(&str, Make)] = &[("rr", round_robin::make)];

/// Makes the scheduler of that name.
///
/// **Errors** — `NoSuchScheduler` for an unknown name; what the scheduler itself refuses.
pub fn make(
    name: &str,
    flags: SchedulerFlags,
    reals: &Reals,
    now: Moment,
) -> Result<Box<dyn Scheduler>, ConfigError> {
    let entry = REGISTRY.iter().find(|(known, _)| *known == name);
    let (_, make) = entry.ok_or(ConfigError::NoSuchScheduler)?;
    make(flags, reals, now)
}

mod round_robin;
