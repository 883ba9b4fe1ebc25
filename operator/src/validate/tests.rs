use serde_json::{Value, json};

use super::*;
use crate::example::{aggregator, nothing};

fn valid(more: Value) -> ValidAggregator {
    validate(&aggregator(more), nothing()).unwrap()
}

fn refusal(more: Value) -> String {
    validate(&aggregator(more), nothing()).unwrap_err().to_string()
}

/// How many nodes there are to be, where the StatefulSet has `found`.
fn replicas(more: Value, found: Option<i32>) -> i32 {
    let found = Found { replicas: found, ..nothing() };
    validate(&aggregator(more), found).unwrap().replicas
}

#[test]
fn what_is_left_out_is_what_the_definition_says() {
    let valid = valid(json!({}));
    assert_eq!((valid.slots, valid.voters, valid.copies), (256, 3, 2));
    assert_eq!((valid.volume.bytes, valid.volume.class), (10 << 30, None));
    assert_eq!(valid.volume.when_deleted, WhenDeleted::Retain);
    assert_eq!(valid.memory_limit, Some(1 << 30));
    assert_eq!(valid.image, "sheaf:dev");
    assert!(!valid.paused);
}

#[test]
fn replicas_are_those_asked_for_or_found_or_three() {
    assert_eq!(replicas(json!({"replicas": 5}), Some(7)), 5);
    assert_eq!(replicas(json!({}), Some(7)), 7);
    assert_eq!(replicas(json!({}), None), 3);
    assert_eq!(replicas(json!({}), Some(0)), 3, "no one meant a StatefulSet without replicas");
}

#[test]
fn with_autoscaling_replicas_begin_with_its_least_and_stay_within_its_bounds() {
    let scaled = |replicas: Option<i32>| json!({"replicas": replicas, "autoscaling": {"minReplicas": 4, "maxReplicas": 6}});
    assert_eq!(replicas(scaled(None), None), 4);
    assert_eq!(replicas(scaled(None), Some(5)), 5);
    assert_eq!(replicas(scaled(Some(9)), Some(5)), 6);
    assert_eq!(replicas(scaled(Some(1)), Some(5)), 4, "copies count against the bounds only");
}

#[test]
fn an_aggregator_that_was_never_stored_owns_nothing() {
    let mut unstored = aggregator(json!({}));
    unstored.metadata.uid = None;
    assert_eq!(validate(&unstored, nothing()), Err(Invalid::Unstored("uid")));
    unstored.metadata.namespace = None;
    assert_eq!(validate(&unstored, nothing()), Err(Invalid::Unstored("namespace")));
}

#[test]
fn a_name_fits_what_is_named_after_it() {
    let mut named = aggregator(json!({}));
    for name in ["a", "logs-2", &"a".repeat(40)] {
        named.metadata.name = Some(name.to_owned());
        assert!(validate(&named, nothing()).is_ok(), "{name}");
    }
    for name in ["", "1a", "a-", "a.b", "A", "bär", &"a".repeat(41)] {
        named.metadata.name = Some(name.to_owned());
        let error = validate(&named, nothing()).unwrap_err().to_string();
        assert!(error.contains("with a letter first"), "{name}: {error}");
    }
}

