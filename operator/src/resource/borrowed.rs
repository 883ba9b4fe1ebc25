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
pub(super) fn bound(schema: &mut Schema) {
    transform_subschemas(&mut bound, schema);
    let Some(schema) = schema.as_object_mut() else { return };
    // Users know these types, and their comments are many times larger than the types.
    if schema.contains_key("properties") {
        for property in properties(schema) {
            shorten(property);
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

fn properties(schema: &mut Map<String, Value>) -> impl Iterator<Item = &mut Value> {
    schema
        .get_mut("properties")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flat_map(Map::values_mut)
}

/// Leaves the first sentence of a comment.
fn shorten(property: &mut Value) {
    if let Some(Value::String(text)) = property.get_mut("description")
        && let Some(end) = text.find(". ").or_else(|| text.find(".\n"))
    {
        text.truncate(end + 1);
    }
}
