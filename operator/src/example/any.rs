//! Aggregators that are made up at random (proptest).

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::aggregator;
use crate::resource::LogAggregator;

/// Any aggregator that the API server lets through.
pub fn any_one() -> impl Strategy<Value = LogAggregator> {
    (any_name(), any_class()).prop_flat_map(|(name, class)| any_aggregator(name, class))
}

/// Any aggregator that the API server lets through; `class` is what may not change later.
pub fn any_aggregator(
    name: String,
    class: Option<&'static str>,
) -> impl Strategy<Value = LogAggregator> {
    let numbers = (1..=3_i32, select(vec![1, 3, 5]), prop::option::of(3..=256_i32));
    let scaled = prop::option::of((3..=256_i32, 0..=253_i32, 1..=100_i32));
    let size = (10_u32..=2000, select(vec!["Gi", "G", "Ti"]));
    let count = (
        "[a-z]([-a-z0-9]{0,61}[a-z0-9])?",
        r"[^\p{Cc}\x{feff}\x{fffe}\x{ffff}]{1,40}",
        1..=86_400_i32,
    );
    let parts = prop::option::of((1_i64 << 20..=1_i64 << 40, any::<bool>()));
    let retention = prop::option::of(1..=315_360_000_i32);
    let files = prop::option::of((1..=3_600_i32, retention, parts));
    let scaled = (scaled, prop::option::of(any_behavior()));
    let resources = prop::option::of(any_resources());
    let image = prop::option::of("[a-z0-9]{1,20}(/[a-z0-9]{1,20}){0,2}(:[a-zA-Z0-9._-]{1,20})?");
    let pull = prop::option::of(select(vec!["Always", "IfNotPresent", "Never"]));
    let rest = ((image, pull), any::<bool>(), any::<bool>(), prop::option::of(any_template()));
    (numbers, scaled, size, (count, files), resources, rest).prop_map(
        move |(numbers, (scaled, behavior), (size, unit), (count, files), resources, rest)| {
            let (copies, voters, replicas) = numbers;
            let ((image, pull), paused, deleted, template) = rest;
            let (counted, attribute, seconds) = count;
            let mut storage = json!({
                "size": format!("{size}{unit}"),
                "retention": {"whenDeleted": if deleted { "Delete" } else { "Retain" }},
            });
            if let Some(class) = class {
                storage["storageClassName"] = json!(class);
            }
            let mut spec = json!({
                "copies": copies, "voters": voters, "replicas": replicas, "paused": paused,
                "storage": storage,
                "aggregations": [{
                    "name": counted, "type": "DistinctLogs",
                    "distinctLogs": {"attribute": attribute, "windowSeconds": seconds},
                }],
            });
            if let Some((checkpoint, retention, parts)) = files {
                let name = format!("{counted:.40}-files");
                let mut files = json!({"checkpointSeconds": checkpoint});
                if let Some(seconds) = retention {
                    files["retentionSeconds"] = json!(seconds);
                }
                if let Some((bytes, compressed)) = parts {
                    files["partBytes"] = json!(bytes);
                    files["compression"] = json!(if compressed { "Zstd" } else { "None" });
                }
                let more = json!({"name": name, "type": "LogFiles", "logFiles": files});
                spec["aggregations"].as_array_mut().unwrap().push(more);
            }
            if let Some((least, more, percent)) = scaled {
                spec["autoscaling"] = json!({
                    "minReplicas": least, "maxReplicas": (least + more).min(256),
                    "targetQueuePercent": percent,
                });
                if let Some(behavior) = behavior {
                    spec["autoscaling"]["behavior"] = behavior;
                }
            }
            if let Some(resources) = resources {
                spec["resources"] = resources;
            }
            if let Some(image) = image {
                spec["image"] = json!(image);
            }
            if let Some(pull) = pull {
                spec["imagePullPolicy"] = json!(pull);
            }
            if let Some(template) = template {
                spec["podTemplate"] = template;
            }
            let mut aggregator = aggregator(spec);
            aggregator.metadata.name = Some(name.clone());
            aggregator
        },
    )
}

