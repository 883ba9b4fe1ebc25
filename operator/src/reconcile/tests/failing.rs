//! What fails.

use http::StatusCode;

use super::*;

#[tokio::test]
async fn a_failure_that_does_not_go_away_is_told_of() {
    let mut world = World::new(json!({"replicas": 3}));
    world.server.refuse("PATCH secrets/logs-control", StatusCode::FORBIDDEN, "Forbidden");
    for _ in 0..2 {
        let error = world.failing_round().await;
        assert!(error.to_string().starts_with("apply Secret logs-control: "), "{error}");
        assert_eq!(world.aggregator()["status"], json!(null), "it may pass");
    }
    world.failing_round().await;
    assert_eq!(world.condition("Degraded"), ("True".into(), "ReconcileFailed".into()));
    world.server.relent();
    world.round().await;
    assert_eq!(world.condition("Degraded").0, "False");
}

#[tokio::test]
async fn every_request_that_fails_fails_the_round_and_names_itself() {
    for (request, told) in [
        ("GET secrets/logs-control", "read the Secret with the token: "),
        ("GET statefulsets/logs", "read the StatefulSet: "),
        ("PATCH logaggregators/logs", "seed spec.replicas: "),
        ("GET serviceaccounts/logs", "look for ServiceAccount logs: "),
        ("PATCH statefulsets/logs", "apply StatefulSet logs: "),
        ("PATCH logaggregators/logs/status", "write the status: "),
    ] {
        let mut world = World::new(json!({}));
        world.server.refuse(request, StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        let error = world.failing_round().await;
        assert!(error.to_string().starts_with(told), "{request}: {error}");
    }
}

/// What goes on in a world when a request fails.
type Prepare = fn(&mut World);

const GROWS: Prepare =
    |world| world.change_spec(json!({"replicas": 3, "storage": {"size": "20Gi"}}));

#[tokio::test]
async fn every_act_that_fails_fails_the_round_and_names_itself() {
    let loses: Prepare = |world| world.lose_machine(2);
    let scales_no_more: Prepare = |world| world.change_spec(json!({"replicas": 3}));
    for (request, told, prepare) in [
        (
            "PATCH persistentvolumeclaims/data-logs-1",
            "change PersistentVolumeClaim data-logs-1: ",
            GROWS,
        ),
        ("DELETE horizontalpodautoscalers/logs", "delete the autoscaler: ", scales_no_more),
        ("GET api/v1/persistentvolumes/v-2", "read the volume of data-logs-2: ", loses),
    ] {
        let mut world = World::settled(scaled()).await;
        prepare(&mut world);
        world.server.refuse(request, StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        let error = world.failing_round().await;
        assert!(error.to_string().starts_with(told), "{request}: {error}");
        world.server.relent();
        world.round().await;
    }
}

#[tokio::test]
async fn pods_and_claims_that_cannot_be_marked_fail_the_round() {
    for (request, told) in [
        ("PATCH pods/logs-1", "change Pod logs-1: "),
        ("PATCH persistentvolumeclaims/data-logs-1", "change PersistentVolumeClaim data-logs-1: "),
    ] {
        let mut world = World::running(json!({"replicas": 3})).await;
        world.server.refuse(request, StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        let error = world.failing_round().await;
        assert!(error.to_string().starts_with(told), "{request}: {error}");
        world.server.relent();
        world.server.refuse(request, StatusCode::NOT_FOUND, "NotFound");
        world.round().await;
        world.server.relent();
        world.settle().await;
    }
}

#[tokio::test]
async fn a_stateful_set_that_cannot_be_replaced_fails_the_round() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    GROWS(&mut world);
    world.round().await;
    let request = "DELETE statefulsets/logs";
    world.server.refuse(request, StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
    let error = world.failing_round().await;
    assert!(error.to_string().starts_with("delete StatefulSet logs: "), "{error}");
    world.server.relent();
    world.settle().await;
    let size = "/spec/volumeClaimTemplates/0/spec/resources/requests/storage";
    assert_eq!(world.server.get(STATEFUL_SET).unwrap().pointer(size), Some(&json!("20Gi")));
}

#[tokio::test(start_paused = true)]
async fn a_round_that_takes_too_long_is_given_up() {
    let mut world = World::new(json!({"replicas": 3}));
    world.server.hang("PATCH services/logs");
    for _ in 0..FAILURES_TOLD {
        let error = world.failing_round().await;
        assert!(matches!(error, ReconcileError::TooLong), "{error}");
    }
    assert_eq!(world.condition("Degraded"), ("True".into(), "ReconcileFailed".into()));
    assert_eq!(world.message("Degraded"), "the round took longer than 30s");
}

#[tokio::test]
async fn what_cannot_be_deleted_fails_the_round() {
    for request in ["DELETE persistentvolumeclaims/data-logs-2", "DELETE pods/logs-2"] {
        let mut world = World::settled(json!({"replicas": 3})).await;
        world.nodes.set_state(3, MemberState::Drained);
        world.server.refuse(request, StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        let error = world.failing_round().await;
        assert!(error.to_string().starts_with("delete "), "{error}");
    }
}

#[tokio::test]
async fn what_is_deleted_meanwhile_is_no_failure() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    world.nodes.set_state(3, MemberState::Drained);
    for request in ["DELETE persistentvolumeclaims/data-logs-2", "DELETE pods/logs-2"] {
        world.server.refuse(request, StatusCode::NOT_FOUND, "NotFound");
    }
    world.round().await;
}

#[tokio::test]
async fn events_that_cannot_be_told_stop_nothing() {
    let mut world = World::new(json!({"replicas": 3}));
    world.server.refuse("POST events", StatusCode::FORBIDDEN, "Forbidden");
    world.round().await;
    assert_eq!(world.condition("Progressing"), ("True".into(), "Forming".into()));
}

#[tokio::test]
async fn nodes_that_do_not_answer_stop_nothing() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    (0..3).for_each(|node| world.nodes.silence(node));
    world.round().await;
    assert_eq!(world.condition("Degraded"), ("True".into(), "NoLeader".into()));
    assert_eq!(world.aggregator()["status"]["complete"], false);
    assert_eq!(world.aggregator()["status"]["members"].as_array().unwrap().len(), 3);
}
