//! How fast the node works off what it has admitted.

use std::time::Duration;

use tokio::time::Instant;

/// How far back the rate remembers.
const MEMORY: Duration = Duration::from_secs(5);
/// The shortest stretch of time that makes a sample.
const SAMPLE_MIN: Duration = Duration::from_millis(100);

/// An exponentially weighted rate in bytes per second.
///
/// The clock runs only while more than half of the budget is in use: below
/// that, it is the senders who set the pace, and their pauses say nothing about
/// what the node can do.
pub(super) struct DrainRate {
    rate: f64,
    drained: usize,
    pressed: Duration,
    seen: Option<Instant>,
}

impl DrainRate {
    /// Until it is known better, a full budget is expected to drain within a second.
    pub(super) fn new(capacity: usize) -> Self {
        DrainRate { rate: capacity as f64, drained: 0, pressed: Duration::ZERO, seen: None }
    }

    /// The budget stood at `used` until `now`; to be called before each change of it.
    pub(super) fn observe(&mut self, used: usize, capacity: usize, now: Instant) {
        let since = self.seen.replace(now).map_or(Duration::ZERO, |seen| now - seen);
        if used <= capacity / 2 {
            self.drained = 0;
            return;
        }
        self.pressed += since;
        if self.pressed >= SAMPLE_MIN {
            let kept = (-self.pressed.as_secs_f64() / MEMORY.as_secs_f64()).exp();
            let sample = self.drained as f64 / self.pressed.as_secs_f64();
            self.rate = self.rate * kept + sample * (1.0 - kept);
            self.pressed = Duration::ZERO;
            self.drained = 0;
        }
    }

    /// So many bytes were given back.
    pub(super) fn drained(&mut self, bytes: usize) {
        self.drained += bytes;
    }

    /// How long `bytes` take at this rate; a day at most.
    pub(super) fn time_for(&self, bytes: usize) -> Duration {
        const DAY: f64 = 86_400.0;
        Duration::from_secs_f64((bytes as f64 / self.rate.max(1.0)).min(DAY))
    }
}
