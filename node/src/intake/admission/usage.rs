//! How much of the budget was in use over the last minute: what a cluster is scaled by.

use std::time::Duration;

use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
/// How many whole seconds count.
const SECONDS: usize = 60;

/// The use of the budget over the last whole seconds, each from 0 to 1.
pub(super) struct Usage {
    /// A ring; what lies before the first observation was not used.
    seconds: [f64; SECONDS],
    /// Where in the ring the second under way will go.
    next: usize,
    /// The use of the second under way, times its length.
    begun: f64,
    /// Whether somebody found no room in it.
    overflowed: bool,
    /// When it began, and up to when it is accounted for.
    since: Option<(Instant, Instant)>,
}

impl Usage {
    pub(super) fn new() -> Self {
        Usage { seconds: [0.0; SECONDS], next: 0, begun: 0.0, overflowed: false, since: None }
    }

    /// The budget stood at `used` until `now`; to be called before each change of it.
    pub(super) fn observe(&mut self, used: usize, capacity: usize, now: Instant) {
        let share = (used as f64 / capacity.max(1) as f64).min(1.0);
        let (mut start, mut seen) = self.since.unwrap_or((now, now));
        let behind = (now - start).as_secs().saturating_sub(SECONDS as u64 + 1);
        if behind > 0 {
            // All that was known is too old to count, and more would be too.
            start += Duration::from_secs(behind);
            seen = start;
        }
        while now - start >= SECOND {
            let end = start + SECOND;
            self.begun += share * (end - seen).as_secs_f64();
            self.end_second();
            (start, seen) = (end, end);
        }
        self.begun += share * (now - seen).as_secs_f64();
        self.since = Some((start, now));
    }

    /// Somebody found no room just now: the second under way counts as full.
    pub(super) fn overflow(&mut self) {
        self.overflowed = true;
    }

    /// The mean of the last 60 whole seconds, from 0 to 100.
    pub(super) fn percent(&self) -> f64 {
        100.0 * self.seconds.iter().sum::<f64>() / SECONDS as f64
    }

    fn end_second(&mut self) {
        let use_of_it = if self.overflowed { 1.0 } else { self.begun };
        if let Some(second) = self.seconds.get_mut(self.next) {
            *second = use_of_it;
        }
        self.next = (self.next + 1) % SECONDS;
        (self.begun, self.overflowed) = (0.0, false);
    }
}
