//! Why an engine does not start, or ends.

use std::io;
use std::path::PathBuf;

use crate::cluster::leaving::LeaveError;
use crate::cluster::membership::MembershipError;
use crate::cluster::opening::OpenError;
use crate::cluster::printing::PrintError;
use crate::flush::FlushError;
use crate::flush::feed::Disagreement;
use crate::journal::JournalError;
use crate::store::StoreError;

/// Why an engine did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A folder in the data folder cannot be made or emptied.
    #[error("{}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The node is no member of its cluster.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal failed, or is damaged.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Folding or flushing failed.
    #[error(transparent)]
    Flush(#[from] FlushError),
    /// A line could not be printed.
    #[error(transparent)]
    Print(#[from] PrintError),
    /// The cluster did not agree to what the node needs.
    #[error(transparent)]
    Consensus(#[from] Disagreement),
    /// The journal has no segment any more.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The node could not hand over what it has.
    #[error(transparent)]
    Leave(#[from] LeaveError),
    /// A thread could not be started.
    #[error("start the {name} thread: {source}")]
    Thread {
        /// What it is for.
        name: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A part of the engine ended without being asked to.
    #[error("a part of the engine ended by itself; please report this")]
    Ended,
    /// A part of the engine panicked.
    #[error("the {0} thread panicked; please report this")]
    Panicked(&'static str),
}

impl EngineError {
    /// Whether opening the database again and replaying can help.
    pub fn is_retryable(&self) -> bool {
        match self {
            EngineError::Folder { .. }
            | EngineError::Store(_)
            | EngineError::Journal(_)
            | EngineError::Open(OpenError::Journal(_))
            | EngineError::Leave(LeaveError::Store(_))
            | EngineError::Thread { .. } => true,
            EngineError::Flush(error) => error.is_retryable(),
            EngineError::Print(error) => error.is_retryable(),
            EngineError::Consensus(error)
            | EngineError::Open(OpenError::Consensus(error))
            | EngineError::Leave(LeaveError::Consensus(error)) => {
                matches!(error, Disagreement::Stopped(_))
            }
            EngineError::Membership(error) => error.is_retryable(),
            EngineError::Ended | EngineError::Panicked(_) => false,
        }
    }
}
