//! How replicas come and go.

use http::StatusCode;

use super::*;
use crate::nodes::Change;

#[tokio::test]
async fn a_stateful_set_is_written_only_as_it_was_read() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    world.set_replicas(5);
    let version = world.server.get(STATEFUL_SET).unwrap()["metadata"]["resourceVersion"].clone();
    let asked = world.round().await;
    assert_eq!(asked[0].short(), "GET statefulsets/logs");
    let written = asked.iter().find(|asked| asked.short() == "PATCH statefulsets/logs").unwrap();
    assert_eq!(written.body["metadata"]["resourceVersion"], version);
    assert_eq!(written.body["spec"]["replicas"], 5);
}

#[tokio::test]
async fn replicas_are_decided_by_what_the_stateful_set_has_now() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    world.set_replicas(2);
    // The watch has not told that somebody has set five.
    world.hide_changes();
    let mut stateful_set = world.server.get(STATEFUL_SET).unwrap();
    stateful_set["spec"]["replicas"] = json!(5);
    world.server.put(STATEFUL_SET, stateful_set);
    world.forget();
    let asked = world.round().await;
    let written = asked.iter().find(|asked| asked.short() == "PATCH statefulsets/logs").unwrap();
    assert_eq!(written.body["spec"]["replicas"], 4, "one fewer than now: nobody is at the last");
}

#[tokio::test]
async fn a_write_that_somebody_else_was_faster_with_is_tried_again() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    world.set_replicas(5);
    world.server.refuse("PATCH statefulsets/logs", StatusCode::CONFLICT, "Conflict");
    let error = world.failing_round().await;
    assert!(error.is_conflict(), "{error}");
    world.server.relent();
    world.round().await;
    assert_eq!(world.server.get(STATEFUL_SET).unwrap()["spec"]["replicas"], 5);
}

#[tokio::test]
async fn scaling_down_drains_shrinks_and_deletes_the_claim_in_this_order() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    world.set_replicas(2);
    world.round().await;
    assert_eq!(world.nodes.changes(), [Change::Drain(3)]);
    world.nodes.set_state(3, MemberState::Draining);
    let asked = world.round().await;
    assert!(!World::changes(&asked).iter().any(|it| it.contains("statefulsets")), "it waits");
    assert_eq!(world.nodes.changes(), []);
    assert_eq!(world.condition("Progressing"), ("True".into(), "ScalingDown".into()));
    world.nodes.set_state(3, MemberState::Drained);
    let asked = World::changes(&world.round().await);
    assert!(asked.contains(&"PATCH statefulsets/logs".to_owned()), "{asked:?}");
    assert!(world.server.get(CLAIM_2).is_some(), "the claim comes later");
    world.server.remove(POD_2);
    world.nodes.silence(2);
    let asked = world.round().await;
    let claim = "DELETE persistentvolumeclaims/data-logs-2";
    let deleted = asked.iter().find(|asked| asked.short() == claim).unwrap();
    assert_eq!(deleted.body["preconditions"]["uid"], "claim-2", "this one and no other");
    world.settle().await;
    assert_eq!(world.server.get(CLAIM_2), None);
    assert_eq!(world.condition("Ready"), ("True".into(), "AllNodesReady".into()));
}

#[tokio::test]
async fn an_operator_that_is_killed_between_any_two_rounds_goes_on() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    world.set_replicas(2);
    for _ in 0..12 {
        world.forget();
        world.round().await;
        for change in world.nodes.changes() {
            assert_eq!(change, Change::Drain(3));
            world.nodes.set_state(3, MemberState::Draining);
        }
        world.forget();
        world.round().await;
        world.nodes.finish_draining();
        if world.server.get(STATEFUL_SET).unwrap()["spec"]["replicas"] == 2 {
            world.server.remove(POD_2);
            world.nodes.silence(2);
        }
    }
    assert_eq!(world.server.get(CLAIM_2), None);
    assert_eq!(world.condition("Ready"), ("True".into(), "AllNodesReady".into()));
}

#[tokio::test]
async fn a_refused_drain_is_told_and_asked_for_again() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    world.set_replicas(2);
    world.nodes.refuse("the rest would have no majority");
    let asked = World::changes(&world.round().await);
    assert_eq!(world.condition("ScalingBlocked"), ("True".into(), "DrainRefused".into()));
    assert!(world.message("ScalingBlocked").contains("no majority"));
    assert!(asked.contains(&"POST events".to_owned()), "{asked:?}");
    assert_eq!(world.server.get(STATEFUL_SET).unwrap()["spec"]["replicas"], 3);
    assert_eq!(world.pause, LATER);
    let asked = World::changes(&world.round().await);
    assert_eq!(asked, [""; 0], "it is told once");
    assert_eq!(world.nodes.changes().len(), 2, "and asked for each time");
}

#[tokio::test]
async fn a_drain_that_nobody_answers_is_no_refusal_and_is_asked_for_again_ever_later() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    world.set_replicas(2);
    world.nodes.stall(true);
    let mut pauses = Vec::new();
    for _ in 0..4 {
        world.round().await;
        pauses.push(world.pause.as_secs());
    }
    assert_eq!(pauses, [1, 2, 4, 8]);
    assert_eq!(world.condition("ScalingBlocked"), ("True".into(), "DrainUnanswered".into()));
    assert!(world.message("ScalingBlocked").ends_with("stalled"));
    assert_eq!(world.nodes.changes(), [Change::Drain(3); 4]);
    world.nodes.stall(false);
    world.round().await;
    assert_eq!(world.condition("ScalingBlocked").0, "False");
    assert_eq!(world.pause, SOON);
}

#[tokio::test]
async fn a_node_is_not_asked_to_drain_itself() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    world.nodes.elect(3);
    (0..2).for_each(|node| world.nodes.silence(node));
    world.set_replicas(2);
    world.round().await;
    assert_eq!(world.nodes.changes(), []);
    assert_eq!(world.condition("ScalingBlocked"), ("True".into(), "DrainUnanswered".into()));
    assert!(world.message("ScalingBlocked").ends_with("no other node answers"));
}