/// How fast an autoscaler may be, as far as the definition lets it through.
fn any_behavior() -> impl Strategy<Value = Value> {
    let policy = (select(vec!["Pods", "Percent"]), 1..=i32::MAX, 1..=1_800_i32);
    let policy = policy.prop_map(
        |(type_, value, seconds)| json!({"type": type_, "value": value, "periodSeconds": seconds}),
    );
    let rules = (
        prop::option::of(0..=3_600_i32),
        prop::option::of(select(vec!["Max", "Min", "Disabled"])),
        prop::option::of(prop::collection::vec(policy, 1..4)),
        prop::option::of(select(vec!["0", "0.1", "50m"])),
    );
    let rules = rules.prop_map(|(window, select, policies, tolerance)| {
        let mut rules = json!({});
        let fields = [
            ("stabilizationWindowSeconds", window.map(Value::from)),
            ("selectPolicy", select.map(Value::from)),
            ("policies", policies.map(Value::from)),
            ("tolerance", tolerance.map(Value::from)),
        ];
        for (field, value) in fields {
            value.into_iter().for_each(|value| rules[field] = value);
        }
        rules
    });
    let rules = || prop::option::of(rules.clone());
    (rules(), rules()).prop_map(|(down, up)| {
        let mut behavior = json!({});
        down.into_iter().for_each(|rules| behavior["scaleDown"] = rules);
        up.into_iter().for_each(|rules| behavior["scaleUp"] = rules);
        behavior
    })
}

/// What people have changed in pods.
fn any_template() -> impl Strategy<Value = Value> {
    let labels = json!({"metadata": {"labels": {"team": "shop"}}});
    let sidecar = json!({"spec": {"containers": [{"name": "sidecar", "image": "sidecar:1"}]}});
    let place = json!({"spec": {
        "nodeSelector": {"disk": "fast"}, "priorityClassName": "logs",
        "tolerations": [{"key": "logs", "operator": "Exists", "effect": "NoSchedule"}],
    }});
    let secret = json!({"name": "keys", "secret": {"secretName": "keys"}});
    let mount = json!({"name": "keys", "mountPath": "/keys", "readOnly": true});
    let node = json!({"name": "node", "volumeMounts": [mount],
        "env": [{"name": "SHEAF_LOG_LEVEL", "value": "debug"}]});
    let mounted = json!({"spec": {"volumes": [secret], "containers": [node]}});
    select(vec![labels, sidecar, place, mounted])
}

/// Requests that are at most their limits, in units of their own.
fn any_resources() -> impl Strategy<Value = Value> {
    let memory = prop::option::of((128_u64..=65_536, 0..=100_u64));
    let processor = prop::option::of((1..=64_000_u64, 0..=100_u64));
    let devices = prop::option::of(1..=8_u64);
    (memory, processor, devices).prop_map(|(memory, processor, devices)| {
        let mut resources = json!({});
        if let Some((limit, percent)) = memory {
            resources["limits"]["memory"] = json!(format!("{limit}Mi"));
            resources["requests"]["memory"] = json!((limit << 20) * percent / 100);
        }
        if let Some((limit, percent)) = processor {
            let milli = |milli: u64| format!("{}.{:03}", milli / 1_000, milli % 1_000);
            resources["limits"]["cpu"] = json!(format!("{limit}m"));
            resources["requests"]["cpu"] = json!(milli(limit * percent / 100));
        }
        if let Some(devices) = devices {
            resources["limits"]["example.com/gpu"] = json!(devices);
            resources["requests"]["example.com/gpu"] = json!(devices.to_string());
            resources["limits"]["ephemeral-storage"] = json!("2Gi");
        }
        resources
    })
}

/// A name that an aggregator may have.
pub fn any_name() -> impl Strategy<Value = String> {
    "[a-z]([-a-z0-9]{0,38}[a-z0-9])?"
}

/// A storage class, or none.
pub fn any_class() -> impl Strategy<Value = Option<&'static str>> {
    select(vec![None, Some(""), Some("fast")])
}
