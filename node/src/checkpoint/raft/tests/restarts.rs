//! Nodes that end and come back on their folders.

use super::super::{RecordError, StartError};
use super::cluster::{Cluster, ONE, THREE, TWO, member, until, until_counted};
use super::example::{count_up, counted};
use crate::store::{Store, Table, keys};

#[tokio::test(start_paused = true)]
async fn the_cluster_goes_on_without_its_leader() {
    let cluster = Cluster::of_three().await;
    let old = cluster.count_up().await.status();
    cluster.stop(old.id).await;
    let new = cluster.count_up().await.status();
    assert!(new.term > old.term);
    let returned = cluster.start(old.id).await.unwrap();
    until_counted(&returned, 2).await;
    assert_eq!(returned.leader().map(|leader| leader.id), Some(new.id));
}

#[tokio::test(start_paused = true)]
async fn a_whole_cluster_comes_back_with_its_facts() {
    let cluster = Cluster::of_three().await;
    let before = cluster.count_up().await.status();
    for id in [ONE, TWO, THREE] {
        cluster.stop(id).await;
    }
    for id in [ONE, TWO, THREE] {
        cluster.start(id).await.unwrap();
    }
    let leader = cluster.leader().await;
    assert!(leader.leading() > Some(before.term));
    assert_eq!(counted(&leader.facts().borrow()), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_committed_is_known_before_anybody_is_asked() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.count_up().await.status().id;
    cluster.stop(leader).await;
    cluster.isolate(leader);
    let alone = cluster.start(leader).await.unwrap();
    assert_eq!(counted(&alone.facts().borrow()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_restarts_leads_in_a_new_term_only() {
    let cluster = Cluster::default();
    let node = cluster.start(ONE).await.unwrap();
    node.initialize(vec![member(ONE)]).await.unwrap();
    let before = cluster.leader().await.leading();
    cluster.stop(ONE).await;
    let node = cluster.start(ONE).await.unwrap();
    assert_eq!(node.leading(), None);
    assert!(cluster.leader().await.leading() > before);
}

#[tokio::test(start_paused = true)]
async fn a_node_with_a_damaged_record_does_not_start_and_names_it() {
    let cluster = Cluster::of_three().await;
    for _ in 0..5 {
        cluster.count_up().await;
    }
    until_counted(&cluster.node(TWO), 5).await;
    cluster.stop(TWO).await;
    let entry = keys::raft_entry(3);
    for (key, name) in [
        (keys::RAFT_VOTE.as_slice(), "Raft's vote"),
        (keys::RAFT_COMMITTED.as_slice(), "the index that Raft knows to be committed"),
        (entry.as_slice(), "entry 3 of Raft's log"),
    ] {
        flip_a_bit(&cluster.store(TWO), key);
        let error = cluster.start(TWO).await.err().unwrap();
        let damaged = matches!(&error, StartError::Record(RecordError::Damaged { .. }));
        assert!(damaged && error.to_string().contains(name), "{error}");
        flip_a_bit(&cluster.store(TWO), key);
    }
    cluster.start(TWO).await.unwrap();
}

fn flip_a_bit(store: &Store, key: &[u8]) {
    let mut bytes = store.get(Table::Raft, key).unwrap().unwrap();
    bytes[9] ^= 1;
    let mut batch = store.batch();
    batch.put(Table::Raft, key, &bytes).unwrap();
    store.commit(batch).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lost_what_it_knew_to_be_committed_does_not_start() {
    let cluster = Cluster::of_three().await;
    for _ in 0..5 {
        cluster.count_up().await;
    }
    until_counted(&cluster.node(TWO), 5).await;
    cluster.stop(TWO).await;
    {
        let store = cluster.store(TWO);
        let mut batch = store.batch();
        let (from, to) = (keys::raft_entry(3), keys::raft_entry(u64::MAX));
        batch.delete_range(Table::Raft, &from, &to).unwrap();
        store.commit(batch).unwrap();
    }
    let error = cluster.start(TWO).await.err().unwrap();
    assert!(matches!(error, StartError::Raft { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_is_free_when_its_node_has_ended() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.count_up().await;
    let before = leader.status();
    cluster.isolate(before.id);
    let ending = async {
        // An entry is on its way to the others.
        until(&leader, |status| status.last > before.last).await;
        cluster.stop(before.id).await;
        drop(cluster.store(before.id));
    };
    let (answer, ()) = tokio::join!(leader.propose(count_up()), ending);
    assert!(answer.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_ended_says_so() {
    let cluster = Cluster::of_three().await;
    let node = cluster.leader().await;
    cluster.stop(node.status().id).await;
    let error = node.propose(count_up()).await.unwrap_err();
    assert!(error.to_string().contains("Raft has stopped on this node"), "{error}");
    assert!(node.until(|_| false).await.is_err());
    assert!(node.status().stopped.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_works_on_several_threads() {
    let cluster = Cluster::of_three().await;
    cluster.count_up().await;
    for id in [ONE, TWO, THREE] {
        until_counted(&cluster.node(id), 1).await;
    }
}
