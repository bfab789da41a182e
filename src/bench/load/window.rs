//! The stretch of time whose events count.

use std::time::{Duration, Instant};

/// How long a load runs before its events count, and how long they count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Time for connections, caches and congestion windows to settle.
    pub warm_up: Duration,
    /// Time that is measured.
    pub measured: Duration,
}

impl Timing {
    /// How long the whole load takes.
    pub fn total(&self) -> Duration {
        self.warm_up + self.measured
    }
}

/// Where a moment lies in a [`Window`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing counts yet.
    WarmUp,
    /// The first moment that counts: counters are to be set to zero.
    Opens,
    /// Events count.
    Measured,
    /// The measurement is over.
    Over,
}

/// A [`Timing`] that has begun.
#[derive(Debug)]
pub struct Window {
    opens: Instant,
    measured: Duration,
    opened: Option<Instant>,
}

impl Window {
    /// Begins the warm-up at `now`.
    pub fn begin(timing: Timing, now: Instant) -> Self {
        Self { opens: now + timing.warm_up, measured: timing.measured, opened: None }
    }

    /// Says where `now` lies. The window opens with the first call past the warm-up and lasts
    /// from then, so a late call loses no measured time.
    pub fn phase(&mut self, now: Instant) -> Phase {
        match self.opened {
            None if now < self.opens => Phase::WarmUp,
            None => {
                self.opened = Some(now);
                Phase::Opens
            }
            Some(opened) if now < opened + self.measured => Phase::Measured,
            Some(_) => Phase::Over,
        }
    }

    /// Time until the phase changes next.
    pub fn patience(&self, now: Instant) -> Duration {
        let next = self.opened.map_or(self.opens, |at| at + self.measured);
        next.saturating_duration_since(now)
    }

    /// Measured time up to `now`.
    pub fn elapsed(&self, now: Instant) -> Duration {
        self.opened.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_first_look_loses_no_measured_time() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let timing = Timing { warm_up: ms(10), measured: ms(100) };
        let mut window = Window::begin(timing, start);
        assert_eq!(window.phase(start + ms(9)), Phase::WarmUp);
        assert_eq!(window.patience(start + ms(9)), ms(1));
        assert_eq!(window.phase(start + ms(50)), Phase::Opens);
        assert_eq!(window.phase(start + ms(149)), Phase::Measured);
        assert_eq!(window.phase(start + ms(150)), Phase::Over);
        assert_eq!(window.elapsed(start + ms(150)), ms(100));
    }
}
