//! What the parts of an engine are run with: threads of their own, or tasks.

use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use super::EngineError;
use crate::app::threads::{Priority, spawn};
use crate::blocking;
use crate::journal::Writer;

/// What the parts of an engine are run with.
pub(super) struct Parts {
    pub(super) end: UnboundedSender<Result<(), EngineError>>,
    pub(super) off: CancellationToken,
}

impl Parts {
    /// Runs the journal's writer, which ends with the journal.
    pub(super) fn write(&self, writer: Writer) -> Result<(), EngineError> {
        let end = self.end.clone();
        if blocking::is_alone() {
            tokio::spawn(async move { end.send(writer.run_as_task().await.map_err(Into::into)) });
            return Ok(());
        }
        spawn("journal", Priority::Senders, end, move || Ok(writer.run()?))
    }

    /// Runs a part in a thread of its own if there are several, until it is told to end.
    pub(super) fn run(
        &self,
        name: &'static str,
        part: impl Future<Output = Result<(), EngineError>> + Send + 'static,
    ) -> Result<(), EngineError> {
        let (runtime, off, end) = (Handle::current(), self.off.clone(), self.end.clone());
        if blocking::is_alone() {
            tokio::spawn(
                async move { end.send(off.run_until_cancelled(part).await.unwrap_or(Ok(()))) },
            );
            return Ok(());
        }
        let run = move || runtime.block_on(off.run_until_cancelled(part)).unwrap_or(Ok(()));
        spawn(name, Priority::Folding, end, run)
    }
}
