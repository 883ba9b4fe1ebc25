//! Giving a node up: what only that node had is lost, and recorded as lost.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::checkpoint::facts::aggregations::Aggregation;
use crate::checkpoint::facts::command::Applied;
use crate::checkpoint::facts::cuts::Span;
use crate::checkpoint::facts::members::MemberState;
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::facts::segments::{Segment, SegmentState};
use crate::checkpoint::facts::slots::Ownership;
use crate::checkpoint::facts::windows::WindowFact;
use crate::checkpoint::facts::{Facts, SegmentId, Slot};
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::event::time::UnixNanos;
use crate::journal::Extent;

/// What an aggregation lost with a node, or with several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The node that was forgotten, if it is known which one had this.
    pub node: Option<NodeId>,
    /// The segments that nobody else had.
    pub segments: BTreeSet<SegmentId>,
    /// The slots that nobody else owned: their results and carry.
    pub slots: SlotSet,
    /// What some slot had not carried of these segments. What the node accepted after the
    /// last cut comes on top.
    pub extent: Extent,
    /// When all of this was stamped. A window that overlaps it and was not flushed by
    /// every slot before will never be complete.
    pub stamps: Span,
}

impl Loss {
    fn with(node: NodeId) -> Loss {
        // Contains nothing until something is added.
        let stamps = Span { from: UnixNanos(u64::MAX), until: UnixNanos(0) };
        let (segments, slots) = (BTreeSet::new(), SlotSet::default());
        Loss { node: Some(node), segments, slots, extent: Extent::default(), stamps }
    }

    fn widen(&mut self, from: UnixNanos, until: UnixNanos) {
        self.stamps.from = self.stamps.from.min(from);
        self.stamps.until = self.stamps.until.max(until);
    }
}

impl Facts {
    pub(super) fn forget(&mut self, node: NodeId) -> Result<Applied, Refused> {
        match self.state_of(node)? {
            MemberState::Forgotten => return Ok(Applied::Done),
            state @ MemberState::Drained => return Err(Refused::Gone { node, state }),
            MemberState::Joining | MemberState::Active | MemberState::Draining => {}
        }
        self.check_rest_without(node)?;
        self.check_others_took_over(node)?;
        let segments = self.segments.known.iter();
        let segments = segments.filter(|(_, segment)| segment.is_only_with(node));
        let segments: BTreeSet<_> = segments.map(|(&id, _)| id).collect();
        let slots = self.slots.iter().filter(|(_, ownership)| ownership.owners == [node]);
        let slots: SlotSet = slots.map(|(&slot, _)| slot).collect();
        let numbers: Vec<_> = self.aggregations.known.keys().copied().collect();
        for number in numbers {
            self.record_loss(number, node, &segments, slots)?;
        }
        self.take_segments_from(node);
        for ownership in self.slots.values_mut().filter(|slot| slot.owners == [node]) {
            *ownership = Ownership { epoch: ownership.epoch + 1, ..Ownership::default() };
        }
        self.slots.values_mut().for_each(|ownership| ownership.give_up(node));
        self.set_state(node, MemberState::Forgotten)
    }

    /// Refuses to give up what others can take over, and what the node may still append to.
    fn check_others_took_over(&self, node: NodeId) -> Result<(), Refused> {
        let shared = |(_, ownership): &(&Slot, &Ownership)| {
            ownership.owners.contains(&node) && ownership.owners.len() > 1
        };
        if let Some((&slot, _)) = self.slots.iter().find(shared) {
            return Err(Refused::StillOwner { node, slot });
        }
        let now = self.cuts.latest.time;
        for (&id, segment) in &self.segments.known {
            if segment.state == SegmentState::Open && segment.copies.contains(&node) {
                return Err(Refused::StillAppending { node, segment: id });
            }
            if segment.end().is_none() && segment.is_only_with(node) && now < segment.ceiling {
                return Err(Refused::LeaseRuns { node, until: segment.ceiling });
            }
        }
        Ok(())
    }

    fn take_segments_from(&mut self, node: NodeId) {
        self.segments.remove_holder(node);
        for (&id, segment) in &mut self.segments.known {
            if segment.state != SegmentState::Sealing {
                continue;
            }
            if segment.is_only_with(node) {
                let (end, holders) = (self.cuts.latest.count(id), BTreeSet::new());
                segment.state = SegmentState::Sealed { end, holders };
            } else {
                segment.copies.retain(|&copy| copy != node);
            }
        }
    }

