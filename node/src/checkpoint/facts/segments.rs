//! Segments: stretches of journals, each with one set of copies. Raft opens and seals
//! them; what is appended in between it never sees.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::checkpoint::facts::command::Applied;
use crate::checkpoint::facts::members::MemberState;
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::facts::{Facts, SegmentId};
use crate::event::node::NodeId;
use crate::event::time::UnixNanos;
use crate::journal::Extent;

/// A segment that some slot may still ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The only node that appends to it.
    pub writer: NodeId,
    /// Where each entry has to be durable before it is acknowledged, the writer included.
    /// Once the segment is sealed, this says only how many should hold it.
    pub copies: Vec<NodeId>,
    /// Nothing in it is stamped before this.
    pub floor: UnixNanos,
    /// Nothing in it is stamped at this time or later. Unknown while it is open, and then
    /// the largest number; what the last lease allowed while it is being sealed.
    pub ceiling: UnixNanos,
    /// Whether it may still grow.
    pub state: SegmentState,
}

/// Whether a segment may still grow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SegmentState {
    /// Its writer appends under a lease.
    Open,
    /// It gets no more leases, and its end is being found out.
    Sealing,
    /// It has its final length.
    Sealed {
        /// All that it has.
        end: Extent,
        /// The nodes that have all of it. When there are none, the nodes that had them
        /// were forgotten, and what was not carried is lost.
        holders: BTreeSet<NodeId>,
    },
}

impl Segment {
    /// All that the segment has, once it is sealed.
    pub fn end(&self) -> Option<Extent> {
        match self.state {
            SegmentState::Open | SegmentState::Sealing => None,
            SegmentState::Sealed { end, .. } => Some(end),
        }
    }

    /// All that the segment has, once it is sealed, and was not lost.
    fn whole(&self) -> Option<Extent> {
        self.end().filter(|_| self.nodes().next().is_some())
    }

    /// All that the segment has, once it is sealed and nothing in it is stamped at `time`
    /// or later; once it is lost, at any time, for nobody can tell.
    pub(super) fn all_before(&self, time: UnixNanos) -> Option<Extent> {
        match &self.state {
            SegmentState::Sealed { end, holders } if self.ceiling <= time || holders.is_empty() => {
                Some(*end)
            }
            _ => None,
        }
    }

    /// The nodes that have the segment: the copies while it may grow, then the holders.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        let (copies, holders) = match &self.state {
            SegmentState::Open | SegmentState::Sealing => (Some(&self.copies), None),
            SegmentState::Sealed { holders, .. } => (None, Some(holders)),
        };
        copies.into_iter().flatten().chain(holders.into_iter().flatten()).copied()
    }
}

/// The segments and the last number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Segments {
    pub(super) last: SegmentId,
    pub(super) known: BTreeMap<SegmentId, Segment>,
    /// The newest segment of each writer that nobody needs any more, and all that it has: the
    /// writer may have to hear where it ended.
    pub(super) over: BTreeMap<NodeId, (SegmentId, Extent)>,
}

impl Segments {
    /// Takes a node that goes away from the holders of all segments.
    pub(super) fn remove_holder(&mut self, node: NodeId) {
        for segment in self.known.values_mut() {
            if let SegmentState::Sealed { holders, .. } = &mut segment.state {
                holders.remove(&node);
            }
        }
        self.over.remove(&node);
    }

    /// Leaves out a segment that nobody needs any more.
    fn remove(&mut self, id: SegmentId) {
        let Some(segment) = self.known.remove(&id) else { return };
        let newest = self.over.get(&segment.writer).is_none_or(|&(newest, _)| newest < id);
        if let Some(end) = segment.whole().filter(|_| newest) {
            self.over.insert(segment.writer, (id, end));
        }
    }

    fn get_mut(&mut self, segment: SegmentId) -> Result<&mut Segment, Refused> {
        self.known.get_mut(&segment).ok_or(Refused::NoSegment { segment })
    }
}

