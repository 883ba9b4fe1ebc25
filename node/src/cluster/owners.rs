//! Which slots get other owners: decided from the facts, acted on elsewhere.
//!
//! A slot is a lone node's, which has its carry and its results. It can move when nothing of
//! it is carried: then whoever owns it next folds from the journals what the cut does not
//! tell of. Results of windows that are over stay where they are.

use std::collections::BTreeMap;

use crate::checkpoint::facts::aggregations::Aggregation;
use crate::checkpoint::facts::command::{Change, Command};
use crate::checkpoint::facts::members::MemberState;
use crate::checkpoint::facts::{Facts, Slot};
use crate::cluster::placement::{Candidate, Copies, Placement, changes, rebalance};
use crate::event::fingerprint::SLOTS;
use crate::event::node::NodeId;

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

/// Whether whoever owns a slot next finds all of it in the journals. Of a slot that nobody
/// owns any more, the rest is recorded as lost.
fn can_move(facts: &Facts, slot: Slot) -> bool {
    let is_lost = facts.slots().get(&slot).is_some_and(|known| known.owners.is_empty());
    is_lost || facts.aggregations().values().all(|aggregation| !has_carry(facts, aggregation, slot))
}

/// Whether the slot's owner may have kept something of open windows in place of journals: up
/// to a later cut than the one at which it flushed last, or of a window that is still waited
/// for although the journals before its end were given up.
fn has_carry(facts: &Facts, aggregation: &Aggregation, slot: Slot) -> bool {
    let progress = aggregation.progress(slot);
    if progress.carried == aggregation.since {
        return false;
    }
    let given_up = facts.cut(progress.carried).map(|cut| cut.time);
    let flushed = progress.flushed.map(|flushed| flushed.cut);
    let open = aggregation.windows.values().filter(|fact| fact.waiting.contains(slot));
    flushed < Some(progress.carried) || open.into_iter().any(|fact| Some(fact.end) <= given_up)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::facts::Settings;
    use crate::cluster::example::join;

    const ALL: usize = SLOTS;

    /// Two active members, of whom node 1 owns all slots, and an aggregation.
    fn facts() -> Facts {
        let mut facts = Facts::new(Settings { slots: SLOTS as u16 });
        for number in [1, 2] {
            facts.apply(join(number)).unwrap();
        }
        for number in [1, 2] {
            facts.apply(Command::Activate { node: NodeId(number) }).unwrap();
            if number == 1 {
                let first = next(&facts).unwrap();
                facts.apply(first).unwrap();
            }
        }
        let definitions = [("by-foo".to_owned(), serde_json::Value::Null)].into();
        facts.apply(Command::Register { definitions }).unwrap();
        cut(&mut facts);
        facts
    }

    fn cut(facts: &mut Facts) {
        let (number, last) = (facts.latest_cut().number + 1, facts.latest_cut().time);
        let time = crate::event::time::UnixNanos(last.0 + crate::event::time::SECOND);
        facts.apply(Command::Cut { number, time, stamped: BTreeMap::new() }).unwrap();
    }

    /// Node 1 carries all of its slots up to a new cut.
    fn carry(facts: &mut Facts) {
        cut(facts);
        let own = facts.slots().iter();
        let slots = own.map(|(&slot, known)| (slot, known.epoch)).collect();
        let cut = facts.latest_cut().number;
        facts.apply(Command::Carry { node: NodeId(1), aggregation: 0, slots, cut }).unwrap();
    }

    fn moved(facts: &Facts) -> usize {
        let Some(Command::Place { changes }) = next(facts) else { return 0 };
        assert!(changes.values().all(|change| change.owners == [NodeId(2)]));
        changes.len()
    }

    #[test]
    fn all_slots_of_a_member_that_is_drained_move_unless_something_is_carried() {
        let mut facts = facts();
        assert!((1..ALL).contains(&moved(&facts)));
        facts.apply(Command::Drain { node: NodeId(1) }).unwrap();
        assert_eq!(moved(&facts), ALL);
        carry(&mut facts);
        assert_eq!(moved(&facts), 0);
    }

    #[test]
    fn slots_of_a_member_that_was_forgotten_get_another_owner_whatever_it_carried() {
        let mut facts = facts();
        carry(&mut facts);
        facts.apply(Command::Forget { node: NodeId(1) }).unwrap();
        assert_eq!(moved(&facts), ALL);
        let place = next(&facts).unwrap();
        facts.apply(place).unwrap();
        assert_eq!(facts.primary_of(NodeId(2)).len(), ALL);
    }
}
