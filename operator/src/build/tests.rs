mod generated; // what holds for every aggregator

use serde::Serialize;
use serde_json::{Value, json};

use super::*;
use crate::example::{aggregator, nothing};
use crate::validate::{Found, Installation, validate};

fn valid(more: Value) -> ValidAggregator {
    validate(&aggregator(more), nothing()).unwrap()
}

/// An aggregator that uses everything, in a cluster that knows everything.
fn full() -> ValidAggregator {
    let found = Found {
        installation: Installation {
            service_monitors: true,
            prometheus_rules: true,
            ..nothing().installation
        },
        ..nothing()
    };
    let spec = json!({
        "voters": 5,
        "copies": 3,
        "storage": {
            "size": "50Gi", "storageClassName": "fast", "retention": {"whenDeleted": "Delete"},
        },
        "aggregations": [
            {"name": "by-service", "type": "DistinctLogs", "distinctLogs": {"attribute": "service.name"}},
            {"name": "records", "type": "DistinctLogs",
             "distinctLogs": {"attribute": "k8s.namespace.name", "unique": "None", "windowSeconds": 60}},
            {"name": "files", "type": "LogFiles",
             "logFiles": {"checkpointSeconds": 30, "retentionSeconds": 604_800,
                          "partBytes": 67_108_864, "compression": "Zstd"}},
        ],
        "autoscaling": {
            "minReplicas": 3, "maxReplicas": 9, "targetQueuePercent": 60,
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 600}},
        },
        "image": "registry.example.com/sheaf:1.2.3",
        "imagePullPolicy": "Always",
        "resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "4Gi"}},
        "podTemplate": {
            "metadata": {"labels": {"team": "shop"}, "annotations": {"example.com/note": "a note"}},
            "spec": {
                "priorityClassName": "logs",
                "tolerations": [{"key": "logs", "operator": "Exists"}],
                "containers": [
                    {"name": "node", "env": [{"name": "SHEAF_LOG_LEVEL", "value": "debug"}]},
                    {"name": "sidecar", "image": "sidecar:1"},
                ],
            },
        },
    });
    validate(&aggregator(spec), found).unwrap()
}

/// All objects, as one file of YAML.
fn manifest(objects: &Objects) -> String {
    let mut all = vec![
        yaml(&objects.service_account),
        yaml(&objects.control),
        yaml(&objects.settings),
        yaml(&objects.nodes),
        yaml(&objects.service),
        yaml(&objects.network_policy),
        yaml(&objects.disruption_budget),
        yaml(&objects.stateful_set),
    ];
    all.extend(objects.autoscaler.as_ref().map(yaml));
    all.extend(objects.service_monitor.as_ref().map(yaml));
    all.extend(objects.prometheus_rule.as_ref().map(yaml));
    all.join("---\n")
}

fn yaml(object: &impl Serialize) -> String {
    serde_saphyr::to_string(object).unwrap()
}

#[test]
fn an_aggregator_that_says_no_more_than_it_must() {
    insta::assert_snapshot!(manifest(&build(&valid(json!({})), 3)));
}

#[test]
fn an_aggregator_that_uses_everything() {
    insta::assert_snapshot!(manifest(&build(&full(), 4)));
}

#[test]
fn an_aggregator_of_one_small_node() {
    let small = json!({
        "replicas": 1, "voters": 1, "copies": 1, "storage": {"size": "1Gi"},
        "resources": {"limits": {"memory": "256Mi"}},
    });
    insta::assert_snapshot!(manifest(&build(&valid(small), 1)));
}

#[test]
fn the_record_of_retained_volumes_is_read_as_it_was_written_and_is_owned_by_nobody() {
    let valid = valid(json!({"storage": {"size": "20Gi"}}));
    let record = VolumesRecord::of(&valid, "5ea1c0de-0000-4000-8000-00000000000c".to_owned());
    let written = record.config_map(&valid);
    insta::assert_snapshot!(yaml(&written));
    assert_eq!(VolumesRecord::try_from(&written), Ok(record));
    assert_eq!(written.metadata.owner_references, None);
    for field in ["clusterID", "slots", "size"] {
        let mut damaged = written.clone();
        damaged.data.get_or_insert_default().insert(field.to_owned(), String::new());
        let error = VolumesRecord::try_from(&damaged).unwrap_err();
        assert_eq!(error, InvalidRecord { name: "logs-volumes".to_owned(), field });
    }
}

