//! Who owns which slot. Each change of the owners raises the slot's epoch, and whoever
//! acts in an older epoch is told so.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::checkpoint::facts::command::{Applied, Change};
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::facts::{Facts, Slot};
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::failpoint::is_to_fail;

/// A slot's owners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ownership {
    /// Counts the changes, from 1.
    pub epoch: u64,
    /// The nodes that have the slot's results and carry. The first is the primary: it
    /// folds and flushes. There are none when all of them were forgotten.
    pub owners: Vec<NodeId>,
}

impl Ownership {
    /// Whether the change was made already, and nothing since.
    fn is_result_of(&self, change: &Change) -> bool {
        self.epoch == change.epoch + 1 && self.owners == change.owners
    }
}

impl Facts {
    pub(super) fn place(&mut self, changes: BTreeMap<Slot, Change>) -> Result<Applied, Refused> {
        let made = |(slot, change): (&Slot, &Change)| {
            self.slots.get(slot).is_some_and(|ownership| ownership.is_result_of(change))
        };
        if changes.iter().all(made) {
            return Ok(Applied::Done);
        }
        for (&slot, change) in &changes {
            self.check_change(slot, change)?;
        }
        for (slot, Change { owners, .. }) in changes {
            let ownership = self.slots.entry(slot).or_default();
            ownership.epoch += 1;
            ownership.owners = owners;
        }
        Ok(Applied::Done)
    }

    fn check_change(&self, slot: Slot, change: &Change) -> Result<(), Refused> {
        if u16::from(slot) >= self.settings.slots {
            return Err(Refused::NoSlot { slot });
        }
        let unplaced = Ownership::default();
        let now = self.slots.get(&slot).unwrap_or(&unplaced);
        if now.epoch != change.epoch {
            return Err(Refused::OtherEpoch { slot, epoch: now.epoch });
        }
        let different: BTreeSet<_> = change.owners.iter().collect();
        if different.is_empty() || different.len() < change.owners.len() {
            return Err(Refused::WrongOwners { slot });
        }
        for &node in change.owners.iter().filter(|node| !now.owners.contains(node)) {
            let state = self.state_of(node)?;
            if !state.may_own() {
                return Err(Refused::Leaving { node, state });
            }
            self.check_copied(slot, node, now, change.copied)?;
        }
        Ok(())
    }

    /// Refuses an owner that does not have what the others have carried: the journal
    /// before that is gone.
    fn check_copied(
        &self,
        slot: Slot,
        node: NodeId,
        now: &Ownership,
        copied: u64,
    ) -> Result<(), Refused> {
        let slots = self.aggregations.known.values().filter_map(|known| known.slots.get(&slot));
        let carried = slots.map(|progress| progress.carried).max().unwrap_or(0);
        // When all owners were forgotten, what they carried is recorded as lost.
        if copied < carried && !now.owners.is_empty() {
            return Err(Refused::NotCopied { slot, node, carried });
        }
        Ok(())
    }

    /// The slots that a node folds and flushes.
    pub fn primary_of(&self, node: NodeId) -> SlotSet {
        self.slots_with(|owners| owners.first() == Some(&node))
    }

    /// The slots of which a node has the results and the carry, as primary or not.
    pub fn owner_of(&self, node: NodeId) -> SlotSet {
        self.slots_with(|owners| owners.contains(&node))
    }

    fn slots_with(&self, such: impl Fn(&[NodeId]) -> bool) -> SlotSet {
        let slots = self.slots.iter().filter(|(_, ownership)| such(&ownership.owners));
        slots.map(|(&slot, _)| slot).collect()
    }

