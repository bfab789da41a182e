//! A complete Linux Virtual Server in userspace.
//!
//! ```text
//! frames ──driver──▶ link ──▶ engine (services, connections, schedulers, rewrite) ──▶ link ──driver──▶ frames
//! ```
//!
//! - [`packet`]: bytes of packets, without policy.
//! - [`engine`]: the director, without I/O.
//! - [`link`]: whom a frame is for and where a packet goes next, without I/O.
//! - [`guard`]: keeps the kernel from answering what belongs to a virtual service.
//! - [`host`]: what the kernel knows about this host, kept current.
//! - [`driver`]: where frames come from and go to.
//! - [`worker`]: threads that move packets between those.
//! - [`control`]: how administrators reach the director.
//! - [`daemon`]: all of that as one program, with its housekeeping.
//! - [`decap`]: the real server's end of tunnels.
//! - [`lab`]: networks of namespaces, for learning and for tests.
//! - [`mod@bench`]: measures the director beside other forwarders.
//! - [`simulate`]: recorded scenarios through the director, with a virtual clock.

pub mod bench;
pub mod control;
pub mod daemon;
pub mod decap;
pub mod driver;
pub mod engine;
pub mod guard;
pub mod host;
pub mod lab;
pub mod link;
pub mod packet;
pub mod simulate;
pub mod worker;
