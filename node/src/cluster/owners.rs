//! Which slots get other owners: decided from the facts, acted on elsewhere.
//!
//! A slot is a lone node's, which has its carry and its results. It can move when nothing of
//! it is carried: then whoever owns it next folds from the journals what the cut does not
//! tell of. Results of windows that are over stay where they are.

use std::collections::BTreeMap;

use crate::aggregation::definition::Kind;
use crate::checkpoint::facts::command::{Change, Command};
use crate::checkpoint::facts::members::MemberState;
use crate::checkpoint::facts::windows::WindowFact;
use crate::checkpoint::facts::{Facts, Slot};
use crate::cluster::placement::{Candidate, Copies, Placement, changes, rebalance};
use crate::event::fingerprint::SLOTS;
use crate::event::node::NodeId;
use crate::event::time::{UnixNanos, Window};
use crate::flush::{Aggregation, aggregations};

/// The command that brings the slots to where they are to be, if any can go there now.
pub fn next(facts: &Facts) -> Option<Command> {
    let candidates: Vec<_> = candidates(facts).collect();
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
fn candidates(facts: &Facts) -> impl Iterator<Item = Candidate> {
    let active = facts.members().iter().filter(|(_, member)| member.state == MemberState::Active);
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

/// Whether whoever owns a slot next finds all of it in the journals.
fn can_move(facts: &Facts, slot: Slot) -> bool {
    // Of definitions that this version does not know, nobody knows here what is carried.
    let known = aggregations(facts).unwrap_or_default();
    known.len() == facts.aggregations().len()
        && known.iter().all(|aggregation| !has_carry(facts, aggregation, slot))
}

/// Whether the slot's owner may have kept something of open windows in place of journals:
/// of the last window that begins before the cut that the slot goes on from, or of an older
/// one that is still waited for. Nobody may have told of such a window if the cut misses
/// something.
fn has_carry(facts: &Facts, aggregation: &Aggregation, slot: Slot) -> bool {
    let Kind::DistinctLogs(definition) = &aggregation.definition.kind;
    let Some(known) = facts.aggregations().get(&aggregation.number) else { return false };
    let carried = known.carried(slot);
    if carried == known.since {
        return false;
    }
    // A cut that is not kept has all of an aggregation that has ended.
    let Some(cut) = facts.cut(carried).or_else(|| facts.cut(known.until?)) else { return true };
    let last = Window::of(UnixNanos(cut.time.0.saturating_sub(1)), definition.window.seconds());
    let waits = |fact: &WindowFact| fact.end <= cut.time && fact.waiting.contains(slot);
    known.waits_for(slot, last, facts.latest_cut().time)
        || known.windows.values().any(waits)
        || !cut.missing.is_empty()
}

#[cfg(test)]
mod tests;
