//! The loads: what a client does to a director, and what is measured of it.
//!
//! Every load is a closed program over real sockets: it runs in the calling thread, in whatever
//! network namespace that thread is in, ends after its [`Timing`], and returns a
//! [`Measurement`]. A load knows addresses, never contenders.

use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub mod bulk;
pub mod connections;
mod http;
pub mod packets;
pub mod requests;
mod window;

pub use http::Page;
pub use window::{Phase, Timing, Window};

/// Connections that the HTTP loads keep busy, as `wrk -c64` does.
pub const CONCURRENCY: usize = 64;

/// What a client can do to a director.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// One TCP connection, server to client, as fast as it goes.
    Download,
    /// One TCP connection, client to server, as fast as it goes.
    Upload,
    /// Connect, one request, close; 64 at a time.
    Connections,
    /// Requests on 64 connections that stay open.
    Requests,
    /// UDP packets in 60-byte frames.
    Packets,
}

impl Load {
    /// All loads, in the order in which they run.
    pub const ALL: [Load; 5] =
        [Load::Download, Load::Upload, Load::Connections, Load::Requests, Load::Packets];

    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Load::Download => "download",
            Load::Upload => "upload",
            Load::Connections => "connections",
            Load::Requests => "requests",
            Load::Packets => "packets",
        }
    }

    /// What is measured, for a heading.
    pub fn title(self) -> &'static str {
        match self {
            Load::Download => "bulk TCP, server to client",
            Load::Upload => "bulk TCP, client to server",
            Load::Connections => "new connections",
            Load::Requests => "keep-alive requests",
            Load::Packets => "60-byte UDP packets",
        }
    }

    /// The unit of [`Measurement::rate`].
    pub fn unit(self) -> &'static str {
        match self {
            Load::Download | Load::Upload => "bit/s",
            Load::Connections => "connections/s",
            Load::Requests => "requests/s",
            Load::Packets => "packets/s",
        }
    }
}

/// What one run of one load has measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Events per second, in the load's unit.
    pub rate: f64,
    /// Measured time.
    pub seconds: f64,
    /// What went wrong in the whole run, warm-up included.
    pub failures: Failures,
    /// How long one event took from the client's view, where an event has a length.
    pub latency: Option<Latency>,
    /// How hard the director was pressed, for loads that press on their own.
    pub pressure: Option<Pressure>,
}

/// What went wrong in a run. Any of these makes its figures doubtful.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// Connections that could not be made.
    pub connect: u64,
    /// Connections that broke before the response was complete.
    pub broken: u64,
    /// Responses with another status than 200, or that are no HTTP.
    pub status: u64,
    /// Responses or transfers of the wrong length.
    pub length: u64,
    /// Connections on which nothing had happened for a second when the run ended.
    pub stalled: u64,
}

impl Failures {
    /// How many there were.
    pub fn total(&self) -> u64 {
        self.connect + self.broken + self.status + self.length + self.stalled
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            (self.connect, "not connected"),
            (self.broken, "broken off"),
            (self.status, "not 200"),
            (self.length, "of wrong length"),
            (self.stalled, "stalled"),
        ];
        let mut separator = "";
        for (count, kind) in kinds.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{separator}{count} {kind}")?;
            separator = ", ";
        }
        Ok(())
    }
}

impl AddAssign<Failure> for Failures {
    fn add_assign(&mut self, failure: Failure) {
        *match failure {
            Failure::Connect => &mut self.connect,
            Failure::Broken => &mut self.broken,
            Failure::Status => &mut self.status,
            Failure::Length => &mut self.length,
            Failure::Stalled => &mut self.stalled,
        } += 1;
    }
}

/// One thing that went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Connect,
    Broken,
    Status,
    Length,
    Stalled,
}

/// How long events took, in microseconds.
///
/// Seen by a closed loop: a client sends its next request when it has the last response, so a
/// stall delays the requests behind it without being counted for each of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50_us: f64,
    /// Nine of ten were at most this long.
    pub p90_us: f64,
    /// 99 of 100 were at most this long.
    pub p99_us: f64,
    /// 999 of 1000 were at most this long.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

impl Latency {
    /// Reads the percentiles off a histogram of nanoseconds; none if it is empty.
    pub fn of(histogram: &hdrhistogram::Histogram<u64>) -> Option<Self> {
        let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        (!histogram.is_empty()).then(|| Self {
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: histogram.max() as f64 / 1e3,
        })
    }
}

/// How hard a load pressed that does not wait for answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// Events per second that were sent while the rate was measured.
    pub offered: f64,
    /// The highest rate that was delivered with less than one in a thousand lost; 0 if none was.
    pub lossless: f64,
    /// Whether the client could not send faster: then the figure is a lower bound.
    pub generator_limited: bool,
}

/// Events per second; 0 for no time at all.
fn per_second(events: u64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { events as f64 / seconds } else { 0.0 }
}
