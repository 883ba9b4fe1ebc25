mod world; // a cluster of Kubernetes, as far as the operator sees it

use http::StatusCode;
use serde_json::{Value, json};
use sheaf_proto::cluster::MemberState;

use super::*;
use crate::nodes::Change;
use crate::permissions;
use world::{NAMESPACED, World};

const STATEFUL_SET: &str = "/apis/apps/v1/namespaces/shop/statefulsets/logs";
const CLAIM_2: &str = "/api/v1/namespaces/shop/persistentvolumeclaims/data-logs-2";
const POD_2: &str = "/api/v1/namespaces/shop/pods/logs-2";

fn scaled() -> Value {
    let autoscaling = json!({"minReplicas": 3, "maxReplicas": 9, "targetQueuePercent": 50});
    json!({"replicas": 3, "autoscaling": autoscaling})
}

#[tokio::test]
async fn a_new_aggregator_gets_all_its_objects_and_its_number_of_replicas() {
    let mut world = World::new(json!({}));
    let asked = world.round().await;
    let expected = [
        "PATCH logaggregators/logs",
        "PATCH serviceaccounts/logs",
        "PATCH secrets/logs-control",
        "PATCH configmaps/logs",
        "PATCH services/logs-nodes",
        "PATCH services/logs",
        "PATCH networkpolicies/logs",
        "PATCH poddisruptionbudgets/logs",
        "PATCH statefulsets/logs",
        "PATCH logaggregators/logs/status",
        "POST events",
    ];
    assert_eq!(World::changes(&asked), expected);
    assert_eq!(world.aggregator()["spec"]["replicas"], 3);
    assert_eq!(world.server.get(STATEFUL_SET).unwrap()["spec"]["replicas"], 3);
    assert_eq!(world.condition("Progressing"), ("True".into(), "Forming".into()));
}

#[tokio::test]
async fn where_prometheus_is_operated_it_is_told_what_to_ask() {
    let mut world = World::monitored(json!({"replicas": 3})).await;
    world.settle().await;
    for kind in ["servicemonitors", "prometheusrules"] {
        let short = format!("PATCH {kind}/logs");
        assert_eq!(world.all_asked.iter().filter(|asked| asked.short() == short).count(), 1);
        let path = format!("/apis/monitoring.coreos.com/v1/namespaces/shop/{kind}/logs");
        world.server.remove(&path);
        assert_eq!(World::changes(&world.round().await), [short], "it comes back");
        assert_eq!(
            world.server.get(&path).unwrap()["metadata"]["ownerReferences"][0]["uid"],
            world::UID
        );
    }
}

