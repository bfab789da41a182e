//! Keep-alive requests per second: what an established connection's packets cost.
//!
//! The same by hand: `wrk -t1 -c64 http://ADDRESS/`. On two cores and without a director that
//! costs anything, wrk finds a fifth to a quarter less: it calls `epoll_ctl` twice for every
//! request. The more the director costs, the closer the two come.

use std::io;

use super::http::{self, Reuse};
use super::{Measurement, Page, Timing};

/// Asks for `page` on 64 connections that stay open, one request at a time on each.
///
/// **Errors** — only if the load could not run; failed requests are counted.
pub fn run(page: &Page, timing: Timing) -> io::Result<Measurement> {
    http::run(page, timing, Reuse::KeepAlive)
}
