//! Which slots get other owners: decided from the facts, acted on elsewhere.
//!
//! A slot is a lone node's, which has its carry and its results. It can move when nothing of
//! it is carried: then whoever owns it next folds from the journals what the cut does not
//! tell of. Results of windows that are over stay where they are.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkpoint::facts::command::{Change, Command};
use crate::checkpoint::facts::members::MemberState;
use crate::checkpoint::facts::{Facts, Slot};
use crate::cluster::placement::{Candidate, Copies, Placement, changes, rebalance};
use crate::event::fingerprint::SLOTS;
use crate::event::node::NodeId;

/// The command that brings the slots to where they are to be, if any can go there now:
/// away from members that do not answer, and in equal shares to the others.
pub fn next(facts: &Facts, silent: &BTreeSet<NodeId>) -> Option<Command> {
    let candidates: Vec<_> = candidates(facts, silent).collect();
    let now = placement(facts)?;
    let wanted = rebalance(&now, &candidates, Copies::ONE);
    let changes: BTreeMap<Slot, Change> = changes(&now, &wanted)
        .into_iter()
        .filter(|change| !change.new.is_empty() && can_move(facts, change.slot))
        .map(|change| (change.slot, to(facts, change.slot, change.new)))
        .collect();
    (!changes.is_empty()).then_some(Command::Place { changes })
}

/// The members that can own slots.
fn candidates(facts: &Facts, silent: &BTreeSet<NodeId>) -> impl Iterator<Item = Candidate> {
    let active = facts
        .members()
        .iter()
        .filter(|(node, member)| member.state == MemberState::Active && !silent.contains(node));
    active.map(|(&node, member)| Candidate { node, zone: member.zone.clone() })
}

/// The owners at the moment.
fn placement(facts: &Facts) -> Option<Placement> {
    let owners = |slot| facts.slots().get(&slot).map_or(Vec::new(), |slot| slot.owners.clone());
    let owners: Vec<Vec<NodeId>> = (0..=Slot::MAX).take(SLOTS).map(owners).collect();
    // The facts name nobody twice.
    Placement::try_from(owners).ok()
}

fn to(facts: &Facts, slot: Slot, owners: &[NodeId]) -> Change {
    let epoch = facts.slots().get(&slot).map_or(0, |ownership| ownership.epoch);
    let aggregations = facts.aggregations().values();
    let copied = aggregations.map(|aggregation| aggregation.carried(slot)).max().unwrap_or(0);
    Change { epoch, owners: owners.to_vec(), copied }
}

/// Whether whoever owns a slot next finds all of it in the journals. Of a slot that nobody
/// owns any more, the rest is recorded as lost.
fn can_move(facts: &Facts, slot: Slot) -> bool {
    let is_lost = facts.slots().get(&slot).is_some_and(|known| known.owners.is_empty());
    is_lost || facts.aggregations().values().all(|aggregation| !aggregation.progress(slot).keeps)
}

#[cfg(test)]
mod tests;
