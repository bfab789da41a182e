//! What the engine alone does to a packet, and what that costs: `cargo bench --bench engine`.
//!
//! One iteration is a batch of 64 packets of 40 bytes; the column of items per second counts
//! packets, so that 25 Mitem/s are 40 ns a packet. Their connections are drawn at random with a
//! fixed seed among 1, 10 thousand and 1 million. Allocations are shown per batch, where there are
//! any. At the end stands the memory that a connection takes.

use std::cell::RefCell;

use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher, black_box};
use ulvs::engine::conn::split_mix;
use ulvs::engine::{MAX_BATCH, Verdict};

#[path = "engine/crowd.rs"]
mod crowd;

use crowd::{ACK, Batch, Crowd, SYN, Verdicts, request, to_nobody};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const SIZES: [u32; 3] = [1, 10_000, 1_000_000];

fn main() {
    divan::main();
    if std::env::args().any(|argument| argument == "--bench") {
        let size = SIZES[2];
        let bytes = Crowd::new(size).director.connections().memory_bytes();
        println!("memory/{size}: {:.1} bytes per connection", bytes as f64 / f64::from(size));
    }
}

/// Packets of established connections, by turns from clients and from servers.
#[divan::bench(args = SIZES, sample_count = 2000, sample_size = 8)]
fn established(bencher: Bencher, size: u32) {
    let crowd = Crowd::new(size);
    let make = |crowd: &mut Crowd, n: u32, place: usize| match place % 2 {
        0 => request(n, ACK),
        _ => crowd.reply(n),
    };
    measure(bencher, crowd, size, make, |verdict| matches!(verdict, Verdict::Forward(_)));
}

/// Packets that open a connection each. They are gone again before the next batch.
#[divan::bench(args = SIZES, sample_count = 1000, sample_size = 1)]
fn new(bencher: Bencher, size: u32) {
    let mut next = 0;
    let make = move |crowd: &mut Crowd, _: u32, place: usize| {
        if place == 0 {
            // Longer than a half-open connection lives.
            crowd.sleep(61);
        }
        next = (next + 1) % NEWCOMERS;
        request(size + next, SYN)
    };
    measure(bencher, Crowd::new(size), size, make, |verdict| {
        matches!(verdict, Verdict::Forward(_))
    });
}

/// Packets that belong to no connection and no service.
#[divan::bench(args = SIZES, sample_count = 2000, sample_size = 8)]
fn miss(bencher: Bencher, size: u32) {
    let make = |_: &mut Crowd, n: u32, _: usize| to_nobody(n);
    measure(bencher, Crowd::new(size), size, make, |verdict| matches!(verdict, Verdict::Pass));
}

/// Packets of connections whose server has been removed.
#[divan::bench(args = SIZES, sample_count = 2000, sample_size = 8)]
fn drop(bencher: Bencher, size: u32) {
    let crowd = Crowd::new(size);
    crowd.remove_servers();
    let make = |_: &mut Crowd, n: u32, _: usize| request(n, ACK);
    measure(bencher, crowd, size, make, |verdict| matches!(verdict, Verdict::Drop(_)));
}

/// Clients that are not there when a measurement of new connections begins.
const NEWCOMERS: u32 = 1 << 20;

/// Times batches of packets that `make` makes of a random connection and its place in the batch.
fn measure(
    bencher: Bencher,
    crowd: Crowd,
    size: u32,
    mut make: impl FnMut(&mut Crowd, u32, usize) -> Packet,
    expected: fn(&Verdict) -> bool,
) {
    let crowd = RefCell::new(crowd);
    let mut dice = 42;
    let batch = || -> Batch {
        let mut crowd = crowd.borrow_mut();
        let draw = |place| {
            let n = split_mix(&mut dice) % u64::from(size);
            make(&mut crowd, n as u32, place)
        };
        (0..MAX_BATCH).map(draw).collect()
    };
    let mut verdicts = Verdicts::new();
    bencher.with_inputs(batch).counter(ItemsCount::new(MAX_BATCH)).bench_local_refs(|batch| {
        crowd.borrow_mut().handle(batch, &mut verdicts);
        black_box(&verdicts);
    });
    assert!(verdicts.iter().all(expected), "this is not the path to be measured: {verdicts:?}");
}

type Packet = <Batch as IntoIterator>::Item;
