//! Several real nodes: how they become a cluster, and what becomes of it when they die.
#![allow(clippy::unwrap_used)]

#[path = "support/http.rs"]
mod http; // requests over one plain connection
#[path = "chunks/parts.rs"]
mod parts; // chunks as bytes
#[path = "support/process.rs"]
mod process; // the real binary
mod cluster {
    mod asking; // what senders of chunks are asked
    mod beginning; // an aggregation that is new
    mod counting; // what they count together
    mod faults; // several at once, for a while, or at random
    mod files; // files that they rebuild
    mod leaving; // one that is let go
    mod load; // senders to all of them
    pub(crate) mod nodes; // their folders and addresses
    #[cfg(feature = "failpoints")]
    mod owning; // what all owners of a slot have
    mod parts; // what each of them has
    mod repeats; // a client that sends requests again
    mod scaling; // many come and many go
    mod tally; // what it has to add up to
}

use std::collections::BTreeSet;

use cluster::nodes::{Nodes, ready, settled, view};
use process::{Process, eventually};
use sheaf_proto::cluster::{Cluster, Role};

fn uuids(cluster: &Cluster) -> Vec<String> {
    cluster.members.iter().map(|member| member.uuid.to_string()).collect()
}

#[test]
fn three_nodes_form_one_cluster_and_know_each_other() {
    let nodes = Nodes::new(3);
    let mut running = nodes.start_all();
    let known: Vec<_> = running.iter_mut().map(|node| settled(node, 3)).collect();
    let ids: BTreeSet<_> = known.iter().map(|cluster| cluster.node).collect();
    assert_eq!(ids, BTreeSet::from([Some(1), Some(2), Some(3)]));
    for cluster in &known {
        assert_eq!(cluster.cluster, known[0].cluster);
        assert_eq!(uuids(cluster), uuids(&known[0]));
    }
    let voters = known[0].members.iter().filter(|m| matches!(m.role, Role::Leader | Role::Voter));
    assert_eq!(voters.count(), 3);
}

#[test]
fn nodes_wait_for_one_that_is_missing_and_say_for_whom() {
    let nodes = Nodes::new(3);
    let mut first = nodes.start(0, 3);
    let mut second = nodes.start(1, 3);
    let missing = &nodes.addresses[2];
    eventually("a node that waits for the third", || {
        let cluster = view(&mut first)?;
        assert!(!cluster.formed, "a cluster of two where three are to be");
        cluster.waiting.iter().any(|why| why.contains(missing)).then_some(())
    });
    let mut third = nodes.start(2, 3);
    for node in [&mut first, &mut second, &mut third] {
        settled(node, 3);
    }
}

#[test]
fn another_node_leads_when_the_leader_dies_and_the_dead_one_comes_back_as_itself() {
    let nodes = Nodes::new(3);
    let mut running: Vec<_> = nodes.start_all().into_iter().map(Some).collect();
    let before = settled(running[0].as_mut().unwrap(), 3);
    let leads = |node: &mut Process| settled(node, 3).node == before.leader;
    let position = running.iter_mut().position(|node| leads(node.as_mut().unwrap())).unwrap();
    running[position].take().unwrap().kill();

    let left = running.iter_mut().flatten().next().unwrap();
    eventually("another leader", || {
        view(left)?.leader.filter(|leader| Some(*leader) != before.leader)
    });
    let mut back = nodes.start(position, 3);
    let after = settled(&mut back, 3);
    assert_eq!((after.node, after.cluster), (before.leader, before.cluster));
    assert_eq!(uuids(&after), uuids(&before));
}

#[test]
fn a_leader_that_is_stopped_hands_the_lead_on() {
    let nodes = Nodes::new(3);
    let mut running: Vec<_> = nodes.start_all().into_iter().map(Some).collect();
    let before = settled(running[0].as_mut().unwrap(), 3);
    let leads = |node: &mut Process| settled(node, 3).node == before.leader;
    let position = running.iter_mut().position(|node| leads(node.as_mut().unwrap())).unwrap();
    let mut leader = running[position].take().unwrap();
    // One that is still starting has nothing to hand on.
    eventually("a ready leader", || ready(&mut leader).filter(|answer| answer.status == 200));
    let ended = leader.terminate();
    assert!(ended.status.success());
    assert!(ended.stderr.contains("the lead is handed on"), "{}", ended.stderr);

    let left = running.iter_mut().flatten().next().unwrap();
    eventually("another leader", || {
        view(left)?.leader.filter(|leader| Some(*leader) != before.leader)
    });
}

#[test]
fn a_cluster_that_was_killed_as_a_whole_goes_on() {
    let nodes = Nodes::new(3);
    let mut running = nodes.start_all();
    let before = settled(&mut running[0], 3);
    running.into_iter().for_each(|node| drop(node.kill()));
    let mut running = nodes.start_all();
    for node in &mut running {
        let after = settled(node, 3);
        assert_eq!((after.cluster, uuids(&after)), (before.cluster, uuids(&before)));
        // What it remembers of the last leader counts for nothing until there is a new one.
        eventually("a new term", || (view(node)?.term > before.term).then_some(()));
    }
}

#[test]
fn an_empty_volume_joins_as_a_new_node_also_behind_an_old_address() {
    let nodes = Nodes::new(4);
    let mut running: Vec<_> = (0..3).map(|node| nodes.start(node, 3)).collect();
    let formed = settled(&mut running[0], 3);

    let mut fourth = nodes.start(3, 3);
    let joined = settled(&mut fourth, 4);
    assert_eq!((joined.cluster, joined.node), (formed.cluster, Some(4)));
    drop(fourth.kill());
    std::fs::remove_dir_all(nodes.volume(3)).unwrap();
    let mut emptied = nodes.start(3, 3);
    let joined = settled(&mut emptied, 5);
    assert_eq!((joined.cluster, joined.node), (formed.cluster, Some(5)));
    assert_ne!(joined.members[3].uuid, joined.members[4].uuid);
}

#[test]
fn a_node_that_waits_for_others_can_be_stopped() {
    let nodes = Nodes::new(2);
    let mut waiting = nodes.start(0, 2);
    eventually("a node that waits", || view(&mut waiting).filter(|c| !c.waiting.is_empty()));
    let ended = waiting.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
}