    /// Whether a node is the slot's primary, in the epoch that it believes to be in.
    pub(super) fn is_primary(&self, slot: Slot, node: NodeId, epoch: u64) -> bool {
        let ownership = self.slots.get(&slot);
        ownership.is_some_and(|now| now.epoch == epoch && now.owners.first() == Some(&node))
            || is_to_fail("planted-epoch-ignored")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::facts::command::Command;
    use crate::checkpoint::facts::members::MemberState;
    use crate::checkpoint::facts::tests::{Cluster, SETTINGS, join, node, nodes, window};

    fn change(epoch: u64, owners: &[u64]) -> Change {
        Change { epoch, owners: nodes(owners), copied: 1 }
    }

    fn place<const N: usize>(changes: [(Slot, Change); N]) -> Command {
        Command::Place { changes: changes.into() }
    }

    #[test]
    fn each_change_raises_the_epoch_and_saying_it_again_does_not() {
        let mut cluster = Cluster::of(3);
        let command = place([(0, change(1, &[2, 3])), (1, change(1, &[3]))]);
        cluster.accept(command.clone());
        cluster.repeat(command);
        let slots = cluster.facts.slots();
        assert_eq!(slots[&0], Ownership { epoch: 2, owners: nodes(&[2, 3]) });
        assert_eq!(slots[&1], Ownership { epoch: 2, owners: nodes(&[3]) });
    }

    #[test]
    fn all_slots_are_placed_or_none() {
        let mut cluster = Cluster::of(3);
        let refused = cluster.refuse(place([(0, change(1, &[2])), (1, change(0, &[2]))]));
        assert_eq!(refused, Refused::OtherEpoch { slot: 1, epoch: 1 });
        assert_eq!(cluster.facts.slots()[&0].epoch, 1);
        let mut empty = Cluster { facts: Facts::new(SETTINGS) };
        empty.accept(join(1));
        let refused = empty.refuse(place([(0, change(0, &[1])), (1, change(1, &[1]))]));
        assert_eq!(refused, Refused::OtherEpoch { slot: 1, epoch: 0 });
    }

    #[test]
    fn owners_are_different_nodes_and_at_least_one() {
        let mut cluster = Cluster::of(3);
        for owners in [&[][..], &[1, 1]] {
            let refused = cluster.refuse(place([(0, change(1, owners))]));
            assert_eq!(refused, Refused::WrongOwners { slot: 0 });
        }
        let refused = cluster.refuse(place([(2, change(0, &[1]))]));
        assert_eq!(refused, Refused::NoSlot { slot: 2 });
    }

    #[test]
    fn a_joining_node_may_own_and_a_leaving_one_may_stay_but_not_come() {
        let mut cluster = Cluster::of(4);
        cluster.accept(join(5));
        cluster.accept(Command::Drain { node: node(1) });
        cluster.accept(Command::Drain { node: node(4) });
        cluster.accept(place([(0, change(1, &[5, 1]))]));
        let refused = cluster.refuse(place([(0, change(2, &[5, 4]))]));
        assert_eq!(refused, Refused::Leaving { node: node(4), state: MemberState::Draining });
        let refused = cluster.refuse(place([(0, change(2, &[9]))]));
        assert_eq!(refused, Refused::NoNode { node: node(9) });
    }

    #[test]
    fn a_new_owner_has_copied_what_the_others_carry() {
        let mut cluster = Cluster::of(3);
        let cut = cluster.cut(10, &[]);
        cluster.flush_slot(0, window(0, 10));
        let refused = cluster.refuse(cluster.place_command(0, &[1, 3], cut - 1));
        assert_eq!(refused, Refused::NotCopied { slot: 0, node: node(3), carried: cut });
        cluster.accept(cluster.place_command(0, &[1, 3], cut));
    }

    #[test]
    fn a_node_is_primary_of_the_slots_that_name_it_first_and_owner_of_all_that_name_it() {
        let mut cluster = Cluster::of(3);
        cluster.accept(place([(0, change(1, &[2, 3])), (1, change(1, &[3]))]));
        let found = |id| (cluster.facts.primary_of(node(id)), cluster.facts.owner_of(node(id)));
        let set = |slots: &[Slot]| slots.iter().copied().collect::<SlotSet>();
        assert_eq!(found(1), (set(&[]), set(&[])));
        assert_eq!(found(2), (set(&[0]), set(&[0])));
        assert_eq!(found(3), (set(&[1]), set(&[0, 1])));
    }

    #[test]
    fn a_live_owner_becomes_primary_without_copying_anything() {
        let mut cluster = Cluster::of(3);
        cluster.cut(10, &[]);
        cluster.flush_slot(0, window(0, 10));
        cluster.accept(cluster.place_command(0, &[2], 0));
        assert!(cluster.facts.is_primary(0, node(2), 2));
        assert!(!cluster.facts.is_primary(0, node(2), 1));
        assert!(!cluster.facts.is_primary(0, node(1), 2));
    }
}
