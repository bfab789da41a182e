//! New connections per second: what a connection's beginning and end cost.
//!
//! The same by hand: `wrk -t1 -c64 -H 'Connection: close' http://ADDRESS/`.
//!
//! Ports do not run out: the server closes first, the client reads that end before it closes
//! itself, so TIME_WAIT stays with the server, where a new SYN from the same port is let
//! through. Nothing is cut short by a reset, and a director sees each connection to its end.

use std::io;

use super::http::{self, Reuse};
use super::{Measurement, Page, Timing};

/// Asks for `page` on a new connection every time, 64 at a time.
///
/// **Errors** — only if the load could not run; failed connections are counted.
pub fn run(page: &Page, timing: Timing) -> io::Result<Measurement> {
    http::run(page, timing, Reuse::Close)
}
