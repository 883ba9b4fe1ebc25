use std::sync::Arc;

use super::*;
use crate::checkpoint::facts::Settings;
use crate::cluster::example::join;
use crate::event::slots::SlotSet;
use crate::event::time::{UnixNanos, Window};
use crate::flush::example::{Cluster, at, slots, window};

mod random; // slots go to and fro while windows are counted

const FIRST: Window = Window { start: UnixNanos(0), end: UnixNanos(10_000_000_000) };

/// The slots that move, and where to.
fn moves(facts: &Facts) -> BTreeMap<u64, SlotSet> {
    let mut moves: BTreeMap<u64, SlotSet> = BTreeMap::new();
    if let Some(Command::Place { changes }) = next(facts) {
        for (slot, Change { owners, .. }) in changes {
            assert_eq!(owners.len(), 1);
            moves.entry(owners[0].0).or_default().insert(slot);
        }
    }
    moves
}

/// Where slots go when all members answer.
fn next(facts: &Facts) -> Option<Command> {
    super::next(facts, &BTreeSet::new())
}

fn can_move(cluster: &Cluster, slot: Slot) -> bool {
    super::can_move(&cluster.now(), slot)
}

fn carry(cluster: &Cluster, of: &str, cut: u64) {
    let facts = cluster.now();
    let epochs = slots(of).iter().map(|slot| (slot, facts.slots()[&slot].epoch)).collect();
    cluster.apply(Command::Carry {
        node: NodeId(1),
        aggregation: 0,
        slots: epochs,
        cut,
        keeps: true,
    });
}

#[test]
fn the_first_owners_are_the_active_members_in_about_equal_shares() {
    let mut facts = Facts::new(Settings { slots: 256 });
    assert_eq!(next(&facts), None, "nobody is there");
    for number in 1..=4 {
        facts.apply(join(number)).unwrap();
    }
    for number in 1..=3 {
        facts.apply(Command::Activate { node: NodeId(number) }).unwrap();
    }
    let moves = moves(&facts);
    assert_eq!(moves.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(moves.values().map(SlotSet::len).sum::<usize>(), 256);
    assert!(moves.values().all(|slots| (76..=94).contains(&slots.len())), "{moves:?}");
    facts.apply(next(&facts).unwrap()).unwrap();
    assert_eq!(next(&facts), None, "all are where they are to be");
}

#[test]
fn whoever_joins_gets_slots_of_which_nothing_is_carried() {
    let cluster = Cluster::of(2);
    let cut = cluster.cut(5, &[]);
    carry(&cluster, "0-255", cut);
    assert_eq!(next(&cluster.now()), None);
    let end = cluster.cut(10, &[]);
    cluster.flush(1, "100-255", FIRST, end);
    let moves = moves(&cluster.now());
    assert_eq!(moves.keys().copied().collect::<Vec<_>>(), [2]);
    assert!(moves[&2].iter().all(|slot| slot >= 100), "{moves:?}");
    cluster.apply(next(&cluster.now()).unwrap());
    assert_eq!(cluster.now().primary_of(NodeId(2)), moves[&2]);
}

#[test]
fn slots_leave_a_member_that_drains() {
    let cluster = Cluster::of(3);
    cluster.place("0-99", 2);
    cluster.apply(Command::Drain { node: NodeId(2) });
    cluster.apply(next(&cluster.now()).unwrap());
    assert_eq!(cluster.now().primary_of(NodeId(2)), SlotSet::default());
}

#[test]
fn a_slot_that_was_flushed_at_a_windows_end_can_move() {
    let cluster = Cluster::of(1);
    assert!(can_move(&cluster, 7));
    let end = cluster.cut(10, &[]);
    cluster.flush(1, "7", FIRST, end);
    assert!(can_move(&cluster, 7));
    cluster.cut(21, &[]);
    cluster.flush(1, "7", window(10, 20), end + 1);
    assert!(can_move(&cluster, 7), "it goes on from the first window's end");
}

#[test]
fn a_slot_stays_with_what_is_carried_of_it() {
    let cluster = Cluster::of(1);
    let end = cluster.cut(10, &[]);
    cluster.flush(1, "7", FIRST, end);
    let cut = cluster.cut(15, &[]);
    carry(&cluster, "7", cut);
    assert!(!can_move(&cluster, 7));
    assert!(can_move(&cluster, 8));
    let end = cluster.cut(20, &[]);
    cluster.flush(1, "7", window(10, 20), end);
    assert!(can_move(&cluster, 7), "its owner says that it keeps nothing of later windows");
}

#[test]
fn owners_that_moved_meanwhile_are_not_moved_by_an_older_decision() {
    let cluster = Cluster::of(2);
    let decided = next(&cluster.now()).unwrap();
    let end = cluster.cut(10, &[]);
    cluster.flush(1, "0-255", FIRST, end);
    let mut facts = Facts::clone(&cluster.now());
    facts.apply(decided).unwrap_err();
}

/// A cluster for both kinds of tests.
fn two_nodes() -> Arc<Cluster> {
    let cluster = Cluster::of(2);
    cluster.place("128-255", 2);
    cluster
}
