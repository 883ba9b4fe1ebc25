//! When aggregations begin: at the first cut from which on every entry has their sections.
//!
//! A node learns of a new aggregation after it was registered, and what it has accepted
//! until then says nothing of it. So the segments that are open when one is registered are
//! waited for: until their writer has said from which stamp on it packs everything, or they
//! can have nothing more. Until then the beginning is put off from cut to cut, and with it
//! the end of what is replaced. Segments that are opened meanwhile are waited for too.
//!
//! Before the first aggregation counts, nobody accepts anything, and nobody is waited for.

use std::collections::BTreeMap;

use crate::checkpoint::facts::aggregations::Aggregation;
use crate::checkpoint::facts::command::Applied;
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::facts::{Facts, SegmentId};
use crate::event::time::UnixNanos;

/// The segments that are waited for, and from which stamp on each has all sections, if that
/// was said.
pub(super) type Unaware = BTreeMap<SegmentId, Option<UnixNanos>>;

impl Facts {
    /// Whether aggregations wait for a word of this segment's writer.
    pub fn is_unaware(&self, segment: SegmentId) -> bool {
        self.aggregations.unaware.get(&segment) == Some(&None)
    }

    /// Whether an aggregation counts.
    pub fn has_begun(&self) -> bool {
        let latest = self.cuts.latest.number;
        let counts = |known: &Aggregation| {
            known.since <= latest && known.until.is_none_or(|until| until > latest)
        };
        self.aggregations.known.values().any(counts)
    }

    /// Waits for every segment that may have entries that no cut has counted, as new
    /// aggregations were registered.
    pub(super) fn wait_for_writers(&mut self) {
        if !self.has_begun() {
            return;
        }
        let now = self.cuts.latest.time;
        let growing = self.segments.known.iter().filter(|(_, segment)| segment.ceiling > now);
        self.aggregations.unaware = growing.map(|(&id, _)| (id, None)).collect();
    }

    /// Waits for a segment that is opened now, if an aggregation is yet to begin.
    pub(super) fn wait_for_writer(&mut self, segment: SegmentId) {
        let latest = self.cuts.latest.number;
        let is_to_begin = |known: &Aggregation| known.since > latest;
        if self.has_begun() && self.aggregations.known.values().any(is_to_begin) {
            self.aggregations.unaware.insert(segment, None);
        }
    }

    pub(super) fn aware(
        &mut self,
        segment: SegmentId,
        below: u32,
        from: UnixNanos,
    ) -> Result<Applied, Refused> {
        // Whoever says less has not heard of the newest ones, and says so again.
        if below >= self.aggregations.next
            && let Some(said) = self.aggregations.unaware.get_mut(&segment)
        {
            said.get_or_insert(from);
        }
        Ok(Applied::Done)
    }

