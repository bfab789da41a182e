//! What schedulers do: vectors, what holds for all of them, and the kernel's own picks.

mod properties;
mod transcripts;
mod vectors;

use std::sync::Arc;

use super::{Change, Explanation, Flow, Options, Random, Scheduler, make};
use crate::engine::service::{Activity, ConfigError, RealServer, RealSpec, SchedulerFlags};
use crate::engine::time::Moment;
use crate::packet::{Addr, Endpoint};

/// A scheduler with its servers; they are named by letters in the order they were added.
struct Service {
    scheduler: Box<dyn Scheduler>,
    reals: Vec<Arc<RealServer>>,
    random: Dice,
    added: u32,
}

impl Service {
    fn new(scheduler: &str, weights: &[i32]) -> Self {
        Self::with_flags(scheduler, weights, SchedulerFlags::default())
    }

    fn with_flags(scheduler: &str, weights: &[i32], flags: SchedulerFlags) -> Self {
        let options = Options { flags, ..Options::default() };
        let scheduler = make(scheduler, &options, &[], Moment::default()).unwrap();
        let mut service = Self { scheduler, reals: Vec::new(), random: Dice::default(), added: 0 };
        weights.iter().for_each(|weight| service.try_add(*weight).unwrap());
        service
    }

    fn try_add(&mut self, weight: i32) -> Result<(), ConfigError> {
        let spec = RealSpec { weight, ..RealSpec::new(Addr::v4(FIRST + self.added), 80) };
        self.reals.insert(0, Arc::new(RealServer::new(&spec, 1)));
        let outcome = self.scheduler.update(&self.reals, Change::Added);
        match outcome {
            Ok(()) => self.added += 1,
            Err(_) => {
                self.reals.remove(0);
                self.scheduler.update(&self.reals, Change::Removed(0)).unwrap();
            }
        }
        outcome
    }

    fn add(&mut self, real: Arc<RealServer>) {
        self.reals.insert(0, real);
        self.scheduler.update(&self.reals, Change::Added).unwrap();
    }

    fn remove(&mut self, letter: char) -> Arc<RealServer> {
        self.remove_at(self.index(letter))
    }

    fn remove_at(&mut self, index: usize) -> Arc<RealServer> {
        let real = self.reals.remove(index);
        self.scheduler.update(&self.reals, Change::Removed(index)).unwrap();
        real
    }

    fn edit(&mut self, letter: char, change: impl FnOnce(&mut RealSpec)) {
        self.edit_at(self.index(letter), change);
    }

    fn edit_at(&mut self, index: usize, change: impl FnOnce(&mut RealSpec)) {
        let mut spec = self.reals[index].spec();
        change(&mut spec);
        self.reals[index].configure(&spec);
        self.scheduler.update(&self.reals, Change::Edited(index)).unwrap();
    }

    /// Gives a server a threshold of one connection, and that connection.
    fn overload(&mut self, letter: char) {
        let index = self.index(letter);
        let spec = RealSpec { upper_threshold: 1, ..self.reals[index].spec() };
        self.reals[index].configure(&spec);
        self.bind(letter, Activity::Inactive);
    }

    fn bind(&mut self, letter: char, activity: Activity) {
        self.reals[self.index(letter)].bind_connection(activity);
    }

    fn pick(&mut self, flow: &Flow) -> Option<usize> {
        self.scheduler.pick(&self.reals, flow, Moment::default(), &mut self.random)
    }

    fn pick_letter(&mut self, flow: &Flow) -> char {
        self.pick(flow).map_or('-', |index| self.letter(index))
    }

    /// Letters of the servers picked, none of which gets a connection.
    fn picks(&mut self, count: usize) -> String {
        (0..count).map(|_| self.pick_letter(&flow())).collect()
    }

    /// Letters of the servers picked for connections that stay open.
    fn opens(&mut self, count: usize) -> String {
        (0..count).map(|_| self.open(Activity::Active)).collect()
    }

    fn open(&mut self, activity: Activity) -> char {
        let index = self.pick(&flow()).unwrap();
        self.reals[index].bind_connection(activity);
        self.letter(index)
    }

    fn explain(&self, flow: &Flow) -> Explanation {
        self.scheduler.explain(&self.reals, flow, Moment::default())
    }

    fn letter(&self, index: usize) -> char {
        (b'A' + (self.reals[index].addr().v4_bits() - FIRST) as u8) as char
    }

    fn index(&self, letter: char) -> usize {
        (0..self.reals.len()).find(|&index| self.letter(index) == letter).unwrap()
    }
}

/// Address of the server that is added first, 10.0.0.1.
const FIRST: u32 = 0x0a00_0001;

fn flow() -> Flow {
    client(0xc000_0201)
}

fn client(addr: u32) -> Flow {
    let destination = Endpoint::new(Addr::v4(0xc633_6401), 80);
    Flow { client: Endpoint::new(Addr::v4(addr), 40000), destination }
}

fn destination(addr: u32) -> Flow {
    Flow { destination: Endpoint::new(Addr::v4(addr), 80), ..flow() }
}

/// Random numbers: those of the script, then those of xorshift.
#[derive(Debug)]
struct Dice {
    script: Vec<u64>,
    state: u64,
}

impl Default for Dice {
    fn default() -> Self {
        Self { script: Vec::new(), state: 0x9e37_79b9_7f4a_7c15 }
    }
}

impl Random for Dice {
    fn below(&mut self, bound: u64) -> u64 {
        if !self.script.is_empty() {
            return self.script.remove(0);
        }
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % bound
    }
}
