//! Each rule, with what it accepts and what it refuses, as the API server would say it.

mod structure; // what is checked before any rule

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use kube_cel::ScopeContext;
use kube_cel::{Validator, analyze_rule, compile_schema};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::LogAggregator;
use super::definition::definition;
use crate::example::nothing;
use crate::validate::validate;

fn schema() -> Value {
    let definition = serde_json::to_value(definition()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn by_foo() -> Value {
    json!([{"name": "by-foo", "type": "DistinctLogs", "distinctLogs": {"attribute": "foo"}}])
}

/// An aggregator that says no more than it must, but for `more`.
fn aggregator(more: Value) -> Value {
    let mut spec = json!({"aggregations": by_foo()});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    named("logs", spec)
}

fn named(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "sheaf.dev/v1alpha1", "kind": "LogAggregator",
        "metadata": {"name": name}, "spec": spec,
    })
}

/// What the rules say against an object, or against a change of `old` to it.
fn refusals(object: &Value, old: Option<&Value>) -> Vec<String> {
    match Validator::new().validate(&schema(), object, old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec().into_iter().map(|error| error.message).collect(),
    }
}

/// All messages of rules that the definition has.
fn all_messages() -> BTreeSet<String> {
    fn collect(schema: &Value, messages: &mut BTreeSet<String>) {
        let rules = schema["x-kubernetes-validations"].as_array();
        messages.extend(
            rules.into_iter().flatten().map(|rule| {
                rule["message"].as_str().expect("each rule says what to do").to_owned()
            }),
        );
        match schema {
            Value::Object(members) => members.values().for_each(|it| collect(it, messages)),
            Value::Array(items) => items.iter().for_each(|it| collect(it, messages)),
            _ => {}
        }
    }
    let mut messages = BTreeSet::new();
    collect(&schema(), &mut messages);
    messages
}

/// Something new, and a word of what is said against it.
fn new_ones() -> Vec<(Value, Option<&'static str>)> {
    let longest = "a".repeat(40);
    let too_long = "a".repeat(41);
    let count = json!({"attribute": "foo"});
    let counting = |attribute: &str| {
        let count = json!({"attribute": attribute});
        let one = json!({"name": "a", "type": "DistinctLogs", "distinctLogs": count});
        aggregator(json!({"aggregations": [one]}))
    };
    let mut cases = vec![
        (aggregator(json!({})), None),
        (aggregator(json!({"voters": 1})), None),
        (aggregator(json!({"voters": 5})), None),
        (aggregator(json!({"voters": 2})), Some("use 1, 3 or 5 voters")),
        (aggregator(json!({"voters": 4})), Some("use 1, 3 or 5 voters")),
        (aggregator(json!({"replicas": 2})), None),
        (aggregator(json!({"replicas": 1, "copies": 1})), None),
        (aggregator(json!({"replicas": 1})), Some("copies must be at most replicas")),
        (aggregator(json!({"copies": 3})), None),
        (aggregator(json!({"replicas": 2, "copies": 3})), Some("copies must be at most replicas")),
        (aggregator(json!({"storage": {"size": "1Gi"}})), None),
        (aggregator(json!({"storage": {"size": "1.5Ti"}})), None),
        (aggregator(json!({"storage": {"size": "20000000000"}})), None),
        (aggregator(json!({"storage": {"size": "1023Mi"}})), Some("at least 1Gi")),
        (aggregator(json!({"storage": {"size": "-1Gi"}})), Some("at least 1Gi")),
        (aggregator(json!({"storage": {"size": "large"}})), Some("at least 1Gi")),
        (aggregator(json!({"image": "registry.example.com:5000/logs/sheaf@sha256:0"})), None),
        (counting("k8s.pod.name"), None),
        (counting("Größe (µs) 🕴 \"'\\"), None),
        (counting("a\u{7f}"), Some("without control characters")),
        (counting("a\n"), Some("without control characters")),
        (counting("\u{feff}a"), Some("without control characters")),
        (aggregator(json!({"storage": {"storageClassName": ""}})), None),
        (aggregator(json!({"storage": {"storageClassName": "1-fast.example.com"}})), None),
        (aggregator(json!({"storage": {"storageClassName": "Fast"}})), Some("of a StorageClass")),
        (aggregator(json!({"storage": {"storageClassName": "a..b"}})), Some("of a StorageClass")),
        (aggregator(json!({"image": "sheaf:dev "})), Some("without spaces")),
        (scaled(2, 2), None),
        (scaled(3, 9), None),
        (scaled(5, 4), Some("minReplicas must be at most maxReplicas")),
        (scaled(1, 4), Some("copies must be at most autoscaling.minReplicas")),
        (
            aggregator(json!({"aggregations": [{"name": "a", "type": "DistinctLogs"}]})),
            Some("needs the member distinctLogs"),
        ),
        (rebuilding(&[json!({"logFiles": {}})]), None),
        (rebuilding(&[json!({"logFiles": {"checkpointSeconds": 60}})]), None),
        (rebuilding(&[json!({"logFiles": {"retentionSeconds": 60}})]), None),
        (rebuilding(&[json!({"logFiles": {"partBytes": 1 << 20}})]), None),
        (rebuilding(&[json!({"logFiles": {"partBytes": 1 << 20, "compression": "Zstd"}})]), None),
        (rebuilding(&[json!({"logFiles": {"compression": "None"}})]), None),
        (
            rebuilding(&[json!({"logFiles": {"compression": "Zstd"}})]),
            Some("set partBytes, or leave compression out"),
        ),
        (rebuilding(&[json!({})]), Some("needs the member logFiles")),
        (rebuilding(&[json!({"distinctLogs": count})]), Some("needs the member logFiles")),
        (
            rebuilding(&[json!({"logFiles": {}, "distinctLogs": count})]),
            Some("needs the member distinctLogs, and no other type may have it"),
        ),
        (
            rebuilding(&[json!({"type": "DistinctLogs", "logFiles": {}, "distinctLogs": count})]),
            Some("needs the member logFiles, if only {}, and no other type may have it"),
        ),
        (
            rebuilding(&[json!({"logFiles": {}}), json!({"logFiles": {}})]),
            Some("one aggregation of the type LogFiles at most"),
        ),
        (
            aggregator(
                json!({"aggregations": [{"name": "a", "type": "Other", "distinctLogs": count}]}),
            ),
            Some("no other type may have it"),
        ),
    ];
    let names = ["a", "logs", "a-1", "a--b", longest.as_str()];
    cases.extend(names.map(|name| (named(name, json!({"aggregations": by_foo()})), None)));
    for name in ["1a", "-a", "a-", "1.a", "a.b"] {
        let object = named(name, json!({"aggregations": by_foo()}));
        cases.push((object, Some("with a letter first")));
    }
    let object = named(&too_long, json!({"aggregations": by_foo()}));
    cases.push((object, Some("at most 40 characters")));
    cases
}

