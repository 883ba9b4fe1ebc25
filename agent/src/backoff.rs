//! How long to wait when the node did not say.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const MAX: Duration = Duration::from_secs(5);

/// Waits that double, up to five seconds, with jitter: senders that were thrown
/// out together do not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Begins with a tenth of a second.
    pub(crate) fn new() -> Self {
        Backoff { next: FIRST }
    }

    /// The next wait: between half of it and the whole.
    pub(crate) fn wait(&mut self) -> Duration {
        let wait = self.next.mul_f64(0.5 + 0.5 * fastrand::f64());
        self.next = (self.next * 2).min(MAX);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound() {
        let mut backoff = Backoff::new();
        for whole in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000].map(Duration::from_millis) {
            let wait = backoff.wait();
            assert!(whole / 2 <= wait && wait <= whole, "{wait:?} of {whole:?}");
        }
    }
}
