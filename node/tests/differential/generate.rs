//! Small requests with much in common: keys repeat, values collide, parts are missing.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::collection::vec;
use proptest::prelude::*;
use sheaf_node::intake::scan::Plan;

const NAMES: &[&str] =
    &["foo", "bar", "baz", "é", "", "a.much.longer.name.that.nobody.would.choose"];

pub(crate) fn plan() -> impl Strategy<Value = Plan> {
    // Sometimes more attributes than fit in the scanner's array, repeated if need be.
    let attributes = prop_oneof![
        4 => vec(prop::sample::select(NAMES), 0..3),
        1 => vec(prop::sample::select(NAMES), 9..12),
    ];
    (attributes, any::<bool>(), any::<bool>()).prop_map(|(names, body, record)| Plan {
        attributes: names.into_iter().map(|name| name.as_bytes().into()).collect(),
        body,
        record,
    })
}

pub(crate) fn request() -> impl Strategy<Value = ExportLogsServiceRequest> {
    vec(resource_logs(), 0..3).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

fn resource_logs() -> impl Strategy<Value = ResourceLogs> {
    let resource =
        (attributes(), any::<u32>()).prop_map(|(attributes, dropped_attributes_count)| Resource {
            attributes,
            dropped_attributes_count,
            ..Resource::default()
        });
    (prop::option::weighted(0.8, resource), vec(scope_logs(), 0..3), text()).prop_map(
        |(resource, scope_logs, schema_url)| ResourceLogs { resource, scope_logs, schema_url },
    )
}

fn scope_logs() -> impl Strategy<Value = ScopeLogs> {
    let scope = (text(), text(), attributes(), any::<u32>()).prop_map(
        |(name, version, attributes, dropped_attributes_count)| InstrumentationScope {
            name,
            version,
            attributes,
            dropped_attributes_count,
        },
    );
    (prop::option::weighted(0.8, scope), vec(record(), 0..4), text())
        .prop_map(|(scope, log_records, schema_url)| ScopeLogs { scope, log_records, schema_url })
}

fn record() -> impl Strategy<Value = LogRecord> {
    let times = (any::<u64>(), any::<u64>());
    let severity = (prop_oneof![0..25i32, any::<i32>()], text());
    let ids = (vec(any::<u8>(), 0..17), vec(any::<u8>(), 0..9));
    let body = prop::option::weighted(0.9, any_value());
    (times, severity, body, attributes(), (any::<u32>(), any::<u32>()), ids, text()).prop_map(
        |(
            times,
            severity,
            body,
            attributes,
            (dropped_attributes_count, flags),
            ids,
            event_name,
        )| LogRecord {
            time_unix_nano: times.0,
            observed_time_unix_nano: times.1,
            severity_number: severity.0,
            severity_text: severity.1,
            body,
            attributes,
            dropped_attributes_count,
            flags,
            trace_id: ids.0,
            span_id: ids.1,
            event_name,
        },
    )
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    vec(key_value(any_value()), 0..5)
}

fn key_value(value: impl Strategy<Value = AnyValue>) -> impl Strategy<Value = KeyValue> {
    (
        prop::sample::select(NAMES),
        prop::option::weighted(0.9, value),
        prop::sample::select(&[0, 0, 7][..]),
    )
        .prop_map(|(key, value, key_strindex)| KeyValue {
            key: key.to_owned(),
            value,
            key_strindex,
        })
}

fn any_value() -> impl Strategy<Value = AnyValue> {
    let wrap = |value| AnyValue { value };
    let leaf = prop_oneof![
        1 => Just(None),
        6 => text().prop_map(|text| Some(Value::StringValue(text))),
        1 => any::<bool>().prop_map(|value| Some(Value::BoolValue(value))),
        2 => prop_oneof![-2..3i64, any::<i64>()].prop_map(|value| Some(Value::IntValue(value))),
        2 => double().prop_map(|value| Some(Value::DoubleValue(value))),
        1 => vec(any::<u8>(), 0..9).prop_map(|bytes| Some(Value::BytesValue(bytes))),
        1 => any::<i32>().prop_map(|index| Some(Value::StringValueStrindex(index))),
    ];
    leaf.prop_map(wrap).prop_recursive(4, 16, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|values| Value::ArrayValue(ArrayValue { values })),
            vec(key_value(inner), 0..4)
                .prop_map(|values| Value::KvlistValue(KeyValueList { values })),
        ]
        .prop_map(move |value| wrap(Some(value)))
    })
}

fn double() -> impl Strategy<Value = f64> {
    prop_oneof![
        prop::sample::select(
            &[0.0, -0.0, 1.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY][..]
        ),
        any::<u64>().prop_map(f64::from_bits),
    ]
}

/// Short, or around the length where a length takes another byte.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[a-cé\u{0}]{0,3}",
        1 => (125..132usize).prop_map(|len| "x".repeat(len)),
        1 => Just("x".repeat(16_400)),
    ]
}