/// An aggregator that counts, and has aggregations of files that say no more than their names and
/// this.
fn rebuilding(members: &[Value]) -> Value {
    let files = members.iter().enumerate().map(|(number, member)| {
        let mut files = json!({"name": format!("files-{number}"), "type": "LogFiles"});
        for (field, value) in member.as_object().unwrap() {
            files[field] = value.clone();
        }
        files
    });
    let counted = by_foo().as_array().unwrap().clone();
    aggregator(json!({"aggregations": counted.into_iter().chain(files).collect::<Vec<_>>()}))
}

fn scaled(least: i32, most: i32) -> Value {
    aggregator(json!({"autoscaling": {"minReplicas": least, "maxReplicas": most}}))
}

/// A change of a spec, and a word of what is said against it.
fn changes() -> Vec<(Value, Value, Option<&'static str>)> {
    let class = |name: &str| json!({"storage": {"storageClassName": name}});
    let size = |size: &str| json!({"storage": {"size": size}});
    let files = |member: Value| {
        let files = json!({"name": "files", "type": "LogFiles", "logFiles": member});
        json!({"aggregations": [files]})
    };
    let checkpointed = |seconds: u32| files(json!({"checkpointSeconds": seconds}));
    let compressed = json!({"retentionSeconds": 60, "partBytes": 1 << 20, "compression": "Zstd"});
    vec![
        (json!({}), json!({}), None),
        (json!({}), json!({"slots": 256}), None),
        (json!({"slots": 64}), json!({"slots": 64, "copies": 1}), None),
        (json!({"slots": 64}), json!({"slots": 128}), Some("slots is immutable")),
        (json!({"slots": 64}), json!({}), Some("slots is immutable")),
        (class("fast"), class("fast"), None),
        (class("fast"), class("slow"), Some("storageClassName is immutable")),
        (class("fast"), json!({}), Some("storageClassName is immutable")),
        (json!({}), class("fast"), Some("storageClassName is immutable")),
        (class("fast"), class(""), Some("storageClassName is immutable")),
        (json!({}), size("10Gi"), None),
        (size("10Gi"), size("20Gi"), None),
        (size("10Gi"), size("10240Mi"), None),
        (size("10Gi"), size("9Gi"), Some("cannot become smaller")),
        (size("2Ti"), size("1999Gi"), Some("cannot become smaller")),
        (size("10Gi"), size("large"), Some("at least 1Gi")),
        (checkpointed(10), checkpointed(3600), None),
        (checkpointed(10), json!({}), None),
        (files(json!({})), files(compressed.clone()), None),
        (files(compressed), files(json!({})), None),
        (size("20Gi"), json!({}), Some("cannot become smaller")),
        (
            size("20Gi"),
            json!({"storage": {"storageClassName": "fast"}}),
            Some("cannot become smaller"),
        ),
    ]
}

