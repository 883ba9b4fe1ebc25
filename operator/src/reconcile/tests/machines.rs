//! What machines are told of, and lost machines cost.

use super::*;
use crate::nodes::Change;

#[tokio::test]
async fn a_lost_node_that_nobody_has_forgotten_yet_is_asked_for_again() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    world.lose_machine(2);
    world.nodes.stall(true);
    world.round().await;
    assert_eq!(world.condition("Degraded"), ("True".into(), "NodeLost".into()));
    assert!(world.message("Degraded").contains("asked to forget it: "), "it may work yet");
    assert_eq!(world.pause.as_secs(), 1);
    world.nodes.stall(false);
    world.nodes.refuse("it answers");
    world.round().await;
    assert!(world.message("Degraded").contains("cannot be replaced: it answers"));
}

#[tokio::test]
async fn a_lost_machine_costs_its_member_claim_and_pod() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    world.lose_machine(2);
    world.round().await;
    assert_eq!(world.nodes.changes(), [Change::Forget(3)]);
    assert_eq!(world.condition("Degraded"), ("True".into(), "NodeLost".into()));
    world.nodes.set_state(3, MemberState::Forgotten);
    let asked = World::changes(&world.round().await);
    let deleted = ["DELETE persistentvolumeclaims/data-logs-2", "DELETE pods/logs-2"];
    assert!(deleted.iter().all(|it| asked.contains(&(*it).to_owned())), "{asked:?}");
    assert_eq!((world.server.get(CLAIM_2), world.server.get(POD_2)), (None, None));
}

#[tokio::test]
async fn a_machine_that_is_merely_silent_costs_nothing() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    world.silence_machine(2);
    let asked = World::changes(&world.round().await);
    assert!(!asked.iter().any(|it| it.starts_with("DELETE")), "{asked:?}");
    assert_eq!(world.nodes.changes(), []);
}

#[tokio::test]
async fn data_that_only_a_lost_machine_has_waits_for_a_person() {
    let mut world = World::settled(json!({"replicas": 3, "copies": 1})).await;
    world.lose_machine(2);
    world.nodes.own(3, 85);
    world.round().await;
    assert_eq!(world.condition("Degraded"), ("True".into(), "DataOnLostNode".into()));
    assert_eq!(world.nodes.changes(), []);
    world.annotate("sheaf.dev/give-up", "3");
    world.round().await;
    assert_eq!(world.nodes.changes(), [Change::Forget(3)]);
}

#[tokio::test]
async fn a_lost_machine_is_not_noticed_where_only_a_namespace_may_be_looked_at() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    world.lose_machine(2);
    world.scope = NAMESPACED;
    let asked = world.round().await;
    assert!(!World::shorts(&asked).iter().any(|it| it.contains("persistentvolumes/")));
    assert_eq!(world.nodes.changes(), []);
}

#[tokio::test]
async fn pods_are_told_the_zone_of_their_machine() {
    let mut world = World::running(json!({"replicas": 3})).await;
    let asked = World::changes(&world.round().await);
    assert!(asked.contains(&"PATCH pods/logs-1".to_owned()), "{asked:?}");
    let pod = world.server.get("/api/v1/namespaces/shop/pods/logs-1").unwrap();
    assert_eq!(pod["metadata"]["annotations"]["sheaf.dev/zone"], "b");
}
