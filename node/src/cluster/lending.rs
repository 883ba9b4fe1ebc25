//! What a running node tells other members of its journal and its results.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _};
use futures::{FutureExt as _, TryStreamExt as _};
use tokio::sync::watch;

use crate::aggregation::distinct_logs::count_table::restrict;
use crate::blocking;
use crate::checkpoint::facts::{Facts, SegmentId};
use crate::cluster::keeping::Keeping;
use crate::cluster::live::{self, Live};
use crate::cluster::peers::{
    Asked, Batches, CarriedPart, CarriedParts, Chunks, Declined, FileParts, FilePiece, Holdings,
    Kept, Listed, Room, Told, Wanted,
};
use crate::cluster::routing::own;
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::event::time::UnixNanos;
use crate::flush::folding::Folding;
use crate::flush::gaps::Gaps;
use crate::flush::requests::Decided;
use crate::flush::results::{Results, ResultsError};
use crate::journal::copies::Copies;
use crate::journal::follow::Follower;
use crate::journal::{Journal, Position, Stamped};

/// A running node's journal and results.
#[derive(Clone)]
pub struct Lending {
    /// Its journal ..
    pub journal: Journal,
    /// .. and what it has of others'.
    pub copies: Copies,
    /// Which segments there are.
    pub facts: watch::Receiver<Arc<Facts>>,
    /// What came of closed windows.
    pub results: Results,
    /// What it keeps of slots that others lead.
    pub keeping: Keeping,
    /// Its open windows.
    pub folding: Folding,
    /// What it has refused for good.
    pub rejected: Arc<dyn Fn() -> BTreeMap<String, u64> + Send + Sync>,
}

/// Reads a segment from a position on, if this node has it: its own as they grow, others'
/// once they are sealed.
pub fn held(journal: &Journal, copies: &Copies, facts: &Facts, from: Position) -> Option<Follower> {
    journal.follow(from).or_else(|| {
        let end = facts.segments().get(&from.segment)?.end()?.entries;
        journal.follow_sealed(from, end).or_else(|| copies.follow(from, end))
    })
}

impl Lending {
    /// What of the sealed segments that it has a copy of is stamped before a time.
    fn stamped_copies(&self, time: UnixNanos) -> Result<Vec<(SegmentId, Stamped)>, Declined> {
        let facts = self.facts.borrow().clone();
        let mut told = Vec::new();
        for (&segment, known) in facts.segments() {
            let Some(end) = known.end() else { continue };
            self.copies.seal(segment, end.entries).map_err(not_now)?;
            told.extend(self.copies.stamped(segment, time).map(|stamped| (segment, stamped)));
        }
        Ok(told)
    }

    /// The same, up to the slots' last checkpoints: an owner has all that these have.
    fn complete(&self, facts: &Facts, mut asked: Asked) -> Result<Asked, Declined> {
        let owned = facts.owner_of(self.keeping.node);
        let known = facts.aggregations().get(&asked.aggregation);
        for (slot, checkpoint) in &mut asked.checkpoints {
            let last = known.map_or(0, |known| known.progress(*slot).number());
            if !owned.contains(*slot) || last < *checkpoint {
                let reason = format!("this node does not know that it has all of slot {slot}");
                return Err(Declined::NotNow(reason));
            }
            *checkpoint = last;
        }
        Ok(asked)
    }

    /// What the node has at the moment, with at most `limit` values of each window.
    pub async fn live(&self, limit: usize) -> Live {
        Live {
            accepted: self.journal.events().records,
            rejected: (self.rejected)(),
            pending: self.folding.pending().await,
            windows: live::windows(&self.folding, limit).await,
        }
    }
}

