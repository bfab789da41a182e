//! Workers: threads that move packets between the drivers, the link layer and the director.
//!
//! A worker owns one director, with its shard of the connections, and one pair of driver halves
//! for each port. What it shares with others: the service table (an atomic number between batches,
//! a service's lock for new connections), the link layer (a lock for ARP and unknown next hops) and
//! mailboxes. Packets of known connections touch none of these.
//!
//! ```text
//! receiver ─▶ classify ─▶ director ─▶ next hop ─▶ sender       (all for a batch at a time,
//!                │ ARP                    │ unknown             in the receiver's memory)
//!                └──────▶ link layer ◀────┘
//! ```

mod egress;
mod mailbox;
mod network;
mod run;
mod shared;
pub mod steer;
mod sync;

pub use egress::LostCounters;
pub use mailbox::{ListedConnection, Mailbox, Page, Request, WorkerCounters};
pub use run::{Patience, Peers, Worker, WorkerConfig};
pub use shared::{Clock, SharedLink};
pub use sync::SyncOutlet;
