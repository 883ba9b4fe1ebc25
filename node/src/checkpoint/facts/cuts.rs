//! Cuts: the cluster's clock. A cut is a time, and for every segment how much of it is
//! stamped before that time.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::checkpoint::facts::command::Applied;
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::facts::segments::Segment;
use crate::checkpoint::facts::{Facts, SegmentId};
use crate::event::time::{UnixNanos, Window};
use crate::failpoint::is_to_fail;
use crate::journal::Extent;

/// How many of the latest cuts are kept even if nothing refers to them: whoever has just
/// folded up to one can still claim at it.
const RECENT: u64 = 60;

/// A cut that was committed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Counts the cuts, from 1.
    pub number: u64,
    /// A whole second.
    pub time: UnixNanos,
    /// How much of each segment is below the cut: what is stamped before its time. Of a
    /// segment that is lost it is all, for nobody can tell.
    pub counts: BTreeMap<SegmentId, Extent>,
    /// The segments of which nobody could tell. For these the count is the one last known.
    pub missing: BTreeMap<SegmentId, Span>,
}

/// A half-open stretch of time: `from <= stamp < until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first instant.
    pub from: UnixNanos,
    /// The first instant after it.
    pub until: UnixNanos,
}

impl Span {
    /// Whether some instant is in both.
    pub fn overlaps(&self, window: Window) -> bool {
        self.from < window.end && window.start < self.until
    }
}

impl Cut {
    /// How much of a segment is below the cut.
    pub fn count(&self, segment: SegmentId) -> Extent {
        self.counts.get(&segment).copied().unwrap_or_default()
    }

    /// The segments that may have entries in the window which the cut does not count.
    pub fn missing_of(&self, window: Window) -> impl Iterator<Item = SegmentId> {
        self.missing.iter().filter(move |(_, span)| span.overlaps(window)).map(|(&id, _)| id)
    }

    /// The time up to which the cut counts all of a segment.
    pub(super) fn known(&self, id: SegmentId, segment: &Segment) -> UnixNanos {
        let known = self.missing.get(&id).map_or(self.time, |span| span.from);
        known.max(segment.floor)
    }

    /// Refuses an end of a segment that the cut contradicts, or the segment's last lease.
    pub(super) fn check_end(
        &self,
        id: SegmentId,
        segment: &Segment,
        end: Extent,
        until: UnixNanos,
    ) -> Result<(), Refused> {
        let (counted, known, ceiling) = (self.count(id), self.known(id, segment), segment.ceiling);
        if !end.continues(counted) {
            Err(Refused::BelowCut { segment: id, end, counted })
        } else if until > ceiling || (end != counted && until <= known) {
            Err(Refused::OtherStamps { segment: id, until, known, ceiling })
        } else {
            Ok(())
        }
    }
}

/// The latest cut, and those of the older ones that are still referred to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cuts {
    pub(super) latest: Cut,
    pub(super) older: BTreeMap<u64, Cut>,
}

impl Cuts {
    pub(super) fn get(&self, number: u64) -> Option<&Cut> {
        if number == self.latest.number { Some(&self.latest) } else { self.older.get(&number) }
    }
}

impl Facts {
    pub(super) fn next_cut(
        &mut self,
        number: u64,
        time: UnixNanos,
        stamped: &BTreeMap<SegmentId, Extent>,
    ) -> Result<Applied, Refused> {
        let last = &self.cuts.latest;
        if number != last.number + 1 {
            return Err(Refused::StaleCut { latest: last.number });
        }
        if time <= last.time {
            return Err(Refused::EarlierCut { latest: last.time });
        }
        // One that was trimmed since the leader asked does not matter.
        if let Some(&segment) = stamped.keys().find(|&&id| id > self.segments.last) {
            return Err(Refused::NoSegment { segment });
        }
        let mut cut = Cut { number, time, ..Cut::default() };
        for (&id, segment) in &self.segments.known {
            cut.cover(id, segment, stamped.get(&id).copied(), last)?;
        }
        self.put_off(number, time);
        self.account(&cut);
        let last = std::mem::replace(&mut self.cuts.latest, cut);
        self.cuts.older.insert(last.number, last);
        Ok(Applied::Done)
    }

    /// The oldest cut that some slot goes on from, or is claimed at.
    pub fn oldest_needed_cut(&self) -> u64 {
        self.needed_cuts().first().copied().unwrap_or(self.cuts.latest.number)
    }

    fn needed_cuts(&self) -> BTreeSet<u64> {
        let aggregations = self.aggregations.known.values();
        let needed = aggregations.flat_map(|aggregation| {
            self.resumed_from(aggregation).into_iter().chain(aggregation.claimed_at())
        });
        needed.collect()
    }

    pub(super) fn prune_cuts(&mut self) {
        let mut needed = self.needed_cuts();
        needed.extend(self.aggregations.known.values().filter_map(|ended| ended.until));
        let latest = self.cuts.latest.number;
        self.cuts.older.retain(|number, _| number + RECENT > latest || needed.contains(number));
    }
}

