//! Where the records of connections lie.

use super::connection::Connection;
use super::wheel::{Links, Records};

/// Records in pieces of memory that are never moved.
#[derive(Debug, Default)]
pub(super) struct Slab {
    segments: Vec<Box<[Connection]>>,
    /// Records that were used and are free again.
    pub free: Vec<u32>,
    /// Records that were ever used.
    pub used: u32,
}

/// Records per piece of memory.
const SEGMENT: usize = 8192;

impl Slab {
    /// All records there is memory for.
    pub fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.segments.iter().flatten()
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        let records = self.segments.len() * SEGMENT * size_of::<Connection>();
        records + self.free.capacity() * size_of::<u32>()
    }

    #[inline]
    pub fn get(&self, id: u32) -> &Connection {
        &self.segments[id as usize / SEGMENT][id as usize % SEGMENT]
    }

    #[inline]
    pub fn get_mut(&mut self, id: u32) -> &mut Connection {
        &mut self.segments[id as usize / SEGMENT][id as usize % SEGMENT]
    }

    /// A record that is free, a new one if there is none.
    pub fn take(&mut self) -> u32 {
        if let Some(id) = self.free.pop() {
            return id;
        }
        let id = self.used;
        if id as usize == self.segments.len() * SEGMENT {
            let mut segment = Vec::with_capacity(SEGMENT);
            segment.resize_with(SEGMENT, || Connection::FREE);
            self.segments.push(segment.into_boxed_slice());
        }
        self.used += 1;
        id
    }
}

impl Records for Slab {
    fn links(&mut self, id: u32) -> &mut Links {
        &mut self.get_mut(id).links
    }
}
