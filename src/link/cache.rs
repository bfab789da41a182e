//! What a worker remembers of the link layer, so that most packets need nothing else.

use super::frame::Hop;
use super::neighbour::Place;
use crate::engine::Moment;
use crate::packet::Addr;

/// Finished link headers by destination.
///
/// **Shape** — direct-mapped; a collision costs a visit to the link layer, nothing else. An entry
/// is believed for `FRESH_MS`, and only in the epoch that it was made in.
#[derive(Debug)]
pub struct HopCache {
    slots: Box<[Slot]>,
    epoch: u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    addr: Addr,
    until: Moment,
    hop: Hop,
}

impl HopCache {
    /// An empty cache for `slots` destinations, rounded up to a power of two.
    pub fn new(slots: usize) -> Self {
        let empty = Slot { addr: Addr::UNSPECIFIED, until: Moment::default(), hop: Hop::EMPTY };
        Self { slots: vec![empty; slots.next_power_of_two()].into(), epoch: 0 }
    }

    /// Forgets everything if the link layer's epoch moved.
    pub fn set_epoch(&mut self, epoch: u64) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.slots.iter_mut().for_each(|slot| slot.until = Moment::default());
        }
    }

    /// The header for packets to an address.
    pub fn lookup(&self, to: Addr, now: Moment) -> Option<&Hop> {
        let slot = &self.slots[index(to, self.slots.len())];
        (slot.addr == to && now < slot.until).then_some(&slot.hop)
    }

    /// Remembers a header.
    pub fn insert(&mut self, to: Addr, hop: Hop, now: Moment) {
        let until = Moment::from_ms(now.as_ms() + FRESH_MS);
        let slot = index(to, self.slots.len());
        self.slots[slot] = Slot { addr: to, until, hop };
    }
}

/// Where packets of an address came from, on ports whose addresses the kernel does not know.
///
/// There, an answer goes back to whoever sent the question on. **Shape** — direct-mapped, the last
/// one to come stays.
#[derive(Debug)]
pub struct Learned {
    slots: Box<[(Addr, Option<Place>)]>,
}

impl Learned {
    /// An empty table of `slots` places, rounded up to a power of two.
    pub fn new(slots: usize) -> Self {
        Self { slots: vec![(Addr::UNSPECIFIED, None); slots.next_power_of_two()].into() }
    }

    /// A packet from `addr` came from `place`.
    pub fn insert(&mut self, addr: Addr, place: Place) {
        let slot = index(addr, self.slots.len());
        self.slots[slot] = (addr, Some(place));
    }

    /// Where packets from `addr` came from last.
    pub fn lookup(&self, addr: Addr) -> Option<Place> {
        let (known, place) = self.slots[index(addr, self.slots.len())];
        if known == addr { place } else { None }
    }

    /// Forgets everything, as when interfaces changed.
    pub fn clear(&mut self) {
        self.slots.fill((Addr::UNSPECIFIED, None));
    }
}

/// Spreads addresses over `slots`, a power of two.
fn index(addr: Addr, slots: usize) -> usize {
    let bits = addr.bits();
    let folded = (bits as u64) ^ ((bits >> 64) as u64).rotate_left(29);
    // The golden ratio's bits: the upper half of the product depends on every input bit.
    let mixed = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize & (slots - 1)
}

/// How long a header is used without asking the link layer, which thus knows within a second or so
/// which neighbours are in use.
pub const FRESH_MS: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::super::frame::{PortId, Segment};
    use super::*;
    use pnet_base::MacAddr;

    fn hop(last: u8) -> Hop {
        let mac = MacAddr(2, 0, 0, 0, 0, last);
        Hop::new(Segment::default(), mac, mac, Addr::v4(1))
    }

    #[test]
    fn a_header_is_believed_for_its_time_and_epoch() {
        let mut cache = HopCache::new(100);
        let (to, now) = (Addr::v4(0xc000_0201), Moment::from_ms(5));
        assert_eq!(cache.lookup(to, now), None);
        cache.insert(to, hop(1), now);
        assert_eq!(cache.lookup(to, Moment::from_ms(1004)), Some(&hop(1)));
        assert_eq!(cache.lookup(Addr::v4(0xc000_0202), now), None);
        assert_eq!(cache.lookup(to, Moment::from_ms(1005)), None);
        cache.insert(to, hop(2), now);
        cache.set_epoch(1);
        assert_eq!(cache.lookup(to, now), None);
    }

    #[test]
    fn neighbouring_addresses_do_not_collide_much() {
        let slots: hashbrown::HashSet<usize> =
            (0..1024).map(|n| index(Addr::v4(0x0a00_0000 + n), 4096)).collect();
        assert!(slots.len() > 850, "{}", slots.len());
    }

    #[test]
    fn the_last_place_of_an_address_stays() {
        let mut learned = Learned::new(64);
        let place = |port| Place {
            segment: Segment { port: PortId(port), ..Segment::default() },
            mac: MacAddr::zero(),
        };
        let addr = Addr::v4(0xc000_0201);
        learned.insert(addr, place(1));
        learned.insert(addr, place(2));
        assert_eq!(learned.lookup(addr), Some(place(2)));
        assert_eq!(learned.lookup(Addr::v4(0xc000_0202)), None);
        learned.clear();
        assert_eq!(learned.lookup(addr), None);
    }
}
