//! Which windows are complete, and what was printed of them.
//!
//! A window is complete if every slot has a checkpoint for it that misses nothing: a slot
//! without one is missing, never empty. A line is printed only after it was recorded
//! here, and once it says that it is settled no other follows.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::checkpoint::Digest;
use crate::checkpoint::facts::aggregations::Aggregation;
use crate::checkpoint::facts::checkpoints::Checkpoint;
use crate::checkpoint::facts::command::Applied;
use crate::checkpoint::facts::forget::Loss;
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::facts::{Facts, SegmentId, Settings, Slot};
use crate::event::slots::SlotSet;
use crate::event::time::{SECOND, UnixNanos, Window};

/// How long after its end a window is kept, in nanoseconds.
const KEPT: u64 = 3600 * SECOND;

/// A window of which something was flushed or printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowFact {
    /// The first instant after it.
    pub end: UnixNanos,
    /// The slots without a checkpoint that misses nothing.
    pub waiting: SlotSet,
    /// Accepted records in the other slots.
    pub records: u64,
    /// Distinct ones among them.
    pub distinct: u64,
    /// The sum of the other slots' digests, modulo 2^128.
    pub digest: Digest,
    /// What it had lost when the last slot's checkpoint was completed.
    pub lost: Vec<Loss>,
    /// What was printed last.
    pub printed: Option<Printed>,
}

/// A printed line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Printed {
    /// Counts the window's lines, from 1.
    pub revision: u32,
    /// The digest of the line.
    pub digest: Digest,
    /// What it says of the window.
    pub outcome: Outcome,
}

/// What a printed line says of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Complete, and so settled.
    Complete,
    /// Neither complete nor settled: another line follows.
    Waiting,
    /// Settled, and never complete: something of it was lost.
    Lost,
}

impl WindowFact {
    /// Whether the last line was printed.
    pub(super) fn is_settled(&self) -> bool {
        self.printed.is_some_and(|printed| printed.outcome.is_settled())
    }
}

impl Outcome {
    /// Whether no other line follows.
    pub fn is_settled(self) -> bool {
        matches!(self, Outcome::Complete | Outcome::Lost)
    }
}

/// What the checkpoints say of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// Every slot was flushed and nothing is missing.
    Complete,
    /// It may become complete.
    WaitsFor {
        /// The slots without a checkpoint that misses nothing.
        slots: SlotSet,
        /// The segments of which the latest cut cannot tell what the window has.
        segments: BTreeSet<SegmentId>,
    },
    /// Every slot was flushed, but this is lost.
    Lost(Vec<Loss>),
}

impl Completeness {
    /// What a line about the window has to say.
    pub fn outcome(&self) -> Outcome {
        match self {
            Completeness::Complete => Outcome::Complete,
            Completeness::WaitsFor { .. } => Outcome::Waiting,
            Completeness::Lost(_) => Outcome::Lost,
        }
    }
}

/// Whether what ended then is too old to be kept.
pub(super) fn is_expired(end: UnixNanos, now: UnixNanos) -> bool {
    end.0.saturating_add(KEPT) <= now.0
}

impl Facts {
    /// What is known of a window of which something was flushed, for an hour after its end.
    pub fn window(&self, aggregation: u32, window: Window) -> Option<&WindowFact> {
        self.aggregations.known.get(&aggregation)?.windows.get(&window.start)
    }

    /// Whether a window is complete, and what it waits for if not.
    ///
    /// A window that has not ended, or ended more than an hour ago, waits for all slots.
    pub fn is_complete(&self, aggregation: u32, window: Window) -> Completeness {
        let fact = self.window(aggregation, window);
        match fact {
            Some(WindowFact { waiting, lost, .. }) if waiting.is_empty() => match lost.as_slice() {
                [] => Completeness::Complete,
                lost => Completeness::Lost(lost.to_vec()),
            },
            _ => Completeness::WaitsFor {
                slots: fact.map_or(self.settings.slots(), |fact| fact.waiting),
                segments: self.cuts.latest.missing_of(window).collect(),
            },
        }
    }

    /// The window whose line was recorded last. Whoever recorded it may not have come to
    /// print it; all earlier lines were printed.
    pub fn last_printed(&self) -> Option<(u32, Window)> {
        self.aggregations.last_printed
    }