impl Cut {
    /// Counts a segment, of which so much was reported to be stamped, if anybody did.
    fn cover(
        &mut self,
        id: SegmentId,
        segment: &Segment,
        stamped: Option<Extent>,
        last: &Cut,
    ) -> Result<(), Refused> {
        if segment.end().is_some() && is_to_fail("planted-sealed-left-out") {
            return Ok(());
        }
        let counted = last.count(id);
        if stamped.is_some_and(|stamped| !stamped.continues(counted)) {
            return Err(Refused::CountFellBack { segment: id, counted });
        }
        if let (Some(stamped), Some(end)) = (stamped, segment.end())
            && !end.continues(stamped)
        {
            return Err(Refused::PastEnd { segment: id, end });
        }
        let count = segment.all_before(self.time).or(stamped).unwrap_or_else(|| {
            let missing = Span { from: last.known(id, segment), until: segment.ceiling };
            if missing.from < missing.until && !is_to_fail("planted-silent-is-empty") {
                self.missing.insert(id, missing);
            }
            counted
        });
        self.counts.insert(id, count);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::facts::command::Command;
    use crate::checkpoint::facts::tests::{Cluster, at, cut, extent, node, seal, window};

    #[test]
    fn cuts_are_numbered_without_gaps_so_that_two_leaders_cannot_both_cut() {
        let mut cluster = Cluster::of(1);
        cluster.accept(cut(2, 5, &[]));
        for number in [0, 1, 2, 4] {
            assert_eq!(cluster.refuse(cut(number, 9, &[])), Refused::StaleCut { latest: 2 });
        }
        cluster.accept(cut(3, 9, &[]));
    }

    #[test]
    fn time_goes_on_from_cut_to_cut() {
        let mut cluster = Cluster::of(1);
        cluster.cut(5, &[]);
        for second in [4, 5] {
            let refused = cluster.refuse(cut(3, second, &[]));
            assert_eq!(refused, Refused::EarlierCut { latest: at(5) });
        }
    }

    #[test]
    fn counts_never_fall_back() {
        let mut cluster = Cluster::of(1);
        let segment = cluster.open(1, &[1]);
        cluster.cut(5, &[(segment, 50)]);
        let fell_back = Refused::CountFellBack { segment, counted: extent(50) };
        assert_eq!(cluster.refuse(cut(3, 6, &[(segment, 49)])), fell_back);
        for (entries, records, chunks) in [(51, 149, 0), (50, 149, 0), (50, 151, 0), (50, 150, 1)] {
            let stamped = [(segment, Extent { entries, records, chunks })].into();
            let command = Command::Cut { number: 3, time: at(6), stamped };
            assert_eq!(cluster.refuse(command), fell_back);
        }
        cluster.accept(cut(3, 6, &[(segment, 50)]));
    }

    #[test]
    fn a_sealed_segment_counts_to_its_end_once_all_its_stamps_are_below_the_cut() {
        let mut cluster = Cluster::of(1);
        let segment = cluster.open(1, &[1]);
        cluster.seal(segment, 7, 40, &[1]);
        for past_end in [extent(41), Extent { records: 121, ..extent(40) }] {
            let stamped = [(segment, past_end)].into();
            let refused = cluster.refuse(Command::Cut { number: 2, time: at(5), stamped });
            assert_eq!(refused, Refused::PastEnd { segment, end: extent(40) });
        }
        cluster.cut(5, &[(segment, 30)]);
        assert_eq!(cluster.facts.latest_cut().count(segment), extent(30));
        assert!(cluster.facts.latest_cut().missing.is_empty());
        cluster.cut(7, &[]);
        assert_eq!(cluster.facts.latest_cut().count(segment), extent(40));
        assert!(cluster.facts.latest_cut().missing.is_empty());
    }

    #[test]
    fn a_sealed_segment_with_later_stamps_that_no_holder_told_of_is_missing() {
        let mut cluster = Cluster::of(1);
        let segment = cluster.open(1, &[1]);
        cluster.cut(3, &[(segment, 20)]);
        cluster.seal(segment, 7, 40, &[1]);
        cluster.cut(5, &[]);
        let latest = cluster.facts.latest_cut();
        assert_eq!(latest.count(segment), extent(20));
        assert_eq!(latest.missing, [(segment, Span { from: at(3), until: at(7) })].into());
    }

    #[test]
    fn a_lost_segment_counts_to_its_end_as_nobody_can_tell() {
        let mut cluster = Cluster::of(3);
        let segment = cluster.open(3, &[3]);
        cluster.seal(segment, 7, 40, &[3]);
        cluster.accept(Command::Forget { node: node(3) });
        cluster.cut(5, &[]);
        let latest = cluster.facts.latest_cut();
        assert_eq!((latest.count(segment), latest.missing.len()), (extent(40), 0));
    }

    #[test]
    fn a_segment_that_nobody_told_of_is_missing_from_when_it_was_last_known() {
        let mut cluster = Cluster::of(2);
        let (known, silent) = (cluster.open(1, &[1]), cluster.open(2, &[2]));
        cluster.cut(5, &[(known, 1), (silent, 20)]);
        cluster.cut(6, &[(known, 2)]);
        cluster.cut(7, &[(known, 3)]);
        let latest = cluster.facts.latest_cut();
        assert_eq!(latest.counts, [(known, extent(3)), (silent, extent(20))].into());
        let missing = Span { from: at(5), until: UnixNanos(u64::MAX) };
        assert_eq!(latest.missing, [(silent, missing)].into());
        assert_eq!(latest.missing_of(window(0, 5)).count(), 0);
        assert!(latest.missing_of(window(4, 6)).eq([silent]));
        assert!(latest.missing_of(window(90, 91)).eq([silent]));
        cluster.cut(8, &[(known, 4), (silent, 21)]);
        assert!(cluster.facts.latest_cut().missing.is_empty());
    }

    #[test]
    fn a_segment_opened_after_the_last_cut_may_be_missing_from_its_floor_on() {
        let mut cluster = Cluster::of(1);
        cluster.cut(5, &[]);
        let segment = cluster.open(1, &[1]);
        cluster.cut(6, &[]);
        let missing = Span { from: at(5), until: UnixNanos(u64::MAX) };
        assert_eq!(cluster.facts.latest_cut().missing, [(segment, missing)].into());
    }

    #[test]
    fn a_segment_that_is_being_sealed_is_missing_only_until_its_last_lease_ended() {
        let mut cluster = Cluster::of(1);
        let segment = cluster.open(1, &[1]);
        cluster.cut(5, &[(segment, 20)]);
        cluster.accept(Command::BeginSeal { segment, ceiling: at(8) });
        cluster.cut(10, &[]);
        let latest = cluster.facts.latest_cut();
        assert_eq!(latest.missing_of(window(0, 10)).count(), 1);
        assert_eq!(latest.missing_of(window(8, 10)).count(), 0);
        cluster.accept(seal(segment, 25, 8, &[1]));
        cluster.cut(11, &[]);
        assert!(cluster.facts.latest_cut().missing.is_empty());
    }

    #[test]
    fn a_cut_at_or_after_the_last_lease_knows_the_whole_segment() {
        let mut cluster = Cluster::of(1);
        let segment = cluster.open(1, &[1]);
        cluster.cut(8, &[(segment, 20)]);
        cluster.accept(Command::BeginSeal { segment, ceiling: at(8) });
        cluster.cut(10, &[]);
        assert!(cluster.facts.latest_cut().missing.is_empty());
    }

    #[test]
    fn a_trimmed_segment_may_still_be_told_of_but_none_that_was_never_opened() {
        let mut cluster = Cluster::of(1);
        let segment = cluster.open(1, &[1]);
        cluster.seal(segment, 3, 0, &[1]);
        assert!(cluster.facts.segments().is_empty());
        cluster.cut(5, &[(segment, 0)]);
        let refused = cluster.refuse(cut(3, 6, &[(segment + 1, 0)]));
        assert_eq!(refused, Refused::NoSegment { segment: segment + 1 });
    }

    #[test]
    fn cuts_are_kept_while_a_slot_goes_on_from_them_or_is_claimed_at_them() {
        let mut cluster = Cluster::of(1);
        cluster.cut(10, &[]);
        cluster.flush_slot(0, window(0, 10));
        cluster.cut(20, &[]);
        cluster.accept(cluster.claim_command(1, window(0, 10), 1));
        let carried = cluster.cut(21, &[]);
        cluster.accept(cluster.carry_command(1, carried));
        for second in 0..2 * RECENT {
            cluster.cut(30 + second, &[]);
        }
        let latest = cluster.facts.latest_cut().number;
        let kept: Vec<_> = (0..=latest).filter(|&n| cluster.facts.cut(n).is_some()).collect();
        let recent = latest - RECENT + 1..=latest;
        assert_eq!(kept, [2, 3, 4].into_iter().chain(recent).collect::<Vec<_>>());
        assert!(cluster.facts.cuts().map(|cut| cut.number).eq(kept));
        assert_eq!(cluster.facts.oldest_needed_cut(), 2);
    }

    #[test]
    fn without_aggregations_the_latest_cut_is_the_oldest_that_is_needed() {
        let mut cluster = Cluster::of(1);
        cluster.accept(Command::Register { definitions: BTreeMap::new() });
        cluster.cut(2, &[]);
        assert_eq!(cluster.facts.oldest_needed_cut(), 1, "the ended one is not flushed yet");
        cluster.flush(window(0, 2));
        assert_eq!(cluster.facts.oldest_needed_cut(), 2);
    }
}