#[test]
fn what_a_definition_of_another_version_lets_through_is_refused_with_advice() {
    let twice = json!([
        {"name": "a", "type": "DistinctLogs", "distinctLogs": {"attribute": "foo"}},
        {"name": "a", "type": "DistinctLogs", "distinctLogs": {"attribute": "bar"}},
    ]);
    let lone = |more: Value| {
        let mut one = json!({"name": "a", "type": "DistinctLogs"});
        for (field, value) in more.as_object().unwrap() {
            one[field] = value.clone();
        }
        json!({"aggregations": [one]})
    };
    let files = |name: &str| json!({"name": name, "type": "LogFiles", "logFiles": {}});
    let lone_files = |member: Value| lone(json!({"type": "LogFiles", "logFiles": member}));
    for (more, advice) in [
        (json!({"slots": 128}), "spec.slots is 128: use 256"),
        (json!({"voters": 2}), "use 1, 3 or 5"),
        (json!({"copies": 4}), "use from 1 to 3"),
        (json!({"replicas": 0, "copies": 1}), "use from 1 to 256"),
        (json!({"replicas": 1}), "lower copies, or raise replicas"),
        (
            json!({"autoscaling": {"minReplicas": 1, "maxReplicas": 2}}),
            "lower copies, or raise autoscaling.minReplicas",
        ),
        (json!({"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}), "lower the one"),
        (json!({"autoscaling": {"minReplicas": 3, "maxReplicas": 257}}), "use from 1 to 256"),
        (json!({"storage": {"size": "1023Mi"}}), "use a quantity of at least 1Gi"),
        (json!({"storage": {"size": "large"}}), "use a quantity of at least 1Gi"),
        (json!({"resources": {"limits": {"memory": "64Mi"}}}), "at least 128Mi"),
        (requests("memory", "2Gi", "1Gi"), "requests.memory is 2Gi, but limits.memory is 1Gi"),
        (requests("cpu", "1.1", "1"), "it has to be at most the limit"),
        (requests("memory", "-1Gi", "1Gi"), "requests.memory is \"-1Gi\": use a quantity"),
        (requests("ephemeral-storage", "1Gi", "one"), "limits.ephemeral-storage is \"one\""),
        (requests("example.com/gpu", "1", "2"), "it has to be the same as the limit"),
        (
            json!({"resources": {"requests": {"example.com/gpu": 1}}}),
            "limits.example.com/gpu is none",
        ),
        (requests("gpu", "1", "1"), "use cpu, memory, ephemeral-storage, or a device"),
        (requests("hugepages-2Mi", "64Mi", "64Mi"), "names hugepages-2Mi alone"),
        (json!({"storage": {"storageClassName": "Fast"}}), "\"Fast\": use the name of a"),
        (json!({"storage": {"storageClassName": "a."}}), "\"a.\": use the name of a"),
        (json!({"storage": {"storageClassName": "-a"}}), "\"-a\": use the name of a"),
        (behaves(json!({"stabilizationWindowSeconds": 99_999})), "use from 0 to 3600"),
        (behaves(json!({"stabilizationWindowSeconds": -1})), "use from 0 to 3600"),
        (behaves(json!({"selectPolicy": "Most"})), "use Max or Min or Disabled"),
        (behaves(json!({"tolerance": "-0.1"})), "scaleUp.tolerance is \"-0.1\": use a quantity"),
        (behaves(json!({"policies": []})), "name a policy, or leave the list out"),
        (behaves(policy("Nodes", 1, 60)), "use Pods or Percent"),
        (behaves(policy("Pods", 0, 60)), "policies[].value is 0: use from 1"),
        (behaves(policy("Pods", 1, 0)), "use from 1 to 1800"),
        (behaves(policy("Pods", 1, 1801)), "use from 1 to 1800"),
        (json!({"image": " sheaf:dev"}), "use a name without spaces"),
        (json!({"image": ""}), "name one"),
        (json!({"aggregations": []}), "name one at least"),
        (json!({"aggregations": twice}), "give each a name of its own"),
        (lone(json!({})), "needs the member distinctLogs"),
        (lone(json!({"name": "A", "distinctLogs": {"attribute": "foo"}})), "lower-case letters"),
        (lone(json!({"distinctLogs": {"attribute": ""}})), "names no attribute"),
        (lone(json!({"distinctLogs": {"attribute": "a\u{80}"}})), "without control characters"),
        (lone(json!({"distinctLogs": {"attribute": "a", "windowSeconds": 0}})), "from 1 to 86400"),
        (lone(json!({"type": "LogFiles"})), "needs the member logFiles"),
        (lone(json!({"distinctLogs": {"attribute": "a"}, "logFiles": {}})), "and no other"),
        (lone_files(json!({"checkpointSeconds": 0})), "from 1 to 3600"),
        (lone_files(json!({"checkpointSeconds": 3601})), "from 1 to 3600"),
        (lone_files(json!({"retentionSeconds": 0})), "from 1 to 315360000"),
        (lone_files(json!({"retentionSeconds": 315_360_001})), "from 1 to 315360000"),
        (lone_files(json!({"partBytes": (1 << 10) - 1})), "from 1024 to 1099511627776"),
        (
            lone_files(json!({"partBytes": (1_i64 << 40) + 1})),
            "logFiles.partBytes is 1099511627777: use from 1024 to 1099511627776",
        ),
        (lone_files(json!({"compression": "Zstd"})), "compression needs partBytes"),
        (json!({"aggregations": [files("a"), files("b")]}), "several are of the type LogFiles"),
    ] {
        let said = refusal(more.clone());
        assert!(said.contains(advice), "{more}: {said}");
    }
}

fn requests(name: &str, request: &str, limit: &str) -> Value {
    json!({"resources": {"requests": {name: request}, "limits": {name: limit}}})
}

fn behaves(rules: Value) -> Value {
    let behavior = json!({"scaleUp": rules});
    json!({"autoscaling": {"minReplicas": 3, "maxReplicas": 9, "behavior": behavior}})
}

fn policy(type_: &str, value: i32, seconds: i32) -> Value {
    json!({"policies": [{"type": type_, "value": value, "periodSeconds": seconds}]})
}

#[test]
fn requests_may_reach_their_limits_and_behavior_its_bounds() {
    for more in [
        requests("memory", "1Gi", "1024Mi"),
        requests("cpu", "100m", "0.1"),
        requests("example.com/gpu", "1", "1"),
        json!({"resources": {"requests": {"cpu": 2}, "limits": {"memory": "128Mi"}}}),
        json!({"resources": {"limits": {"hugepages-2Mi": "64Mi", "memory": "1Gi"}}}),
        json!({"storage": {"storageClassName": "1-fast.example.com"}}),
        json!({"storage": {"storageClassName": ""}}),
        behaves(json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Disabled"})),
        behaves(json!({"stabilizationWindowSeconds": 3600, "tolerance": "0.1"})),
        behaves(policy("Pods", 1, 1)),
        behaves(policy("Percent", 900, 1800)),
        json!({"image": "registry.example.com:5000/sheaf@sha256:0"}),
    ] {
        valid(more);
    }
}

#[test]
fn files_are_rebuilt_beside_what_is_counted() {
    let count = json!({"name": "a", "type": "DistinctLogs", "distinctLogs": {"attribute": "foo"}});
    let files = json!({"name": "b", "type": "LogFiles", "logFiles": {}});
    let valid = valid(json!({"aggregations": [count, files]}));
    let checkpoint = |it: &Aggregation| it.log_files.as_ref().map(|files| files.checkpoint_seconds);
    let checkpoints: Vec<_> = valid.aggregations.iter().map(checkpoint).collect();
    assert_eq!(checkpoints, [None, Some(10)]);
}

#[test]
fn what_is_said_of_files_may_reach_its_bounds() {
    for member in [
        json!({"checkpointSeconds": 1, "retentionSeconds": 1, "partBytes": 1 << 20}),
        json!({"checkpointSeconds": 3600, "retentionSeconds": 315_360_000}),
        json!({"partBytes": 1_i64 << 40, "compression": "Zstd"}),
        json!({"compression": "None"}),
    ] {
        let files = json!({"name": "files", "type": "LogFiles", "logFiles": member});
        assert_eq!(valid(json!({"aggregations": [files]})).aggregations.len(), 1);
    }
}

#[test]
fn memory_without_a_limit_is_not_divided() {
    assert_eq!(valid(json!({"resources": {"requests": {"cpu": "1"}}})).memory_limit, None);
    let limited = valid(json!({"resources": {"limits": {"memory": "512Mi"}}}));
    assert_eq!(limited.memory_limit, Some(512 << 20));
}

#[test]
fn a_quantity_may_be_written_as_a_number() {
    let limited = json!({"resources": {"limits": {"cpu": 2, "memory": 1_073_741_824}}});
    assert_eq!(valid(limited).memory_limit, Some(1 << 30));
}

fn pods(template: Value) -> Value {
    json!({"podTemplate": template})
}

#[test]
fn pods_may_be_changed_in_everything_that_is_not_reserved() {
    let template = json!({
        "metadata": {"labels": {"team": "shop"}, "annotations": {"a/b": "c"}, "creationTimestamp": null},
        "spec": {
            "nodeSelector": {"disk": "fast"},
            "tolerations": [{"key": "logs", "operator": "Exists"}],
            "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
            "containers": [
                {"name": "node", "env": [{"name": "SHEAF_LOG_LEVEL", "value": "debug"}],
                 "volumeMounts": [{"name": "ca", "mountPath": "/etc/sheaf-ca"}]},
                {"name": "sidecar", "image": "sidecar:1", "args": ["--port", "1"]},
            ],
        },
    });
    let spec = valid(pods(template)).pod_template.spec.unwrap();
    assert_eq!(spec.containers.len(), 2);
    assert_eq!(valid(json!({})).pod_template, PodTemplateSpec::default());
}

#[test]
fn what_is_reserved_in_pods_is_refused_and_so_is_what_would_be_lost() {
    let container = |container: Value| json!({"spec": {"containers": [container]}});
    let volume = |name: &str| json!({"spec": {"volumes": [{"name": name, "emptyDir": {}}]}});
    let mount = |path: &str| {
        container(json!({"name": "node", "volumeMounts": [{"name": "x", "mountPath": path}]}))
    };
    for (template, said) in [
        (
            json!({"metadata": {"labels": {"app.kubernetes.io/instance": "x"}}}),
            "spec.podTemplate.metadata.labels.app.kubernetes.io/instance is reserved",
        ),
        (
            json!({"metadata": {"annotations": {"sheaf.dev/zone": "x"}}}),
            "spec.podTemplate.metadata.annotations.sheaf.dev/zone is reserved",
        ),
        (json!({"spec": {"hostname": "x"}}), "spec.podTemplate.spec.hostname is reserved"),
        (json!({"spec": {"subdomain": "x"}}), "spec.podTemplate.spec.subdomain is reserved"),
        (volume("data"), r#"spec.volumes: "data" is reserved"#),
        (volume("pod"), "is reserved"),
        (mount("/var/lib/sheaf"), "a mount at /var/lib/sheaf is reserved"),
        (mount("/var/lib/sheaf/"), "a mount at /var/lib/sheaf/ is reserved"),
        (mount("//var/lib/sheaf"), "a mount at //var/lib/sheaf is reserved"),
        (mount("/var/lib/sheaf/journal"), "a mount at /var/lib/sheaf/journal is reserved"),
        (mount("/etc/sheaf/control"), "choose another path"),
        (container(json!({"name": "node", "args": ["--copies=1"]})), "as variables in env"),
        (container(json!({"name": "sidecar"})), r#""sidecar" has no image"#),
        (container(json!({"image": "x"})), r#""" has no image"#),
        (json!({"spec": {"nodeSelectors": {}}}), ".spec.nodeSelectors is a field"),
        (
            container(json!({"name": "node", "imagee": "x"})),
            ".spec.containers[0].imagee is a field",
        ),
        (json!({"spec": {"nodeSelector": 7}}), "spec.podTemplate: invalid type"),
    ] {
        let refused = validate(&aggregator(pods(template.clone())), nothing()).unwrap_err();
        assert!(refused.to_string().contains(said), "{template}: {refused}");
        assert_eq!(refused.reason(), "InvalidPodTemplate");
    }
}