impl Facts {
    pub(super) fn open_segment(
        &mut self,
        writer: NodeId,
        copies: Vec<NodeId>,
    ) -> Result<Applied, Refused> {
        let different: BTreeSet<_> = copies.iter().collect();
        if different.len() < copies.len() || !copies.contains(&writer) {
            return Err(Refused::WrongCopies { writer });
        }
        for &node in &copies {
            match self.state_of(node)? {
                MemberState::Active => {}
                state => return Err(Refused::NotActive { node, state }),
            }
        }
        let is_open =
            |segment: &Segment| segment.writer == writer && segment.state == SegmentState::Open;
        if let Some((&segment, _)) = self.segments.known.iter().find(|(_, s)| is_open(s)) {
            return Err(Refused::StillOpen { writer, segment });
        }
        self.segments.last += 1;
        let opened = Segment {
            writer,
            copies,
            floor: self.cuts.latest.time,
            ceiling: UnixNanos(u64::MAX),
            state: SegmentState::Open,
        };
        self.segments.known.insert(self.segments.last, opened);
        self.wait_for_writer(self.segments.last);
        Ok(Applied::Segment(self.segments.last))
    }

    pub(super) fn begin_seal(
        &mut self,
        segment: SegmentId,
        ceiling: UnixNanos,
    ) -> Result<Applied, Refused> {
        let segment = self.segments.get_mut(segment)?;
        if segment.state == SegmentState::Open {
            // It may lie below the floor if the writer never had a lease.
            (segment.state, segment.ceiling) = (SegmentState::Sealing, ceiling.max(segment.floor));
        }
        Ok(Applied::Done)
    }

    pub(super) fn seal(
        &mut self,
        id: SegmentId,
        end: Extent,
        until: UnixNanos,
        holders: BTreeSet<NodeId>,
    ) -> Result<Applied, Refused> {
        let latest = &self.cuts.latest;
        let is_gone = |node: &NodeId| self.state_of(*node).is_ok_and(MemberState::is_gone);
        let one_is_gone = holders.iter().any(is_gone);
        let segment = self.segments.get_mut(id)?;
        let are_copies = holders.iter().all(|holder| segment.copies.contains(holder));
        if holders.is_empty() || !are_copies || one_is_gone {
            return Err(Refused::WrongHolders { segment: id });
        }
        match &mut segment.state {
            SegmentState::Open => Err(Refused::NotSealing { segment: id }),
            SegmentState::Sealing => {
                latest.check_end(id, segment, end, until)?;
                segment.state = SegmentState::Sealed { end, holders };
                segment.ceiling = until;
                Ok(Applied::Done)
            }
            SegmentState::Sealed { end: sealed, .. }
                if (*sealed, segment.ceiling) != (end, until) =>
            {
                Err(Refused::OtherEnd { segment: id, end: *sealed, until: segment.ceiling })
            }
            SegmentState::Sealed { holders: known, .. } if known.is_empty() => {
                Err(Refused::Lost { segment: id })
            }
            SegmentState::Sealed { holders: known, .. } => {
                known.extend(holders);
                Ok(Applied::Done)
            }
        }
    }

    pub(super) fn hold(&mut self, id: SegmentId, node: NodeId) -> Result<Applied, Refused> {
        let state = self.state_of(node)?;
        if state.is_gone() {
            return Err(Refused::Gone { node, state });
        }
        match &mut self.segments.get_mut(id)?.state {
            SegmentState::Open | SegmentState::Sealing => Err(Refused::NotSealed { segment: id }),
            SegmentState::Sealed { holders, .. } if holders.is_empty() => {
                Err(Refused::Lost { segment: id })
            }
            SegmentState::Sealed { holders, .. } => {
                holders.insert(node);
                Ok(Applied::Done)
            }
        }
    }

    /// How many of a segment's entries every slot has flushed or carried. Nobody needs
    /// them any more.
    pub fn trimmed(&self, segment: SegmentId) -> u64 {
        self.trimmed_by(&self.resumed(), segment)
    }

    /// The same of each segment that is known.
    pub fn all_trimmed(&self) -> BTreeMap<SegmentId, u64> {
        let resumed = self.resumed();
        self.segments().keys().map(|&id| (id, self.trimmed_by(&resumed, id))).collect()
    }

