use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::scene::{aggregator, named, play, refusal};

#[test]
#[ignore = "needs a cluster: make e2e"]
fn bad_manifests_are_refused_in_words_that_help() {
    play("refused", async |scene| {
        for (manifest, words) in bad_ones() {
            let said = refusal(scene.apply(&manifest).await);
            assert!(said.contains(words), "{said:?} has no {words:?}");
        }
    });
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn what_cannot_change_is_refused_and_what_can_is_taken() {
    play("changed", async |scene| {
        let paused = |more: Value| {
            let mut manifest = aggregator(more);
            manifest["spec"]["paused"] = json!(true);
            manifest
        };
        scene.apply(&paused(json!({"storage": {"size": "2Gi"}}))).await.unwrap();
        let smaller = scene.apply(&paused(json!({"storage": {"size": "1Gi"}}))).await;
        assert!(refusal(smaller).contains("storage cannot become smaller"));
        let other = json!({"storage": {"size": "2Gi", "storageClassName": "other"}});
        let other = scene.apply(&paused(other)).await;
        assert!(refusal(other).contains("storageClassName is immutable"));
        scene.apply(&paused(json!({"storage": {"size": "3Gi"}}))).await.unwrap();
    });
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_namespace_that_enforces_the_restricted_standard_takes_nodes_and_refuses_others() {
    play("restricted", async |scene| {
        let container = json!({"name": "root", "image": "sheaf:dev"});
        let pod = json!({"metadata": {"name": "root"}, "spec": {"containers": [container]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let refused = scene.api::<Pod>().create(&PostParams::default(), &pod).await;
        assert!(refusal(refused).contains("violates PodSecurity \"restricted"));
        scene.start(&aggregator(json!({"replicas": 1, "copies": 1, "voters": 1}))).await;
    });
}

/// What is wrong, and what is said of it.
fn bad_ones() -> Vec<(Value, &'static str)> {
    let good = aggregator(json!({}))["spec"].clone();
    let without_member = json!([{"name": "a", "type": "DistinctLogs"}]);
    let unknown_type = json!([{"name": "a", "type": "Sums"}]);
    let files = |name: &str| json!({"name": name, "type": "LogFiles", "logFiles": {}});
    let without_files = json!([{"name": "a", "type": "LogFiles"}]);
    let files_twice = json!([files("a"), files("b")]);
    let compressed = json!({"compression": "Zstd"});
    let without_parts = json!([{"name": "a", "type": "LogFiles", "logFiles": compressed}]);
    vec![
        (named("1.a", good.clone()), "with a letter first"),
        (named(&"a".repeat(41), good), "at most 40 characters"),
        (aggregator(json!({"voters": 2})), "use 1, 3 or 5 voters"),
        (aggregator(json!({"replicas": 1})), "copies must be at most replicas"),
        (aggregator(json!({"storage": {"size": "1Mi"}})), "at least 1Gi"),
        (aggregator(json!({"slots": 100})), "spec.slots"),
        (aggregator(json!({"aggregations": []})), "spec.aggregations"),
        (aggregator(json!({"aggregations": without_member})), "needs the member distinctLogs"),
        (aggregator(json!({"aggregations": unknown_type})), "Unsupported value"),
        (aggregator(json!({"aggregations": without_files})), "needs the member logFiles"),
        (aggregator(json!({"aggregations": files_twice})), "of the type LogFiles at most"),
        (aggregator(json!({"aggregations": without_parts})), "compression needs partBytes"),
        (
            aggregator(json!({"autoscaling": {"minReplicas": 5, "maxReplicas": 4}})),
            "minReplicas must be at most maxReplicas",
        ),
    ]
}
