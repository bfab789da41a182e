//! A counter of the director, as the family `ULVS` carries it.

use nix::errno::Errno;

use super::attr::{Attributes, Writer};

/// What the director counts beyond the services' own statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterView {
    /// The worker that counts it; none if all share it.
    pub worker: Option<u32>,
    /// What it belongs to, as in `dropped` or `interface eth0`.
    pub group: String,
    /// Its name within the group, as in `bad-checksum`.
    pub name: String,
    /// How far it has come.
    pub value: u64,
}

impl CounterView {
    /// Reads the attributes of a counter.
    pub fn parse(from: &Attributes) -> Result<Self, Errno> {
        Ok(Self {
            worker: from.u32(WORKER)?,
            group: from.string(GROUP, MAX_TEXT)?.ok_or(Errno::EPROTO)?,
            name: from.string(NAME, MAX_TEXT)?.ok_or(Errno::EPROTO)?,
            value: from.u64(VALUE)?.ok_or(Errno::EPROTO)?,
        })
    }

    /// Appends the attributes of the counter, whose texts are of at most 64 bytes.
    pub fn emit(&self, to: &mut Writer) {
        if let Some(worker) = self.worker {
            to.u32(WORKER, worker);
        }
        to.string(GROUP, &self.group);
        to.string(NAME, &self.name);
        to.u64(VALUE, self.value, PAD);
    }
}

const WORKER: u16 = 14;
const GROUP: u16 = 15;
const NAME: u16 = 16;
const VALUE: u16 = 17;
const PAD: u16 = 18;
/// An interface's name has 15 bytes at most, and the rest is words of ours.
const MAX_TEXT: usize = 64;
