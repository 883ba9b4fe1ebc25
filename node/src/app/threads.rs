//! Threads of the engine's own, which go first or later when the cores are busy.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::process::nice;
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use crate::app::engine::EngineError;

/// Which threads go first when the cores are busy.
#[derive(Clone, Copy)]
pub(super) enum Priority {
    /// Those that a sender waits for.
    Senders,
    /// Those that nobody waits for: what they do takes milliseconds at a time. They get
    /// about a quarter of a core that others want as well, which is more than they need.
    Folding,
}

impl Priority {
    /// Sets this thread's own priority, and that of the threads that it starts: so Linux
    /// understands it.
    fn set(self) {
        let niceness = match self {
            Priority::Senders => return,
            Priority::Folding => 5,
        };
        if let Err(error) = nice(niceness) {
            warn!(%error, "a thread's priority stays as it is");
        }
    }
}

/// Runs a part of the engine in a thread; `ends` is told how it ended.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn spawn(
    name: &'static str,
    priority: Priority,
    ends: UnboundedSender<Result<(), EngineError>>,
    run: impl FnOnce() -> Result<(), EngineError> + Send + 'static,
) -> Result<(), EngineError> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    let run = move || {
        priority.set();
        let ended = catch_unwind(AssertUnwindSafe(run));
        // After a failure nobody may be listening for the other parts' ends.
        let _ = ends.send(ended.unwrap_or(Err(EngineError::Panicked(name))));
    };
    thread.spawn(run).map(drop).map_err(|source: io::Error| EngineError::Thread { name, source })
}
