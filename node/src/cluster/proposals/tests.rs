use tokio::time::Instant;

use super::*;
use crate::cluster::example::join;
use crate::event::node::NodeId;
use nodes::Nodes;

mod nodes; // nodes that reach each other over streams in memory

/// Nothing here takes this long, on a clock that runs ahead whenever everybody waits.
const DEADLINE: Duration = Duration::from_secs(60);

fn members(proposals: &Proposals) -> Vec<u64> {
    proposals.facts().borrow().members().keys().map(|id| id.0).collect()
}

#[tokio::test(start_paused = true)]
async fn every_member_has_commands_applied_and_its_own_facts_contain_them() {
    let nodes = Nodes::with_leader().await;
    for number in [1, 2, 3] {
        let proposals = nodes.proposals(number);
        let applied = proposals.propose(join(number), DEADLINE).await;
        assert_eq!(applied, Ok(Applied::Node(NodeId(number.into()))));
        assert_eq!(members(&proposals), (1..=number.into()).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_final_and_this_nodes_facts_are_those_that_it_was_decided_by() {
    let nodes = Nodes::with_leader().await;
    let (leader, others) = nodes.roles();
    let (led, follows) = (nodes.proposals(leader), nodes.proposals(others[0]));
    nodes.cut_off(Some(others[0]));
    led.propose(join(7), DEADLINE).await.unwrap();
    let gone = Command::Activate { node: NodeId(9) };
    let refused = tokio::spawn({
        let (follows, gone) = (follows.clone(), gone.clone());
        async move { follows.propose(gone, DEADLINE).await }
    });
    // The leader has decided, and the follower does not know it yet.
    let entry = nodes.raft(leader).status().applied.unwrap() + 1;
    nodes.raft(leader).until_applied(entry).await.unwrap();
    assert_eq!(members(&follows), [0; 0]);
    nodes.cut_off(None);
    let expected = Err(ProposalError::Refused(Refused::NoNode { node: NodeId(9) }));
    assert_eq!(refused.await.unwrap(), expected);
    assert_eq!(members(&follows), [1]);
    assert_eq!(led.propose(gone, DEADLINE).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_command_waits_for_a_leader() {
    let nodes = Nodes::without_leader().await;
    let proposals = nodes.proposals(3);
    let waiting = tokio::spawn(async move { proposals.propose(join(3), DEADLINE).await });
    nodes.begin().await;
    assert_eq!(waiting.await.unwrap(), Ok(Applied::Node(NodeId(1))));
}

#[tokio::test(start_paused = true)]
async fn a_command_outlives_the_leader() {
    let nodes = Nodes::with_leader().await;
    let (leader, others) = nodes.roles();
    nodes.stop(leader).await;
    for number in others {
        let applied = nodes.proposals(number).propose(join(number), DEADLINE).await;
        assert!(matches!(applied, Ok(Applied::Node(_))), "{applied:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_decide_is_left_for_the_next_one() {
    let nodes = Nodes::with_leader().await;
    let (leader, others) = nodes.roles();
    nodes.cut_off(Some(leader));
    let begin = Instant::now();
    let applied = nodes.proposals(others[0]).propose(join(1), DEADLINE).await;
    assert_eq!(applied, Ok(Applied::Node(NodeId(1))));
    assert!(begin.elapsed() < DECISION_WAIT, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_still_believes_in_the_last_leader_is_told_the_new_one() {
    let nodes = Nodes::with_leader().await;
    let (old, others) = nodes.roles();
    let (new, misled) = (others[0], others[1]);
    nodes.cut_off(Some(misled));
    nodes.raft(old).transfer_leadership(NodeId(new.into())).await.unwrap();
    assert_eq!(nodes.raft(misled).leader().unwrap().id, NodeId(old.into()));

    let proposals = nodes.proposals(misled);
    let proposing = tokio::spawn(async move { proposals.propose(join(5), DEADLINE).await });
    let mut facts = nodes.raft(new).facts();
    facts.wait_for(|facts| facts.members().len() == 1).await.unwrap();
    assert_eq!(nodes.raft(misled).leader().unwrap().id, NodeId(old.into()));
    nodes.cut_off(None);
    assert_eq!(proposing.await.unwrap(), Ok(Applied::Node(NodeId(1))));
}

#[tokio::test(start_paused = true)]
async fn commands_are_decided_while_the_lead_goes_round() {
    let nodes = Nodes::with_leader().await;
    let mut proposing = Vec::new();
    for number in 1..=3 {
        let proposals = nodes.proposals(number);
        proposing.push(tokio::spawn(async move {
            for round in 0..10 {
                proposals.propose(join(10 * number + round), DEADLINE).await.unwrap();
            }
        }));
    }
    for to in [1, 2, 3, 1, 2, 3] {
        let leader = nodes.leader().await;
        leader.transfer_leadership(NodeId(to)).await.unwrap();
    }
    futures::future::try_join_all(proposing).await.unwrap();
    assert_eq!(members(&nodes.proposals(1)).len(), 30);
}

#[tokio::test(start_paused = true)]
async fn time_runs_out_without_a_majority() {
    let nodes = Nodes::with_leader().await;
    let (leader, others) = nodes.roles();
    for other in &others {
        nodes.stop(*other).await;
    }
    let within = Duration::from_secs(20);
    let error = nodes.proposals(leader).propose(join(1), within).await.unwrap_err();
    assert!(matches!(error, ProposalError::Undecided { .. }), "{error}");
    assert!(error.to_string().starts_with("nobody knows after 20s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_no_part_any_more_says_so() {
    let nodes = Nodes::with_leader().await;
    let (leader, others) = nodes.roles();
    for number in [others[0], leader] {
        let proposals = nodes.proposals(number);
        nodes.stop(number).await;
        let error = proposals.propose(join(1), DEADLINE).await.unwrap_err();
        assert!(matches!(error, ProposalError::Stopped(_)), "{error}");
    }
}
