//! Long transfers, with the sums that both ends make of them.

use std::net::SocketAddr;

use super::pages::{PATIENCE, in_words};
use super::{Scene, Told};
use crate::lab::web::{self, Transfer};

/// The bytes of a long transfer.
pub(super) const TRANSFER_BYTES: u64 = 100 << 20;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From the server to the client.
    Down,
    /// From the client to the server.
    Up,
}

impl Way {
    /// As people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Way::Down => "down",
            Way::Up => "up",
        }
    }
}

impl Scene<'_> {
    /// Has the client move 100 MiB each way by HTTP, and promises that they arrive as they were sent.
    pub fn transfer(&mut self, service: SocketAddr) -> Told {
        self.heading("100 MiB each way")?;
        for way in [Way::Down, Way::Up] {
            let is_whole = self.carry(service, way, || Ok(String::new()))?;
            self.promise_whole(way, is_whole);
        }
        Ok(())
    }

    /// Has the client move 100 MiB one way by HTTP. `aside` is what else is to be said of it
    /// afterwards. Returns whether the sums of both ends are equal.
    pub(super) fn carry(
        &self,
        service: SocketAddr,
        way: Way,
        aside: impl FnOnce() -> Told<String>,
    ) -> Told<bool> {
        let done = self.host("client").namespace().run(|| match way {
            Way::Down => web::download_summed(service, TRANSFER_BYTES, PATIENCE),
            Way::Up => web::upload_summed(service, TRANSFER_BYTES, PATIENCE),
        })?;
        match done {
            Ok(transfer) => self.show_transfer(way, &transfer, &aside()?),
            Err(error) => {
                self.line(format_args!("  {}: it failed: {}", way.name(), in_words(&error)))?;
                Ok(false)
            }
        }
    }

    /// Shows what both ends made of a transfer. Returns whether that is the same.
    pub(super) fn show_transfer(&self, way: Way, done: &Transfer, aside: &str) -> Told<bool> {
        let (way, time_s) = (way.name(), done.time.as_secs_f64());
        self.line(format_args!("  {way:<5} {}, {time_s:.2} s{aside}", done.server))?;
        self.line(format_args!("        sha256 {} client", done.sha256))?;
        self.line(format_args!("        sha256 {} server", done.server_sha256))?;
        Ok(done.sha256 == done.server_sha256)
    }

    /// Promises that what was moved arrived as it was sent.
    pub(super) fn promise_whole(&mut self, way: Way, is_whole: bool) {
        let text = format!("100 MiB {}: the same SHA-256 at both ends", way.name());
        self.promise(is_whole, text);
    }
}
