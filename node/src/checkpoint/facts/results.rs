//! Results that no member has any more.
//!
//! The facts know who owns a slot, but not who has its results of an earlier window: owners
//! change, and each has copied what those before it had. Whether all that had some are gone
//! shows only when everybody is asked.

use std::collections::BTreeSet;

use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::command::Applied;
use crate::checkpoint::facts::cuts::Span;
use crate::checkpoint::facts::forget::Loss;
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::facts::windows::WindowFact;
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::event::time::Window;
use crate::journal::Extent;

impl Facts {
    /// Whether results of a window are lost if nobody of those that were asked for them has
    /// them.
    ///
    /// # Errors
    /// When they may be with somebody who was not asked, or are not needed any more.
    pub fn check_lost(
        &self,
        number: u32,
        window: Window,
        asked: &BTreeSet<NodeId>,
    ) -> Result<(), Refused> {
        let aggregation = self.aggregations.get(number)?;
        aggregation.check_window(window)?;
        let Some(fact) = aggregation.windows.get(&window.start) else {
            return Err(Refused::NotFlushed { window });
        };
        if !fact.waiting.is_empty() {
            return Err(Refused::NotFlushed { window });
        }
        if fact.is_settled() {
            return Err(Refused::Settled { window });
        }
        match self.staying().find(|(node, _)| !asked.contains(node)) {
            Some((node, _)) => Err(Refused::NotAsked { node }),
            None => Ok(()),
        }
    }

    pub(super) fn lose_results(
        &mut self,
        number: u32,
        window: Window,
        slots: SlotSet,
        asked: &BTreeSet<NodeId>,
    ) -> Result<Applied, Refused> {
        self.check_lost(number, window, asked)?;
        if let Some(slot) = slots.difference(&self.settings.slots()).iter().next() {
            return Err(Refused::NoSlot { slot });
        }
        let aggregation = self.aggregations.get_mut(number)?;
        if let Some(fact) = aggregation.windows.get_mut(&window.start) {
            fact.lose(window, slots);
        }
        Ok(Applied::Done)
    }
}

impl WindowFact {
    /// The slots whose results are lost.
    pub fn lost_slots(&self) -> SlotSet {
        self.lost.iter().fold(SlotSet::default(), |all, loss| all.union(&loss.slots))
    }

    fn lose(&mut self, window: Window, slots: SlotSet) {
        let slots = slots.difference(&self.lost_slots());
        if !slots.is_empty() {
            let stamps = Span { from: window.start, until: window.end };
            let (segments, extent) = (BTreeSet::new(), Extent::default());
            self.lost.push(Loss { node: None, segments, slots, extent, stamps });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::facts::command::Command;
    use crate::checkpoint::facts::tests::{Cluster, at, node, nodes, window};
    use crate::checkpoint::facts::windows::Completeness;

    fn lose(slots: &[u8], asked: &[u64]) -> Command {
        let (slots, asked) = (slots.iter().copied().collect(), nodes(asked));
        Command::LoseResults { aggregation: 0, window: window(0, 10), slots, asked }
    }

    /// Three nodes, of which the last is gone, and a window that was flushed.
    fn flushed() -> Cluster {
        let mut cluster = Cluster::of(3);
        cluster.cut(10, &[]);
        cluster.flush(window(0, 10));
        cluster.accept(Command::Forget { node: node(3) });
        cluster
    }

    #[test]
    fn results_that_no_member_has_are_lost() {
        let mut cluster = flushed();
        cluster.accept(lose(&[1], &[1, 2]));
        cluster.repeat(lose(&[1], &[1, 2]));
        let loss = |slot: u8| Loss {
            node: None,
            segments: BTreeSet::new(),
            slots: [slot].into_iter().collect(),
            extent: Extent::default(),
            stamps: Span { from: at(0), until: at(10) },
        };
        let found = cluster.facts.is_complete(0, window(0, 10));
        assert_eq!(found, Completeness::Lost(vec![loss(1)]));
        cluster.accept(lose(&[0, 1], &[1, 2, 3]));
        let found = cluster.facts.is_complete(0, window(0, 10));
        assert_eq!(found, Completeness::Lost(vec![loss(1), loss(0)]));
        cluster.cut(20, &[]);
        cluster.flush(window(10, 20));
        assert_eq!(cluster.facts.is_complete(0, window(10, 20)), Completeness::Complete);
    }

    #[test]
    fn results_are_not_lost_while_somebody_who_was_not_asked_may_have_them() {
        let mut cluster = flushed();
        let refused = cluster.refuse(lose(&[1], &[1]));
        assert_eq!(refused, Refused::NotAsked { node: node(2) });
        let refused = cluster.refuse(lose(&[1], &[2, 3]));
        assert_eq!(refused, Refused::NotAsked { node: node(1) });
    }

    #[test]
    fn results_are_not_lost_while_they_may_yet_come() {
        let (mut cluster, window) = (Cluster::of(1), window(0, 10));
        cluster.cut(10, &[]);
        assert_eq!(cluster.refuse(lose(&[1], &[1])), Refused::NotFlushed { window });
        cluster.flush_slot(0, window);
        assert_eq!(cluster.refuse(lose(&[0], &[1])), Refused::NotFlushed { window });
    }

    #[test]
    fn results_that_were_printed_are_not_lost() {
        let (mut cluster, window) = (flushed(), window(0, 10));
        cluster.accept(cluster.print_command(window, 1, 1));
        assert_eq!(cluster.refuse(lose(&[1], &[1, 2])), Refused::Settled { window });
    }

    #[test]
    fn slots_that_do_not_exist_have_no_results() {
        let mut cluster = flushed();
        assert_eq!(cluster.refuse(lose(&[1, 2], &[1, 2])), Refused::NoSlot { slot: 2 });
    }
}
