//! What other members may ask of a node's journals and results.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use sheaf_proto::statistics::WindowCounts;

use super::Declined;
use crate::checkpoint::carries::Carry;
use crate::checkpoint::facts::{SegmentId, Slot};
use crate::event::chunk::StreamId;
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::event::time::{UnixNanos, Window};
pub use crate::flush::feed::{Batch, Part};
use crate::flush::files::Shown;
pub use crate::flush::files::{Asked, FilePart, Room, Wanted};
use crate::flush::gaps::Gaps;
use crate::flush::requests::Decided;
use crate::flush::sharing::KeptFiles;
pub use crate::journal::Stamped;

/// A count table that a node has.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// What the node calls it.
    pub table: u64,
    /// The slots whose results it has.
    pub slots: SlotSet,
    /// What it adds up to, in place of a table.
    pub summary: Option<WindowCounts>,
    /// Accepted records of each of these slots that has some.
    pub records: BTreeMap<Slot, u64>,
}

/// Something that an owner of slots is to keep for their primary.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept {
    /// A count table.
    Table {
        /// The aggregation's number.
        aggregation: u32,
        /// The window.
        window: Window,
        /// The slots whose results it has.
        slots: SlotSet,
        /// What it adds up to, in place of a table.
        summary: Option<Box<WindowCounts>>,
        /// Accepted records of each of these slots that has some.
        records: BTreeMap<Slot, u64>,
    },
    /// What is carried of an open window; its file follows.
    Carry(Carry),
    /// What checkpoints have of files: nothing follows, the owner reads what it lacks.
    Files(KeptFiles),
}

/// What a node tells of what it carries, carry by carry.
#[derive(Clone, Debug, PartialEq)]
pub enum CarriedPart {
    /// The next carry.
    Carry(Carry),
    /// The next bytes of its file.
    Chunk(Bytes),
}

/// Rebuilt files that a node has, as a reader sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Of the slots that were asked for, those that it owns.
    pub slots: SlotSet,
    /// Of these, those that it folds: nobody has more of their files.
    pub led: SlotSet,
    /// The files of the slots that it owns.
    pub files: Vec<Shown>,
}

/// A part of a rebuilt file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePiece {
    /// The aggregation's number.
    pub aggregation: u32,
    /// What the file is called.
    pub id: StreamId,
    /// Which file of that name.
    pub session: u64,
    /// Its bytes.
    pub part: Range<u64>,
}

/// What is carried, as a node gives it out.
pub type CarriedParts = BoxStream<'static, Result<CarriedPart, Declined>>;
/// Rebuilt files, as a node gives them out.
pub type FileParts = BoxStream<'static, Result<FilePart, Declined>>;
/// Batches as a node gives them out.
pub type Batches = BoxStream<'static, Result<Batch, Declined>>;
/// Chunks of one count table, or of a file, as a node gives them out.
pub type Chunks = BoxStream<'static, Result<Bytes, Declined>>;

/// The journals and results that a running node has.
pub trait Holdings: Send + Sync + 'static {
    /// How much is stamped before `time`, a whole second, of each segment that the node
    /// can tell of. From then on it stamps nothing before `time`, and nothing at `lease` or
    /// later, unless somebody has allowed it more.
    fn stamped(
        &self,
        time: UnixNanos,
        lease: UnixNanos,
    ) -> BoxFuture<'_, Result<BTreeMap<SegmentId, Stamped>, Declined>>;

    /// The entries of a segment that are durable on all its copies, from the index `from`
    /// on, and live ones as they come. It ends when the segment is sealed and was given
    /// out to its end. While nobody takes a batch, no more are asked for.
    ///
    /// # Errors
    /// When the node has no such segment, or not from there on.
    fn follow(&self, segment: SegmentId, from: u64, slots: SlotSet) -> Result<Batches, Declined>;

    /// Begins a copy of a segment that its writer has just opened.
    ///
    /// # Errors
    /// When there is one already, or the database cannot be written.
    fn begin_copy(&self, segment: SegmentId) -> Result<(), Declined>;

    /// Makes entries of such a segment durable that follow those before, the first of this
    /// number; returns how many there are then.
    fn copy(
        &self,
        segment: SegmentId,
        first: u64,
        frames: Vec<Bytes>,
    ) -> BoxFuture<'_, Result<u64, Declined>>;

    /// Takes no more entries of a segment, and says what its copy has; `None` for segment 0,
    /// which there is not.
    fn fence(&self, segment: SegmentId) -> BoxFuture<'_, Result<Option<Stamped>, Declined>>;

    /// The count tables that the node has of an aggregation's window that ended at `end`.
    ///
    /// # Errors
    /// When its database cannot be read.
    fn tables(&self, aggregation: u32, end: UnixNanos) -> Result<Vec<Listed>, Declined>;

    /// What `slots` have of one of these tables.
    ///
    /// # Errors
    /// When the node does not have it.
    fn results(
        &self,
        aggregation: u32,
        end: UnixNanos,
        table: u64,
        slots: SlotSet,
    ) -> Result<Chunks, Declined>;

    /// Which entries repeat a request, as far as the node has decided it.
    fn decided(&self) -> Arc<Decided>;

    /// Makes durable what a member keeps of slots that it is the primary of.
    ///
    /// The chunks are complete when they end without an error.
    fn keep(
        &self,
        primary: NodeId,
        kept: Kept,
        chunks: Chunks,
    ) -> BoxFuture<'_, Result<(), Declined>>;

    /// What the node carries of these slots.
    ///
    /// # Errors
    /// When its database cannot be read.
    fn carried(&self, slots: SlotSet) -> Result<CarriedParts, Declined>;

    /// What checkpoints have of rebuilt files.
    ///
    /// # Errors
    /// When the node does not own the slots, or has less than is asked for.
    fn files(&self, asked: Asked) -> Result<FileParts, Declined>;

    /// The first rebuilt files of those that are wanted, of slots that the node owns.
    fn list(&self, wanted: Wanted) -> BoxFuture<'_, Result<Told, Declined>>;

    /// A part of a rebuilt file, which has ended when as many bytes came. While nobody takes
    /// them, no more are read.
    ///
    /// # Errors
    /// When the file cannot be opened.
    fn read(&self, piece: FilePiece) -> Result<Chunks, Declined>;

    /// The files of the slots that the node folds of which only what closes their gaps is to be
    /// taken.
    fn gaps(&self) -> Arc<Gaps>;

    /// How much the node has of rebuilt files, and how much more it has room for.
    fn room(&self) -> BoxFuture<'_, Result<Room, Declined>>;

    /// What the node has accepted, refused, and counted so far in the windows that are open,
    /// in JSON, with at most `limit` counts for each.
    fn live(&self, limit: u32) -> BoxFuture<'_, Result<Bytes, Declined>>;
}
