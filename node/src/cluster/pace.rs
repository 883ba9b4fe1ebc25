//! How fast a node copies from others: senders need the network and the disk too.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::sleep;

/// How fast a node copies.
const BYTES_PER_SECOND: u32 = 32 << 20;

/// The pace of all that is copied with it; cheap to clone. Clones together are as fast as one.
#[derive(Clone, Default)]
pub struct Pace {
    resting: Arc<Mutex<()>>,
}

impl Pace {
    /// Rests for as long as so many bytes may take, once others have rested.
    pub async fn rest(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let _resting = self.resting.lock().await;
        sleep(Duration::from_secs(1) * bytes / BYTES_PER_SECOND).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_copied_at_the_same_time_takes_as_long_as_one_after_the_other() {
        let (begun, one) = (Instant::now(), Pace::default());
        let other = one.clone();
        futures::join!(one.rest(16 << 20), other.rest(48 << 20));
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
    }
}
