//! The same connections through every scheduler: what the picture is drawn from.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::engine::Moment;
use crate::engine::conn::split_mix;
use crate::engine::scheduler::{self, Change, Flow, Options, Random, Scheduler};
use crate::engine::service::{Activity, RealServer, RealSpec};
use crate::packet::{Addr, Endpoint};

/// Weights of the servers, in the order of the service's list.
pub const WEIGHTS: [i32; 4] = [40, 30, 20, 10];
/// The server that is quiesced for a while.
pub const QUIESCED: usize = 1;
/// When that server has weight 0, as parts of the whole time.
pub const QUIET: (f64, f64) = (0.45, 0.7);
/// How often the open connections are counted.
pub const SAMPLES: usize = 90;

const CONNECTIONS: usize = 3600;
const DURATION_MS: u64 = 240_000;
const CLIENTS: u64 = 200;
const DESTINATIONS: u64 = 24;
/// How long a closed connection counts as inactive.
const CLOSING_MS: u64 = 20_000;
/// The same picture every time.
const SEED: u64 = 0x5eed_0f1b;

/// What a scheduler made of the connections.
pub struct Course {
    /// Its name.
    pub name: &'static str,
    /// How it chooses.
    pub rule: &'static str,
    /// The server of every connection, in their order; `None` if it was refused.
    pub choices: Vec<Option<usize>>,
    /// Open connections per server at each sample.
    pub open: Vec<[u32; WEIGHTS.len()]>,
}

/// Those that are alike beside one another; others follow.
const ORDER: &str = "rr wrr lc wlc sed nq fo ovf twos sh dh mh lblc lblcr";

/// A connection to be made.
struct Arrival {
    at_ms: u64,
    lasts_ms: u64,
    flow: Flow,
}

/// Plays the connections through every scheduler that chooses at all.
pub fn courses() -> Vec<Course> {
    let arrivals = arrivals();
    let mut names: Vec<_> = scheduler::REGISTRY.iter().map(|(name, _)| *name).collect();
    let place = |name: &str| ORDER.split(' ').position(|each| each == name);
    names.sort_by_key(|name| place(name).unwrap_or(usize::MAX));
    let courses = names.into_iter().map(|name| course(name, &arrivals));
    courses.filter(|course| course.choices.iter().any(Option::is_some)).collect()
}

/// Clients come at random, some more often than others; most stay for a moment, some for long.
fn arrivals() -> Vec<Arrival> {
    let mut chance = Chance(SEED);
    let mut times: Vec<u64> = (0..CONNECTIONS).map(|_| chance.below(DURATION_MS)).collect();
    times.sort_unstable();
    let arrival = |at_ms| {
        // The product of two even chances prefers small numbers.
        let client = chance.below(CLIENTS) * chance.below(CLIENTS) / CLIENTS;
        let destination = chance.below(DESTINATIONS) * chance.below(DESTINATIONS) / DESTINATIONS;
        let mean_ms = if chance.below(5) == 0 { 18_000.0 } else { 1_500.0 };
        let port = 1024 + chance.below(60_000) as u16;
        let flow = Flow {
            client: Endpoint::new(Addr::v4(0x0a00_0102 + client as u32), port),
            destination: Endpoint::new(Addr::v4(0x0c00_0065 + destination as u32), 80),
        };
        Arrival { at_ms, lasts_ms: (chance.exponential() * mean_ms) as u64, flow }
    };
    times.into_iter().map(arrival).collect()
}

fn course(name: &'static str, arrivals: &[Arrival]) -> Course {
    let mut run = Run::new(name);
    let rule = run.scheduler.explain(&run.reals, &arrivals[0].flow, Moment::default()).rule;
    let mut course = Course { name, rule, choices: Vec::new(), open: Vec::new() };
    let sample_ms = DURATION_MS / SAMPLES as u64;
    for arrival in arrivals {
        while course.open.len() < SAMPLES && course.open.len() as u64 * sample_ms <= arrival.at_ms {
            run.advance(course.open.len() as u64 * sample_ms);
            course.open.push(run.open());
        }
        run.advance(arrival.at_ms);
        course.choices.push(run.connect(arrival));
    }
    course
}

/// A service at work.
struct Run {
    reals: Vec<Arc<RealServer>>,
    scheduler: Box<dyn Scheduler>,
    chance: Chance,
    /// When a connection closes, or having closed is forgotten, and whose it is.
    ends: BinaryHeap<Reverse<(u64, bool, usize)>>,
    weight: i32,
}

impl Run {
    fn new(name: &str) -> Self {
        let real = |(number, weight): (usize, &i32)| {
            let addr = Addr::v4(0xc0a8_c865 + number as u32);
            Arc::new(RealServer::new(&RealSpec { weight: *weight, ..RealSpec::new(addr, 80) }, 1))
        };
        let reals: Vec<_> = WEIGHTS.iter().enumerate().map(real).collect();
        let scheduler = scheduler::make(name, &Options::default(), &reals, Moment::default())
            .expect("every registered scheduler takes four servers");
        let (chance, weight) = (Chance(SEED), WEIGHTS[QUIESCED]);
        Self { reals, scheduler, chance, ends: BinaryHeap::new(), weight }
    }

    /// Lets time pass.
    fn advance(&mut self, now_ms: u64) {
        while let Some(Reverse((at_ms, is_closed, server))) = self.ends.peek().copied() {
            if at_ms > now_ms {
                break;
            }
            self.ends.pop();
            if is_closed {
                self.reals[server].unbind_connection(Activity::Inactive);
            } else {
                self.reals[server].move_connection(Activity::Inactive);
                self.ends.push(Reverse((at_ms + CLOSING_MS, true, server)));
            }
        }
        let part = now_ms as f64 / DURATION_MS as f64;
        let quiet = (QUIET.0..QUIET.1).contains(&part);
        self.set_weight(if quiet { 0 } else { WEIGHTS[QUIESCED] });
    }

    fn set_weight(&mut self, weight: i32) {
        if weight == self.weight {
            return;
        }
        self.weight = weight;
        let spec = RealSpec { weight, ..self.reals[QUIESCED].spec() };
        self.reals[QUIESCED].configure(&spec);
        let updated = self.scheduler.update(&self.reals, Change::Edited(QUIESCED));
        updated.expect("no scheduler refuses a weight");
    }

    fn connect(&mut self, arrival: &Arrival) -> Option<usize> {
        let now = Moment::from_ms(arrival.at_ms);
        let chosen = self.scheduler.pick(&self.reals, &arrival.flow, now, &mut self.chance)?;
        self.reals[chosen].bind_connection(Activity::Active);
        self.ends.push(Reverse((arrival.at_ms + arrival.lasts_ms, false, chosen)));
        Some(chosen)
    }

    fn open(&self) -> [u32; WEIGHTS.len()] {
        std::array::from_fn(|server| self.reals[server].active())
    }
}

/// Repeatable chance.
struct Chance(u64);

impl Chance {
    /// Exponentially distributed, 1 on average.
    fn exponential(&mut self) -> f64 {
        let even = (self.below(1 << 32) as f64 + 1.0) / (1_u64 << 32) as f64;
        -even.ln()
    }
}

impl Random for Chance {
    fn below(&mut self, bound: u64) -> u64 {
        split_mix(&mut self.0) % bound
    }
}
