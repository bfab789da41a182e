//! Makes sure that a contender does what its figures will claim, before anything is measured.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use super::contender::{Contender, Forwarder, Source};
use super::load::bulk::{self, Ends};
use super::load::{Timing, requests};
use super::network::{BULK_PORT, CLIENT, DIRECTOR_INSIDE, Network, SERVERS};
use super::run::page_of;

/// Makes sure that connections through the contender reach every real server and come from whom
/// they should, and that pages come through whole.
///
/// **Errors** — what is not as it should be.
pub(super) fn verify(
    contender: Contender,
    forwarder: &mut Forwarder,
    network: &Network,
) -> io::Result<()> {
    await_path(contender, forwarder, network)?;
    let mut reached = BTreeSet::new();
    for attempt in 0..ATTEMPTS {
        let ends = ends(contender, network, attempt)?;
        expect_source(contender.source(), &ends)?;
        reached.insert(ends.local.ip());
    }
    let wanted: BTreeSet<_> = SERVERS.into_iter().map(IpAddr::V4).collect();
    if reached != wanted {
        let message = format!("{ATTEMPTS} connections reached {reached:?} instead of {wanted:?}");
        return Err(io::Error::other(message));
    }
    fetch_pages(contender, network)
}

/// Waits for the first connection that is served.
fn await_path(
    contender: Contender,
    forwarder: &mut Forwarder,
    network: &Network,
) -> io::Result<()> {
    let deadline = Instant::now() + START;
    loop {
        forwarder.check()?;
        match ends(contender, network, 0) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                let seconds = START.as_secs();
                let message = format!("no connection within {seconds} s: {error}");
                return Err(io::Error::new(error.kind(), message));
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn ends(contender: Contender, network: &Network, attempt: usize) -> io::Result<Ends> {
    let targets = contender.targets();
    let address = SocketAddr::from((targets[attempt % targets.len()], BULK_PORT));
    network.client.run(|| bulk::ends(address)).map_err(io::Error::other)?
}

fn expect_source(source: Source, ends: &Ends) -> io::Result<()> {
    let expected: Ipv4Addr = match source {
        Source::Client => CLIENT,
        Source::Director => DIRECTOR_INSIDE,
    };
    if ends.peer.ip() == expected {
        return Ok(());
    }
    let message = format!("a server sees {} instead of {expected}", ends.peer.ip());
    Err(io::Error::other(message))
}

fn fetch_pages(contender: Contender, network: &Network) -> io::Result<()> {
    let page = page_of(contender);
    let before = network.pages_served();
    let fetched =
        network.client.run(|| requests::run(&page, GLANCE)).map_err(io::Error::other)??;
    let fetched_count = (fetched.rate * fetched.seconds).round() as u64;
    let served = network.pages_served() - before;
    match fetched.failures.total() {
        0 if fetched_count > 0 && served >= fetched_count => Ok(()),
        0 => Err(io::Error::other(format!("{fetched_count} pages came, {served} were served"))),
        _ => Err(io::Error::other(format!("pages failed: {}", fetched.failures))),
    }
}

/// Connections whose ends are looked at.
const ATTEMPTS: usize = 8;

/// How long a contender may take to serve its first connection.
const START: Duration = Duration::from_secs(5);

/// How long pages are fetched.
const GLANCE: Timing = Timing { warm_up: Duration::ZERO, measured: Duration::from_millis(100) };
