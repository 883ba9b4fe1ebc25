//! The segments of this node, of which something may still be there.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::event::time::UnixNanos;
use crate::journal::marks::Marks;
use crate::journal::replay::{self, JournalError, Replay};
use crate::journal::{Events, Extent, Position, Stamped};
use crate::store::Store;

/// The segments, and where the journal begins.
pub(super) struct Segments(Mutex<Known>);

struct Known {
    segments: BTreeMap<u64, Segment>,
    begin: Position,
}

struct Segment {
    /// What all entries before it carry, since the journal began.
    before: Events,
    marks: Marks,
}

impl Segments {
    /// Those that `replay` found.
    pub(super) fn new(replay: &Replay) -> Segments {
        let found = replay.segments.iter().map(|(&number, found)| {
            (number, Segment { before: found.before, marks: found.marks.clone() })
        });
        Segments(Mutex::new(Known { segments: found.collect(), begin: Position::default() }))
    }

    /// Adds one that was just opened, behind entries that carry `before`.
    pub(super) fn open(&self, number: u64, before: Events) {
        let opened = Segment { before, marks: Marks::default() };
        self.lock().segments.insert(number, opened);
    }

    /// The ends of all segments, and what is before them.
    pub(super) fn ends(&self) -> Vec<(u64, Events, u64)> {
        let known = self.lock();
        let ends = known
            .segments
            .iter()
            .map(|(&number, segment)| (number, segment.before, segment.marks.end().entries));
        ends.collect()
    }

    /// The number of a segment's entries.
    pub(super) fn end(&self, segment: u64) -> Option<u64> {
        Some(self.lock().segments.get(&segment)?.marks.end().entries)
    }

    /// Takes note of entries that were appended, each with its stamp and what it carries.
    pub(super) fn append(&self, segment: u64, appended: impl Iterator<Item = (UnixNanos, Events)>) {
        if let Some(segment) = self.lock().segments.get_mut(&segment) {
            for (stamp, events) in appended {
                segment.marks.append(stamp, Extent::new(1, events));
            }
        }
    }

    /// What of each segment is stamped before a time.
    pub(super) fn stamped(&self, time: UnixNanos) -> BTreeMap<u64, Stamped> {
        let known = self.lock();
        let stamped = known.segments.iter().map(|(&number, Segment { marks, .. })| {
            (number, Stamped { before: marks.before(time), last: marks.last() })
        });
        stamped.collect()
    }

    /// Gives back all segments but those in `needed`, and of these what is before the first
    /// entry that is needed; the last one, which may be open, stays. Nobody asks any more what
    /// is stamped before `cut`, or earlier.
    pub(super) fn trim(
        &self,
        store: &Store,
        needed: &BTreeMap<u64, u64>,
        cut: UnixNanos,
    ) -> Result<(), JournalError> {
        let mut known = self.lock();
        known.segments.values_mut().for_each(|segment| segment.marks.forget(cut));
        let Some((begin, before)) = known.begin(store, needed)? else { return Ok(()) };
        if begin <= known.begin {
            return Ok(());
        }
        replay::trim(store, begin, before)?;
        known.segments.retain(|&number, _| number >= begin.segment);
        known.begin = begin;
        Ok(())
    }

    /// The first entry that is kept.
    pub(super) fn begin(&self) -> Position {
        self.lock().begin
    }

    /// The first entry of a segment that is kept, if any is.
    pub(super) fn begin_of(&self, segment: u64) -> Option<u64> {
        let known = self.lock();
        let Position { segment: first, index } = known.begin;
        let is_known = known.segments.contains_key(&segment);
        is_known.then_some(if segment == first { index } else { 0 })
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Whoever panicked held it for one change: what is there is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The first position that is needed, and what is before it.
    fn begin(
        &self,
        store: &Store,
        needed: &BTreeMap<u64, u64>,
    ) -> Result<Option<(Position, Events)>, JournalError> {
        let mut first = self.segments.iter().filter(|(number, _)| needed.contains_key(number));
        let Some((&segment, known)) = first.next().or(self.segments.last_key_value()) else {
            return Ok(None);
        };
        let index = needed.get(&segment).copied().unwrap_or(0);
        if index == 0 {
            return Ok(Some((Position { segment, index }, known.before)));
        }
        // What is before an entry stands in its frame. Where none was appended yet, one
        // entry more is kept.
        let last = known.marks.end().entries.saturating_sub(1);
        let position = Position { segment, index: index.min(last) };
        Ok(replay::before(store, position)?.map(|before| (position, before)))
    }
}

#[cfg(test)]
mod tests;
