//! Which slots get other owners: decided from the facts, acted on elsewhere.
//!
//! An owner has a slot's results and carry. A slot that has a live owner stays with such ones
//! until those who are wanted instead have copied what they have: so a dead primary is followed
//! by an owner, at once, and whoever comes new becomes an owner later.
//!
//! Where there is a lone copy, nothing but files is copied. A slot without any can move when
//! nothing of it is carried: then whoever owns it next folds from the journals what the cut does
//! not tell of. Results of windows that are over stay where they are.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkpoint::facts::aggregations::Aggregation;
use crate::checkpoint::facts::command::{Change, Command};
use crate::checkpoint::facts::members::MemberState;
use crate::checkpoint::facts::slots::Ownership;
use crate::checkpoint::facts::{Facts, Slot};
use crate::cluster::placement::{Candidate, Copies, Placement, rebalance};
use crate::event::fingerprint::SLOTS;
use crate::event::node::NodeId;

/// The command that brings the slots closer to where they are to be, with so many owners each,
/// if there is one now: away from members that do not answer, and in equal shares to the others.
pub fn next(facts: &Facts, silent: &BTreeSet<NodeId>, copies: Copies) -> Option<Command> {
    let candidates: Vec<_> = candidates(facts, silent).collect();
    let goal = rebalance(&placement(facts)?, &candidates, copies);
    let unplaced = Ownership::default();
    let change = |slot: Slot| {
        let now = facts.slots().get(&slot).unwrap_or(&unplaced);
        let change = change(facts, slot, now, goal.owners(slot), silent, copies)?;
        let is_new = (&change.owners, &change.wanted) != (&now.owners, &now.wanted);
        is_new.then_some((slot, change))
    };
    let changes: BTreeMap<_, _> = (0..=Slot::MAX).take(SLOTS).filter_map(change).collect();
    (!changes.is_empty()).then_some(Command::Place { changes })
}

/// The next step of a slot towards these owners, if it can take one.
fn change(
    facts: &Facts,
    slot: Slot,
    now: &Ownership,
    goal: &[NodeId],
    silent: &BTreeSet<NodeId>,
    copies: Copies,
) -> Option<Change> {
    if goal.is_empty() {
        return None;
    }
    if goal.iter().all(|node| now.owners.contains(node)) {
        return Some(at_once(facts, slot, goal));
    }
    let mut live: Vec<_> =
        now.owners.iter().copied().filter(|node| !silent.contains(node)).collect();
    let is_lone = copies == Copies::ONE && now.owners.len() == 1;
    if live.is_empty() || (is_lone && !has_files(facts, slot)) {
        return can_move(facts, slot).then(|| at_once(facts, slot, goal));
    }
    // Those who stay come first, in the order in which they are wanted.
    let place = |node: &NodeId| goal.iter().position(|wanted| wanted == node);
    live.sort_by_key(|node| place(node).unwrap_or(goal.len()));
    Some(Change { epoch: now.epoch, owners: live, copied: 0, wanted: goal.to_vec() })
}

/// A slot gets these owners, who have all of it or find it in the journals.
fn at_once(facts: &Facts, slot: Slot, owners: &[NodeId]) -> Change {
    let epoch = facts.slots().get(&slot).map_or(0, |ownership| ownership.epoch);
    let aggregations = facts.aggregations().values();
    let copied = aggregations.map(|aggregation| aggregation.carried(slot)).max().unwrap_or(0);
    Change { epoch, owners: owners.to_vec(), copied, wanted: Vec::new() }
}

/// The members that can own slots.
fn candidates(facts: &Facts, silent: &BTreeSet<NodeId>) -> impl Iterator<Item = Candidate> {
    let active = facts
        .members()
        .iter()
        .filter(|(node, member)| member.state == MemberState::Active && !silent.contains(node));
    active.map(|(&node, member)| Candidate { node, zone: member.zone.clone() })
}

/// The owners at the moment, or those that are wanted already.
fn placement(facts: &Facts) -> Option<Placement> {
    let owners = |known: &Ownership| match known.wanted.as_slice() {
        [] => known.owners.clone(),
        wanted => wanted.to_vec(),
    };
    let owners = |slot| facts.slots().get(&slot).map_or(Vec::new(), owners);
    let owners: Vec<Vec<NodeId>> = (0..=Slot::MAX).take(SLOTS).map(owners).collect();
    // The facts name nobody twice.
    Placement::try_from(owners).ok()
}

/// Whether whoever owns a slot next finds all of it in the journals. Of a slot that nobody
/// owns any more, the rest is recorded as lost.
fn can_move(facts: &Facts, slot: Slot) -> bool {
    let is_lost = facts.slots().get(&slot).is_some_and(|known| known.owners.is_empty());
    let keeps = |known: &Aggregation| known.progress(slot).keeps;
    is_lost || !(has_files(facts, slot) || facts.aggregations().values().any(keeps))
}

/// Whether a checkpoint has something of files of a slot: they are in no journal any more.
fn has_files(facts: &Facts, slot: Slot) -> bool {
    facts.rebuilding().any(|(_, known)| known.progress(slot).number() > 0)
}

#[cfg(test)]
mod tests;