#[tokio::test]
async fn nodes_are_reached_at_their_ports_and_no_others() {
    let mut world = World::new(json!({"replicas": 3}));
    let asked = world.round().await;
    let applied = asked.iter().find(|asked| asked.short() == "PATCH networkpolicies/logs").unwrap();
    let rules = applied.body["spec"]["ingress"].as_array().unwrap();
    let ports = |rule: &Value| {
        let ports = rule["ports"].as_array().unwrap().iter();
        ports.map(|port| port["port"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let [anybody, nodes, operator] = rules.as_slice() else { panic!("{rules:#?}") };
    assert_eq!((ports(anybody), &anybody["from"]), (vec![4317, 4318, 8080, 9464], &Value::Null));
    assert_eq!((ports(nodes), ports(operator)), (vec![9465], vec![9466]));
    assert!([nodes, operator].iter().all(|rule| rule["from"][0]["podSelector"].is_object()));
}

#[tokio::test]
async fn everything_is_applied_under_one_name_and_owned() {
    let mut world = World::new(json!({"replicas": 3}));
    let asked = world.round().await;
    for change in asked.iter().filter(|asked| asked.method == http::Method::PATCH) {
        assert!(change.query.contains("fieldManager=sheaf-operator"), "{}", change.query);
        let owners = &change.body["metadata"]["ownerReferences"];
        let is_own =
            owners[0]["uid"] == json!(world::UID) && owners[0]["controller"] == json!(true);
        assert!(is_own || change.path.contains("/logaggregators/"), "{}", change.short());
    }
}

#[tokio::test]
async fn when_nothing_has_changed_nothing_is_asked() {
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
    assert_eq!(world.condition("Ready"), ("True".into(), "AllNodesReady".into()));
    assert_eq!(World::shorts(&world.round().await), [""; 0]);
    assert_eq!(world.pause, CALM);
}

#[tokio::test]
async fn an_operator_that_starts_anew_asks_for_each_object_once_and_changes_nothing() {
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
    let before = world.server.all("/namespaces/");
    world.forget();
    let asked = world.round().await;
    assert!(asked.len() <= 11, "{:?}", World::shorts(&asked));
    assert_eq!(world.server.all("/namespaces/"), before);
}

#[tokio::test]
async fn what_others_change_of_what_was_built_is_put_back_and_what_they_add_stays() {
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
    let path = "/api/v1/namespaces/shop/services/logs";
    let mut service = world.server.get(path).unwrap();
    let ports = service["spec"]["ports"].take();
    service["metadata"]["annotations"] = json!({"theirs": "stays"});
    world.server.put(path, service);
    let asked = world.round().await;
    assert_eq!(World::changes(&asked), ["PATCH services/logs"]);
    let service = world.server.get(path).unwrap();
    assert_eq!(service["spec"]["ports"], ports);
    assert_eq!(service["metadata"]["annotations"]["theirs"], "stays");
}

#[tokio::test]
async fn what_others_delete_comes_back() {
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
    world.server.remove("/apis/policy/v1/namespaces/shop/poddisruptionbudgets/logs");
    assert_eq!(World::changes(&world.round().await), ["PATCH poddisruptionbudgets/logs"]);
}

#[tokio::test]
async fn an_object_of_somebody_else_is_not_taken_over() {
    let mut world = World::new(json!({"replicas": 3}));
    let path = "/api/v1/namespaces/shop/services/logs";
    let theirs = json!({"metadata": {"name": "logs", "namespace": "shop", "uid": "theirs"}});
    world.server.put(path, theirs);
    let before = world.server.get(path);
    let error = world.failing_round().await;
    assert!(matches!(error, ReconcileError::NameConflict { .. }), "{error}");
    assert_eq!(world.server.get(path), before);
    assert_eq!(world.server.get(STATEFUL_SET), None, "nothing after it either");
    assert_eq!(world.condition("Degraded"), ("True".into(), "NameConflict".into()));
    world.server.remove(path);
    world.round().await;
    assert_ne!(world.condition("Degraded").1, "NameConflict");
}

#[tokio::test]
async fn an_object_that_another_controller_has_made_meanwhile_is_not_forced() {
    let mut world = World::new(json!({"replicas": 3}));
    world.server.refuse("PATCH services/logs", StatusCode::CONFLICT, "Conflict");
    let error = world.failing_round().await;
    assert!(error.is_conflict(), "{error}");
    let asked = world.asked.iter().find(|asked| asked.short() == "PATCH services/logs").unwrap();
    assert!(!asked.query.contains("force=true"), "{}", asked.query);
}

#[tokio::test]
async fn a_stateful_set_is_written_only_as_it_was_read() {
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
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
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
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
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
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
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
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
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
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
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
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
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
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
async fn nodes_that_do_not_answer_a_drain_are_rolled_all_the_same() {
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
    world.set_replicas(2);
    world.nodes.stall(true);
    world.new_revision("new");
    let asked = World::changes(&world.round().await);
    assert!(asked.contains(&"DELETE pods/logs-1".to_owned()), "{asked:?}");
}

#[tokio::test]
async fn a_node_is_not_asked_to_drain_itself() {
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
    world.nodes.elect(3);
    (0..2).for_each(|node| world.nodes.silence(node));
    world.set_replicas(2);
    world.round().await;
    assert_eq!(world.nodes.changes(), []);
    assert_eq!(world.condition("ScalingBlocked"), ("True".into(), "DrainUnanswered".into()));
    assert!(world.message("ScalingBlocked").ends_with("no other node answers"));
}

#[tokio::test]
async fn a_lost_node_that_nobody_has_forgotten_yet_is_asked_for_again() {
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
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
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
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
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
    world.silence_machine(2);
    let asked = World::changes(&world.round().await);
    assert!(!asked.iter().any(|it| it.starts_with("DELETE")), "{asked:?}");
    assert_eq!(world.nodes.changes(), []);
}

#[tokio::test]
async fn data_that_only_a_lost_machine_has_waits_for_a_person() {
    let mut world = World::running(json!({"replicas": 3, "copies": 1})).await;
    world.settle().await;
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
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
    world.lose_machine(2);
    world.scope = NAMESPACED;
    let asked = world.round().await;
    assert!(!World::shorts(&asked).iter().any(|it| it.contains("persistentvolumes/")));
    assert_eq!(world.nodes.changes(), []);
}

#[tokio::test]
async fn outdated_pods_are_deleted_one_by_one() {
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
    world.new_revision("new");
    let asked = World::changes(&world.round().await);
    assert!(asked.contains(&"DELETE pods/logs-2".to_owned()), "{asked:?}");
    let asked = World::changes(&world.round().await);
    assert!(
        !asked.iter().any(|it| it.starts_with("DELETE")),
        "the first one is not back: {asked:?}"
    );
    world.add_pod(2, "new");
    let asked = World::changes(&world.round().await);
    assert!(asked.contains(&"DELETE pods/logs-1".to_owned()), "{asked:?}");
}

#[tokio::test]
async fn one_aggregator_rolls_at_a_time_also_where_namespaces_are_looked_after_apart() {
    let mut first = World::new(json!({"replicas": 3}));
    first.scope = NAMESPACED;
    let mut second = first.beside("stall");
    for world in [&mut first, &mut second] {
        world.run().await;
        world.settle().await;
        world.new_revision("new");
    }
    let has_begun = |asked: &[String]| asked.contains(&"DELETE pods/logs-2".to_owned());
    assert!(has_begun(&World::changes(&first.round().await)));
    let asked = World::changes(&second.round().await);
    assert!(!has_begun(&asked), "both roll: {asked:?}");
    for n in [2, 1, 0] {
        first.add_pod(n, "new");
        first.round().await;
    }
    let asked = World::changes(&second.round().await);
    assert!(has_begun(&asked), "it has its turn now: {asked:?}");
    let told = first.metrics.text().unwrap();
    assert!(told.lines().any(|line| line == "sheaf_operator_aggregators 2"), "{told}");
}

#[tokio::test]
async fn files_that_are_to_be_rebuilt_change_the_settings_and_no_pod() {
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
    let files = |seconds: u32| json!({"name": "files", "type": "LogFiles", "logFiles": {"checkpointSeconds": seconds}});
    for seconds in [10, 60] {
        world.change_spec(json!({"replicas": 3, "aggregations": [files(seconds)]}));
        let asked = World::changes(&world.round().await);
        assert_eq!(asked, ["PATCH configmaps/logs"]);
        let settings = world.server.get("/api/v1/namespaces/shop/configmaps/logs").unwrap();
        let text = settings["data"]["sheaf.yaml"].as_str().unwrap();
        assert!(
            text.contains(&format!(r#""logFiles":{{"checkpointSeconds":{seconds}}}"#)),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_paused_aggregator_is_looked_at_and_left_alone() {
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
    world.change_spec(json!({"replicas": 2, "paused": true}));
    world.new_revision("new");
    let asked = World::changes(&world.round().await);
    assert!(asked.iter().all(|it| it.ends_with("/status") || it.contains("events")), "{asked:?}");
    assert_eq!(world.nodes.changes(), []);
    assert_eq!(world.condition("Progressing"), ("False".into(), "Paused".into()));
}

#[tokio::test]
async fn volumes_grow_and_the_stateful_set_is_replaced_without_its_pods() {
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
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
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
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
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
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
        let mut world = World::running(json!({"replicas": 3, "storage": storage})).await;
        world.settle().await;
        let record = world.server.get("/api/v1/namespaces/shop/configmaps/logs-volumes").unwrap();
        let found = record["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len);
        assert_eq!(found, owners, "{policy}");
    }
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
async fn an_autoscaler_that_is_not_asked_for_any_more_goes() {
    let mut world = World::running(scaled()).await;
    world.settle().await;
    let path = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/logs";
    assert!(world.server.get(path).is_some());
    world.change_spec(json!({"replicas": 3}));
    world.round().await;
    assert_eq!(world.server.get(path), None);
}

#[tokio::test]
async fn an_aggregator_that_is_being_deleted_is_left_to_the_garbage_collector() {
    let mut world = World::running(json!({"replicas": 3})).await;
    let mut deleted = world.aggregator();
    deleted["metadata"]["deletionTimestamp"] = json!("2026-11-21T03:00:00Z");
    world.server.put(world::AGGREGATOR, deleted);
    assert_eq!(World::shorts(&world.round().await), [""; 0]);
}

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
        let mut world = World::running(scaled()).await;
        world.settle().await;
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
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
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
        let mut world = World::running(json!({"replicas": 3})).await;
        world.settle().await;
        world.nodes.set_state(3, MemberState::Drained);
        world.server.refuse(request, StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        let error = world.failing_round().await;
        assert!(error.to_string().starts_with("delete "), "{error}");
    }
}

#[tokio::test]
async fn what_is_deleted_meanwhile_is_no_failure() {
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
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
    let mut world = World::running(json!({"replicas": 3})).await;
    world.settle().await;
    (0..3).for_each(|node| world.nodes.silence(node));
    world.round().await;
    assert_eq!(world.condition("Degraded"), ("True".into(), "NoLeader".into()));
    assert_eq!(world.aggregator()["status"]["complete"], false);
    assert_eq!(world.aggregator()["status"]["members"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn pods_are_told_the_zone_of_their_machine() {
    let mut world = World::running(json!({"replicas": 3})).await;
    let asked = World::changes(&world.round().await);
    assert!(asked.contains(&"PATCH pods/logs-1".to_owned()), "{asked:?}");
    let pod = world.server.get("/api/v1/namespaces/shop/pods/logs-1").unwrap();
    assert_eq!(pod["metadata"]["annotations"]["sheaf.dev/zone"], "b");
}

#[tokio::test]
async fn the_token_is_made_up_once() {
    let mut world = World::new(json!({"replicas": 3}));
    let path = "/api/v1/namespaces/shop/secrets/logs-control";
    world.round().await;
    let token = |world: &World| world.server.get(path).unwrap()["data"]["token"].clone();
    let first = token(&world);
    assert_eq!(first.as_str().map(str::len), Some(88), "64 characters, in base64");
    world.forget();
    world.round().await;
    assert_eq!(token(&world), first);
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
