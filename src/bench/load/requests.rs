//! Keep-alive requests per second: what an established connection's packets cost.
//!
//! The same by hand: `wrk -t1 -c64 http://ADDRESS/`. Where all ends share two
//! cores wrk finds a tenth to a quarter less, the more the less the director costs: `strace -c`
//! shows two calls of `epoll_ctl` and two of `epoll_wait` for each of its requests, where this
//! needs one `epoll_wait` for many.

use std::io;

use super::http::{self, Reuse};
use super::{Measurement, Page, Timing};

/// Asks for `page` on 64 connections that stay open, one request at a time on each.
///
/// **Errors** — only if the load could not run; failed requests are counted.
pub fn run(page: &Page, timing: Timing) -> io::Result<Measurement> {
    http::run(page, timing, Reuse::KeepAlive)
}
