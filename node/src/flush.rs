//! From committed entries to windows that were handed out:
//! fold -> due -> claim -> deliver -> complete -> trim.
//!
//! Two threads: one folds, so that it is never behind for long; the other hands out
//! what a cut has closed, which may take a while and must not hold folding up.

pub mod delivery; // the thread that claims, delivers, completes and trims
pub mod folding; // the thread that folds what was committed and finds what is due

use std::path::PathBuf;

use crate::aggregation::definition::Definition;
use crate::aggregation::distinct_logs::{FoldError, MemoryLimit};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::aggregations::Fact;
use crate::event::entry::MalformedEntry;
use crate::event::time::Window;
use crate::journal::{Cut, JournalError, Position};
use crate::sink::SinkError;
use crate::store::StoreError;

/// An aggregation that entries are folded into.
#[derive(Clone, Debug)]
pub struct Aggregation {
    /// The number that entries carry.
    pub number: u32,
    /// What it counts.
    pub definition: Definition,
    /// What is kept of it.
    pub fact: Fact,
}

/// How folding and flushing are done.
#[derive(Clone, Debug)]
pub struct FlushSettings {
    /// What one window's state may take in memory before it spills.
    pub window_memory: MemoryLimit,
    /// A folder for what is spilled and carried.
    pub scratch: PathBuf,
    /// Bytes of journal above which open windows are carried, so that it can be trimmed.
    pub journal_bytes_max: u64,
}

/// Why nothing more is folded or flushed.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// A fact could not be recorded, or contradicts an earlier one.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The database below failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal below failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
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
    /// A definition in the database is not one that this version knows.
    #[error("aggregation {number}, {name:?}: {reason}")]
    Definition {
        /// The aggregation's number.
        number: u32,
        /// The aggregation's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A sink did not take a window.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

impl FlushError {
    /// Whether opening the database again and replaying can help.
    pub fn is_retryable(&self) -> bool {
        match self {
            FlushError::Checkpoint(
                CheckpointError::Diverged { .. } | CheckpointError::Carry(_),
            )
            | FlushError::Entry { .. }
            | FlushError::Definition { .. }
            | FlushError::Fold(FoldError::Carried { .. })
            | FlushError::Sink(_) => false,
            FlushError::Checkpoint(CheckpointError::Store(_))
            | FlushError::Store(_)
            | FlushError::Journal(_)
            | FlushError::Fold(_) => true,
        }
    }
}

/// Where the journal can be cut off: a position, and the records before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The first position that is still needed.
    pub position: Position,
    /// Records in all entries before it.
    pub records: u64,
}

/// The windows that a cut closes: those that end at its time or before.
pub fn due(cut: &Cut, open: impl Iterator<Item = Window>) -> Vec<Window> {
    open.filter(|window| window.end <= cut.time).collect()
}

/// Where the journal has to begin after `cut`, when windows that began at `open` are
/// still needed.
pub fn begin_after(cut: &Cut, open: impl Iterator<Item = Begin>) -> Begin {
    let nothing_open = Begin { position: cut.end, records: cut.records };
    open.chain([nothing_open]).min_by_key(|begin| begin.position).unwrap_or(nothing_open)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::time::{SECOND, UnixNanos};

    const CUT: Cut = Cut {
        number: 20,
        time: UnixNanos(20 * SECOND),
        end: Position { segment: 1, index: 9 },
        records: 900,
    };

    #[test]
    fn a_window_is_due_at_the_first_cut_at_its_end_and_not_before() {
        let ended = Window::of(UnixNanos(15 * SECOND), 10);
        let open = Window::of(UnixNanos(15 * SECOND), 30);
        assert_eq!(due(&CUT, [ended, open].into_iter()), [ended]);
    }

    #[test]
    fn the_journal_is_kept_from_the_oldest_open_window_on() {
        let at = |index, records| Begin { position: Position { segment: 1, index }, records };
        assert_eq!(begin_after(&CUT, [at(7, 700), at(4, 400)].into_iter()), at(4, 400));
        assert_eq!(begin_after(&CUT, std::iter::empty()), at(9, 900));
    }
}