#[test]
fn what_is_to_be_different_in_pods_is_merged_over_what_is_built() {
    let template = json!({"spec": {
        "terminationGracePeriodSeconds": 120,
        "topologySpreadConstraints": [{
            "topologyKey": "topology.kubernetes.io/zone", "maxSkew": 1,
            "whenUnsatisfiable": "DoNotSchedule",
        }],
        "containers": [{
            "name": "node",
            "env": [{"name": "SHEAF_LOG_LEVEL", "value": "debug"}],
            "securityContext": {"runAsUser": 1000},
            "readinessProbe": {"periodSeconds": 9},
        }],
    }});
    let objects = build(&valid(json!({"podTemplate": template})), 3);
    let spec = objects.stateful_set.spec.unwrap().template.spec.unwrap();
    assert_eq!(spec.termination_grace_period_seconds, Some(120));
    let spread = spec.topology_spread_constraints.unwrap();
    let constraints: Vec<_> = spread
        .iter()
        .map(|it| (it.topology_key.as_str(), it.when_unsatisfiable.as_str()))
        .collect();
    assert_eq!(
        constraints,
        [
            ("kubernetes.io/hostname", "ScheduleAnyway"),
            ("topology.kubernetes.io/zone", "DoNotSchedule")
        ]
    );
    let [node] = spec.containers.as_slice() else { panic!("one container") };
    let env: Vec<&str> = node.env.iter().flatten().map(|it| it.name.as_str()).collect();
    assert_eq!(env, ["POD_NAME", "SHEAF_LOG_LEVEL"]);
    let security = node.security_context.as_ref().unwrap();
    assert_eq!(
        (security.run_as_user, security.read_only_root_filesystem),
        (Some(1000), Some(true))
    );
    let ready = node.readiness_probe.as_ref().unwrap();
    assert_eq!(ready.period_seconds, Some(9));
    assert!(ready.http_get.is_some());
}

#[test]
fn a_probe_that_is_to_ask_otherwise_asks_in_one_way() {
    let template = json!({"spec": {"containers": [
        {"name": "sidecar", "image": "sidecar:1", "startupProbe": {"exec": {"command": ["true"]}}},
        {
            "name": "node",
            "startupProbe": {"exec": {"command": ["sheaf", "cluster"]}},
            "livenessProbe": {"tcpSocket": {"port": "admin"}, "periodSeconds": 30},
            "readinessProbe": {"httpGet": {"path": "/livez", "port": "admin"}},
        },
    ]}});
    let objects = build(&valid(json!({"podTemplate": template})), 3);
    let spec = objects.stateful_set.spec.unwrap().template.spec.unwrap();
    let node = spec.containers.iter().find(|it| it.name == "node").unwrap();
    insta::assert_snapshot!(yaml(&json!({
        "startupProbe": node.startup_probe,
        "livenessProbe": node.liveness_probe,
        "readinessProbe": node.readiness_probe,
    })));
}

#[test]
fn the_autoscaler_scales_the_aggregator_and_never_the_stateful_set() {
    let spec = build(&full(), 4).autoscaler.unwrap().spec.unwrap();
    assert_eq!(spec.scale_target_ref.kind, "LogAggregator");
    assert_eq!(spec.scale_target_ref.api_version.as_deref(), Some("sheaf.dev/v1alpha1"));
    assert_eq!(build(&valid(json!({})), 3).autoscaler, None);
}

#[test]
fn kinds_that_a_cluster_does_not_know_are_not_built() {
    let objects = build(&valid(json!({})), 3);
    assert_eq!((objects.service_monitor, objects.prometheus_rule), (None, None));
}
