//! A limit on how fast requests are worked off: for whoever has to spare a disk, or wants to see
//! a node with a backlog.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until};

/// Lets requests through one by one, at a rate. Without a limit it lets through all at once.
pub struct Throttle {
    bytes_per_second: watch::Sender<Option<NonZeroU64>>,
    /// When the next one may pass. Whoever waits for the lock is next in line.
    free: Mutex<Instant>,
}

impl Throttle {
    pub(super) fn new() -> Throttle {
        Throttle { bytes_per_second: watch::Sender::new(None), free: Mutex::new(Instant::now()) }
    }

    /// So many bytes may pass in a second from now on, or as many as come.
    pub fn set(&self, bytes_per_second: Option<NonZeroU64>) {
        self.bytes_per_second.send_replace(bytes_per_second);
    }

    /// How many bytes may pass in a second; `None` if there is no limit.
    pub fn limit(&self) -> Option<NonZeroU64> {
        *self.bytes_per_second.borrow()
    }

    /// Waits until a request of so many bytes may pass. One that gives up lets the next pass.
    pub(super) async fn pass(&self, bytes: usize) {
        if self.limit().is_none() {
            return;
        }
        let mut free = self.free.lock().await;
        let mut limit = self.bytes_per_second.subscribe();
        loop {
            let Some(rate) = *limit.borrow_and_update() else { return };
            tokio::select! {
                () = sleep_until(*free) => {
                    let takes = bytes as f64 / rate.get() as f64;
                    let takes = Duration::try_from_secs_f64(takes).unwrap_or(Duration::MAX);
                    let now = Instant::now();
                    *free = now.checked_add(takes).unwrap_or(now);
                    return;
                }
                // Its sender lives as long as this.
                _ = limit.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::poll;
    use tokio::time::advance;

    use super::*;

    fn limited(bytes_per_second: u64) -> Arc<Throttle> {
        let throttle = Throttle::new();
        throttle.set(NonZeroU64::new(bytes_per_second));
        Arc::new(throttle)
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits() {
        let (throttle, begun) = (limited(0), Instant::now());
        for _ in 0..100 {
            throttle.pass(1 << 30).await;
        }
        assert_eq!((begun.elapsed(), throttle.limit()), (Duration::ZERO, None));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_pass_at_the_rate() {
        let (throttle, begun) = (limited(1000), Instant::now());
        for _ in 0..=60 {
            throttle.pass(500).await;
        }
        let took = begun.elapsed().as_secs_f64();
        assert!((29.9..30.2).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_gives_up_lets_the_next_pass() {
        let throttle = limited(1);
        throttle.pass(10).await;
        let mut gives_up = Box::pin(throttle.pass(1_000_000));
        let mut next = Box::pin(throttle.pass(1));
        assert!(poll!(gives_up.as_mut()).is_pending() && poll!(next.as_mut()).is_pending());
        advance(Duration::from_secs(5)).await;
        drop(gives_up);
        let begun = Instant::now();
        next.await;
        assert!(begun.elapsed() <= Duration::from_millis(5_010), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_lifted_lets_all_pass_that_wait() {
        let throttle = limited(1);
        throttle.pass(1 << 40).await;
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let throttle = Arc::clone(&throttle);
                tokio::spawn(async move { throttle.pass(1 << 40).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let begun = Instant::now();
        throttle.set(None);
        for waiting in waiting {
            waiting.await.unwrap();
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
