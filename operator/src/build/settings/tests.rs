use serde_json::json;

use super::*;
use crate::example::{aggregator, nothing};
use crate::validate::{Found, validate};

fn valid(more: Value) -> ValidAggregator {
    validate(&aggregator(more), nothing()).unwrap()
}

fn text(more: Value) -> String {
    Settings::of(&valid(more), 3).text()
}

fn hash(more: Value) -> String {
    Settings::of(&valid(more), 3).restart_hash()
}

#[test]
fn the_file_of_an_aggregator_that_says_no_more_than_it_must() {
    insta::assert_snapshot!(text(json!({})));
}

#[test]
fn the_file_is_yaml_that_says_who_forms_the_cluster_and_what_is_counted() {
    let odd = json!([{
        "name": "odd", "type": "DistinctLogs",
        "distinctLogs": {"attribute": "a: \"b\" # c\u{1}", "unique": "Record", "windowSeconds": 60},
    }]);
    // No resource may say so; the file could.
    let aggregations = serde_json::from_value(odd.clone()).unwrap();
    let text = Settings::of(&ValidAggregator { aggregations, ..valid(json!({})) }, 3).text();
    let read: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(read["aggregations"], odd);
    let members = ["logs-0", "logs-1", "logs-2"];
    let members = members.map(|pod| format!("{pod}.logs-nodes.shop.svc:9465"));
    assert_eq!(read["initialMembers"], json!(members));
    assert_eq!(read["copies"], 2);
}

#[test]
fn an_aggregation_of_files_is_in_the_file_as_nodes_read_it() {
    let files = |member: &Value| json!([{"name": "files", "type": "LogFiles", "logFiles": member}]);
    let least = json!({"checkpointSeconds": 10});
    let all = json!({
        "checkpointSeconds": 60, "retentionSeconds": 604_800, "partBytes": 1_i64 << 40,
        "compression": "Zstd",
    });
    for (said, member) in
        [(&json!({}), &least), (&json!({"compression": "None"}), &least), (&all, &all)]
    {
        let text = text(json!({"aggregations": files(said)}));
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read["aggregations"], files(member));
    }
}

#[test]
fn a_node_of_ordinary_size_has_its_own_defaults() {
    let read: Value = serde_saphyr::from_str(&text(json!({"storage": {"size": "16Gi"}}))).unwrap();
    assert_eq!(read["queueSize"], 192 << 20);
    assert_eq!(read["memoryLimit"], 256 << 20);
    assert_eq!(read["maxRequestSize"], 64 << 20);
    assert_eq!(read["diskReserve"], 1 << 30);
    assert_eq!(read["journalLimit"], 4_u64 << 30);
}

#[test]
fn queue_and_windows_follow_from_the_limit_of_memory_and_the_journal_from_the_volume() {
    let small = json!({
        "storage": {"size": "1Gi"}, "resources": {"limits": {"memory": "256Mi"}},
    });
    let read: Value = serde_saphyr::from_str(&text(small)).unwrap();
    assert_eq!(read["queueSize"], 48 << 20);
    assert_eq!(read["memoryLimit"], 64 << 20);
    assert_eq!(read["maxRequestSize"], 16 << 20);
    assert_eq!(read["diskReserve"], (1 << 30) / 10);
    assert_eq!(read["journalLimit"], 1 << 28);
    let unlimited = json!({"resources": {"requests": {"cpu": "1"}}});
    let read: Value = serde_saphyr::from_str(&text(unlimited)).unwrap();
    assert_eq!(read.get("queueSize"), None);
}

#[test]
fn only_what_needs_a_restart_changes_the_hash_of_it() {
    let before = hash(json!({}));
    assert_eq!(before, hash(json!({"storage": {"size": "20Gi"}})), "volumes grow without");
    let other = json!([{
        "name": "by-foo", "type": "DistinctLogs", "distinctLogs": {"attribute": "foo"},
    }]);
    assert_eq!(before, hash(json!({"aggregations": other})), "aggregations are read again");
    let files = json!([{"name": "files", "type": "LogFiles", "logFiles": {}}]);
    assert_eq!(before, hash(json!({"aggregations": files})), "and so is whether files are rebuilt");
    let fewer = Settings::of(&valid(json!({})), 2).restart_hash();
    assert_eq!(before, fewer, "who formed the cluster matters to empty volumes");
    assert_ne!(before, hash(json!({"copies": 1})));
    assert_ne!(before, hash(json!({"voters": 5})));
    assert_ne!(before, hash(json!({"resources": {"limits": {"memory": "2Gi"}}})));
}

#[test]
fn the_founders_are_read_back_from_what_was_written() {
    let valid = valid(json!({}));
    for count in [1, 2, 5, 256] {
        let written = Settings::of(&valid, count).config_map(&valid);
        assert_eq!(founders(&written), Some(count));
    }
    assert_eq!(founders(&ConfigMap::default()), None);
    let data = [(names::SETTINGS_FILE.to_owned(), "copies: 2\n".to_owned())];
    assert_eq!(founders(&ConfigMap { data: Some(data.into()), ..ConfigMap::default() }), None);
}

#[test]
fn founders_leave_with_their_pods_and_nobody_joins_them() {
    let founded = |founders, replicas| {
        let found = Found { founders, ..nothing() };
        let valid = validate(&aggregator(json!({})), found).unwrap();
        super::founders(&super::super::build(&valid, replicas).settings)
    };
    assert_eq!(founded(None, 3), Some(3));
    assert_eq!(founded(Some(3), 5), Some(3));
    assert_eq!(founded(Some(3), 2), Some(2));
    assert_eq!(founded(Some(2), 5), Some(2));
}
