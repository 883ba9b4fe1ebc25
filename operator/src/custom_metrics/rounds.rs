//! The same, every minute.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::warn;

use super::place::PlaceError;

/// How often something is done that may be done at any time.
pub(super) const EVERY: Duration = Duration::from_secs(60);
/// The pause after a failure: short, because an API that was just installed is asked for at once ..
const AGAIN_AFTER: Duration = Duration::from_millis(250);
/// .. and twice as long after each, up to this.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(5);
/// How long it may take.
const WITHIN: Duration = Duration::from_secs(20);

/// Does something again and again, and tells what is in its way whenever that is something else
/// than before. It never ends.
pub(super) async fn repeat<F>(what: &str, round: impl Fn() -> F)
where
    F: Future<Output = Result<(), PlaceError>>,
{
    let (mut told, mut pause) = (String::new(), EVERY);
    loop {
        let done = timeout(WITHIN, round()).await.unwrap_or(Err(PlaceError::Silent));
        let trouble = match &done {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        if trouble != told && !trouble.is_empty() {
            warn!(error = trouble, "{what}");
        }
        pause = match done {
            Err(error) if !error.is_for_people() && told.is_empty() => AGAIN_AFTER,
            Err(error) if !error.is_for_people() => AGAIN_AFTER_MAX.min(2 * pause),
            _ => EVERY,
        };
        told = trouble;
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_followed_by_a_short_pause_and_more_by_longer_ones() {
        let begun = Instant::now();
        let seen = RefCell::new(Vec::new());
        let round = || async {
            seen.borrow_mut().push(begun.elapsed().as_secs_f64());
            let fails = seen.borrow().len() < 8;
            if fails { Err(PlaceError::Silent) } else { Ok(()) }
        };
        assert!(timeout(Duration::from_secs(80), repeat("test", round)).await.is_err());
        assert_eq!(seen.into_inner(), [0.0, 0.25, 0.75, 1.75, 3.75, 7.75, 12.75, 17.75, 77.75]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_person_has_to_change_is_looked_at_once_a_minute() {
        let rounds = RefCell::new(0);
        let round = || async {
            *rounds.borrow_mut() += 1;
            Err(PlaceError::Foreign)
        };
        assert!(timeout(Duration::from_secs(179), repeat("test", round)).await.is_err());
        assert_eq!(rounds.into_inner(), 3);
    }
}
