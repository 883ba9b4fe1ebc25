//! A node's durable sequence of accepted requests.
//!
//! Entries are appended in segments, which the cluster numbers. Each has its copies on other
//! nodes; when they change, the journal goes on in another segment, and so does each life of
//! the process: a writer never appends to what another life left behind. An entry's
//! [`Position`] is its identity, once and for all.

mod acknowledging; // what is written here, until it is durable on all copies
pub mod copies; // segments of other nodes
mod extent; // how much of a segment, and what entries carry
pub mod follow; // a segment's entries, as they become durable
pub mod frame; // an entry's bytes: number, stamp, checksums
mod marks; // how much is stamped before which second
mod queue; // what waits for the writer, and when it is due
pub mod replay; // what is there at the start, checked
mod rows; // entries as they stand in the database, and in payload files
mod segments; // which segments there are
mod shown; // the segments that are read from memory
mod tail; // the newest entries, in memory
mod watermark; // how far this machine has acknowledged
mod writer; // stamps, writes, syncs and acknowledges

#[cfg(test)]
mod example; // a node's journal over several lives, for tests

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::event::time::{Clock, UnixNanos};
use crate::store::Store;

use copies::Copies;
pub use extent::{Events, Extent};
use follow::Follower;
pub use frame::FRAME_BYTES;
pub use marks::Marks;
use queue::{Change, Queue};
pub use replay::{JournalError, Replay};
use segments::Segments;
use shown::Shown;
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
#[derive(Clone)]
pub struct Opening {
    /// Its number.
    pub segment: u64,
    /// Nothing in it may be stamped before this.
    pub floor: UnixNanos,
    /// What is stamped before this may be appended: longer leases come with questions.
    pub lease: UnixNanos,
    /// The ways to its other copies.
    pub mirrors: Vec<Arc<dyn Mirror>>,
}

/// A way to another copy of the open segment.
pub trait Mirror: Send + Sync {
    /// Sends it entries that follow those before, the first of this number; must not block.
    /// Once they are durable there, [`Journal::copied`] is told.
    fn write(&self, first: u64, frames: Vec<Bytes>);
}

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
    /// There is no open segment, or other nodes do not take their copies of it. The request
    /// is not durable.
    #[error("the journal has no open segment at the moment")]
    NoSegment,
    /// The cluster needs the request's segment no more, and it is not known where it ended:
    /// the request may count.
    #[error("nobody can tell whether the request was accepted")]
    Unknown,
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
    shown: Arc<Shown>,
    segments: Arc<Segments>,
}

impl Journal {
    /// A journal behind what `replay` found, which takes nothing until a segment is opened.
    /// The entries are committed by whoever runs the writer.
    pub fn new(
        store: Arc<Store>,
        replay: &Replay,
        clock: Clock,
        observer: Observer,
    ) -> (Journal, Writer) {
        let queue = Arc::<Queue>::default();
        let segments = Arc::new(Segments::new(replay));
        let shown = Arc::new(Shown::new(replay.events));
        let journal = Journal { store, queue, shown, segments };
        let writer = Writer::new(journal.clone(), replay, clock, observer);
        (journal, writer)
    }

    /// Goes on in a segment that was just opened, with what waits.
    ///
    /// # Errors
    /// When the journal is closed or its disk failed.
    pub async fn open(&self, opening: Opening) -> Result<(), AppendError> {
        self.change(|answer| Change::Open { opening, answer }).await
    }

    /// Stamps nothing more in the open segment, and returns what was written of it and its
    /// last stamp. What is appended waits from now on.
    ///
    /// # Errors
    /// When the journal is closed or its disk failed.
    pub async fn suspend(&self) -> Result<Stamped, AppendError> {
        self.change(|answer| Change::Suspend { answer }).await
    }