    pub(super) fn print(
        &mut self,
        number: u32,
        window: Window,
        printed: Printed,
    ) -> Result<Applied, Refused> {
        let aggregation = self.aggregations.get(number)?;
        aggregation.check_window(window)?;
        let now = self.cuts.latest.time;
        if window.end > now {
            return Err(Refused::NotEnded { window, time: now });
        }
        if is_expired(window.end, now) {
            return Err(Refused::Expired { window });
        }
        let fact = aggregation.windows.get(&window.start);
        let last = fact.and_then(|fact| fact.printed);
        if last == Some(printed) {
            return Ok(Applied::Done);
        }
        if fact.is_some_and(WindowFact::is_settled) {
            return Err(Refused::Settled { window });
        }
        let expected = last.map_or(0, |last| last.revision) + 1;
        if printed.revision != expected {
            return Err(Refused::OtherRevision { window, expected });
        }
        if self.is_complete(number, window).outcome() != printed.outcome {
            return Err(Refused::OtherOutcome { window });
        }
        let settings = self.settings;
        self.aggregations.get_mut(number)?.window(window, settings).printed = Some(printed);
        self.aggregations.last_printed = Some((number, window));
        Ok(Applied::Done)
    }
}

impl Aggregation {
    /// Refuses a window that is empty, or another than the one that begins with it.
    pub(super) fn check_window(&self, window: Window) -> Result<(), Refused> {
        let known = self.windows.get(&window.start);
        if window.start < window.end && known.is_none_or(|fact| fact.end == window.end) {
            Ok(())
        } else {
            Err(Refused::WrongWindow { window })
        }
    }

    /// Whether a slot has yet to be flushed for a window. Of windows that are not kept any
    /// more, only those after the newest one that was flushed.
    pub fn waits_for(&self, slot: Slot, window: Window, now: UnixNanos) -> bool {
        match self.windows.get(&window.start) {
            Some(fact) => fact.waiting.contains(slot),
            None if is_expired(window.end, now) => window.start >= self.progress(slot).through,
            None => true,
        }
    }

    fn window(&mut self, window: Window, settings: Settings) -> &mut WindowFact {
        self.windows.entry(window.start).or_insert_with(|| WindowFact {
            end: window.end,
            waiting: settings.slots(),
            records: 0,
            distinct: 0,
            digest: Digest(0),
            lost: Vec::new(),
            printed: None,
        })
    }

    /// What was lost that may belong to a window.
    pub(super) fn losses_of(&self, window: Window) -> impl Iterator<Item = &Loss> {
        self.losses.iter().filter(move |loss| loss.stamps.overlaps(window))
    }

