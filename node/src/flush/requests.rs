//! Which entries repeat a request that was accepted before.
//!
//! A client that does not learn what became of a request sends it again under the same id,
//! perhaps to another node, and then several entries have it. One of them counts. Which one
//! is decided cut by cut, for the entries that a cut counts and the one before did not: what
//! an earlier cut has counts, for it may have been handed out. Within a cut the first by
//! stamp, segment and index counts. Mostly all of them fall into the same windows then, and
//! it does not matter; but a cut that is told late of a segment may have entries of several
//! windows. The order of arrival never enters.
//!
//! Nothing enters but cuts and ids. So every node decides for itself, from the ids of all
//! entries, and comes to the same, whatever it folds: a slot moves without the ids, and the
//! death of its primary loses none.
//!
//! What is remembered is bounded by [`REMEMBERED`] and by [`sessions`].

mod sessions; // which requests of each session there were

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::checkpoint::facts::cuts::Cut;
use crate::checkpoint::facts::{Facts, SegmentId};
use crate::event::entry::{Entry, RequestId};
use crate::event::time::{SECOND, UnixNanos};
use crate::flush::FlushError;
use crate::flush::feed::Batch;
use crate::flush::requests::sessions::Sessions;
use crate::journal::{Extent, Position};
use crate::store::{Store, StoreError, keys};

/// How long a session's requests are remembered after a cut has counted the last of them, in
/// nanoseconds of the cuts' time.
pub const REMEMBERED: u64 = 600 * SECOND;

/// What is known of repeated requests at a cut. Its JSON is kept, and sent to other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// The number of the cut.
    pub cut: u64,
    /// The entries of each segment that are below it.
    counts: BTreeMap<SegmentId, u64>,
    sessions: Sessions,
    /// The entries below it that repeat a request, while their segments are there.
    repeated: BTreeSet<(SegmentId, u64)>,
    /// Records in all such entries since each aggregation began.
    records: BTreeMap<u32, u64>,
}

/// An entry with a request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named {
    stamp: UnixNanos,
    position: Position,
    request: RequestId,
    records: u32,
}

impl Decided {
    /// As of a cut before which there was nothing.
    #[cfg(test)]
    pub(crate) fn at_cut(cut: u64) -> Decided {
        Decided { cut, ..Decided::default() }
    }

    /// Whether an entry repeats a request; `None` while that is not decided.
    pub fn is_repeated(&self, segment: SegmentId, index: u64) -> Option<bool> {
        (index < self.count(segment)).then(|| self.repeated.contains(&(segment, index)))
    }

    /// The first entry of a segment of which nothing is decided.
    pub fn count(&self, segment: SegmentId) -> u64 {
        self.counts.get(&segment).copied().unwrap_or(0)
    }

    /// Records that were not counted for an aggregation because they repeat others.
    pub fn records(&self) -> &BTreeMap<u32, u64> {
        &self.records
    }

    /// Whether all that is to be decided from here on can still be had: every later cut, and
    /// what it counts more than this one.
    pub fn can_go_on(&self, facts: &Facts) -> bool {
        !has_gap(facts, self.cut, |segment| self.count(segment))
    }

    /// Decides on what a cut counts and the one before did not.
    fn decide(&mut self, facts: &Facts, cut: &Cut, mut new: Vec<Named>) {
        new.sort_unstable_by_key(|named| (named.stamp, named.position));
        let mut repeated_records = 0;
        for Named { position, request, records, .. } in new {
            if !self.sessions.insert(request, cut.time) {
                self.repeated.insert((position.segment, position.index));
                repeated_records += u64::from(records);
            }
        }
        self.account(facts, cut, repeated_records);
        self.sessions.forget(UnixNanos(cut.time.0.saturating_sub(REMEMBERED)));
        self.cut = cut.number;
        self.counts = counts(cut);
        if !self.repeated.is_empty() {
            let trimmed = facts.all_trimmed();
            self.repeated.retain(|(segment, index)| {
                trimmed.get(segment).is_some_and(|trimmed| index >= trimmed)
            });
        }
    }

    /// Enters records with the aggregations that the cut is accepted for, as the ledger does.
    fn account(&mut self, facts: &Facts, cut: &Cut, records: u64) {
        self.records.retain(|number, _| facts.aggregations().contains_key(number));
        if records == 0 {
            return;
        }
        // Chunks have no request ids.
        let counting = facts.aggregations().iter().filter(|(_, known)| !known.takes_chunks());
        for (&number, known) in counting {
            if known.since < cut.number && cut.number <= known.until.unwrap_or(u64::MAX) {
                *self.records.entry(number).or_default() += records;
            }
        }
    }
}

/// The ids of all entries, as they come, and what is decided on them.
pub struct Requests {
    decided: Arc<Decided>,
    /// The first entry of each segment that has not come.
    next: BTreeMap<SegmentId, u64>,
    /// What came and is not decided.
    waiting: BTreeMap<Position, Named>,
    /// The number of the cut up to which nobody can tell more than is known here.
    told: u64,
}