    /// Records what an aggregation loses, if it loses anything.
    fn record_loss(
        &mut self,
        number: u32,
        node: NodeId,
        segments: &BTreeSet<SegmentId>,
        slots: SlotSet,
    ) -> Result<(), Refused> {
        let aggregation = self.aggregations.get(number)?;
        let pending = self.pending(aggregation);
        let mut loss = Loss::with(node);
        self.add_lost_segments(&mut loss, aggregation, segments);
        self.add_lost_slots(&mut loss, aggregation, slots);
        if loss.segments.is_empty() && loss.slots.is_empty() {
            return Ok(());
        }
        let (settings, now) = (self.settings, self.cuts.latest.time);
        let aggregation = self.aggregations.get_mut(number)?;
        for slot in loss.slots.iter() {
            // Nobody can tell whether it was delivered, so its number is used up.
            let claim = aggregation.progress(slot).claimed;
            let cut = claim.and_then(|claim| self.cuts.get(claim.cut)).map(|cut| cut.time);
            aggregation.finish(slot, cut, settings, now);
        }
        if !loss.slots.is_empty() {
            // Tables that were not printed in full cannot be any more.
            for window in aggregation.windows.values_mut().filter(|window| !window.is_settled()) {
                if window.waiting.is_empty() {
                    window.lost.push(loss.clone());
                }
            }
        }
        aggregation.ledger.lost += loss.extent;
        aggregation.losses.push(loss);
        self.account_carried(number, pending);
        Ok(())
    }

    fn add_lost_segments(
        &self,
        loss: &mut Loss,
        aggregation: &Aggregation,
        segments: &BTreeSet<SegmentId>,
    ) {
        let latest = &self.cuts.latest;
        let resumed = self.resumed_from(aggregation);
        for (&id, segment) in self.segments.known.iter().filter(|(id, _)| segments.contains(id)) {
            let Some(carried) = self.least_count(&resumed, id) else { continue };
            let end = segment.end().unwrap_or(latest.count(id));
            let cuts = resumed.iter().filter_map(|&cut| self.cuts.get(cut));
            let known = cuts.map(|cut| cut.known(id, segment)).min();
            let from = known.filter(|_| carried != end).unwrap_or(latest.known(id, segment));
            let has_a_tail = segment.end().is_none() && from < segment.ceiling;
            if carried != end || has_a_tail {
                loss.segments.insert(id);
                loss.extent += end.beyond(carried);
                loss.widen(from, segment.ceiling);
            }
        }
    }

    fn add_lost_slots(&self, loss: &mut Loss, aggregation: &Aggregation, slots: SlotSet) {
        let progress = aggregation.slots.iter();
        for (&slot, progress) in progress.filter(|(slot, _)| slots.contains(**slot)) {
            loss.slots.insert(slot);
            let carried = self.cuts.get(progress.carried).unwrap_or(&self.cuts.latest);
            loss.widen(progress.through, carried.time);
        }
        if !loss.slots.is_empty() {
            let unsettled = |(_, window): &(&UnixNanos, &WindowFact)| !window.is_settled();
            if let Some((&start, _)) = aggregation.windows.iter().find(unsettled) {
                loss.widen(start, start);
            }
        }
    }
}

