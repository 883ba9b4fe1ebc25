//! A node's durable sequence of accepted requests.
//!
//! Entries are appended in segments: one per life of the process, so that a writer
//! never appends to what another life left behind. An entry's [`Position`] is its
//! identity, once and for all.

pub mod frame; // an entry's bytes: number, stamp, checksums
pub mod replay; // what is there at the start, checked
mod watermark; // how far this machine has acknowledged
mod writer; // stamps, writes, syncs and acknowledges

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use crate::event::time::{Clock, UnixNanos};
use crate::store::{Store, StoreError};

pub use frame::FRAME_BYTES;
pub use replay::{JournalError, Replay};
use writer::Queue;
pub use writer::Writer;

/// Where an entry stands: its identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The segment, from 1.
    pub segment: u64,
    /// The entry's number within it, from 0.
    pub index: u64,
}

/// A time, and how much of the journal is stamped before it: nothing stamped later
/// falls behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The cut's number. On one node it is the cut's whole second since the epoch.
    pub number: u64,
    /// A whole second.
    pub time: UnixNanos,
    /// The first position that is not stamped before `time`.
    pub end: Position,
    /// The records in all entries before `end`, since the journal began.
    pub records: u64,
}

/// What the journal hands on, in commit order.
pub enum Committed {
    /// Entries that became durable together, with one stamp.
    Group(Group),
    /// A cut: every entry stamped before it was handed on earlier.
    Cut(Cut),
}

/// Entries that became durable together.
pub struct Group {
    /// When they were stamped.
    pub stamp: UnixNanos,
    /// Where the first of them stands; the others follow.
    pub first: Position,
    /// Records in all entries before the first, since the journal began.
    pub records_before: u64,
    /// The entries.
    pub entries: Vec<CommittedEntry>,
}

/// A durable entry on its way to be folded.
pub struct CommittedEntry {
    /// The frame ([`FRAME_BYTES`]) and the packed entry behind it.
    pub frame: Vec<u8>,
    /// Records in the entry.
    pub records: u64,
    /// What the entry holds until it is folded: its share of the admission budget.
    pub hold: Hold,
}

/// Something to be dropped when an entry has been folded.
pub type Hold = Box<dyn Any + Send>;

/// Why an append was not acknowledged. The request may or may not be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The journal is closed, or its disk failed.
    #[error("the journal takes nothing at the moment")]
    Closed,
}

/// What a commit did, for the metrics.
#[derive(Clone, Copy, Debug)]
pub struct CommitFigures {
    /// Entries in the group.
    pub entries: usize,
    /// Their bytes.
    pub bytes: usize,
    /// From the write's beginning to the sync's end.
    pub took: Duration,
}

/// Told about every commit; must not block.
pub type Observer = Box<dyn Fn(CommitFigures) + Send>;

/// Takes what was committed, in order; must not block for long.
pub type Consumer = Box<dyn Fn(Committed) + Send>;

/// A handle on the journal's writer; cheap to clone. Once it is closed, the writer
/// commits what is queued and ends.
#[derive(Clone)]
pub struct Journal {
    queue: Arc<Queue>,
}

impl Journal {
    /// Opens a new segment behind what `replay` found. The entries are committed by
    /// whoever runs the writer.
    ///
    /// Committed entries and cuts go to `consumer`.
    ///
    /// # Errors
    /// When the new segment cannot be opened.
    pub fn open(
        store: Arc<Store>,
        replay: &Replay,
        clock: Clock,
        consumer: Consumer,
        observer: Observer,
    ) -> Result<(Journal, Writer), JournalError> {
        let writer = Writer::new(store, replay, clock, consumer, observer)?;
        Ok((Journal { queue: writer.queue() }, writer))
    }

    /// Appends a packed entry of `records` records; its first [`FRAME_BYTES`] bytes
    /// are room for the frame.
    ///
    /// `Ok` means durable: the sender may forget it.
    ///
    /// # Errors
    /// When the journal is closed or its disk failed; the entry may be durable all
    /// the same.
    pub async fn append(
        &self,
        frame: Vec<u8>,
        records: u64,
        hold: Hold,
    ) -> Result<Position, AppendError> {
        let durable = self.queue.append(frame, records, hold)?;
        durable.await.map_err(|_| AppendError::Closed)
    }

    /// Asks for a cut at `time`, a whole second: from then on nothing is stamped
    /// earlier. It comes out in commit order behind all that was stamped before it.
    pub fn cut(&self, time: UnixNanos) {
        self.queue.cut(time);
    }

    /// Refuses new entries; what is queued is still committed.
    pub fn close(&self) {
        self.queue.close();
    }
}

/// Forgets the journal before `begin`: every aggregation has flushed it.
///
/// # Errors
/// When the database cannot be written.
pub fn trim(store: &Store, begin: Position, records: u64) -> Result<(), StoreError> {
    replay::trim(store, begin, records)
}