    /// The cuts from which the slots would fold again, by aggregation.
    fn resumed(&self) -> Vec<BTreeSet<u64>> {
        let aggregations = self.aggregations.known.values();
        aggregations.map(|aggregation| self.resumed_from(aggregation)).collect()
    }

    fn trimmed_by(&self, resumed: &[BTreeSet<u64>], segment: SegmentId) -> u64 {
        let least = resumed.iter().filter_map(|cuts| self.least_count(cuts, segment));
        let trimmed = least.map(|extent| extent.entries).min();
        trimmed.unwrap_or_else(|| self.cuts.latest.count(segment).entries)
    }

    pub(super) fn prune_segments(&mut self) {
        let resumed = self.resumed();
        let trimmed = |(&id, segment): (&SegmentId, &Segment)| {
            let end = segment.end()?.entries;
            (self.trimmed_by(&resumed, id) >= end).then_some(id)
        };
        let over: Vec<_> = self.segments.known.iter().filter_map(trimmed).collect();
        over.into_iter().for_each(|id| self.segments.remove(id));
    }

    /// All that a segment has, once it is sealed, and was not lost. Of the segments that nobody
    /// needs any more only the newest of each writer is known.
    pub fn end_of(&self, segment: SegmentId) -> Option<Extent> {
        let over = self.segments.over.values().find(|(over, _)| *over == segment);
        self.segments.known.get(&segment).map_or(over.map(|(_, end)| *end), Segment::whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::facts::command::Command;
    use crate::checkpoint::facts::tests::{Cluster, at, extent, join, node, nodes, seal, window};

    fn open(writer: u64, copies: &[u64]) -> Command {
        Command::OpenSegment { writer: node(writer), copies: nodes(copies) }
    }

    #[test]
    fn a_segment_is_opened_on_active_nodes_only() {
        let mut cluster = Cluster::of(3);
        cluster.accept(join(4));
        cluster.accept(Command::Drain { node: node(3) });
        let joining = Refused::NotActive { node: node(4), state: MemberState::Joining };
        assert_eq!(cluster.refuse(open(4, &[4, 1])), joining);
        assert_eq!(cluster.refuse(open(1, &[1, 4])), joining);
        let draining = Refused::NotActive { node: node(3), state: MemberState::Draining };
        assert_eq!(cluster.refuse(open(1, &[1, 3])), draining);
        assert_eq!(cluster.refuse(open(1, &[1, 9])), Refused::NoNode { node: node(9) });
    }

    #[test]
    fn the_copies_are_different_and_one_is_the_writer() {
        let mut cluster = Cluster::of(3);
        for copies in [&[][..], &[2, 3], &[1, 1], &[1, 2, 2]] {
            assert_eq!(cluster.refuse(open(1, copies)), Refused::WrongCopies { writer: node(1) });
        }
    }

    #[test]
    fn a_writer_has_one_open_segment_and_may_open_another_while_it_is_sealed() {
        let mut cluster = Cluster::of(2);
        let segment = cluster.open(1, &[1, 2]);
        let still_open = Refused::StillOpen { writer: node(1), segment };
        assert_eq!(cluster.refuse(open(1, &[1, 2])), still_open);
        cluster.accept(Command::BeginSeal { segment, ceiling: at(5) });
        assert_eq!(cluster.open(1, &[1, 2]), segment + 1);
        let still_open = Refused::StillOpen { writer: node(1), segment: segment + 1 };
        assert_eq!(cluster.refuse(open(1, &[1, 2])), still_open);
        cluster.accept(Command::BeginSeal { segment: segment + 1, ceiling: at(6) });
        assert_eq!(cluster.open(1, &[1, 2]), segment + 2);
        assert_eq!(cluster.open(2, &[1, 2]), segment + 3);
    }

    #[test]
    fn a_segment_stamps_nothing_before_the_cut_that_it_was_opened_after() {
        let mut cluster = Cluster::of(2);
        cluster.cut(7, &[]);
        let segment = cluster.open(1, &[1]);
        assert_eq!(cluster.facts.segments()[&segment].floor, at(7));
    }

    #[test]
    fn where_a_writers_newest_segment_ended_is_known_when_nobody_needs_it_any_more() {
        let mut cluster = Cluster::of(2);
        let [first, second] = [3, 0].map(|entries| {
            let segment = cluster.open(1, &[1, 2]);
            cluster.seal(segment, 5, entries, &[1]);
            segment
        });
        assert!(!cluster.facts.segments().contains_key(&second), "it has nothing");
        assert_eq!(cluster.facts.end_of(first), Some(extent(3)));
        assert_eq!(cluster.facts.end_of(second), Some(extent(0)));
        cluster.cut(10, &[]);
        cluster.flush(window(0, 10));
        assert!(cluster.facts.segments().is_empty());
        assert_eq!(cluster.facts.end_of(first), None, "its writer knows: it has opened another");
        assert_eq!(cluster.facts.end_of(second), Some(extent(0)));
    }

    #[test]
    fn nobody_knows_where_a_segment_ended_that_was_lost() {
        let mut cluster = Cluster::of(3);
        let segment = cluster.open(1, &[1, 3]);
        cluster.cut(5, &[(segment, 2)]);
        cluster.seal(segment, 6, 4, &[3]);
        assert_eq!(cluster.facts.end_of(segment), Some(extent(4)));
        cluster.accept(Command::Forget { node: node(3) });
        assert_eq!(cluster.facts.end_of(segment), None);
        cluster.cut(10, &[]);
        cluster.flush(window(0, 10));
        assert!(cluster.facts.segments().is_empty());
        assert_eq!(cluster.facts.end_of(segment), None);
    }

    #[test]
    fn sealing_begins_once() {
        let mut cluster = Cluster::of(2);
        let segment = cluster.open(1, &[1]);
        let begin = |second| Command::BeginSeal { segment, ceiling: at(second) };
        cluster.accept(begin(5));
        cluster.repeat(begin(9));
        assert_eq!(cluster.facts.segments()[&segment].ceiling, at(5));
        let segment = cluster.open(1, &[1]);
        cluster.accept(Command::BeginSeal { segment, ceiling: at(0) });
        assert_eq!(cluster.facts.segments()[&segment].ceiling, at(1), "its floor");
        let unknown = Command::BeginSeal { segment: 9, ceiling: at(5) };
        assert_eq!(cluster.refuse(unknown), Refused::NoSegment { segment: 9 });
    }

    #[test]
    fn a_segment_has_one_end_for_ever() {
        let mut cluster = Cluster::of(3);
        let segment = cluster.open(1, &[1, 2, 3]);
        assert_eq!(cluster.refuse(seal(segment, 5, 4, &[1])), Refused::NotSealing { segment });
        cluster.accept(Command::BeginSeal { segment, ceiling: at(5) });
        cluster.accept(seal(segment, 5, 4, &[2]));
        cluster.repeat(seal(segment, 5, 4, &[2]));
        cluster.accept(seal(segment, 5, 4, &[3]));
        let sealed = &cluster.facts.segments()[&segment];
        assert_eq!((sealed.end(), sealed.ceiling), (Some(extent(5)), at(4)));
        assert!(sealed.nodes().eq([node(2), node(3)]));
        for (end, until) in [(4, 4), (6, 4), (5, 3), (5, 5)] {
            let refused = cluster.refuse(seal(segment, end, until, &[3]));
            assert_eq!(refused, Refused::OtherEnd { segment, end: extent(5), until: at(4) });
        }
    }

    #[test]
    fn a_seal_says_of_no_stamp_that_a_lease_did_not_allow_or_a_cut_has_passed() {
        let mut cluster = Cluster::of(2);
        let segment = cluster.open(1, &[1, 2]);
        cluster.cut(3, &[(segment, 6)]);
        cluster.cut(4, &[]);
        cluster.accept(Command::BeginSeal { segment, ceiling: at(9) });
        for second in [2, 3, 10] {
            let (until, known, ceiling) = (at(second), at(3), at(9));
            let refused = cluster.refuse(seal(segment, 7, second, &[1]));
            assert_eq!(refused, Refused::OtherStamps { segment, until, known, ceiling });
        }
        for (end, second) in [(7, 4), (7, 9), (6, 2)] {
            cluster.clone().accept(seal(segment, end, second, &[1]));
        }
    }

    #[test]
    fn a_seal_cuts_nothing_off_that_was_counted() {
        let mut cluster = Cluster::of(2);
        let segment = cluster.open(1, &[1, 2]);
        cluster.cut(2, &[(segment, 6)]);
        cluster.accept(Command::BeginSeal { segment, ceiling: at(5) });
        let fewer_records = Extent { records: extent(6).records - 1, ..extent(7) };
        for end in [extent(5), fewer_records] {
            let (until, holders) = (at(4), nodes(&[2]));
            let refused = cluster.refuse(Command::Seal { segment, end, until, holders });
            assert_eq!(refused, Refused::BelowCut { segment, end, counted: extent(6) });
        }
        cluster.accept(seal(segment, 6, 2, &[2]));
    }

    #[test]
    fn a_segment_is_sealed_by_copies_of_it() {
        let mut cluster = Cluster::of(3);
        let segment = cluster.open(1, &[1, 2]);
        cluster.accept(Command::BeginSeal { segment, ceiling: at(5) });
        for holders in [&[][..], &[3], &[2, 3]] {
            let refused = cluster.refuse(seal(segment, 0, 1, holders));
            assert_eq!(refused, Refused::WrongHolders { segment });
        }
    }

    #[test]
    fn a_node_that_copied_a_sealed_segment_holds_it() {
        let mut cluster = Cluster::of(3);
        let segment = cluster.open(1, &[1]);
        let hold = |id| Command::Hold { segment, node: node(id) };
        assert_eq!(cluster.refuse(hold(3)), Refused::NotSealed { segment });
        cluster.seal(segment, 5, 5, &[1]);
        cluster.accept(hold(3));
        cluster.repeat(hold(3));
        assert_eq!(cluster.refuse(hold(9)), Refused::NoNode { node: node(9) });
        let holders: Vec<_> = cluster.facts.segments()[&segment].nodes().collect();
        assert_eq!(holders, [node(1), node(3)]);
    }

    #[test]
    fn a_segment_is_trimmed_as_far_as_every_slot_has_carried_it() {
        let mut cluster = Cluster::of(2);
        let segment = cluster.open(1, &[1, 2]);
        cluster.cut(5, &[(segment, 50)]);
        cluster.accept(cluster.carry_command(0, 2));
        assert_eq!(cluster.facts.trimmed(segment), 0);
        cluster.cut(10, &[(segment, 100)]);
        cluster.flush_slot(1, window(0, 10));
        assert_eq!(cluster.facts.trimmed(segment), 50);
        cluster.flush_slot(0, window(0, 10));
        assert_eq!(cluster.facts.trimmed(segment), 100);
    }

    #[test]
    fn a_sealed_segment_is_dropped_by_the_command_that_trims_it() {
        let mut cluster = Cluster::of(2);
        let segment = cluster.open(1, &[1, 2]);
        cluster.cut(5, &[(segment, 50)]);
        cluster.seal(segment, 7, 60, &[1, 2]);
        cluster.cut(10, &[]);
        cluster.flush_slot(0, window(0, 10));
        assert!(cluster.facts.segments().contains_key(&segment));
        cluster.flush_slot(1, window(0, 10));
        assert!(!cluster.facts.segments().contains_key(&segment));
        assert_eq!(cluster.refuse(seal(segment, 60, 7, &[1])), Refused::NoSegment { segment });
    }

    #[test]
    fn an_open_segment_stays_however_far_it_is_trimmed() {
        let mut cluster = Cluster::of(2);
        let segment = cluster.open(1, &[1, 2]);
        cluster.cut(10, &[(segment, 50)]);
        cluster.flush(window(0, 10));
        assert_eq!(cluster.facts.trimmed(segment), 50);
        assert!(cluster.facts.segments().contains_key(&segment));
    }

    #[test]
    fn without_aggregations_nobody_needs_what_a_cut_has_counted() {
        let mut cluster = Cluster { facts: Facts::new(crate::checkpoint::facts::tests::SETTINGS) };
        cluster.accept(join(1));
        cluster.accept(Command::Activate { node: node(1) });
        let segment = cluster.open(1, &[1]);
        cluster.cut(1, &[(segment, 3)]);
        assert_eq!(cluster.facts.trimmed(segment), 3);
    }
}
