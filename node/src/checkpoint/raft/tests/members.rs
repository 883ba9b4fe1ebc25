//! Electing, proposing, and changing the members.

use std::collections::BTreeSet;

use super::super::{ProposeError, Rpc};
use super::cluster::{Cluster, FOUR, ONE, THREE, TWO, member, until, until_counted};
use super::example::{count_up, counted, forbidden};

#[tokio::test(start_paused = true)]
async fn what_the_leader_takes_is_applied_by_every_member() {
    let cluster = Cluster::of_three().await;
    for _ in 0..5 {
        cluster.count_up().await;
    }
    for id in [ONE, TWO, THREE] {
        until_counted(&cluster.node(id), 5).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_leaders_facts_contain_a_command_when_it_is_answered() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.count_up().await;
    assert_eq!(counted(&leader.facts().borrow()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_the_facts_do_not_allow_is_refused() {
    let cluster = Cluster::of_three().await;
    let error = cluster.leader().await.propose(forbidden()).await.unwrap_err();
    assert!(matches!(error, ProposeError::Refused(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_follower_names_the_leader() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await.status().id;
    for follower in [ONE, TWO, THREE].into_iter().filter(|id| *id != leader) {
        let follower = cluster.node(follower);
        until(&follower, |status| status.leader == Some(leader)).await;
        let error = follower.propose(count_up()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("this node does not lead; ask node {leader} at node-{leader}")
        );
        assert_eq!(follower.leader(), Some(member(leader)));
        assert_eq!(follower.leading(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_cluster_says_to_ask_another() {
    let cluster = Cluster::default();
    let node = cluster.start(ONE).await.unwrap();
    assert!(!node.is_initialized().await.unwrap());
    let error = node.propose(count_up()).await.unwrap_err();
    assert!(matches!(error, ProposeError::NotLeader { leader: None }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_formed_once() {
    let cluster = Cluster::of_three().await;
    let error = cluster.node(ONE).initialize(vec![member(ONE)]).await.unwrap_err();
    assert!(matches!(error, ProposeError::Membership { .. }), "{error}");
    assert!(cluster.node(ONE).is_initialized().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn the_lead_goes_to_the_node_that_it_is_given_to() {
    let cluster = Cluster::of_three().await;
    for to in [TWO, THREE, ONE, TWO] {
        let leader = cluster.leader().await;
        let before = leader.leading();
        leader.transfer_leadership(to).await.unwrap();
        let leader = cluster.leader().await;
        assert_eq!(leader.status().id, to);
        assert!(leader.leading() >= before);
        leader.transfer_leadership(to).await.unwrap();
        cluster.count_up().await;
    }
    assert!(cluster.calls(THREE, Rpc::TransferLeader) > 0);
}

#[tokio::test(start_paused = true)]
async fn the_lead_is_not_given_to_a_learner() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    cluster.start(FOUR).await.unwrap();
    leader.add_learner(member(FOUR)).await.unwrap();
    let error = leader.transfer_leadership(FOUR).await.unwrap_err();
    assert_eq!(error.to_string(), "node 4 does not vote");
}

#[tokio::test(start_paused = true)]
async fn a_follower_cannot_give_the_lead_away() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await.status().id;
    let follower = if leader == ONE { TWO } else { ONE };
    let error = cluster.node(follower).transfer_leadership(THREE).await.unwrap_err();
    assert!(matches!(error, ProposeError::NotLeader { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_lead_is_not_given_to_a_node_that_does_not_answer() {
    let cluster = Cluster::of_three().await;
    cluster.leader().await.transfer_leadership(ONE).await.unwrap();
    cluster.isolate(THREE);
    let error = cluster.leader().await.transfer_leadership(THREE).await.unwrap_err();
    assert!(matches!(error, ProposeError::Membership { .. }), "{error}");
    cluster.count_up().await;
}

#[tokio::test(start_paused = true)]
async fn a_learner_takes_the_place_of_a_voter() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.count_up().await;
    let leaving = leader.status().id;
    let fourth = cluster.start(FOUR).await.unwrap();
    leader.add_learner(member(FOUR)).await.unwrap();
    until_counted(&fourth, 1).await;
    let status = until(&leader, |status| status.replicated.contains_key(&FOUR)).await;
    assert_eq!(status.learners, [FOUR].into());

    let voters: BTreeSet<_> =
        [ONE, TWO, THREE, FOUR].into_iter().filter(|id| *id != leaving).collect();
    let heir = *voters.first().unwrap();
    leader.transfer_leadership(heir).await.unwrap();
    let leader = cluster.leader().await;
    leader.change_voters(voters.clone()).await.unwrap();
    let status = leader.status();
    assert_eq!((status.voters, status.learners), (voters.clone(), [leaving].into()));

    leader.remove_learner(leaving).await.unwrap();
    cluster.stop(leaving).await;
    let status = leader.status();
    assert_eq!((status.voters, status.learners), (voters.clone(), [].into()));
    cluster.count_up().await;
    for id in voters {
        until_counted(&cluster.node(id), 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_leader_hands_the_lead_on_before_it_loses_its_vote() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let own = leader.status().id;
    let others = BTreeSet::from([ONE, TWO, THREE].map(|id| if id == own { FOUR } else { id }));
    let error = leader.change_voters(others).await.unwrap_err();
    assert!(error.to_string().contains("hand the lead on"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_voters_that_was_left_half_done_is_completed_by_asking_again() {
    let cluster = Cluster::of_three().await;
    cluster.leader().await.transfer_leadership(ONE).await.unwrap();
    let leader = cluster.leader().await;
    cluster.start(FOUR).await.unwrap();
    leader.add_learner(member(FOUR)).await.unwrap();
    let voters = BTreeSet::from([ONE, TWO, FOUR]);
    let half_done = until(&leader, |status| status.voters.len() == 4);
    tokio::select! {
        biased;
        status = half_done => assert_eq!(status.voters, [ONE, TWO, THREE, FOUR].into()),
        changed = leader.change_voters(voters.clone()) => panic!("not half done: {changed:?}"),
    }
    until(&leader, |status| status.applied == status.last).await;
    assert_eq!(leader.status().voters, [ONE, TWO, THREE, FOUR].into());
    leader.change_voters(voters.clone()).await.unwrap();
    assert_eq!(leader.status().voters, voters);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_no_learner_cannot_become_a_voter() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let error = leader.change_voters([ONE, TWO, THREE, FOUR].into()).await.unwrap_err();
    assert!(matches!(error, ProposeError::Membership { .. }), "{error}");
    let error = leader.remove_learner(ONE).await.unwrap_err();
    assert!(matches!(error, ProposeError::Membership { .. }), "{error}");
}
