//! From journals to results that were handed out: fold -> due -> claim -> deliver ->
//! complete -> trim.
//!
//! A node folds the slots that it is the primary of. Two threads: one folds, so that it is
//! never behind for long; the other hands out what a cut has closed, which may take a while
//! and must not hold folding up.

pub mod folding; // the thread that folds, and finds what is due

pub mod delivery; // the thread that claims, delivers, completes and trims
pub mod group; // slots that are folded together
pub mod learning; // the ids of all entries, as they come
pub mod sharing; // results and carries to the other owners

pub mod carried; // what is kept of open windows, with its files

pub mod due; // which windows a cut has closed
pub mod feed; // where entries come from
pub mod files; // rebuilt files, and how far checkpoints have them
pub mod gaps; // files behind whose gaps too much waits
pub mod requests; // which entries repeat a request
pub mod results; // what came of closed windows, on disk
pub mod statistics; // counts as statistics carry them

#[cfg(test)]
pub(crate) mod example; // a cluster, and entries, for tests

use std::path::PathBuf;

use crate::aggregation::definition::Definition;
use crate::aggregation::distinct_logs::{FoldError, MemoryLimit};
use crate::checkpoint::Digest;
use crate::checkpoint::facts::{Facts, Slot};
use crate::event::entry::MalformedEntry;
use crate::event::time::Window;
use crate::flush::feed::Disagreement;
use crate::flush::files::FilesError;
use crate::journal::JournalError;
use crate::store::StoreError;

/// An aggregation that entries are folded into.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregation {
    /// The number that entries carry.
    pub number: u32,
    /// What it counts.
    pub definition: Definition,
}

/// How folding and flushing are done.
#[derive(Clone, Debug)]
pub struct FlushSettings {
    /// What the windows of all aggregations may take in memory, in bytes.
    pub memory: usize,
    /// What one window's state may take in memory before it spills.
    pub window_memory: MemoryLimit,
    /// A folder for what is spilled and carried.
    pub scratch: PathBuf,
    /// Bytes of journal above which open windows are carried, so that it can be trimmed.
    pub journal_bytes_max: u64,
}

impl FlushSettings {
    /// Lets each window that opens from now on have its share, where so many aggregations count.
    fn divide_memory(&mut self, aggregations: usize) {
        // A window that closes gives its memory back while the next one begins to need it.
        self.window_memory = MemoryLimit(self.memory / aggregations.max(1));
    }
}

/// Why nothing more is folded or flushed.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The cluster did not take a claim, a completion or a carry.
    #[error(transparent)]
    Consensus(#[from] Disagreement),
    /// The database below failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal below failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A rebuilt file cannot be used.
    #[error("rebuild a file: {0}")]
    Files(#[from] FilesError),
    /// A window's state could not be kept.
    #[error("fold: {0}")]
    Fold(#[from] FoldError),
    /// An entry whose checksum is right cannot be read: it is another version's.
    #[error("read entry {index} of segment {segment}: {source}")]
    Entry {
        /// The entry's segment.
        segment: u64,
        /// The entry's number.
        index: u64,
        /// What is wrong with it.
        source: MalformedEntry,
    },
    /// A definition among the facts is not one that this version knows.
    #[error("aggregation {number}, {name:?}: {reason}")]
    Definition {
        /// The aggregation's number.
        number: u32,
        /// The aggregation's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What is kept of a window is not what this version writes.
    #[error("an open window's carried state: {0}")]
    Carry(#[source] serde_json::Error),
    /// A window was folded again with another result: the node must stop.
    #[error(
        "aggregation {aggregation}, window {window}, slot {slot}: folding again gave digest {found}, \
         but {claimed} was claimed before; nothing is printed, please report this"
    )]
    Diverged {
        /// The aggregation's number.
        aggregation: u32,
        /// The window.
        window: Window,
        /// The slot.
        slot: Slot,
        /// What was claimed, with its digest.
        claimed: Digest,
        /// What was found now.
        found: Digest,
    },
    /// Slots went to another node while a window was counted for all of them together.
    #[error("window {0} is counted again: some slots went to another node meanwhile")]
    NotWhole(Window),
    /// The facts contradict what this node did; please report it.
    #[error("{0}; please report this")]
    Contradiction(String),
}

impl FlushError {
    /// Whether opening the database again and replaying can help.
    pub fn is_retryable(&self) -> bool {
        match self {
            FlushError::Diverged { .. }
            | FlushError::Carry(_)
            | FlushError::Entry { .. }
            | FlushError::Definition { .. }
            | FlushError::Contradiction(_)
            | FlushError::Consensus(Disagreement::Refused(_))
            | FlushError::Files(FilesError::Short { .. } | FilesError::Gone { .. })
            | FlushError::Fold(FoldError::Carried { .. }) => false,
            FlushError::Consensus(_)
            | FlushError::NotWhole(_)
            | FlushError::Store(_)
            | FlushError::Journal(_)
            | FlushError::Files(_)
            | FlushError::Fold(_) => true,
        }
    }
}

/// The aggregations that the facts tell of, by number.
///
/// # Errors
/// When a definition is not one that this version knows.
pub fn aggregations(facts: &Facts) -> Result<Vec<Aggregation>, FlushError> {
    let parse = |(&number, fact): (&u32, &crate::checkpoint::facts::aggregations::Aggregation)| {
        match serde_json::from_value(fact.definition.clone()) {
            Ok(definition) => Ok(Aggregation { number, definition }),
            Err(error) => {
                let (name, reason) = (fact.name.clone(), error.to_string());
                Err(FlushError::Definition { number, name, reason })
            }
        }
    };
    facts.aggregations().iter().map(parse).collect()
}
