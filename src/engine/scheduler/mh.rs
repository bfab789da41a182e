//! `mh`: a maglev table over the client's address.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::load::is_eligible;
use super::wrr::greatest_common_divisor;
use super::{Change, Explanation, Flow, Made, Options, Random, Reals, Scheduler, hash};
use crate::engine::service::{ConfigError, RealServer, SchedulerFlags};
use crate::engine::time::Moment;
use crate::packet::Endpoint;

/// Maglev hashing: a table in which servers take free places in turn, each in an order of its own
/// that only its address and port determine, so that a server that comes or goes moves few
/// clients of others.
///
/// A server that is overloaded or has weight 0 keeps its places, and refuses; with `mh-fallback`
/// its clients are hashed again. With `mh-port` the client's port takes part.
///
/// **Source** — IPVS `ip_vs_mh` on 64-bit machines; Eisenbud et al., "Maglev: A Fast and Reliable
/// Software Network Load Balancer", NSDI 2016, §3.4.
#[derive(Debug)]
struct MaglevHash {
    /// Indexes of servers; empty if no server has ever had a weight.
    table: Box<[u16]>,
    flags: SchedulerFlags,
}

/// Places in the table, a prime.
///
/// **Source** — IPVS `CONFIG_IP_VS_MH_TAB_INDEX` 12, the default.
const SIZE: usize = 4093;

/// Bits of turns that weights are scaled down to.
///
/// **Source** — IPVS: half of the table index.
const TURN_BITS: u32 = 6;

/// Keys of the hash that places clients and of the one that gives a server its stride.
const PLACE_KEY: u64 = 2_654_435_761;
const STRIDE_KEY: u64 = 2_654_446_892;

pub(super) fn make(options: &Options, reals: &Reals, _: Moment) -> Made {
    Ok(Box::new(MaglevHash { table: populate(reals)?, flags: options.flags }))
}

impl Scheduler for MaglevHash {
    fn pick(&mut self, reals: &Reals, flow: &Flow, _: Moment, _: &mut dyn Random) -> Option<usize> {
        let place = self.place(flow, 0);
        match self.usable(reals, place) {
            None if self.flags.fallback => (0..SIZE)
                .map(|offset| self.place(flow, (offset + place) % SIZE))
                .find_map(|place| self.usable(reals, place)),
            found => found,
        }
    }

    fn explain(&self, reals: &Reals, flow: &Flow, _: Moment) -> Explanation {
        let place = self.place(flow, 0);
        let rule = "the client's address decides, by a table that changes little with the servers";
        let client = if self.flags.port { flow.client } else { Endpoint::new(flow.client.addr, 0) };
        let mut note = match client.port {
            0 => format!("{} falls on place {place} of {SIZE}", client.addr),
            _ => format!("{client} falls on place {place} of {SIZE}"),
        };
        if self.flags.fallback && self.usable(reals, place).is_none() {
            note += ", whose server cannot; it is hashed again";
        }
        Explanation::new(rule, note, reals, |index, _| {
            let owned = self.table.iter().filter(|&&owner| usize::from(owner) == index).count();
            let this = if self.owner(place) == Some(index) { ", this one too" } else { "" };
            format!("{owned} places{this}")
        })
    }

    fn update(&mut self, reals: &Reals, _: Change) -> Result<(), ConfigError> {
        self.table = populate(reals)?;
        Ok(())
    }

    fn configure(&mut self, options: &Options) {
        self.flags = options.flags;
    }
}

impl MaglevHash {
    fn place(&self, flow: &Flow, offset: usize) -> usize {
        let port = if self.flags.port { flow.client.port } else { 0 };
        let client = Endpoint::new(flow.client.addr, port);
        hash_endpoint(PLACE_KEY, client, offset as u32) as usize % SIZE
    }

    fn owner(&self, place: usize) -> Option<usize> {
        self.table.get(place).copied().map(usize::from)
    }

    fn usable(&self, reals: &Reals, place: usize) -> Option<usize> {
        self.owner(place).filter(|&index| is_eligible(&reals[index]))
    }
}

/// Lets the servers take places in turn until none is free.
fn populate(reals: &Reals) -> Result<Box<[u16]>, ConfigError> {
    if reals.len() > SIZE {
        return Err(ConfigError::Invalid);
    }
    let mut walks: Vec<Walk> = walks(reals);
    if walks.is_empty() {
        return Ok(Box::default());
    }
    let mut table = vec![FREE; SIZE].into_boxed_slice();
    let mut free = SIZE;
    while free > 0 {
        for walk in &mut walks {
            for _ in 0..walk.turns.min(free) {
                table[walk.next_free(&table)] = walk.index;
                free -= 1;
            }
        }
    }
    Ok(table)
}

/// Marks a place nobody has; no server has this index, as there are at most 4093.
const FREE: u16 = u16::MAX;

/// A server's way through the table, which visits every place once.
struct Walk {
    index: u16,
    turns: usize,
    place: usize,
    stride: usize,
}

impl Walk {
    /// The next place on the way that is free. There has to be one.
    fn next_free(&mut self, table: &[u16]) -> usize {
        while table[self.place] != FREE {
            self.place = (self.place + self.stride) % SIZE;
        }
        self.place
    }
}

/// The ways of all servers that ever had a weight.
fn walks(reals: &Reals) -> Vec<Walk> {
    let weights = || reals.iter().map(|real| real.last_weight()).filter(|&weight| weight > 0);
    let divisor = weights().fold(0, |a, b| greatest_common_divisor(a, i64::from(b))).max(1);
    let greatest = i64::from(weights().max().unwrap_or(0)) / divisor;
    let shift = (64 - greatest.leading_zeros()).saturating_sub(TURN_BITS);
    let with_weight = reals.iter().enumerate().filter(|(_, real)| real.last_weight() > 0);
    with_weight.map(|(index, real)| walk(index, real, divisor, shift)).collect()
}

fn walk(index: usize, real: &RealServer, divisor: i64, shift: u32) -> Walk {
    let turns = (i64::from(real.last_weight()) / divisor) >> shift;
    Walk {
        index: index as u16,
        turns: turns.max(1) as usize,
        place: hash_endpoint(PLACE_KEY, real.endpoint(), 0) as usize % SIZE,
        stride: hash_endpoint(STRIDE_KEY, real.endpoint(), 0) as usize % (SIZE - 1) + 1,
    }
}

/// The low half of SipHash-1-3 over the sum of an endpoint and an offset.
///
/// **Source** — the kernel's `hsiphash_1u32` on 64-bit machines.
fn hash_endpoint(key: u64, endpoint: Endpoint, offset: u32) -> u32 {
    let sum = hash::fold(endpoint.addr).wrapping_add(u32::from(endpoint.port)).wrapping_add(offset);
    let mut hasher = SipHasher13::new_with_keys(key, key);
    hasher.write(&sum.to_le_bytes());
    hasher.finish() as u32
}
