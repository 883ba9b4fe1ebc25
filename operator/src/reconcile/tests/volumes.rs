//! Volumes that grow, and whose they are.

use http::StatusCode;

use super::*;

#[tokio::test]
async fn volumes_grow_and_the_stateful_set_is_replaced_without_its_pods() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    world.change_spec(json!({"replicas": 3, "storage": {"size": "20Gi"}}));
    let asked = world.round().await;
    let resized = World::changes(&asked);
    let resized = resized.iter().filter(|it| it.contains("persistentvolumeclaims")).count();
    assert_eq!(resized, 3);
    let written = asked.iter().find(|asked| asked.short() == "PATCH statefulsets/logs");
    let size = "/spec/volumeClaimTemplates/0/spec/resources/requests/storage";
    let written = written.and_then(|asked| asked.body.pointer(size));
    assert!(written.is_none_or(|size| size == "10Gi"), "a template of claims cannot change");
    let asked = world.round().await;
    let deleted = asked.iter().find(|it| it.short() == "DELETE statefulsets/logs").unwrap();
    assert_eq!(deleted.body["propagationPolicy"], "Orphan");
    world.round().await;
    let stateful_set = world.server.get(STATEFUL_SET).unwrap();
    assert_eq!(stateful_set.pointer(size), Some(&json!("20Gi")));
    assert_eq!(stateful_set["spec"]["replicas"], 3);
}

#[tokio::test]
async fn volumes_that_cannot_grow_are_told_of() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    world.change_spec(json!({"replicas": 3, "storage": {"size": "20Gi"}}));
    let claim = "PATCH persistentvolumeclaims/data-logs-1";
    for (status, reason) in
        [(StatusCode::FORBIDDEN, "Forbidden"), (StatusCode::UNPROCESSABLE_ENTITY, "Invalid")]
    {
        world.server.relent();
        world.server.refuse(claim, status, reason);
        world.round().await;
        assert_eq!(world.condition("Degraded"), ("True".into(), "VolumesCannotGrow".into()));
        assert!(world.message("Degraded").contains(&format!("{reason} says the API server")));
    }
}

#[tokio::test]
async fn volumes_of_another_cluster_stop_everything() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    let record = "/api/v1/namespaces/shop/configmaps/logs-volumes";
    let mut other = world.server.get(record).unwrap();
    other["data"]["clusterID"] = json!("5ea1c0de-0000-4000-8000-00000000000f");
    world.server.put(record, other);
    world.set_replicas(2);
    let asked = World::changes(&world.round().await);
    assert!(asked.iter().all(|it| it.ends_with("/status") || it.contains("events")), "{asked:?}");
    assert_eq!(world.condition("Degraded"), ("True".into(), "RetainedVolumesMismatch".into()));
}

#[tokio::test]
async fn the_record_of_volumes_is_owned_only_if_they_go_with_the_aggregator() {
    for (policy, owners) in [("Retain", 0), ("Delete", 1)] {
        let retention = json!({"whenDeleted": policy});
        let storage = json!({"size": "10Gi", "retention": retention});
        let world = World::settled(json!({"replicas": 3, "storage": storage})).await;
        let record = world.server.get("/api/v1/namespaces/shop/configmaps/logs-volumes").unwrap();
        let found = record["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len);
        assert_eq!(found, owners, "{policy}");
    }
}
