//! Nodes that are cut off, wholly or in part.

use tokio::time::Instant;

use super::super::{DECISION_WAIT, ProposeError, Rpc};
use super::cluster::{Cluster, ONE, THREE, TWO, until, until_counted};
use super::example::count_up;

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_decides_nothing() {
    let cluster = Cluster::of_three().await;
    let old = cluster.count_up().await;
    cluster.isolate(old.status().id);
    let error = old.propose(count_up()).await.unwrap_err();
    assert!(matches!(error, ProposeError::Undecided), "{error}");

    let new = cluster.leader().await;
    assert_ne!(new.status().id, old.status().id);
    assert!(old.leading().is_some() && old.leading() < new.leading());
    let error = old.read_index().await.unwrap_err();
    assert!(!matches!(error, ProposeError::Stopped(_)), "{error}");
    let error = old.propose(count_up()).await.unwrap_err();
    assert!(matches!(error, ProposeError::NotLeader { leader: None }), "{error}");

    cluster.count_up().await;
    cluster.mend();
    until(&old, |status| !status.leads()).await;
    until_counted(&old, 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_does_not_take_the_lead_away() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.count_up().await;
    let before = leader.status();
    let lost = if before.id == THREE { TWO } else { THREE };
    cluster.isolate(lost);
    // It asks again and again, and nobody hears it.
    let asked = cluster.calls(before.id, Rpc::PreVote);
    until(&leader, |_| cluster.calls(before.id, Rpc::PreVote) > asked + 10).await;
    cluster.count_up().await;
    assert_eq!(cluster.node(lost).status().term, before.term);
    cluster.mend();
    until_counted(&cluster.node(lost), 2).await;
    let after = leader.status();
    assert_eq!((after.term, after.leader), (before.term, Some(before.id)));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_gets_no_answers_is_replaced() {
    let cluster = Cluster::of_three().await;
    let old = cluster.count_up().await.status();
    for other in [ONE, TWO, THREE] {
        cluster.cut(other, old.id);
    }
    let new = cluster.leader().await;
    assert_ne!(new.status().id, old.id);
    cluster.count_up().await;
}

#[tokio::test(start_paused = true)]
async fn a_command_that_a_new_leader_discards_was_not_decided() {
    let cluster = Cluster::of_three().await;
    let old = cluster.count_up().await;
    cluster.isolate(old.status().id);
    let asked = Instant::now();
    let mend_later = async {
        cluster.count_up().await;
        cluster.mend();
    };
    let (answer, ()) = tokio::join!(old.propose(count_up()), mend_later);
    let error = answer.unwrap_err();
    assert!(matches!(error, ProposeError::Undecided), "{error}");
    assert!(asked.elapsed() < DECISION_WAIT);
    until_counted(&old, 2).await;
}
