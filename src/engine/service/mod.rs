//! Virtual services and their real servers: what is configured, and what it counts.
//!
//! Owns the configuration and every number an administrator sees of it. Refuses to know packets
//! and connections; those come to a service only to ask for a server.

mod check;
mod pool;
mod real;
mod snapshot;
mod spec;
mod table;
mod trash;

pub use check::is_unicast;
pub use pool::{Pool, RealView, Retired, ServiceView, VirtualService};
pub use real::{Activity, RealServer};
pub use snapshot::Snapshot;
pub use spec::{
    ClientAddress, ConfigError, ForwardingMethod, Protocol, RealSpec, SchedulerFlags, ServiceKey,
    ServiceSpec, Timeouts, Tunnel, TunnelChecksum, TunnelKind,
};
pub use table::ServiceTable;
