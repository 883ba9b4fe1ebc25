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
    super::next(facts, &BTreeSet::new(), Copies::ONE)
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
fn a_lone_copy_of_files_is_copied_before_its_slot_moves() {
    let cluster = Cluster::of(2);
    cluster.register_files();
    cluster.cut(10, &[]);
    cluster.checkpoint_files(1, "7");
    assert!(!can_move(&cluster, 7));
    cluster.apply(Command::Drain { node: NodeId(1) });
    let Some(Command::Place { changes }) = next(&cluster.now()) else { panic!() };
    let nodes = |change: &Change| (change.owners[0].0, change.wanted.iter().map(|n| n.0).collect());
    assert_eq!(nodes(&changes[&7]), (1, vec![2]));
    assert_eq!(nodes(&changes[&8]), (2, vec![]));
    let silent = [NodeId(1)].into();
    let Some(Command::Place { changes }) = super::next(&cluster.now(), &silent, Copies::ONE) else {
        panic!()
    };
    assert!(!changes.contains_key(&7) && changes.contains_key(&8), "nobody else has them");
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

/// A cluster with two owners for each slot, placed by its leader.
fn twice_owned(nodes: u64) -> Facts {
    let mut facts = Facts::clone(&Cluster::of(nodes).now());
    settle(&mut facts, &[]);
    facts
}

fn two(facts: &Facts, silent: &[u64]) -> Option<Command> {
    super::next(facts, &silent.iter().copied().map(NodeId).collect(), Copies::TWO)
}

/// Has the leader do all that it can, and every node that answers copy what it is to copy.
fn settle(facts: &mut Facts, silent: &[u64]) {
    for _ in 0..9 {
        if let Some(place) = two(facts, silent) {
            facts.apply(place).unwrap();
        }
        let fills = |node: &NodeId| !silent.contains(&node.0);
        let nodes: Vec<_> = facts.members().keys().copied().filter(fills).collect();
        for node in nodes {
            fill(facts, node);
        }
    }
    assert_eq!(two(facts, silent), None, "there is no end to it");
}

fn fill(facts: &mut Facts, node: NodeId) {
    let slots = facts.filled_by(node);
    if !slots.is_empty() {
        facts.apply(Command::Filled { node, slots, files: BTreeMap::new() }).unwrap();
    }
}

/// Flushes a window and carries a later one, so that there is something to copy.
fn keep_something(facts: &mut Facts) {
    let number = facts.latest_cut().number + 1;
    let time = UnixNanos(facts.latest_cut().time.0 + 5_000_000_000);
    facts.apply(Command::Cut { number, time, stamped: BTreeMap::new() }).unwrap();
    let nodes: Vec<_> = facts.members().keys().copied().collect();
    for node in nodes {
        let slots = facts.primary_of(node).iter();
        let slots = slots.map(|slot| (slot, facts.slots()[&slot].epoch)).collect();
        let carry = Command::Carry { node, aggregation: 0, slots, cut: number, keeps: true };
        facts.apply(carry).unwrap();
    }
}

#[test]
fn each_slot_gets_as_many_owners_as_there_are_to_be_copies() {
    let facts = twice_owned(4);
    for node in 1..=4 {
        let (primary, owner) = (facts.primary_of(NodeId(node)), facts.owner_of(NodeId(node)));
        assert!((57..=71).contains(&primary.len()), "{}", primary.len());
        assert!((115..=141).contains(&owner.len()), "{}", owner.len());
    }
    assert!(facts.slots().values().all(|slot| slot.owners.len() == 2 && slot.wanted.is_empty()));
}

#[test]
fn a_dead_primary_is_followed_by_an_owner_at_once_and_others_copy_first() {
    let mut facts = twice_owned(3);
    keep_something(&mut facts);
    let before = facts.clone();
    facts.apply(two(&facts, &[2]).unwrap()).unwrap();
    for (slot, now) in facts.slots() {
        let owners = &before.slots()[slot].owners;
        assert!(now.owners.iter().all(|node| owners.contains(node) && *node != NodeId(2)));
        assert!(!now.owners.is_empty() && now.owners.len() + now.filling.len() == 2);
    }
    settle(&mut facts, &[2]);
    assert!(facts.slots().values().all(|slot| slot.owners.len() == 2));
    assert!(facts.owner_of(NodeId(2)).is_empty());
}

#[test]
fn slots_stay_with_a_member_that_leaves_until_others_have_copied_them() {
    let mut facts = twice_owned(3);
    keep_something(&mut facts);
    let before = facts.owner_of(NodeId(3));
    facts.apply(Command::Drain { node: NodeId(3) }).unwrap();
    facts.apply(two(&facts, &[]).unwrap()).unwrap();
    assert_eq!(facts.owner_of(NodeId(3)), before);
    assert!(facts.check_drained(NodeId(3)).is_err());
    fill(&mut facts, NodeId(1));
    assert!(!facts.owner_of(NodeId(3)).is_empty(), "node 2 copies still");
    settle(&mut facts, &[]);
    facts.apply(Command::Drained { node: NodeId(3) }).unwrap();
}

#[test]
fn a_member_that_joins_leads_nothing_before_it_has_copied() {
    let mut facts = twice_owned(2);
    keep_something(&mut facts);
    facts.apply(join(3)).unwrap();
    facts.apply(Command::Activate { node: NodeId(3) }).unwrap();
    let before = facts.clone();
    facts.apply(two(&facts, &[]).unwrap()).unwrap();
    assert!(facts.owner_of(NodeId(3)).is_empty());
    assert!(facts.filled_by(NodeId(3)).len() >= 153, "nine tenths of its share");
    let moved = facts.slots().iter().filter(|(slot, now)| before.slots()[slot] != **now);
    assert_eq!(moved.count(), facts.filled_by(NodeId(3)).len(), "nothing else moves");
    fill(&mut facts, NodeId(3));
    assert!(facts.primary_of(NodeId(3)).len() >= 76);
    assert_eq!(two(&facts, &[]), None);
}

#[test]
fn a_lone_copy_gets_a_second_one_and_gives_it_up_again() {
    let cluster = Cluster::of(3);
    let mut facts = Facts::clone(&cluster.now());
    facts.apply(next(&facts).unwrap()).unwrap();
    keep_something(&mut facts);
    let lone = facts.clone();
    facts.apply(two(&facts, &[]).unwrap()).unwrap();
    for (slot, now) in facts.slots() {
        assert_eq!(now.owners, lone.slots()[slot].owners);
        assert_eq!(now.wanted[..1], now.owners, "the primary stays");
    }
    settle(&mut facts, &[]);
    facts.apply(next(&facts).unwrap()).unwrap();
    assert_eq!(next(&facts), None);
    assert!(facts.slots().values().all(|slot| slot.owners.len() == 1));
}

#[test]
fn what_no_live_member_owns_waits_if_something_of_it_is_carried() {
    let mut facts = twice_owned(3);
    let gone: Vec<_> = [1, 2].map(NodeId).into();
    let both: Vec<_> = facts
        .slots()
        .iter()
        .filter(|(_, slot)| !slot.owners.contains(&NodeId(3)))
        .map(|(&slot, _)| slot)
        .collect();
    assert!(!both.is_empty());
    let mut carried = facts.clone();
    keep_something(&mut carried);
    let place = |facts: &Facts| match two(facts, &[1, 2]) {
        Some(Command::Place { changes }) => changes,
        other => panic!("{other:?}"),
    };
    assert!(both.iter().all(|slot| !place(&carried).contains_key(slot)));
    let changes = place(&facts);
    assert!(both.iter().all(|slot| changes[slot].owners == [NodeId(3)]));
    facts.apply(Command::Place { changes }).unwrap();
    assert!(facts.slots().values().all(|slot| !gone.contains(&slot.owners[0])));
}
