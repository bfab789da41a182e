//! What holds for every scheduler, and the vectors of single ones.

use std::sync::Arc;

use super::{Change, Flow, Random, Scheduler, Settings, make};
use crate::engine::service::{Activity, RealServer, RealSpec, SchedulerFlags};
use crate::engine::time::Moment;
use crate::packet::{Addr, Endpoint};

#[test]
fn wrr_follows_the_vectors() {
    for (weights, expected) in [
        (&[3, 2, 1][..], "CBAABACBAABA"),
        (&[4, 2][..], "BAABAA"),
        (&[100, 100, 50][..], "CBABACBABA"),
        (&[4, 3, 2][..], "CBAABACBACBAABACBA"),
    ] {
        let mut service = Service::new("wrr", weights);
        let picked = service.picks(expected.len());
        assert_eq!(picked, expected, "weights {weights:?}");
    }
}

#[test]
fn wrr_of_extreme_weights_does_not_take_forever() {
    let mut service = Service::new("wrr", &[1, i32::MAX]);
    service.reals[0].configure(&RealSpec { upper_threshold: 1, ..service.reals[0].spec() });
    service.reals[0].bind_connection(Activity::Active);
    assert_eq!(service.picks(3), "AAA");
}

#[test]
fn wlc_prefers_the_first_of_equals_and_weighs_inactive_connections() {
    let mut service = Service::new("wlc", &[1, 2, 3]);
    assert_eq!(service.opens(12), "CBACBCCBACBC");
}

/// A scheduler with its servers; they are named by letters in the order they were added.
struct Service {
    scheduler: Box<dyn Scheduler>,
    reals: Vec<Arc<RealServer>>,
    random: XorShift,
}

impl Service {
    fn new(scheduler: &str, weights: &[i32]) -> Self {
        Self::with_flags(scheduler, weights, SchedulerFlags::default())
    }

    fn with_flags(scheduler: &str, weights: &[i32], flags: SchedulerFlags) -> Self {
        let settings = Settings { flags, ..Settings::default() };
        let scheduler = make(scheduler, &settings, &[], Moment::default()).unwrap();
        let mut service = Self { scheduler, reals: Vec::new(), random: XorShift(1) };
        for (index, weight) in weights.iter().enumerate() {
            let addr = Addr::v4(0x0a00_0001 + index as u32);
            let real = RealServer::new(&RealSpec { weight: *weight, ..RealSpec::new(addr, 80) }, 1);
            service.reals.insert(0, Arc::new(real));
            service.scheduler.update(&service.reals, Change::Added).unwrap();
        }
        service
    }

    fn pick(&mut self, flow: &Flow) -> Option<usize> {
        self.scheduler.pick(&self.reals, flow, Moment::default(), &mut self.random)
    }

    /// Letters of the servers picked, none of which gets a connection.
    fn picks(&mut self, count: usize) -> String {
        (0..count).map(|_| self.pick(&flow()).map_or('-', |index| self.letter(index))).collect()
    }

    /// Letters of the servers picked for connections that stay open.
    fn opens(&mut self, count: usize) -> String {
        let mut open = || {
            let index = self.pick(&flow()).unwrap();
            self.reals[index].bind_connection(Activity::Active);
            self.letter(index)
        };
        (0..count).map(|_| open()).collect()
    }

    fn letter(&self, index: usize) -> char {
        let added = self.reals[index].addr().v4_bits() - 0x0a00_0001;
        (b'A' + added as u8) as char
    }
}

fn flow() -> Flow {
    Flow {
        client: Endpoint::new(Addr::v4(0xc000_0201), 40000),
        destination: Endpoint::new(Addr::v4(0xc633_6401), 80),
    }
}

#[derive(Debug)]
struct XorShift(u64);

impl Random for XorShift {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
