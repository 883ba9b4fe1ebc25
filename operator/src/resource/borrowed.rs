//! Fields that Kubernetes defines, and that grow with it.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema, transform::transform_subschemas};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::borrow::Cow;

const TEXT_LENGTH_MAX: u64 = 32_768; // of a condition's message, the longest of all
const ITEMS_MAX: u64 = 64;

/// What is to be different in the pods, as far as it is known: an object.
///
/// It is kept as it was written. A schema of its own would be that of one version of
/// Kubernetes, lose what a later one adds, and be larger than everything else here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodTemplate(pub Map<String, Value>);

impl JsonSchema for PodTemplate {
    fn schema_name() -> Cow<'static, str> {
        "PodTemplate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
    }
}

/// Bounds what Kubernetes leaves open in a type of its own, generously: nobody is to meet the
/// bounds, but the cost of checking an object is reckoned from them.
///
/// Users know these types, whose comments are many times longer than the types: a sentence of
/// each is left.
pub(super) fn bound(schema: &mut Schema) {
    transform_subschemas(&mut bound, schema);
    let Some(schema) = schema.as_object_mut() else { return };
    for inner in inner(schema) {
        if let Some(Value::String(text)) = inner.get_mut("description") {
            text.truncate(first_sentence(text));
        }
    }
    let (bound, most) = match schema.get("type").and_then(Value::as_str) {
        Some("string") if !schema.contains_key("format") => ("maxLength", TEXT_LENGTH_MAX),
        Some("array") => ("maxItems", ITEMS_MAX),
        Some("object") if schema.contains_key("additionalProperties") => {
            ("maxProperties", ITEMS_MAX)
        }
        _ => return,
    };
    schema.entry(bound).or_insert(most.into());
}

/// The schemas of what an object has, by name or of any name.
fn inner(schema: &mut Map<String, Value>) -> Vec<&mut Value> {
    let mut inner = Vec::new();
    for (key, value) in schema {
        match (key.as_str(), value) {
            ("properties", Value::Object(fields)) => inner.extend(fields.values_mut()),
            ("additionalProperties", values) => inner.push(values),
            _ => {}
        }
    }
    inner
}

/// Where it ends, in bytes: at a full stop before another sentence or paragraph.
fn first_sentence(text: &str) -> usize {
    let begins =
        |rest: &str| rest.starts_with(['\n', ' ']) && !rest[1..].starts_with(char::is_lowercase);
    let ends = text.match_indices('.').map(|(stop, _)| stop + 1);
    ends.clone().find(|end| text.get(*end..).is_some_and(begins)).unwrap_or(text.len())
}
