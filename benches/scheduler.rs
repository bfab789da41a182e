//! What it costs to choose a real server, scheduler by scheduler, with 2, 20 and 1000 servers.
//!
//! Weights, loads and flows are drawn with a fixed seed: weights of 1 to 8, up to 99 active and 999
//! inactive connections per server, clients and ports all different, 64 destinations.

use std::fmt;
use std::sync::Arc;

use divan::Bencher;
use ulvs::engine::Moment;
use ulvs::engine::scheduler::{self, Flow, Options, REGISTRY, Random, Scheduler};
use ulvs::engine::service::{Activity, RealServer, RealSpec};
use ulvs::packet::{Addr, Endpoint};

fn main() {
    divan::main();
}

/// One pick, the flows changing from pick to pick.
#[divan::bench(args = cases(|_| true))]
fn pick(bencher: Bencher, case: &Case) {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let reals = servers(case.servers, &mut dice);
    let mut scheduler = prepare(case, &reals);
    let flows: Vec<_> = (0..FLOWS).map(|_| flow(&mut dice)).collect();
    let mut flows = flows.iter().cycle();
    bencher.bench_local(|| {
        let flow = flows.next()?;
        scheduler.pick(&reals, divan::black_box(flow), Moment::default(), &mut dice)
    });
}

/// A change of weight, for the schedulers that then rebuild something.
#[divan::bench(args = cases(|name| ["mh", "sh", "wrr"].contains(&name)))]
fn edit(bencher: Bencher, case: &Case) {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let reals = servers(case.servers, &mut dice);
    let mut scheduler = prepare(case, &reals);
    bencher.bench_local(|| scheduler.update(&reals, scheduler::Change::Edited(0)));
}

/// Different flows.
const FLOWS: usize = 256;

struct Case {
    scheduler: &'static str,
    servers: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.scheduler, self.servers)
    }
}

fn cases(takes_part: fn(&str) -> bool) -> impl Iterator<Item = Case> {
    let names = REGISTRY.iter().map(|(name, _)| *name).filter(move |name| takes_part(name));
    names.flat_map(|scheduler| [2, 20, 1000].map(|servers| Case { scheduler, servers }))
}

fn prepare(case: &Case, reals: &[Arc<RealServer>]) -> Box<dyn Scheduler> {
    scheduler::make(case.scheduler, &Options::default(), reals, Moment::default())
        .expect("every registered scheduler takes a thousand servers")
}

fn servers(count: usize, dice: &mut Dice) -> Vec<Arc<RealServer>> {
    (0..count as u32).map(|n| Arc::new(server(Addr::v4(0x0a00_0001 + n), dice))).collect()
}

fn server(addr: Addr, dice: &mut Dice) -> RealServer {
    let weight = 1 + dice.below(8) as i32;
    let real = RealServer::new(&RealSpec { weight, ..RealSpec::new(addr, 80) }, 1);
    (0..dice.below(100)).for_each(|_| real.bind_connection(Activity::Active));
    (0..dice.below(1000)).for_each(|_| real.bind_connection(Activity::Inactive));
    real
}

fn flow(dice: &mut Dice) -> Flow {
    Flow {
        client: Endpoint::new(Addr::v4(dice.below(1 << 32) as u32), dice.below(1 << 16) as u16),
        destination: Endpoint::new(Addr::v4(0xc633_6400 + dice.below(64) as u32), 80),
    }
}

struct Dice(u64);

impl Random for Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
