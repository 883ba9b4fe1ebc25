//! Rounds for an aggregator, and what they ask for.

mod failing; // requests that fail
mod machines; // what machines are told of, and lost ones cost
mod objects; // what is built, and put back
mod rolling; // pods that are replaced
mod scaling; // replicas that come and go
mod volumes; // volumes that grow, and whose they are
mod world; // a cluster of Kubernetes, as far as the operator sees it

use serde_json::{Value, json};
use sheaf_proto::cluster::MemberState;

use super::*;
use crate::permissions;
use world::{NAMESPACED, World};

const STATEFUL_SET: &str = "/apis/apps/v1/namespaces/shop/statefulsets/logs";
const CLAIM_2: &str = "/api/v1/namespaces/shop/persistentvolumeclaims/data-logs-2";
const POD_2: &str = "/api/v1/namespaces/shop/pods/logs-2";

/// The spec of one that is scaled.
fn scaled() -> Value {
    let autoscaling = json!({"minReplicas": 3, "maxReplicas": 9, "targetQueuePercent": 50});
    json!({"replicas": 3, "autoscaling": autoscaling})
}

#[tokio::test]
async fn when_nothing_has_changed_nothing_is_asked() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    assert_eq!(world.condition("Ready"), ("True".into(), "AllNodesReady".into()));
    assert_eq!(World::shorts(&world.round().await), [""; 0]);
    assert_eq!(world.pause, CALM);
}

#[tokio::test]
async fn an_operator_that_starts_anew_asks_for_each_object_once_and_changes_nothing() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    let before = world.server.all("/namespaces/");
    world.forget();
    let asked = world.round().await;
    assert!(asked.len() <= 11, "{:?}", World::shorts(&asked));
    assert_eq!(world.server.all("/namespaces/"), before);
}

#[tokio::test]
async fn a_paused_aggregator_is_looked_at_and_left_alone() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    world.change_spec(json!({"replicas": 2, "paused": true}));
    world.new_revision("new");
    let asked = World::changes(&world.round().await);
    assert!(asked.iter().all(|it| it.ends_with("/status") || it.contains("events")), "{asked:?}");
    assert_eq!(world.nodes.changes(), []);
    assert_eq!(world.condition("Progressing"), ("False".into(), "Paused".into()));
}

#[tokio::test]
async fn an_invalid_spec_is_told_of_and_changes_nothing() {
    let mut world = World::new(json!({"replicas": 3, "copies": 7}));
    let asked = World::changes(&world.round().await);
    assert_eq!(asked, ["PATCH logaggregators/logs/status", "POST events", "POST events"]);
    assert_eq!(world.condition("Degraded"), ("True".into(), "InvalidSpec".into()));
    assert_eq!(world.pause, LATER);
}

#[tokio::test]
async fn an_aggregator_that_is_being_deleted_is_left_to_the_garbage_collector() {
    let mut world = World::running(json!({"replicas": 3})).await;
    let mut deleted = world.aggregator();
    deleted["metadata"]["deletionTimestamp"] = json!("2026-11-21T03:00:00Z");
    world.server.put(world::AGGREGATOR, deleted);
    assert_eq!(World::shorts(&world.round().await), [""; 0]);
}

/// That a round asks for nothing else is seen with each round; watches have a test of their own.
#[tokio::test]
async fn every_right_that_is_given_is_used() {
    let autoscaling = scaled()["autoscaling"].clone();
    let mut world = World::monitored(json!({"autoscaling": autoscaling})).await;
    world.settle().await;
    world.change_spec(json!({"replicas": 3, "storage": {"size": "20Gi"}}));
    world.settle().await;
    world.set_replicas(2);
    world.nodes.set_state(3, MemberState::Drained);
    world.round().await;
    world.lose_machine(1);
    world.round().await;
    let recorder = world.recorder();
    for _ in 0..2 {
        let event = events::Happened::StatefulSetReplaced.event();
        recorder.publish(&event, &Default::default()).await.unwrap();
    }
    world.all_asked.extend(world.server.asked());
    let used = permissions::needed(&world.all_asked);
    let is_read_at_once = |(_, _, verb): &permissions::Right| verb != "list" && verb != "watch";
    let given = permissions::everywhere().into_iter().filter(is_read_at_once).collect();
    assert_eq!(used, given);
}