    /// Enters a slot's checkpoint. After one that misses something the window still waits
    /// for the slot.
    pub(super) fn flush_window(&mut self, slot: Slot, checkpoint: &Checkpoint, settings: Settings) {
        let Checkpoint { window, records, distinct, digest, incomplete, .. } = *checkpoint;
        let lost: Vec<_> = self.losses_of(window).cloned().collect();
        let fact = self.window(window, settings);
        if incomplete {
            return;
        }
        fact.waiting.remove(slot);
        fact.records += records;
        fact.distinct += distinct;
        fact.digest = Digest(fact.digest.0.wrapping_add(digest.0));
        if fact.waiting.is_empty() {
            fact.lost = lost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::facts::command::Command;
    use crate::checkpoint::facts::tests::{Cluster, at, window};

    fn waits_for(slots: &[Slot], segments: &[SegmentId]) -> Completeness {
        let (slots, segments) = (slots.iter().copied(), segments.iter().copied());
        Completeness::WaitsFor { slots: slots.collect(), segments: segments.collect() }
    }

    fn printed(cluster: &Cluster, start: u64) -> Option<Printed> {
        cluster.facts.aggregations()[&0].windows[&at(start)].printed
    }

    #[test]
    fn a_window_is_complete_when_every_slot_was_flushed() {
        let mut cluster = Cluster::of(1);
        cluster.cut(10, &[]);
        let window = window(0, 10);
        assert_eq!(cluster.facts.is_complete(0, window), waits_for(&[0, 1], &[]));
        cluster.flush_slot(1, window);
        assert_eq!(cluster.facts.is_complete(0, window), waits_for(&[0], &[]));
        cluster.claim(cluster.claim_command(0, window, 7));
        assert_eq!(cluster.facts.is_complete(0, window), waits_for(&[0], &[]));
        cluster.complete(cluster.complete_command(0));
        assert_eq!(cluster.facts.is_complete(0, window), Completeness::Complete);
        let fact = &cluster.facts.aggregations()[&0].windows[&window.start];
        assert_eq!((fact.records, fact.distinct, fact.digest), (34, 17, Digest(17)));
    }

    #[test]
    fn a_window_is_not_complete_while_a_cut_misses_something_of_it() {
        let mut cluster = Cluster::of(2);
        let segment = cluster.open(2, &[2]);
        cluster.cut(10, &[]);
        cluster.flush(window(0, 10));
        assert_eq!(cluster.facts.is_complete(0, window(0, 10)), waits_for(&[0, 1], &[segment]));
        cluster.cut(20, &[(segment, 5)]);
        assert_eq!(cluster.facts.is_complete(0, window(0, 10)), waits_for(&[0, 1], &[]));
        cluster.flush(window(0, 10));
        cluster.flush(window(10, 20));
        assert_eq!(cluster.facts.is_complete(0, window(0, 10)), Completeness::Complete);
        assert_eq!(cluster.facts.is_complete(0, window(10, 20)), Completeness::Complete);
    }

    #[test]
    fn a_silent_segment_does_not_hold_up_windows_that_it_cannot_stamp_into() {
        let mut cluster = Cluster::of(2);
        let segment = cluster.open(2, &[2]);
        cluster.cut(5, &[(segment, 5)]);
        cluster.accept(Command::BeginSeal { segment, ceiling: at(9) });
        cluster.cut(20, &[]);
        cluster.flush(window(0, 10));
        cluster.flush(window(10, 20));
        assert_eq!(cluster.facts.is_complete(0, window(0, 10)), waits_for(&[0, 1], &[segment]));
        assert_eq!(cluster.facts.is_complete(0, window(10, 20)), Completeness::Complete);
    }

    #[test]
    fn a_complete_line_is_the_last_and_may_be_printed_again() {
        let mut cluster = Cluster::of(1);
        cluster.cut(10, &[]);
        let window = window(0, 10);
        cluster.flush(window);
        let line = cluster.print_command(window, 1, 77);
        cluster.accept(line.clone());
        cluster.repeat(line);
        for (revision, digest) in [(1, 78), (2, 77), (2, 78)] {
            let refused = cluster.refuse(cluster.print_command(window, revision, digest));
            assert_eq!(refused, Refused::Settled { window });
        }
    }

    #[test]
    fn an_incomplete_line_is_followed_by_another_revision() {
        let mut cluster = Cluster::of(1);
        cluster.cut(10, &[]);
        let window = window(0, 10);
        cluster.accept(cluster.print_command(window, 1, 5));
        assert_eq!(printed(&cluster, 0).unwrap().outcome, Outcome::Waiting);
        cluster.flush(window);
        for revision in [0, 1, 3] {
            let refused = cluster.refuse(cluster.print_command(window, revision, 6));
            assert_eq!(refused, Refused::OtherRevision { window, expected: 2 });
        }
        cluster.accept(cluster.print_command(window, 2, 6));
        assert_eq!(printed(&cluster, 0).unwrap().outcome, Outcome::Complete);
    }

    #[test]
    fn a_line_says_what_the_checkpoints_say() {
        let mut cluster = Cluster::of(1);
        cluster.cut(10, &[]);
        let window = window(0, 10);
        let waiting = cluster.print_command(window, 1, 5);
        cluster.flush(window);
        let complete = cluster.print_command(window, 1, 5);
        assert_eq!(cluster.refuse(waiting), Refused::OtherOutcome { window });
        let mut early = Cluster::of(1);
        early.cut(10, &[]);
        assert_eq!(early.refuse(complete), Refused::OtherOutcome { window });
    }

    #[test]
    fn a_window_is_printed_between_its_end_and_an_hour_later() {
        let mut cluster = Cluster::of(1);
        cluster.cut(9, &[]);
        let window = window(0, 10);
        let refused = cluster.refuse(cluster.print_command(window, 1, 5));
        assert_eq!(refused, Refused::NotEnded { window, time: at(9) });
        cluster.cut(3609, &[]);
        cluster.accept(cluster.print_command(window, 1, 5));
        cluster.cut(3610, &[]);
        assert!(cluster.facts.aggregations()[&0].windows.is_empty());
        let refused = cluster.refuse(cluster.print_command(window, 1, 5));
        assert_eq!(refused, Refused::Expired { window });
    }

    #[test]
    fn windows_that_begin_together_end_together() {
        let mut cluster = Cluster::of(1);
        cluster.cut(20, &[]);
        cluster.flush(window(0, 10));
        let longer = window(0, 20);
        let refused = cluster.refuse(cluster.claim_command(0, longer, 5));
        assert_eq!(refused, Refused::WrongWindow { window: longer });
        let refused = cluster.refuse(cluster.print_command(longer, 1, 5));
        assert_eq!(refused, Refused::WrongWindow { window: longer });
    }
}
