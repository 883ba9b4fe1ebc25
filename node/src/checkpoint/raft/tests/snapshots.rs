//! Snapshots keep the log short, and bring members up to date that lack its beginning.

use futures::future::try_join_all;

use super::super::{ENTRIES_KEPT, Rpc, SNAPSHOT_ENTRIES, SNAPSHOT_WAIT};
use super::cluster::{Cluster, FOUR, ONE, THREE, TWO, member, until, until_counted};
use super::example::count_up;
use crate::store::{Table, keys};

/// Has the cluster count until the log's beginning is gone; returns the count.
async fn count_past_a_snapshot(cluster: &Cluster) -> u64 {
    let leader = cluster.leader().await;
    let before = leader.status();
    let count = SNAPSHOT_ENTRIES + ENTRIES_KEPT;
    try_join_all((0..count).map(|_| leader.propose(count_up()))).await.unwrap();
    until(&leader, |status| status.purged > before.purged).await;
    count
}

#[tokio::test(start_paused = true)]
async fn the_log_stays_short() {
    let cluster = Cluster::of_three().await;
    for _ in 0..2 {
        count_past_a_snapshot(&cluster).await;
    }
    let last = cluster.leader().await.status().last;
    for id in [ONE, TWO, THREE] {
        until(&cluster.node(id), |status| status.last == last).await;
        cluster.stop(id).await;
        let store = cluster.store(id);
        let (from, to) = (keys::raft_entry(0), keys::raft_entry(u64::MAX));
        let entries = store.scan(Table::Raft, &from, &to).unwrap().count() as u64;
        assert!(entries <= SNAPSHOT_ENTRIES + ENTRIES_KEPT, "{entries} entries");
        assert!(entries >= ENTRIES_KEPT, "{entries} entries");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_learner_gets_a_snapshot_in_place_of_what_is_gone() {
    let cluster = Cluster::of_three().await;
    let count = count_past_a_snapshot(&cluster).await;
    let learner = cluster.start(FOUR).await.unwrap();
    cluster.slow_down_snapshots(SNAPSHOT_WAIT / 2);
    cluster.leader().await.add_learner(member(FOUR)).await.unwrap();
    until_counted(&learner, count).await;
    assert!(cluster.calls(FOUR, Rpc::Snapshot) > 0);

    // It has it for good, and goes on from there.
    cluster.stop(FOUR).await;
    let learner = cluster.start(FOUR).await.unwrap();
    assert!(learner.status().snapshot.is_some());
    cluster.count_up().await;
    until_counted(&learner, count + 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_was_away_for_long_catches_up() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.count_up().await.status().id;
    let away = if leader == THREE { TWO } else { THREE };
    cluster.stop(away).await;
    let count = 1 + count_past_a_snapshot(&cluster).await;
    let returned = cluster.start(away).await.unwrap();
    until_counted(&returned, count).await;
}
