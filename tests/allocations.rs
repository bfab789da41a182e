//! Established packets allocate nothing, whichever way they go; fragments no more than they may.

use allocation_counter::measure;
use ulvs::engine::fragments::Reassembly;
use ulvs::engine::service::ForwardingMethod;
use ulvs::engine::sync::{MasterConfig, SyncRoles};
use ulvs::engine::{MAX_BATCH, Moment, Verdict};
use ulvs::packet::Headers;

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

/// The third packet of each connection is told to other directors, and the fourth is not.
#[test]
fn an_established_packet_that_is_not_told_to_others_allocates_nothing() {
    let mut crowd = Crowd::new(SIZE);
    let since = crowd.now;
    let master = Some(MasterConfig { id: 1, max_len: 1472, ports: 1, since, start: 1 });
    crowd.services.set_sync(SyncRoles { master, is_backup: false });
    let mut requests = batches(|n| request(n, ACK));
    assert!(allocations(&mut crowd, &mut requests) > 0, "messages take memory");
    assert_eq!(crowd.director.sync_counters().told, u64::from(SIZE));
    let mut requests = batches(|n| request(n, ACK));
    assert_eq!(allocations(&mut crowd, &mut requests), 0);
    assert_eq!(crowd.director.sync_counters().told, u64::from(SIZE));
}

/// A counter that counts nothing would pass the other test as well.
#[test]
fn what_makes_the_table_grow_is_seen_to_allocate() {
    let mut crowd = Crowd::new(1);
    let mut openings = batches(|n| request(n + 1, SYN));
    assert!(allocations(&mut crowd, &mut openings) > 0);
}

/// The memory for fragments, and how much of it is taken when all of these have come.
fn taken(fragments: impl Iterator<Item = [u32; 4]>) -> f64 {
    const LIMIT: usize = 4 << 20;
    let mut all = Reassembly::new(LIMIT);
    let counted = measure(|| {
        for [from, id, offset, len] in fragments {
            let bytes = fragment(from, id as u16, offset as u16, len as usize);
            let headers = Headers::parse(&bytes).unwrap();
            all.add(&bytes, &headers, true, Moment::default());
        }
    });
    assert!(all.counters().pushed_out > 0, "they do not fit");
    counted.bytes_max as f64 / LIMIT as f64
}

/// An IPv4 fragment that more follow; its offset counts units of eight bytes.
fn fragment(from: u32, id: u16, offset: u16, len: usize) -> Vec<u8> {
    let ip = etherparse::PacketBuilder::ipv4(from.to_be_bytes(), [192, 0, 2, 1], 64);
    let mut bytes = Vec::new();
    ip.write(&mut bytes, etherparse::IpNumber(99), &vec![0; len]).unwrap();
    let mut header = etherparse::Ipv4Header::from_slice(&bytes).unwrap().0;
    header.identification = id;
    header.dont_fragment = false;
    header.more_fragments = true;
    header.fragment_offset = offset.try_into().unwrap();
    header.header_checksum = header.calc_header_checksum();
    bytes[..20].copy_from_slice(&header.to_bytes());
    bytes
}

#[test]
fn incomplete_datagrams_take_no_more_memory_than_they_may() {
    type Flood = (&'static str, Box<dyn Iterator<Item = [u32; 4]>>);
    let floods: [Flood; 6] = [
        ("as small as can be, of everybody", Box::new((0..40_000).map(|n| [n, 1, 0, 8]))),
        ("as small as can be, of one", Box::new((0..40_000).map(|n| [1, n, 1, 8]))),
        ("with holes", Box::new((0..80_000).map(|n| [n / 4000, 1, n % 4000 * 2, 8]))),
        (
            "with holes, backwards",
            Box::new((0..80_000).map(|n| [n / 4000, 1, 8000 - n % 4000 * 2, 8])),
        ),
        ("in order, without an end", Box::new((0..80_000).map(|n| [n / 400, 1, n % 400 * 10, 80]))),
        ("long", Box::new((0..20_000).map(|n| [n / 4, n % 4, 185 * (n % 3), 1480]))),
    ];
    for (name, flood) in floods {
        let taken = taken(flood);
        println!("{name}: {:.0} % of the limit", taken * 100.0);
        assert!((0.5..1.1).contains(&taken), "{name}: {taken}");
    }
}
