//! How tests wait: for what they want to see, not for a time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Longer than anything that these tests wait for may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a condition.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}
