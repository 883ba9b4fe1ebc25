//! What an API server checks before it asks any rule: types, bounds and names of fields, as far
//! as the definition has them. A word of a schema that is not known here fails.

use serde_json::Value;

use crate::validate::quantity;

/// The one pattern of the definition.
const LABEL: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";

/// What is wrong with an object, each with the path of its field.
pub(super) fn faults(schema: &Value, object: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    check("", schema, object, &mut faults);
    faults
}

fn check(path: &str, schema: &Value, value: &Value, faults: &mut Vec<String>) {
    for (word, bound) in schema.as_object().unwrap() {
        if !is_right(path, schema, word, bound, value) {
            faults.push(format!("{path} is {value}: {word} {bound}"));
        }
    }
    for (field, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{field}");
        let inner = [&schema["properties"][field], &schema["additionalProperties"]];
        match inner.into_iter().find(|inner| inner.is_object()) {
            Some(inner) => check(&path, inner, value, faults),
            None if schema["x-kubernetes-preserve-unknown-fields"] == true => {}
            None => faults.push(format!("{path} is no field")),
        }
    }
    for (place, item) in value.as_array().into_iter().flatten().enumerate() {
        check(&format!("{path}[{place}]"), &schema["items"], item, faults);
    }
}

fn is_right(path: &str, schema: &Value, word: &str, bound: &Value, value: &Value) -> bool {
    let number = bound.as_f64().unwrap_or_default();
    match word {
        "type" => is(bound.as_str().unwrap(), value),
        "enum" => bound.as_array().unwrap().contains(value),
        "minimum" => value.as_f64().is_none_or(|value| value >= number),
        "maximum" => value.as_f64().is_none_or(|value| value <= number),
        "minLength" => length(value).is_none_or(|length| length >= number),
        "maxLength" => length(value).is_none_or(|length| length <= number),
        "pattern" => {
            assert_eq!(*bound, LABEL, "{path}: another pattern is not known here");
            value.as_str().is_none_or(is_label)
        }
        "minItems" => items(value).is_none_or(|items| items >= number),
        "maxItems" => items(value).is_none_or(|items| items <= number),
        "maxProperties" => value.as_object().is_none_or(|it| it.len() as f64 <= number),
        "required" => bound.as_array().unwrap().iter().all(|field| {
            let field = field.as_str().unwrap();
            !value[field].is_null() || !schema["properties"][field]["default"].is_null()
        }),
        "x-kubernetes-int-or-string" => {
            value.is_i64() || value.as_str().is_some_and(|text| quantity::nanos(text).is_some())
        }
        // Rules are for another test; the rest says what is inside, or nothing of an object.
        "x-kubernetes-validations" | "x-kubernetes-preserve-unknown-fields" => true,
        "x-kubernetes-list-type" | "x-kubernetes-list-map-keys" => true,
        "properties" | "additionalProperties" | "items" => true,
        "title" | "description" | "format" | "default" => true,
        _ => panic!("{path}: {word} is not known here"),
    }
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "boolean" => value.is_boolean(),
        _ => panic!("{kind} is not known here"),
    }
}

fn is_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.chars().all(inner)
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
}

fn length(value: &Value) -> Option<f64> {
    Some(value.as_str()?.chars().count() as f64)
}

fn items(value: &Value) -> Option<f64> {
    Some(value.as_array()?.len() as f64)
}
