//! The same, every minute.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::warn;

use super::place::PlaceError;

/// How often something is done that may be done at any time ..
pub(super) const EVERY: Duration = Duration::from_secs(60);
/// .. and after a failure that may pass.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long it may take.
const WITHIN: Duration = Duration::from_secs(20);

/// Does something again and again, and tells what is in its way whenever that is something else
/// than before. It never ends.
pub(super) async fn repeat<F>(what: &str, round: impl Fn() -> F)
where
    F: Future<Output = Result<(), PlaceError>>,
{
    let mut told = String::new();
    loop {
        let done = timeout(WITHIN, round()).await.unwrap_or(Err(PlaceError::Silent));
        let (trouble, pause) = match done {
            Ok(()) => (String::new(), EVERY),
            Err(error) if error.is_for_people() => (error.to_string(), EVERY),
            Err(error) => (error.to_string(), AGAIN_AFTER),
        };
        if trouble != told && !trouble.is_empty() {
            warn!(error = trouble, "{what}");
        }
        told = trouble;
        sleep(pause).await;
    }
}
