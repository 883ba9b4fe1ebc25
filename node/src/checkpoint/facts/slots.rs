//! Who owns which slot. Each change of the owners raises the slot's epoch, and whoever
//! acts in an older epoch is told so.
//!
//! An owner has all that the slot keeps, so whoever is to become one *fills* first: it gets
//! what is delivered from then on, as the owners do, and copies what was before.

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
    /// Who takes the place of the owners once all of these are owners; empty while nothing
    /// is to change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wanted: Vec<NodeId>,
    /// Those of them that are no owners yet. Each gets what is delivered since this epoch.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub filling: BTreeMap<NodeId, u64>,
}

impl Ownership {
    /// Whether the change was made already, and nothing since.
    fn is_result_of(&self, change: &Change) -> bool {
        self.epoch == change.epoch + 1
            && self.owners == change.owners
            && self.wanted == change.wanted
    }

    fn make(&mut self, Change { owners, wanted, .. }: Change) {
        self.epoch += 1;
        let since = |node| (node, self.filling.get(&node).copied().unwrap_or(self.epoch));
        let fill = wanted.iter().copied().filter(|node| !owners.contains(node));
        self.filling = fill.map(since).collect();
        (self.owners, self.wanted) = (owners, wanted);
    }

    /// Makes an owner of a node that has filled since an epoch. The last one that was waited
    /// for puts those that are wanted in the place of the owners.
    fn fill(&mut self, node: NodeId, since: u64) {
        if self.filling.get(&node) != Some(&since) {
            return;
        }
        self.filling.remove(&node);
        self.epoch += 1;
        self.owners.push(node);
        if self.filling.is_empty() {
            self.owners = std::mem::take(&mut self.wanted);
        }
    }

    /// A node that is gone is waited for no longer.
    pub(super) fn give_up(&mut self, node: NodeId) {
        self.wanted.retain(|&wanted| wanted != node);
        self.filling.remove(&node);
    }

    /// How many owners there are to be.
    pub(super) fn copies(&self) -> usize {
        if self.wanted.is_empty() { self.owners.len() } else { self.wanted.len() }
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
        for (slot, change) in changes {
            self.slots.entry(slot).or_default().make(change);
        }
        Ok(Applied::Done)
    }

    pub(super) fn filled(
        &mut self,
        node: NodeId,
        slots: BTreeMap<Slot, u64>,
        files: &BTreeMap<u32, BTreeMap<Slot, u64>>,
    ) -> Result<Applied, Refused> {
        let state = self.state_of(node)?;
        if !state.may_own() {
            return Err(Refused::Leaving { node, state });
        }
        for (slot, since) in slots {
            if !self.has_all_files(slot, files) {
                continue;
            }
            if let Some(ownership) = self.slots.get_mut(&slot) {
                ownership.fill(node, since);
            }
        }
        Ok(Applied::Done)
    }