#[test]
fn each_rule_accepts_what_is_right_and_refuses_what_is_not() {
    for (object, word) in new_ones() {
        check(&refusals(&object, None), word, &object);
    }
    for (old, new, word) in changes() {
        let (old, new) = (aggregator(old), aggregator(new));
        check(&refusals(&new, Some(&old)), word, &json!({"from": old, "to": new}));
    }
}

fn check(refusals: &[String], word: Option<&str>, case: &Value) {
    match word {
        None => assert_eq!(refusals, [""; 0], "{case:#}"),
        Some(word) => {
            assert!(refusals.iter().any(|said| said.contains(word)), "{refusals:?} for {case:#}");
        }
    }
}

#[test]
fn the_samples_are_taken_as_they_are() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples");
    let mut samples = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let object: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(structure::faults(&schema(), &object), [""; 0], "{}", path.display());
        assert_eq!(refusals(&object, None), [""; 0], "{}", path.display());
        let mut aggregator: LogAggregator = serde_json::from_value(object).unwrap();
        aggregator.metadata.namespace = Some("default".to_owned());
        aggregator.metadata.uid = Some("stored".to_owned());
        let valid = validate(&aggregator, nothing());
        assert!(valid.is_ok(), "{}: {valid:?}", path.display());
        samples += 1;
    }
    assert_eq!(samples, 4);
}

#[test]
fn what_is_out_of_bounds_is_refused_before_any_rule_is_asked() {
    let behaves = |rules: Value| {
        let behavior = json!({"scaleDown": rules});
        json!({"autoscaling": {"minReplicas": 3, "maxReplicas": 9, "behavior": behavior}})
    };
    let policy = |type_: &str, value: i32, seconds: i32| {
        behaves(json!({"policies": [{"type": type_, "value": value, "periodSeconds": seconds}]}))
    };
    for (spec, fault) in [
        (json!({}), None),
        (json!({"replicas": 257}), Some(".spec.replicas is 257: maximum 256.0")),
        (json!({"replica": 3}), Some(".spec.replica is no field")),
        (json!({"aggregations": []}), Some("minItems 1")),
        (json!({"resources": {"limits": {"memory": "x"}}}), Some("int-or-string")),
        (json!({"podTemplate": {"spec": {"anything": 1}}}), None),
        (behaves(json!({"stabilizationWindowSeconds": 3600, "selectPolicy": "Min"})), None),
        (behaves(json!({"stabilizationWindowSeconds": 3601})), Some("maximum 3600")),
        (behaves(json!({"stabilizationWindowSeconds": -1})), Some("minimum 0")),
        (behaves(json!({"selectPolicy": "Most"})), Some("selectPolicy is \"Most\": enum")),
        (behaves(json!({"policies": []})), Some("policies is []: minItems 1")),
        (policy("Percent", 1, 1800), None),
        (policy("Nodes", 1, 1800), Some("type is \"Nodes\": enum")),
        (policy("Pods", 0, 1800), Some("value is 0: minimum 1")),
        (policy("Pods", 1, 0), Some("periodSeconds is 0: minimum 1")),
        (policy("Pods", 1, 1801), Some("periodSeconds is 1801: maximum 1800")),
    ] {
        check(&structure::faults(&schema(), &aggregator(spec.clone())), fault, &spec);
    }
}

#[test]
fn there_is_no_rule_that_never_refuses_anything() {
    let mut said = BTreeSet::new();
    for (object, _) in new_ones() {
        said.extend(refusals(&object, None));
    }
    for (old, new, _) in changes() {
        said.extend(refusals(&aggregator(new), Some(&aggregator(old))));
    }
    assert_eq!(said, all_messages());
}

#[test]
fn each_rule_is_cheap_and_uses_what_rules_may() {
    fn analyze(schema: &Value) {
        let compiled = compile_schema(schema);
        assert!(!compiled.has_errors(), "{:?}", compiled.compilation_errors());
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let rule = rule["rule"].as_str().unwrap();
            let mut warnings = analyze_rule(rule, &compiled, ScopeContext::CrdValidation);
            // It does not see what `filter` binds, which is called `it` in every rule.
            warnings.retain(|warning| !warning.message.starts_with("variable 'it' "));
            assert_eq!(warnings, [], "{rule}");
        }
        match schema {
            Value::Object(members) => {
                members.values().filter(|it| it.is_object()).for_each(analyze)
            }
            Value::Array(items) => items.iter().for_each(analyze),
            _ => {}
        }
    }
    analyze(&schema());
}

proptest! {
    // Each case compiles all rules twice.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_rule_refuses_what_an_autoscaler_writes(
        copies in 1..=3_i32, least in 1..=256_i32, more in 0..=255_i32,
        before in 1..=256_i32, after in 1..=256_i32,
    ) {
        let most = (least + more).min(256);
        prop_assume!(copies <= least);
        let at = |replicas: i32| aggregator(json!({
            "replicas": replicas, "copies": copies,
            "autoscaling": {"minReplicas": least, "maxReplicas": most},
        }));
        prop_assert_eq!(refusals(&at(after), Some(&at(before))), Vec::<String>::new());
    }
}
