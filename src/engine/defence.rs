//! Defences against floods: what the modes of `drop_entry`, `drop_packet` and `secure_tcp` come to.
//!
//! **Source** — IPVS `update_defense_level`. In place of the machine's free memory, the room that
//! is left in the director's own connection tables decides.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::settings::Settings;

/// Which defences act.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defence {
    /// Whether connections are dropped at random, once a second.
    pub drops_connections: bool,
    /// One new connection in this many is dropped; 0 for none, and below 0 for all.
    pub drop_rate: i32,
    /// Grows whenever counting up to `drop_rate` begins anew.
    pub round: u32,
    /// Whether the stricter table of TCP states is in force.
    pub secures_tcp: bool,
}

/// How often the modes are looked at again.
///
/// **Source** — IPVS `DEFENSE_TIMER_PERIOD`.
pub const DEFENCE_PERIOD_MS: u64 = 1000;

/// **Units** — bytes of memory in a page, as in `amemthresh`.
const PAGE: u64 = 4096;
/// Bytes that a connection takes in a full table, with its share of the index.
const CONNECTION_BYTES: u64 = 128;

impl Defence {
    /// Works out what acts with so many pages free, and moves the automatic modes.
    pub fn update(&mut self, settings: &mut Settings, free_pages: i32) {
        let is_short = free_pages < settings.amemthresh;
        self.drops_connections = mode(&mut settings.drop_entry, is_short);
        let automatic = matches!(settings.drop_packet, 1 | 2);
        self.drop_rate = match mode(&mut settings.drop_packet, is_short) {
            false => 0,
            true if automatic => {
                self.round = self.round.wrapping_add(1);
                settings.amemthresh / (settings.amemthresh - free_pages)
            }
            true => settings.am_droprate,
        };
        self.secures_tcp = mode(&mut settings.secure_tcp, is_short);
    }
}

/// Whether a defence acts in its mode, which moves from 1 to 2 when memory is short, and back.
fn mode(mode: &mut i32, is_short: bool) -> bool {
    if matches!(mode, 1 | 2) {
        *mode = if is_short { 2 } else { 1 };
    }
    *mode > 1
}

/// Pages that so many more connections would take.
pub(super) fn pages(connections: u64) -> i32 {
    let pages = connections.saturating_mul(CONNECTION_BYTES) / PAGE;
    i32::try_from(pages).unwrap_or(i32::MAX)
}

/// The defences as workers look them up, without a lock.
#[derive(Debug, Default)]
pub(super) struct SharedDefence {
    /// The drop rate in the upper half, the round in the lower one.
    dropping: AtomicU64,
    drops_connections: AtomicBool,
    secures_tcp: AtomicBool,
}

impl SharedDefence {
    pub(super) fn load(&self) -> Defence {
        let dropping = self.dropping.load(Relaxed);
        Defence {
            drops_connections: self.drops_connections.load(Relaxed),
            drop_rate: (dropping >> 32) as u32 as i32,
            round: dropping as u32,
            secures_tcp: self.secures_tcp.load(Relaxed),
        }
    }

    pub(super) fn store(&self, defence: Defence) {
        let rate = u64::from(defence.drop_rate as u32) << 32;
        self.dropping.store(rate | u64::from(defence.round), Relaxed);
        self.drops_connections.store(defence.drops_connections, Relaxed);
        self.secures_tcp.store(defence.secures_tcp, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn automatic_modes_follow_the_room_that_is_left() {
        let modes =
            Settings { drop_entry: 1, drop_packet: 2, secure_tcp: 1, ..Settings::default() };
        let (mut settings, mut defence) = (modes, Defence::default());
        defence.update(&mut settings, 1024);
        assert_eq!(defence, Defence::default());
        assert_eq!((settings.drop_entry, settings.drop_packet, settings.secure_tcp), (1, 1, 1));
        defence.update(&mut settings, 768);
        assert!(defence.drops_connections && defence.secures_tcp);
        assert_eq!((defence.drop_rate, defence.round), (4, 1), "a quarter is missing");
        assert_eq!((settings.drop_entry, settings.drop_packet, settings.secure_tcp), (2, 2, 2));
        defence.update(&mut settings, 5000);
        assert_eq!((settings.drop_entry, settings.drop_packet, settings.secure_tcp), (1, 1, 1));
        assert_eq!(defence, Defence { round: 1, ..Defence::default() });
    }

    #[test]
    fn mode_3_always_acts_and_mode_0_never() {
        let modes =
            Settings { drop_entry: 3, drop_packet: 3, secure_tcp: 3, ..Settings::default() };
        let (mut settings, mut defence) = (modes, Defence::default());
        defence.update(&mut settings, i32::MAX);
        assert!(defence.drops_connections && defence.secures_tcp && defence.drop_rate == 10);
        assert_eq!((settings, defence.round), (modes, 0));
        let mut settings = Settings { am_droprate: -3, ..Settings::default() };
        defence.update(&mut settings, 0);
        assert_eq!(defence, Defence::default());
    }

    #[test]
    fn workers_see_what_was_stored() {
        let shared = SharedDefence::default();
        assert_eq!(shared.load(), Defence::default());
        let defence =
            Defence { drops_connections: true, drop_rate: -3, round: 7, secures_tcp: true };
        shared.store(defence);
        assert_eq!(shared.load(), defence);
    }
}
