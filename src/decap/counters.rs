//! What was unpacked and what was not.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Kind, Refusal};

/// The numbers of all workers.
#[derive(Debug, Default)]
pub struct Counters {
    packets: [AtomicU64; Kind::ALL.len()],
    bytes: [AtomicU64; Kind::ALL.len()],
    refused: [AtomicU64; Refusal::ALL.len()],
    /// Packets that the kernel did not take.
    undelivered: AtomicU64,
    /// Packets lost because a socket's buffer was full, or that came damaged.
    lost: AtomicU64,
}

impl Counters {
    pub(super) fn count(&self, kind: Kind, bytes: usize) {
        self.packets[kind as usize].fetch_add(1, Relaxed);
        self.bytes[kind as usize].fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn refuse(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn count_undelivered(&self, count: u64) {
        self.undelivered.fetch_add(count, Relaxed);
    }

    pub(super) fn count_lost(&self, count: u64) {
        self.lost.fetch_add(count, Relaxed);
    }

    /// The numbers as they are now.
    pub fn summary(&self) -> Summary {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        let numbers = Kind::ALL.iter().zip(&self.packets).zip(&self.bytes);
        let refused = Refusal::ALL.iter().zip(&self.refused);
        Summary {
            unpacked: numbers.map(|((kind, p), b)| (*kind, read(p), read(b))).collect(),
            refused: refused.map(|(refusal, count)| (*refusal, read(count))).collect(),
            undelivered: read(&self.undelivered),
            lost: read(&self.lost),
        }
    }
}

/// What was unpacked and what was not, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Packets and their bytes by kind of tunnel.
    pub unpacked: Vec<(Kind, u64, u64)>,
    /// Packets from which nothing came, by reason.
    pub refused: Vec<(Refusal, u64)>,
    /// Packets that the kernel did not take.
    pub undelivered: u64,
    /// Packets lost because a socket's buffer was full, or that came damaged.
    pub lost: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: u64 = self.unpacked.iter().map(|(_, packets, _)| packets).sum();
        write!(f, "{total} packets unpacked")?;
        let kinds = self.unpacked.iter().filter(|(_, packets, _)| *packets != 0);
        let kinds: Vec<_> = kinds
            .map(|(kind, packets, bytes)| format!("{} {packets}, {bytes} bytes", kind.name()))
            .collect();
        if !kinds.is_empty() {
            write!(f, " ({})", kinds.join("; "))?;
        }
        for (refusal, count) in self.refused.iter().filter(|(_, count)| *count != 0) {
            write!(f, "; {count} dropped {}", refusal.name())?;
        }
        if self.undelivered != 0 {
            write!(f, "; {} that the kernel did not take", self.undelivered)?;
        }
        if self.lost != 0 {
            write!(f, "; {} lost because a socket's buffer was full", self.lost)?;
        }
        Ok(())
    }
}