impl Holdings for Lending {
    fn stamped(
        &self,
        time: UnixNanos,
        lease: UnixNanos,
    ) -> BoxFuture<'_, Result<BTreeMap<SegmentId, Stamped>, Declined>> {
        let own = self.journal.stamped(time, lease);
        async move {
            let mut stamped = own.await.map_err(not_now)?;
            stamped.extend(self.stamped_copies(time)?);
            Ok(stamped)
        }
        .boxed()
    }

    fn follow(&self, segment: SegmentId, from: u64, slots: SlotSet) -> Result<Batches, Declined> {
        let from = Position { segment, index: from };
        let follower = held(&self.journal, &self.copies, &self.facts.borrow(), from);
        let none = || Declined::NotNow(format!("this node has no segment {segment}"));
        // Where an entry is damaged, the node that has it says so itself.
        Ok(own(follower.ok_or_else(none)?, slots).map_err(not_now).boxed())
    }

    fn begin_copy(&self, segment: SegmentId) -> Result<(), Declined> {
        self.copies.begin(segment).map_err(|error| Declined::Never(error.to_string()))
    }

    fn copy(
        &self,
        segment: SegmentId,
        first: u64,
        frames: Vec<Bytes>,
    ) -> BoxFuture<'_, Result<u64, Declined>> {
        let copies = self.copies.clone();
        async move {
            copies.ready().await;
            let copying = blocking::run(move || copies.append(segment, first, &frames));
            copying.await.map_err(not_now)?.map_err(not_now)
        }
        .boxed()
    }

    fn fence(&self, segment: SegmentId) -> BoxFuture<'_, Result<Option<Stamped>, Declined>> {
        let copies = self.copies.clone();
        async move {
            copies.ready().await;
            let fencing = blocking::run(move || copies.fence(segment));
            fencing.await.map_err(not_now)?.map_err(not_now)
        }
        .boxed()
    }

    fn tables(&self, aggregation: u32, end: UnixNanos) -> Result<Vec<Listed>, Declined> {
        let found = self.results.find(aggregation, end).map_err(not_now)?.into_iter();
        let listed = found.map(|found| Listed {
            table: found.table,
            slots: found.slots,
            records: found.records_of(&found.slots),
            summary: found.summary,
        });
        Ok(listed.collect())
    }

    fn results(
        &self,
        aggregation: u32,
        end: UnixNanos,
        table: u64,
        slots: SlotSet,
    ) -> Result<Chunks, Declined> {
        let found = self.results.find(aggregation, end).map_err(not_now)?.into_iter();
        let none = || Declined::NotNow(format!("this node has no table {table:x}"));
        let found = found.into_iter().find(|found| found.table == table).ok_or_else(none)?;
        let counted = found.slots.iter().filter(|&slot| slots.contains(slot)).collect();
        let chunks = self.results.chunks(aggregation, end, found);
        let chunks = restrict::<_, _, ResultsError>(chunks.map(|chunk| Ok(chunk?)), counted);
        let chunks = chunks.map(|chunk| chunk.map(Bytes::from).map_err(not_now));
        Ok(stream::iter(chunks).boxed())
    }

    fn decided(&self) -> Arc<Decided> {
        self.folding.decided()
    }

    fn keep(
        &self,
        primary: NodeId,
        kept: Kept,
        chunks: Chunks,
    ) -> BoxFuture<'_, Result<(), Declined>> {
        self.keeping.keep(primary, kept, chunks).boxed()
    }

    fn carried(&self, slots: SlotSet) -> Result<CarriedParts, Declined> {
        let carried = self.keeping.carried.clone();
        let all = carried.of(&slots).map_err(not_now)?.into_iter();
        let parts = all.flat_map(move |carry| {
            let file: Box<dyn Iterator<Item = _> + Send> = match carried.send(&carry) {
                Ok(file) => Box::new(file.map(|chunk| {
                    chunk.map(|chunk| CarriedPart::Chunk(chunk.into())).map_err(not_now)
                })),
                Err(error) => Box::new(std::iter::once(Err(not_now(error)))),
            };
            std::iter::once(Ok(CarriedPart::Carry(carry))).chain(file)
        });
        Ok(stream::iter(parts).boxed())
    }

    fn files(&self, asked: Asked) -> Result<FileParts, Declined> {
        let facts = self.facts.borrow().clone();
        let asked = if asked.only_known { asked } else { self.complete(&facts, asked)? };
        let lend = || self.keeping.fetching.files.lend(asked);
        let parts = blocking::in_place(lend).map_err(not_now)?;
        Ok(stream::iter(parts.map(|part| part.map_err(not_now))).boxed())
    }

    fn list(&self, wanted: Wanted) -> BoxFuture<'_, Result<Told, Declined>> {
        let owned = self.facts.borrow().owner_of(self.keeping.node).intersection(&wanted.slots);
        let led = self.facts.borrow().primary_of(self.keeping.node).intersection(&owned);
        let files = self.keeping.fetching.files.clone();
        async move {
            let led = led.intersection(&files.folded());
            let wanted = Wanted { slots: owned, ..wanted };
            let listing = blocking::run(move || files.list(&wanted));
            let files = listing.await.map_err(not_now)?.map_err(not_now)?;
            Ok(Told { slots: owned, led, files })
        }
        .boxed()
    }

    fn read(&self, piece: FilePiece) -> Result<Chunks, Declined> {
        let FilePiece { aggregation, id, session, part } = piece;
        let open = || self.keeping.fetching.files.read(aggregation, &id, session, &part);
        let pieces = blocking::in_place(open).map_err(not_now)?;
        let bytes = stream::try_unfold(pieces, async |mut pieces| {
            let reading = blocking::run(move || (pieces.next(), pieces));
            let (piece, pieces) = reading.await.map_err(not_now)?;
            Ok(piece.transpose().map_err(not_now)?.map(|piece| (piece, pieces)))
        });
        Ok(bytes.boxed())
    }

    fn gaps(&self) -> Arc<Gaps> {
        self.folding.gaps()
    }

    fn room(&self) -> BoxFuture<'_, Result<Room, Declined>> {
        let files = self.keeping.fetching.files.clone();
        let looking = async move {
            blocking::run(move || files.room()).await.map_err(not_now)?.map_err(not_now)
        };
        looking.boxed()
    }

    fn live(&self, limit: u32) -> BoxFuture<'_, Result<Bytes, Declined>> {
        let live = async move {
            let live = Lending::live(self, limit as usize).await;
            serde_json::to_vec(&live).map(Bytes::from).map_err(not_now)
        };
        live.boxed()
    }
}

fn not_now(error: impl std::fmt::Display) -> Declined {
    Declined::NotNow(error.to_string())
}

#[cfg(test)]
mod tests;
