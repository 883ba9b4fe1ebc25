use std::path::Path;

use serde_json::Value;

use super::*;

/// The schema of an object, as JSON.
fn schema() -> Value {
    let definition = serde_json::to_value(definition()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Calls `visit` with each part of a schema, and the path of its field.
fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, visit);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            walk(&format!("{path}[]"), &schema[inner], visit);
        }
    }
}

#[test]
fn the_generated_files_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for file in files().unwrap() {
        let found = std::fs::read_to_string(root.join(file.path)).unwrap_or_default();
        assert!(found == file.text, "{} is stale: run `make crds`", file.path);
    }
}

#[test]
fn what_is_written_is_what_the_types_say() {
    let [manifest, chart] = files().unwrap();
    let read: CustomResourceDefinition = serde_saphyr::from_str(&manifest.text).unwrap();
    assert_eq!(read, definition());
    let body = chart.text.lines().filter(|line| !line.starts_with("{{"));
    let body = body.collect::<Vec<_>>().join("\n");
    assert!(!body.contains("{{"), "helm would read it as a template");
    let mut read: CustomResourceDefinition = serde_saphyr::from_str(&body).unwrap();
    let policy = read.annotations_mut().remove("helm.sh/resource-policy");
    assert_eq!(policy.as_deref(), Some("keep"));
    read.metadata.annotations = None;
    assert_eq!(read, definition());
}

#[test]
fn an_aggregator_is_found_by_its_short_name_and_among_all() {
    let names = definition().spec.names;
    assert_eq!((names.kind.as_str(), names.plural.as_str()), ("LogAggregator", "logaggregators"));
    assert_eq!(names.short_names.unwrap(), ["la"]);
    assert_eq!(names.categories.unwrap(), ["all"]);
}

#[test]
fn an_aggregator_has_a_status_and_is_scaled_apart_from_its_spec() {
    let version = definition().spec.versions.remove(0);
    let subresources = version.subresources.unwrap();
    assert!(subresources.status.is_some());
    let scale = subresources.scale.unwrap();
    assert_eq!(scale.spec_replicas_path, ".spec.replicas");
    assert_eq!(scale.status_replicas_path, ".status.replicas");
    assert_eq!(scale.label_selector_path.as_deref(), Some(".status.selector"));
    let columns = version.additional_printer_columns.unwrap();
    let columns: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(columns, ["Ready", "Replicas", "Epoch", "Complete", "Age"]);
}

#[test]
fn replicas_have_no_default_which_would_undo_what_an_autoscaler_did() {
    let schema = schema();
    let replicas = &schema["properties"]["spec"]["properties"]["replicas"];
    assert_eq!(replicas["type"], "integer");
    assert_eq!(replicas.get("default"), None);
    let required = schema["properties"]["spec"]["required"].as_array().unwrap();
    assert_eq!(required, &["aggregations"]);
}

#[test]
fn everything_that_can_be_long_is_bounded() {
    let mut unbounded = Vec::new();
    walk("", &schema(), &mut |path, schema| {
        let bound = match schema["type"].as_str() {
            Some("string") if schema["enum"].is_array() || schema["format"].is_string() => return,
            Some("string") => "maxLength",
            Some("array") => "maxItems",
            Some("object") if schema["additionalProperties"].is_object() => "maxProperties",
            Some("integer") if path.starts_with(".spec") => "maximum",
            _ => return,
        };
        if schema[bound].is_null() {
            unbounded.push(format!("{path} has no {bound}"));
        }
    });
    assert_eq!(unbounded, [""; 0]);
}

#[test]
fn every_field_is_explained() {
    let mut silent = Vec::new();
    walk("", &schema(), &mut |path, schema| {
        let ours = path.starts_with(".spec") || path.starts_with(".status");
        if ours && !path.ends_with("[]") && schema["description"].as_str().is_none_or(str::is_empty)
        {
            silent.push(path.to_owned());
        }
    });
    assert_eq!(silent, [""; 0]);
}

#[test]
fn names_are_bounded_where_the_api_server_looks_for_it() {
    let schema = schema();
    let properties = &schema["properties"];
    assert_eq!(properties["kind"]["type"], "string");
    assert_eq!(properties["apiVersion"]["type"], "string");
    for field in ["name", "generateName"] {
        assert_eq!(properties["metadata"]["properties"][field]["maxLength"], 253);
    }
}

#[test]
fn a_field_that_is_null_is_left_out_so_that_no_rule_meets_it() {
    walk("", &schema(), &mut |path, schema| assert_eq!(schema.get("nullable"), None, "{path}"));
}

#[test]
fn formats_are_those_that_the_api_server_knows() {
    walk("", &schema(), &mut |path, schema| {
        if let Some(format) = schema["format"].as_str() {
            assert!(["int32", "int64", "date-time"].contains(&format), "{path}: {format}");
        }
    });
}

#[test]
fn the_definition_is_small_enough_for_the_annotation_of_a_client_side_apply() {
    let [manifest, _] = files().unwrap();
    assert!(manifest.text.len() < 100_000, "{} bytes", manifest.text.len());
}