    /// Whether these checkpoints of files are the last ones of a slot.
    fn has_all_files(&self, slot: Slot, files: &BTreeMap<u32, BTreeMap<Slot, u64>>) -> bool {
        let has = |number| files.get(&number)?.get(&slot).copied();
        let mut rebuilding = self.rebuilding();
        rebuilding.all(|(number, known)| known.progress(slot).number() <= has(number).unwrap_or(0))
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
        let is_named_twice = |nodes: &[NodeId]| {
            let different: BTreeSet<_> = nodes.iter().collect();
            different.len() < nodes.len()
        };
        let lists = [&change.owners[..], &change.wanted];
        if change.owners.is_empty() || lists.into_iter().any(is_named_twice) {
            return Err(Refused::WrongOwners { slot });
        }
        for &node in change.wanted.iter().filter(|node| !now.owners.contains(node)) {
            let state = self.state_of(node)?;
            if !state.may_own() {
                return Err(Refused::Leaving { node, state });
            }
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

    /// The slots that a node copies before it owns them, each with the epoch since which it
    /// gets what is delivered.
    pub fn filled_by(&self, node: NodeId) -> BTreeMap<Slot, u64> {
        let filling = |(&slot, now): (&Slot, &Ownership)| Some((slot, *now.filling.get(&node)?));
        self.slots.iter().filter_map(filling).collect()
    }

    /// The other nodes that have to get what the primary of these slots keeps, and of which
    /// slots: the owners, and those that are about to be.
    pub fn others_of(&self, primary: NodeId, slots: &SlotSet) -> BTreeMap<NodeId, SlotSet> {
        let mut others: BTreeMap<NodeId, SlotSet> = BTreeMap::new();
        for (&slot, now) in self.slots.iter().filter(|(slot, _)| slots.contains(**slot)) {
            for &node in now.owners.iter().chain(now.filling.keys()) {
                if node != primary {
                    others.entry(node).or_default().insert(slot);
                }
            }
        }
        others
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
    use serde_json::json;

    use super::*;
    use crate::checkpoint::facts::command::Command;
    use crate::checkpoint::facts::members::MemberState;
    use crate::checkpoint::facts::tests::{Cluster, SETTINGS, join, node, nodes, window};

    fn change(epoch: u64, owners: &[u64]) -> Change {
        Change { epoch, owners: nodes(owners), copied: 1, wanted: Vec::new() }
    }

    fn wanted(epoch: u64, owners: &[u64], wanted: &[u64]) -> Command {
        let change = Change { wanted: nodes(wanted), ..change(epoch, owners) };
        place([(0, change)])
    }

    fn filled(id: u64, since: u64) -> Command {
        Command::Filled { node: node(id), slots: [(0, since)].into(), files: BTreeMap::new() }
    }

    /// The same, but of aggregation 1.
    fn of_files(command: Command) -> Command {
        let mut command = command;
        if let Command::Claim { aggregation, .. } | Command::Complete { aggregation, .. } =
            &mut command
        {
            *aggregation = 1;
        }
        if let Command::Complete { slots, .. } = &mut command {
            slots.values_mut().for_each(|completed| completed.number = 1);
        }
        command
    }

    /// The node has the files of a slot up to a checkpoint of aggregation 1.
    fn filled_with_files(since: u64, checkpoint: u64) -> Command {
        let files = [(1, [(0, checkpoint)].into())].into();
        Command::Filled { node: node(3), slots: [(0, since)].into(), files }
    }

    fn owned(epoch: u64, owners: &[u64]) -> Ownership {
        Ownership { epoch, owners: nodes(owners), ..Ownership::default() }
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
        assert_eq!((&slots[&0], &slots[&1]), (&owned(2, &[2, 3]), &owned(2, &[3])));
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
    fn whoever_is_wanted_fills_before_it_owns_and_then_takes_the_others_place() {
        let mut cluster = Cluster::of(4);
        let command = wanted(1, &[1, 2], &[3, 4]);
        cluster.accept(command.clone());
        cluster.repeat(command);
        let now = Ownership {
            wanted: nodes(&[3, 4]),
            filling: [(node(3), 2), (node(4), 2)].into(),
            ..owned(2, &[1, 2])
        };
        assert_eq!(cluster.facts.slots()[&0], now);
        assert_eq!(cluster.facts.filled_by(node(3)), [(0, 2)].into());
        let others = cluster.facts.others_of(node(1), &SlotSet::all(2));
        assert_eq!(others.keys().map(|node| node.0).collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(others[&node(4)], SlotSet::all(1));

        cluster.accept(filled(4, 2));
        cluster.repeat(filled(4, 2));
        assert_eq!(cluster.facts.slots()[&0].owners, nodes::<Vec<_>>(&[1, 2, 4]));
        cluster.accept(filled(3, 2));
        assert_eq!(cluster.facts.slots()[&0], owned(4, &[3, 4]));
        cluster.repeat(filled(3, 2));
    }

    #[test]
    fn what_was_copied_counts_only_if_nothing_was_missed_since() {
        let mut cluster = Cluster::of(3);
        cluster.accept(wanted(1, &[1, 2], &[1, 3]));
        cluster.accept(wanted(2, &[2], &[2, 3]));
        let filling = |cluster: &Cluster| cluster.facts.filled_by(node(3));
        assert_eq!(filling(&cluster), [(0, 2)].into(), "it got all that was delivered meanwhile");
        cluster.accept(place([(0, change(3, &[2]))]));
        assert_eq!(filling(&cluster), BTreeMap::new());
        cluster.accept(wanted(4, &[2], &[2, 3]));
        cluster.repeat(filled(3, 2));
        cluster.accept(filled(3, 5));
        assert_eq!(cluster.facts.slots()[&0], owned(6, &[2, 3]));
    }

    #[test]
    fn whoever_has_older_files_than_the_owners_is_none_yet() {
        let mut cluster = Cluster::of(3);
        let files = json!({ "type": "LogFiles" });
        let by_foo = json!({ "attribute": "foo" });
        let definitions = [("by-foo".to_owned(), by_foo), ("files".to_owned(), files)].into();
        cluster.accept(Command::Register { definitions });
        cluster.cut(5, &[]);
        let number = *cluster.facts.aggregations().last_key_value().unwrap().0;
        assert_eq!(number, 1);
        cluster.accept(wanted(1, &[1, 2], &[1, 3]));
        cluster.cut(10, &[]);
        cluster.accept(of_files(cluster.claim_command(0, window(9, 10), 5)));
        cluster.accept(of_files(cluster.complete_command(0)));
        for older in [filled(3, 2), filled_with_files(2, 0)] {
            cluster.accept(older);
            assert_eq!(cluster.facts.filled_by(node(3)), [(0, 2)].into());
        }
        cluster.accept(filled_with_files(2, 1));
        assert_eq!(cluster.facts.slots()[&0].owners, nodes::<Vec<_>>(&[1, 3]));
    }

    #[test]
    fn nobody_fills_who_leaves_and_nobody_is_waited_for_who_is_gone() {
        let mut cluster = Cluster::of(5);
        let twice = cluster.refuse(wanted(1, &[1], &[3, 3]));
        assert_eq!(twice, Refused::WrongOwners { slot: 0 });
        cluster.accept(wanted(1, &[1, 2], &[1, 3, 4]));
        cluster.accept(Command::Drain { node: node(3) });
        let state = MemberState::Draining;
        let leaving = Refused::Leaving { node: node(3), state };
        assert_eq!(cluster.refuse(filled(3, 2)), leaving);
        assert_eq!(cluster.refuse(wanted(2, &[1, 2], &[3])), leaving);
        cluster.accept(Command::Drained { node: node(3) });
        cluster.accept(Command::Forget { node: node(4) });
        let now = Ownership { wanted: nodes(&[1]), ..owned(2, &[1, 2]) };
        assert_eq!(cluster.facts.slots()[&0], now);
    }

    #[test]
    fn a_slot_that_is_filled_is_the_json_that_earlier_versions_wrote() {
        let mut cluster = Cluster::of(3);
        cluster.accept(wanted(1, &[1, 2], &[1, 3]));
        let json = r#"{"epoch":2,"owners":[1,2],"wanted":[1,3],"filling":{"3":2}}"#;
        let slot = &cluster.facts.slots()[&0];
        assert_eq!(serde_json::to_string(slot).unwrap(), json);
        assert_eq!(serde_json::from_str::<Ownership>(json).unwrap(), *slot);
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