impl Segment {
    fn is_only_with(&self, node: NodeId) -> bool {
        self.nodes().eq([node])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::facts::command::{ClaimAnswer, Command};
    use crate::checkpoint::facts::tests::{Cluster, at, extent, node, seal, window};
    use crate::checkpoint::facts::windows::Completeness;

    fn forget(id: u64) -> Command {
        Command::Forget { node: node(id) }
    }

    fn losses(cluster: &Cluster) -> &[Loss] {
        &cluster.facts.aggregations()[&0].losses
    }

    #[test]
    fn nothing_is_lost_with_a_node_whose_segments_others_have() {
        let mut cluster = Cluster::of(4);
        let sealed = cluster.open(4, &[4, 3]);
        cluster.seal(sealed, 3, 9, &[3, 4]);
        let sealing = cluster.open(4, &[4, 3]);
        cluster.accept(Command::BeginSeal { segment: sealing, ceiling: at(90) });
        cluster.accept(forget(4));
        cluster.repeat(forget(4));
        assert!(losses(&cluster).is_empty());
        let segments = cluster.facts.segments();
        assert!(segments[&sealed].nodes().eq([node(3)]));
        assert!(segments[&sealing].nodes().eq([node(3)]));
        cluster.accept(seal(sealing, 2, 90, &[3]));
    }

    #[test]
    fn others_take_over_what_they_can_before_a_node_is_forgotten() {
        let mut cluster = Cluster::of(4);
        let segment = cluster.open(2, &[2, 3]);
        let owner = Refused::StillOwner { node: node(2), slot: 0 };
        assert_eq!(cluster.refuse(forget(2)), owner);
        cluster.place(0, &[1, 3]);
        cluster.place(1, &[1]);
        let appending = Refused::StillAppending { node: node(2), segment };
        assert_eq!(cluster.refuse(forget(2)), appending);
        cluster.accept(Command::BeginSeal { segment, ceiling: at(90) });
        cluster.accept(forget(2));
        assert!(losses(&cluster).is_empty());
    }

    #[test]
    fn the_last_node_that_could_hold_the_slots_is_not_forgotten() {
        let mut cluster = Cluster::of(1);
        let refused = cluster.refuse(forget(1));
        assert_eq!(refused, Refused::TooFewLeft { node: node(1), left: 0, needed: 1 });
    }

    #[test]
    fn a_segment_that_only_the_node_had_ends_where_it_was_counted_and_is_lost() {
        let mut cluster = Cluster::of(3);
        let segment = cluster.open(3, &[3]);
        cluster.cut(5, &[(segment, 50)]);
        cluster.cut(6, &[(segment, 60)]);
        for slot in [0, 1] {
            cluster.accept(cluster.carry_command(slot, 2));
        }
        cluster.accept(Command::BeginSeal { segment, ceiling: at(12) });
        cluster.cut(11, &[]);
        let lease = Refused::LeaseRuns { node: node(3), until: at(12) };
        assert_eq!(cluster.refuse(forget(3)), lease);
        cluster.cut(12, &[]);
        cluster.accept(forget(3));

        let stamps = Span { from: at(5), until: at(12) };
        let (segments, slots) = ([segment].into(), SlotSet::default());
        let loss = Loss { node: Some(node(3)), segments, slots, extent: extent(10), stamps };
        assert_eq!(losses(&cluster), std::slice::from_ref(&loss));
        assert_eq!(cluster.facts.segments()[&segment].end(), Some(extent(60)));
        let hold = Command::Hold { segment, node: node(1) };
        assert_eq!(cluster.refuse(hold), Refused::Lost { segment });

        cluster.cut(30, &[]);
        for window in [window(0, 5), window(5, 10), window(10, 20), window(20, 30)] {
            cluster.flush(window);
        }
        let found = |start, end| cluster.facts.is_complete(0, window(start, end));
        assert_eq!(found(0, 5), Completeness::Complete);
        assert_eq!(found(5, 10), Completeness::Lost(vec![loss.clone()]));
        assert_eq!(found(10, 20), Completeness::Lost(vec![loss]));
        assert_eq!(found(20, 30), Completeness::Complete);
        let balance = cluster.facts.balance(0).unwrap();
        assert!(balance.holds());
        assert_eq!((balance.ledger.accepted, balance.ledger.lost), (extent(60), extent(10)));
        assert!(cluster.facts.segments().is_empty(), "nobody waits for it");
    }

    #[test]
    fn what_was_claimed_before_it_was_lost_is_claimed_again_without_it() {
        let mut cluster = Cluster::of(3);
        let segment = cluster.open(3, &[3]);
        cluster.cut(10, &[(segment, 50)]);
        let claim = |distinct| cluster.claim_command(0, window(0, 10), distinct);
        let (whole, rest) = (claim(5), claim(4));
        assert_eq!(cluster.claim(whole), ClaimAnswer::Accepted);
        assert!(matches!(cluster.claim(rest.clone()), ClaimAnswer::Diverged(_)));
        cluster.accept(Command::BeginSeal { segment, ceiling: at(10) });
        cluster.accept(forget(3));
        assert_eq!(cluster.claim(rest.clone()), ClaimAnswer::Accepted);
        assert_eq!(cluster.repeat(rest), Applied::Claims([(0, ClaimAnswer::Again)].into()));
        let claimed = cluster.facts.aggregations()[&0].progress(0).claimed.unwrap();
        assert_eq!((claimed.records, claimed.distinct, claimed.number), (8, 4, 1));
        cluster.complete(cluster.complete_command(0));
        let next = cluster.claim_command(1, window(0, 10), 1);
        assert_eq!(cluster.claim(next), ClaimAnswer::Accepted);
    }

    #[test]
    fn nothing_is_lost_with_a_segment_that_every_slot_has_carried() {
        let mut cluster = Cluster::of(3);
        let segment = cluster.open(3, &[3]);
        cluster.cut(10, &[(segment, 50)]);
        cluster.flush(window(0, 10));
        cluster.accept(Command::BeginSeal { segment, ceiling: at(10) });
        cluster.accept(forget(3));
        assert!(losses(&cluster).is_empty());
    }

    #[test]
    fn only_the_uncounted_tail_is_lost_with_a_segment_that_was_carried_so_far() {
        let mut cluster = Cluster::of(3);
        let segment = cluster.open(3, &[3]);
        cluster.cut(10, &[(segment, 50)]);
        cluster.flush(window(0, 10));
        cluster.cut(20, &[(segment, 50)]);
        cluster.accept(Command::BeginSeal { segment, ceiling: at(23) });
        cluster.cut(25, &[]);
        cluster.accept(forget(3));
        assert_eq!(losses(&cluster)[0].extent, extent(0));
        assert_eq!(losses(&cluster)[0].stamps, Span { from: at(20), until: at(23) });
    }

    #[test]
    fn slots_that_only_the_node_owned_lose_what_they_carried() {
        let mut cluster = Cluster::of(2);
        cluster.place(0, &[2]);
        cluster.cut(10, &[]);
        cluster.flush(window(0, 10));
        cluster.accept(cluster.print_command(window(0, 10), 1, 1));
        cluster.cut(20, &[]);
        cluster.flush(window(10, 20));
        cluster.cut(25, &[]);
        cluster.accept(cluster.carry_command(0, 4));
        cluster.place(1, &[1]);
        cluster.accept(forget(2));

        let lost = &losses(&cluster)[0];
        let stamps = Span { from: at(10), until: at(25) };
        assert_eq!((lost.slots, lost.stamps), ([0].into_iter().collect(), stamps));
        assert_eq!(cluster.facts.slots()[&0], Ownership { epoch: 3, ..Ownership::default() });
        cluster.accept(cluster.place_command(0, &[1], 0));
        cluster.cut(30, &[]);
        cluster.cut(40, &[]);
        cluster.flush(window(20, 30));
        cluster.flush(window(30, 40));
        let found = |start, end| cluster.facts.is_complete(0, window(start, end));
        assert_eq!(found(0, 10), Completeness::Complete, "it was printed");
        assert!(matches!(found(10, 20), Completeness::Lost(_)), "its table cannot be printed");
        assert!(matches!(found(20, 30), Completeness::Lost(_)));
        assert_eq!(found(30, 40), Completeness::Complete);
    }

    #[test]
    fn a_claim_that_nobody_can_resume_uses_up_its_number() {
        let mut cluster = Cluster::of(2);
        cluster.place(0, &[2]);
        cluster.place(1, &[1]);
        cluster.cut(10, &[]);
        cluster.claim(cluster.claim_command(0, window(0, 10), 5));
        cluster.accept(forget(2));
        let progress = cluster.facts.aggregations()[&0].progress(0);
        assert_eq!((progress.number(), progress.claimed), (1, None));
        assert!(cluster.facts.balance(0).unwrap().holds());
        cluster.flush_slot(1, window(0, 10));
        let found = cluster.facts.is_complete(0, window(0, 10));
        assert!(matches!(found, Completeness::Lost(_)), "{found:?}");
    }

    #[test]
    fn what_was_recorded_as_lost_does_not_come_back() {
        let mut cluster = Cluster::of(4);
        let segment = cluster.open(4, &[4, 3]);
        cluster.seal(segment, 3, 9, &[4]);
        cluster.accept(forget(4));
        let hold = Command::Hold { segment, node: node(3) };
        assert_eq!(cluster.refuse(hold), Refused::Lost { segment });
        assert_eq!(cluster.refuse(seal(segment, 9, 3, &[3])), Refused::Lost { segment });
        let refused = cluster.refuse(seal(segment, 9, 3, &[3, 4]));
        assert_eq!(refused, Refused::WrongHolders { segment });
    }

    #[test]
    fn losses_are_kept_while_their_windows_are() {
        let mut cluster = Cluster::of(3);
        let segment = cluster.open(3, &[3]);
        cluster.cut(5, &[(segment, 50)]);
        cluster.accept(Command::BeginSeal { segment, ceiling: at(10) });
        cluster.cut(10, &[]);
        cluster.accept(forget(3));
        cluster.cut(3609, &[]);
        assert_eq!(losses(&cluster).len(), 1);
        cluster.cut(3610, &[]);
        assert_eq!(losses(&cluster).len(), 0);
    }
}