    /// Puts off what was to begin and end with the next cut, if at its time some segment may
    /// get entries without all sections.
    pub(super) fn put_off(&mut self, number: u64, time: UnixNanos) {
        let is_over = |(id, said): (&SegmentId, &Option<UnixNanos>)| {
            let segment = self.segments.known.get(id);
            segment.is_none_or(|segment| segment.ceiling <= time)
                || said.is_some_and(|from| from <= time)
        };
        if self.aggregations.unaware.iter().all(is_over) {
            self.aggregations.unaware.clear();
            return;
        }
        for aggregation in self.aggregations.known.values_mut() {
            if aggregation.since == number {
                aggregation.since += 1;
            }
            if aggregation.until == Some(number) {
                aggregation.until = Some(number + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::facts::command::Command;
    use crate::checkpoint::facts::tests::{Cluster, SETTINGS, at, join, node, register};

    fn aware(segment: SegmentId, below: u32, second: u64) -> Command {
        Command::Aware { segment, below, from: at(second) }
    }

    /// When each aggregation begins and ends.
    fn lives(cluster: &Cluster) -> Vec<(u64, Option<u64>)> {
        cluster.facts.aggregations().values().map(|a| (a.since, a.until)).collect()
    }

    /// Two writers, and an aggregation that is to replace the first one.
    fn waiting() -> (Cluster, SegmentId, SegmentId) {
        let mut cluster = Cluster::of(2);
        let (one, other) = (cluster.open(1, &[1]), cluster.open(2, &[2]));
        cluster.accept(register(&["another"]));
        assert!(cluster.facts.is_unaware(one) && cluster.facts.is_unaware(other));
        (cluster, one, other)
    }

    #[test]
    fn an_aggregation_begins_when_every_writer_packs_it_and_what_it_replaces_ends() {
        let (mut cluster, one, other) = waiting();
        cluster.cut(2, &[]);
        assert_eq!(lives(&cluster), [(1, Some(3)), (3, None)]);
        cluster.accept(aware(one, 2, 2));
        cluster.cut(3, &[]);
        assert_eq!(lives(&cluster), [(1, Some(4)), (4, None)]);
        cluster.accept(aware(other, 2, 4));
        cluster.cut(4, &[]);
        cluster.cut(5, &[]);
        assert_eq!(lives(&cluster), [(1, Some(4)), (4, None)]);
    }

    #[test]
    fn a_writer_whose_clock_is_ahead_is_waited_for_until_its_stamps_have_all_sections() {
        let (mut cluster, one, other) = waiting();
        cluster.accept(aware(one, 2, 2));
        cluster.accept(aware(other, 2, 6));
        cluster.cut(5, &[]);
        assert_eq!(lives(&cluster)[1], (3, None));
        cluster.cut(6, &[]);
        cluster.cut(7, &[]);
        assert_eq!(lives(&cluster)[1], (3, None));
    }

    #[test]
    fn a_word_that_is_repeated_or_of_fewer_aggregations_changes_nothing() {
        let (mut cluster, one, _) = waiting();
        cluster.repeat(aware(one, 1, 2));
        cluster.accept(aware(one, 2, 2));
        assert!(!cluster.facts.is_unaware(one));
        cluster.repeat(aware(one, 2, 9));
        cluster.repeat(aware(99, 2, 2));
        cluster.accept(register(&["another", "third"]));
        assert!(cluster.facts.is_unaware(one), "it packs not all any more");
    }

    #[test]
    fn a_writer_that_is_gone_is_waited_for_until_its_last_lease_is_over() {
        let (mut cluster, one, other) = waiting();
        cluster.accept(aware(one, 2, 2));
        cluster.accept(Command::BeginSeal { segment: other, ceiling: at(12) });
        cluster.cut(11, &[]);
        assert_eq!(lives(&cluster)[1], (3, None));
        cluster.cut(12, &[]);
        cluster.cut(13, &[]);
        assert_eq!(lives(&cluster)[1], (3, None));
    }

    #[test]
    fn a_segment_that_is_opened_meanwhile_is_waited_for_too() {
        let (mut cluster, one, other) = waiting();
        cluster.accept(aware(one, 2, 2));
        cluster.seal(other, 1, 0, &[2]);
        let next = cluster.open(2, &[2]);
        cluster.cut(2, &[]);
        assert_eq!(lives(&cluster)[1], (3, None));
        cluster.accept(aware(next, 2, 2));
        cluster.cut(3, &[]);
        assert_eq!(lives(&cluster)[1], (3, None));
        assert!(!cluster.facts.is_unaware(cluster.facts.segments.last));
    }

    #[test]
    fn nobody_is_waited_for_before_the_first_one_counts() {
        let mut cluster = Cluster { facts: Facts::new(SETTINGS) };
        cluster.accept(join(1));
        cluster.accept(Command::Activate { node: node(1) });
        cluster.open(1, &[1]);
        cluster.accept(register(&["first"]));
        cluster.cut(1, &[]);
        cluster.cut(2, &[]);
        assert_eq!(lives(&cluster), [(1, None)]);
    }

    #[test]
    fn nobody_waits_for_segments_that_are_sealed_or_for_an_end() {
        let mut cluster = Cluster::of(2);
        let sealed = cluster.open(1, &[1]);
        cluster.seal(sealed, 1, 0, &[1]);
        cluster.accept(register(&["by-foo", "another"]));
        cluster.cut(2, &[]);
        cluster.cut(3, &[]);
        assert_eq!(lives(&cluster), [(1, None), (2, None)]);
        cluster.open(1, &[1]);
        cluster.accept(register(&["by-foo"]));
        cluster.cut(4, &[]);
        cluster.cut(5, &[]);
        assert_eq!(lives(&cluster), [(1, None), (2, Some(4))]);
    }
}
