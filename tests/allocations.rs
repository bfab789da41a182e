//! Established packets allocate nothing, whichever way they go.

use allocation_counter::measure;
use ulvs::engine::service::ForwardingMethod;
use ulvs::engine::{MAX_BATCH, Verdict};

#[allow(dead_code, reason = "the benches use the rest")]
#[path = "../benches/engine/crowd.rs"]
mod crowd;

use crowd::{ACK, Batch, Crowd, SYN, Verdicts, request};

const SIZE: u32 = 10_000;

/// Judges `batches` and returns how many allocations that took.
fn allocations(crowd: &mut Crowd, batches: &mut [Batch]) -> u64 {
    let mut verdicts = Verdicts::new();
    let mut forwarded = 0;
    let counted = measure(|| {
        for batch in &mut *batches {
            crowd.handle(batch, &mut verdicts);
            forwarded += verdicts.iter().filter(|v| matches!(v, Verdict::Forward(_))).count();
        }
    });
    let packets: usize = batches.iter().map(|batch| batch.len()).sum();
    assert_eq!(forwarded, packets, "all packets take the path that is looked at");
    counted.count_total
}

/// A packet for each connection, in batches.
fn batches(mut packet: impl FnMut(u32) -> [u8; 128]) -> Vec<Batch> {
    let firsts = (0..SIZE).step_by(MAX_BATCH);
    let ends = firsts.map(|first| first..SIZE.min(first + MAX_BATCH as u32));
    ends.map(|some| some.map(&mut packet).collect()).collect()
}

#[test]
fn an_established_packet_allocates_nothing_on_either_way() {
    let mut crowd = Crowd::new(SIZE);
    let mut requests = batches(|n| request(n, ACK));
    assert_eq!(allocations(&mut crowd, &mut requests), 0, "from the client");
    let mut replies = batches(|n| crowd.reply(n));
    assert_eq!(allocations(&mut crowd, &mut replies), 0, "from the server");
}

#[test]
fn an_established_packet_allocates_nothing_on_its_way_into_a_tunnel() {
    let mut crowd = Crowd::reached_by(ForwardingMethod::Tunnel, SIZE);
    let mut requests = batches(|n| request(n, ACK));
    assert_eq!(allocations(&mut crowd, &mut requests), 0);
}

/// A counter that counts nothing would pass the other test as well.
#[test]
fn what_makes_the_table_grow_is_seen_to_allocate() {
    let mut crowd = Crowd::new(1);
    let mut openings = batches(|n| request(n + 1, SYN));
    assert!(allocations(&mut crowd, &mut openings) > 0);
}
