//! Where work runs that takes long or waits for a disk, so that it holds nobody up.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{block_in_place, spawn_blocking};

/// The process ends, or the work panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Whether there is one thread for everything, as in a simulation, where nothing may
/// happen at the same time.
pub fn is_alone() -> bool {
    Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread
}

/// Runs `work` here and now, where other tasks need not wait for it.
pub fn in_place<T>(work: impl FnOnce() -> T) -> T {
    if is_alone() { work() } else { block_in_place(work) }
}

/// Runs `work` beside the runtime's threads, or at once where there is a single one.
///
/// # Errors
/// When it did not come to an end.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Interrupted> {
    if is_alone() { Ok(work()) } else { spawn_blocking(work).await.map_err(|_| Interrupted) }
}
