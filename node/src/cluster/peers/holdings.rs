//! What other members may ask of a node's journals and results.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use super::Declined;
use crate::checkpoint::facts::SegmentId;
use crate::event::slots::SlotSet;
use crate::event::time::UnixNanos;

/// How much of a segment is stamped before a time. Nothing more of it ever will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// The number of entries that are.
    pub entries: u64,
    /// The number of records in them.
    pub records: u64,
    /// The stamp of the segment's last entry, also of one that is not stamped before the
    /// time; the epoch if there is none.
    pub last: UnixNanos,
}

/// The next entries of a segment, as far as they concern some slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// All entries before this index are in parts of this or earlier batches, or say
    /// nothing of the slots. Whoever asks again asks from here.
    pub next: u64,
    /// In the order of their indexes.
    pub parts: Vec<Part>,
}

/// What of an entry belongs to some slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The entry's index in its segment.
    pub index: u64,
    /// Its stamp.
    pub stamp: UnixNanos,
    /// The part, packed as entries are. It may share memory with other parts of its batch.
    pub entry: Bytes,
}

/// Batches as a node gives them out.
pub type Batches = BoxStream<'static, Result<Batch, Declined>>;
/// Pieces of one table, as a node gives them out. Only their bytes one after the other
/// mean something, not where a piece ends.
pub type Chunks = BoxStream<'static, Result<Bytes, Declined>>;

/// The journals and results that a running node has.
pub trait Holdings: Send + Sync + 'static {
    /// How much is stamped before `time`, a whole second, of each segment that the node
    /// can tell of. From then on it stamps nothing before `time`.
    fn stamped(
        &self,
        time: UnixNanos,
    ) -> BoxFuture<'_, Result<BTreeMap<SegmentId, Stamped>, Declined>>;

    /// The entries of a segment that are durable on all its copies, from the index `from`
    /// on, and live ones as they come. It ends when the segment is sealed and was given
    /// out to its end. While nobody takes a batch, no more are asked for.
    ///
    /// # Errors
    /// When the node has no such segment, or not from there on.
    fn follow(&self, segment: SegmentId, from: u64, slots: SlotSet) -> Result<Batches, Declined>;

    /// The results of `slots` in a window of an aggregation that is closed, and begins at
    /// `start`.
    ///
    /// # Errors
    /// When the node does not have them.
    fn results(
        &self,
        aggregation: u32,
        start: UnixNanos,
        slots: SlotSet,
    ) -> Result<Chunks, Declined>;

    /// What the node has counted so far in the windows that are open, in JSON, with at most
    /// `limit` counts for each.
    fn open(&self, limit: u32) -> BoxFuture<'_, Result<Bytes, Declined>>;
}
