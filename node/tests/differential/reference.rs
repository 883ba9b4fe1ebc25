//! What the scanner has to tell, worked out from decoded structs and with nothing of
//! the node's own.

use std::collections::BTreeMap;
use std::hash::Hasher;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use sheaf_node::intake::scan::Plan;
use siphasher::sip128::{Hasher128, SipHasher13};

pub(crate) const KEY: [u8; 16] = *b"differential key";

/// What is told of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Visit {
    pub(crate) values: Vec<Vec<u8>>,
    pub(crate) body: u128,
    pub(crate) record: u128,
}

/// What is told of each record of a request.
pub(crate) fn visits(plan: &Plan, request: &ExportLogsServiceRequest) -> Vec<Visit> {
    let mut visits = Vec::new();
    for resource_logs in &request.resource_logs {
        let of_resource =
            resource_logs.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        for scope_logs in &resource_logs.scope_logs {
            let of_scope = scope_logs.scope.as_ref().map_or(&[][..], |scope| &scope.attributes);
            for record in &scope_logs.log_records {
                let lists = [&record.attributes, of_scope, of_resource];
                visits.push(Visit {
                    values: plan.attributes.iter().map(|name| attribute(name, lists)).collect(),
                    body: if plan.body { fingerprint(&optional(record.body.as_ref())) } else { 0 },
                    record: if plan.record { fingerprint(&whole(record)) } else { 0 },
                });
            }
        }
    }
    visits
}

fn attribute(name: &[u8], lists: [&[KeyValue]; 3]) -> Vec<u8> {
    match lists
        .iter()
        .flat_map(|list| list.iter())
        .find(|attribute| attribute.key.as_bytes() == name)
    {
        Some(attribute) => value(attribute.value.as_ref()),
        None => word(0, 0),
    }
}

fn fingerprint(canonical: &[u8]) -> u128 {
    let mut hasher = SipHasher13::new_with_key(&KEY);
    hasher.write(canonical);
    hasher.finish128().as_u128()
}

fn word(tag: u8, len: usize) -> Vec<u8> {
    let mut word = (len as u64 * 256).to_le_bytes();
    word[0] = tag;
    word.to_vec()
}

fn content(tag: u8, bytes: &[u8]) -> Vec<u8> {
    [&word(tag, bytes.len())[..], bytes].concat()
}

fn optional(any: Option<&AnyValue>) -> Vec<u8> {
    if any.is_some() { value(any) } else { word(0, 0) }
}

fn value(any: Option<&AnyValue>) -> Vec<u8> {
    match any.and_then(|any| any.value.as_ref()) {
        None | Some(Value::StringValueStrindex(_)) => word(1, 0),
        Some(Value::StringValue(text)) => content(2, text.as_bytes()),
        Some(Value::BoolValue(value)) => content(3, &[u8::from(*value)]),
        Some(Value::IntValue(value)) => content(4, &value.to_le_bytes()),
        Some(Value::DoubleValue(value)) if value.is_nan() => {
            content(5, &[0, 0, 0, 0, 0, 0, 0xf8, 0x7f])
        }
        Some(Value::DoubleValue(value)) if *value == 0.0 => content(5, &[0; 8]),
        Some(Value::DoubleValue(value)) => content(5, &value.to_le_bytes()),
        Some(Value::BytesValue(bytes)) => content(6, bytes),
        Some(Value::ArrayValue(array)) => {
            let mut out = word(7, array.values.len());
            array.values.iter().for_each(|element| out.extend(value(Some(element))));
            out
        }
        Some(Value::KvlistValue(list)) => map(&list.values),
    }
}

fn map(list: &[KeyValue]) -> Vec<u8> {
    let mut entries = BTreeMap::new();
    for entry in list {
        entries.entry(entry.key.as_bytes()).or_insert_with(|| value(entry.value.as_ref()));
    }
    let mut out = word(8, entries.len());
    for (key, value) in entries {
        out.extend(content(2, key));
        out.extend(value);
    }
    out
}

fn whole(record: &LogRecord) -> Vec<u8> {
    [
        word(9, 9),
        content(4, &record.time_unix_nano.to_le_bytes()),
        content(4, &i64::from(record.severity_number).to_le_bytes()),
        content(2, record.severity_text.as_bytes()),
        optional(record.body.as_ref()),
        map(&record.attributes),
        content(4, &u64::from(record.flags).to_le_bytes()),
        content(6, &record.trace_id),
        content(6, &record.span_id),
        content(2, record.event_name.as_bytes()),
    ]
    .concat()
}