/// How far what came lets one decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Up to the newest cut, or to what has not come yet.
    Decided,
    /// A cut is gone, or something that did not come: another node may have decided on it.
    Gap,
}

impl Requests {
    /// Goes on from what is decided.
    pub fn new(decided: Arc<Decided>) -> Requests {
        let next = decided.counts.clone();
        Requests { decided, next, waiting: BTreeMap::new(), told: 0 }
    }

    /// What is decided.
    pub fn decided(&self) -> &Arc<Decided> {
        &self.decided
    }

    /// The first entry of a segment that has not come.
    pub fn next(&self, segment: SegmentId) -> u64 {
        self.next.get(&segment).copied().unwrap_or(0)
    }

    /// Takes the ids of a segment's entries, but for those that came before.
    ///
    /// # Errors
    /// When an entry cannot be read.
    pub fn take(&mut self, segment: SegmentId, batch: &Batch) -> Result<(), FlushError> {
        let next = self.next(segment);
        for part in batch.parts.iter().filter(|part| part.index >= next) {
            let (index, stamp) = (part.index, part.stamp);
            let malformed = |source| FlushError::Entry { segment, index, source };
            let entry = Entry::parse(&part.entry).map_err(malformed)?;
            if let Some(request) = entry.request() {
                let (position, records) = (Position { segment, index }, entry.records());
                self.waiting.insert(position, Named { stamp, position, request, records });
            }
        }
        self.next.insert(segment, batch.next.max(next));
        Ok(())
    }

    /// Passes over what is missing up to the newest cut, for nobody can tell more: a request
    /// that is repeated across it counts twice.
    pub fn pass_gaps(&mut self, facts: &Facts) {
        self.told = facts.latest_cut().number;
        for (segment, trimmed) in facts.all_trimmed() {
            self.next.insert(segment, self.next(segment).max(trimmed));
        }
        for (&segment, &count) in facts.cuts().flat_map(|cut| &cut.counts) {
            if !can_come(facts, segment) {
                let next = self.next(segment).max(count.entries);
                self.next.insert(segment, next);
            }
        }
    }

    /// Decides cut by cut, as far as everything came.
    pub fn decide(&mut self, facts: &Facts) -> Progress {
        while let Some(cut) = next_cut(facts, self.decided.cut) {
            if cut.number > self.told && has_gap(facts, self.decided.cut, |id| self.next(id)) {
                return Progress::Gap;
            }
            if cut.counts.iter().any(|(&id, count)| self.next(id) < count.entries) {
                break;
            }
            let is_below = |(at, _): &(Position, Named)| at.index < cut.count(at.segment).entries;
            let waiting = std::mem::take(&mut self.waiting).into_iter();
            let (below, rest): (BTreeMap<_, _>, BTreeMap<_, _>) = waiting.partition(is_below);
            self.waiting = rest;
            let new = below.into_values().collect();
            Arc::make_mut(&mut self.decided).decide(facts, cut, new);
        }
        // What lies behind the end of a sealed segment was appended again to another.
        self.waiting.retain(|at, _| facts.segments().contains_key(&at.segment));
        Progress::Decided
    }
}

/// Whether, after a cut, another cut is gone, or entries that a later one counts: all before
/// `next` are there.
fn has_gap(facts: &Facts, cut: u64, next: impl Fn(SegmentId) -> u64) -> bool {
    let mut later = facts.cuts().filter(|kept| kept.number > cut).peekable();
    let lacks = |id: SegmentId, count: &Extent| {
        // What was trimmed takes long to find out.
        next(id) < count.entries && (!can_come(facts, id) || next(id) < facts.trimmed(id))
    };
    later.peek().is_some_and(|next| next.number > cut + 1)
        || later.any(|later| later.counts.iter().any(|(&id, count)| lacks(id, count)))
}

/// Whether somebody has a segment. Of one that was lost with its nodes, others may have decided
/// on what they learned before.
fn can_come(facts: &Facts, segment: SegmentId) -> bool {
    facts.segments().get(&segment).is_some_and(|segment| segment.nodes().next().is_some())
}

fn counts(cut: &Cut) -> BTreeMap<SegmentId, u64> {
    cut.counts.iter().map(|(&segment, extent)| (segment, extent.entries)).collect()
}

/// The oldest cut after one, of those that are kept.
fn next_cut(facts: &Facts, cut: u64) -> Option<&Cut> {
    facts.cuts().find(|kept| kept.number > cut)
}

/// Makes durable what is decided.
///
/// # Errors
/// When the database cannot be written.
pub fn record(store: &Store, decided: &Decided) -> Result<(), StoreError> {
    let mut batch = store.batch();
    batch.put_fact(&keys::REQUESTS, decided)?;
    store.commit(batch)
}

/// What was decided and recorded last; nothing, at the cut before the first, if none was.
///
/// # Errors
/// When the database cannot be read.
pub fn recorded(store: &Store) -> Result<Decided, StoreError> {
    Ok(store.fact(&keys::REQUESTS)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
