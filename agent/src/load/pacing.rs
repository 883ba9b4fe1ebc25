//! When each request is due.

use std::time::Duration;

/// Who falls further behind than this gives up what was missed, instead of
/// sending it in one burst.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// A schedule at an even rate; times count from the start of the run.
#[derive(Debug)]
pub(crate) struct Pacing {
    records_per_second: Option<u64>,
    next: Duration,
}

impl Pacing {
    /// `None`: as fast as possible.
    pub(crate) fn new(records_per_second: Option<u64>) -> Self {
        Pacing { records_per_second, next: Duration::ZERO }
    }

    /// When the next request, of so many records, is due: at once if in the past.
    pub(crate) fn due(&mut self, now: Duration, records: u64) -> Duration {
        let Some(rate) = self.records_per_second else {
            return now;
        };
        let due = self.next.max(now.saturating_sub(BEHIND_MAX));
        self.next = due + Duration::from_secs_f64(records as f64 / rate as f64);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn requests_are_due_at_even_distances() {
        let mut pacing = Pacing::new(Some(10_000));
        let due: Vec<Duration> = (0..3).map(|_| pacing.due(ms(0), 1_000)).collect();
        assert_eq!(due, [ms(0), ms(100), ms(200)]);
    }

    #[test]
    fn a_short_delay_is_made_up_for() {
        let mut pacing = Pacing::new(Some(10_000));
        pacing.due(ms(0), 1_000);
        let due: Vec<Duration> = (0..3).map(|_| pacing.due(ms(500), 1_000)).collect();
        assert_eq!(due, [ms(100), ms(200), ms(300)]);
    }

    #[test]
    fn a_long_delay_is_not_made_up_for_in_one_burst() {
        let mut pacing = Pacing::new(Some(10_000));
        pacing.due(ms(0), 1_000);
        assert_eq!(pacing.due(ms(60_000), 1_000), ms(59_000));
    }

    #[test]
    fn without_a_rate_everything_is_due_at_once() {
        let mut pacing = Pacing::new(None);
        assert_eq!(pacing.due(ms(7), 1_000), ms(7));
        assert_eq!(pacing.due(ms(7), 1_000), ms(7));
    }
}