    /// Ends the segment that was suspended where the cluster has fixed its end: what is
    /// before is acknowledged, the rest waits for another one. `None` if nobody can tell where
    /// that was: who waits for what is in the segment hears so.
    ///
    /// # Errors
    /// When the journal is closed or its disk failed.
    pub async fn seal(&self, end: Option<u64>) -> Result<(), AppendError> {
        self.change(|answer| Change::Seal { end, answer }).await
    }

    async fn change<T>(
        &self,
        change: impl FnOnce(oneshot::Sender<T>) -> Change,
    ) -> Result<T, AppendError> {
        let (answer, changed) = oneshot::channel();
        self.queue.change(change(answer))?;
        changed.await.map_err(|_| AppendError::Closed)
    }

    /// Refuses what waits while no segment is open, if there is none.
    ///
    /// # Errors
    /// When the journal is closed or its disk failed.
    pub fn refuse_waiting(&self) -> Result<(), AppendError> {
        self.queue.change(Change::Refuse)
    }

    /// The first so many entries of a segment are durable on one of its other copies, by its
    /// place among the mirrors. Nothing happens if the segment is not open any more.
    ///
    /// # Errors
    /// When it cannot be noted that something is acknowledged.
    pub fn copied(&self, segment: u64, copy: usize, entries: u64) -> Result<(), JournalError> {
        match self.shown.open().filter(|open| open.segment() == segment) {
            Some(open) => Ok(open.copied(copy, entries)?),
            None => Ok(()),
        }
    }

    /// Appends a packed entry that carries `events`; its first [`FRAME_BYTES`] bytes are
    /// room for the frame. It keeps `hold` until it is folded: see [`Journal::folded`].
    ///
    /// `Ok` means durable: the sender may forget it.
    ///
    /// # Errors
    /// When the journal is closed or its disk failed; the entry may be durable all
    /// the same. Without a lease it is not.
    pub async fn append(
        &self,
        frame: Vec<u8>,
        events: Events,
        hold: Hold,
    ) -> Result<Position, AppendError> {
        let durable = self.queue.append(frame, events, hold)?;
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

    /// The open segment, or the last one; 0 if there was none.
    pub fn segment(&self) -> u64 {
        self.shown.segment()
    }

    /// What all entries carry, since the journal began.
    pub fn events(&self) -> Events {
        self.shown.events()
    }

    /// Reads a segment from a position on that is open, or was until just now.
    pub fn follow(&self, from: Position) -> Option<Follower> {
        let tail = self.shown.tail(from.segment)?;
        Some(Follower::of_open(Arc::clone(&self.store), tail, from.index))
    }

    /// Reads one of this node's sealed segments from a position on, if all of it is here.
    pub fn follow_sealed(&self, from: Position, end: u64) -> Option<Follower> {
        let has = self.segments.end(from.segment)?;
        (has >= end).then(|| Follower::of_sealed(Arc::clone(&self.store), from, end))
    }

    /// The entries of a segment before `index` were folded: what admitted them is released.
    pub fn folded(&self, segment: u64, index: u64) {
        self.shown.folded(segment, index);
    }

    /// Gives back what nobody needs any more, here and of `copies`: all segments but those in
    /// `needed`, and of these the entries before the first that is needed. Cuts are later
    /// than `cut` from now on.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn trim(
        &self,
        copies: &Copies,
        needed: &BTreeMap<u64, u64>,
        cut: UnixNanos,
    ) -> Result<(), JournalError> {
        self.segments.trim(&self.store, needed, cut)?;
        copies.trim(needed, cut)?;
        let begin = self.segments.begin();
        let begin = copies.first().map_or(begin, |first| first.min(begin));
        replay::release(&self.store, begin)?;
        let begin_of =
            |segment| self.segments.begin_of(segment).or_else(|| copies.begin_of(segment));
        Ok(rows::release(&self.store, begin_of)?)
    }

    /// Refuses new entries; what is queued is still committed.
    pub fn close(&self) {
        self.queue.close();
    }
}
