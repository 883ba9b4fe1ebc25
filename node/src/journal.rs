//! A node's durable sequence of accepted requests.
//!
//! Entries are appended in segments, which the cluster numbers. Each life of the process
//! has one of its own, so that a writer never appends to what another life left behind. An
//! entry's [`Position`] is its identity, once and for all.

mod extent; // how much of a segment
pub mod follow; // a segment's entries, as they become durable
pub mod frame; // an entry's bytes: number, stamp, checksums
mod marks; // how much is stamped before which second
mod queue; // what waits for the writer, and when it is due
pub mod replay; // what is there at the start, checked
mod segments; // which segments there are
mod tail; // the newest entries, in memory
mod watermark; // how far this machine has acknowledged
mod writer; // stamps, writes, syncs and acknowledges

#[cfg(test)]
mod example; // a node's journal over several lives, for tests

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::event::time::{Clock, UnixNanos};
use crate::store::Store;

pub use extent::Extent;
use follow::Follower;
pub use frame::FRAME_BYTES;
pub use marks::Marks;
use queue::Queue;
pub use replay::{JournalError, Replay};
use segments::Segments;
use tail::Tail;
pub use writer::Writer;

/// Where an entry stands: its identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The segment, from 1.
    pub segment: u64,
    /// The entry's number within it, from 0.
    pub index: u64,
}

/// What the writer knows of a segment at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamped {
    /// What is stamped before the time.
    pub before: Extent,
    /// The stamp of the segment's last entry; 0 if there is none.
    pub last: UnixNanos,
}

/// A segment that the cluster gave to this life of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Its number.
    pub segment: u64,
    /// Nothing in it may be stamped before this.
    pub floor: UnixNanos,
    /// What is stamped before this may be appended: longer leases come with questions.
    pub lease: UnixNanos,
}

/// No segment: they are numbered from 1, and what this one has no lease for is not appended.
const NONE: Opening = Opening { segment: 0, floor: UnixNanos(0), lease: UnixNanos(0) };

/// Something to be dropped when an entry has been folded.
pub type Hold = Box<dyn Any + Send>;

/// Why an append was not acknowledged. The request may or may not be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The journal is closed, or its disk failed.
    #[error("the journal takes nothing at the moment")]
    Closed,
    /// The cluster's leader has not been heard of for too long. The request is not durable.
    #[error("nobody allows the node to stamp at the moment")]
    NoLease,
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

/// A handle on the journal; cheap to clone. Once it is closed, the writer commits what is
/// queued and ends.
#[derive(Clone)]
pub struct Journal {
    store: Arc<Store>,
    queue: Arc<Queue>,
    tail: Arc<Tail>,
    segments: Arc<Segments>,
}

impl Journal {
    /// Opens a new segment behind what `replay` found, if the cluster gave one: otherwise
    /// the journal takes nothing. The entries are committed by whoever runs the writer.
    ///
    /// # Errors
    /// When the new segment cannot be recorded.
    pub fn open(
        store: Arc<Store>,
        replay: &Replay,
        opening: Option<Opening>,
        clock: Clock,
        observer: Observer,
    ) -> Result<(Journal, Writer), JournalError> {
        let opened = opening.map(|opening| opening.segment);
        if let Some(segment) = opened {
            replay::open_segment(&store, replay, segment)?;
        }
        let segments = Arc::new(Segments::new(replay, opened));
        let opening = opening.unwrap_or(NONE);
        let tail = Arc::new(Tail::new(opening.segment, replay.records));
        let (own, shown) = (Arc::clone(&segments), Arc::clone(&tail));
        let writer = Writer::new(Arc::clone(&store), own, shown, replay, opening, clock, observer);
        Ok((Journal { store, queue: writer.queue(), tail, segments }, writer))
    }

    /// Appends a packed entry of `records` records; its first [`FRAME_BYTES`] bytes
    /// are room for the frame. It keeps `hold` until it is folded: see [`Journal::folded`].
    ///
    /// `Ok` means durable: the sender may forget it.
    ///
    /// # Errors
    /// When the journal is closed or its disk failed; the entry may be durable all
    /// the same. Without a lease it is not.
    pub async fn append(
        &self,
        frame: Vec<u8>,
        records: u64,
        hold: Hold,
    ) -> Result<Position, AppendError> {
        let durable = self.queue.append(frame, records, hold)?;
        durable.await.map_err(|_| AppendError::Closed)?
    }

    /// How much of each of this node's segments is stamped before `time`, a whole second;
    /// from then on nothing more is. What is stamped before `lease` may be appended.
    ///
    /// # Errors
    /// When the journal is closed or its disk failed.
    pub async fn stamped(
        &self,
        time: UnixNanos,
        lease: UnixNanos,
    ) -> Result<BTreeMap<u64, Stamped>, AppendError> {
        self.queue.stamped(time, lease)?.await.map_err(|_| AppendError::Closed)
    }

    /// Appends nothing more, and returns all that the open segment has and its last stamp.
    /// What waits is refused; those who follow the journal read on.
    ///
    /// # Errors
    /// When the journal is closed or its disk failed.
    pub async fn finish(&self) -> Result<Stamped, AppendError> {
        // Nothing can be stamped after the end of time.
        let mut stamped = self.stamped(UnixNanos(u64::MAX), UnixNanos(0)).await?;
        Ok(stamped.remove(&self.segment()).unwrap_or_default())
    }

    /// The open segment; 0 if there is none.
    pub fn segment(&self) -> u64 {
        self.tail.segment()
    }

    /// Records in all entries, since the journal began.
    pub fn records(&self) -> u64 {
        self.tail.end().borrow().records
    }

    /// Reads one of this node's segments from a position on, if it has it.
    pub fn follow(&self, from: Position) -> Option<Follower> {
        let store = Arc::clone(&self.store);
        if from.segment == self.tail.segment() {
            return Some(Follower::of_open(store, Arc::clone(&self.tail), from.index));
        }
        let end = self.segments.end(from.segment)?;
        Some(Follower::of_sealed(store, from, end))
    }

    /// The entries of the open segment before `index` were folded: what admitted them is
    /// released.
    pub fn folded(&self, index: u64) {
        self.tail.folded(index);
    }

    /// Gives back what nobody needs any more: all segments but those in `needed`, and of
    /// these the entries before the first that is needed. Cuts are later than `cut` from
    /// now on.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn trim(&self, needed: &BTreeMap<u64, u64>, cut: UnixNanos) -> Result<(), JournalError> {
        self.segments.trim(&self.store, needed, cut)
    }

    /// Refuses new entries; what is queued is still committed.
    pub fn close(&self) {
        self.queue.close();
    }
}
