//! Requests written as OTLP/JSON in every allowed spelling come out as the protobuf
//! that they stand for, and damaged JSON does no harm.
#![allow(clippy::unwrap_used)]

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use fastrand::Rng;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;
use sheaf_node::source::otlp::json::to_protobuf;

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_in_any_spelling_is_the_request_that_it_stands_for(
        request in request(),
        seed: u64,
    ) {
        let json = Writer { rng: Rng::with_seed(seed) }.request(&request);
        let transcoded = to_protobuf(json.as_bytes()).map_err(|invalid| {
            TestCaseError::fail(format!("{invalid} in {json}"))
        })?;
        prop_assert!(transcoded.request.len() <= json.len(), "the output is bounded");
        let decoded = ExportLogsServiceRequest::decode(&transcoded.request[..]).unwrap();
        // As bytes, because NaN differs from itself, and 0 from -0 must.
        prop_assert_eq!(decoded.encode_to_vec(), request.encode_to_vec(), "from {}", json);
    }

    #[test]
    fn damaged_json_is_refused_or_gives_sound_protobuf(
        request in request(),
        seed: u64,
        damages in 1..6,
    ) {
        let mut rng = Rng::with_seed(seed);
        let mut json = Writer { rng: rng.fork() }.request(&request).into_bytes();
        for _ in 0..damages {
            damage(&mut json, &mut rng);
        }
        if let Ok(transcoded) = to_protobuf(&json) {
            prop_assert!(transcoded.request.len() <= json.len(), "the output is bounded");
            prop_assert!(ExportLogsServiceRequest::decode(&transcoded.request[..]).is_ok());
        }
    }
}

/// Changes some bytes, mostly in ways that leave it looking like JSON.
fn damage(json: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.usize(..json.len());
    let end = (at + rng.usize(1..40)).min(json.len());
    match rng.u8(..5) {
        0 => json[at] = rng.u8(..),
        1 => json[at] = *rng.choice(b"{}[],:\"\\0-e.tfn \n").unwrap(),
        2 => drop(json.drain(at..end)),
        3 => drop(json.splice(at..at, json[at..end].to_vec())),
        _ => {
            let to = rng.usize(..json.len());
            let piece = json[at..end].to_vec();
            json.splice(to..to, piece);
        }
    }
    if json.is_empty() {
        json.push(b'{');
    }
}

fn request() -> impl Strategy<Value = ExportLogsServiceRequest> {
    vec(resource_logs(), 0..3).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

fn resource_logs() -> impl Strategy<Value = ResourceLogs> {
    (option::of(resource()), vec(scope_logs(), 0..3), text()).prop_map(
        |(resource, scope_logs, schema_url)| ResourceLogs { resource, scope_logs, schema_url },
    )
}

fn resource() -> impl Strategy<Value = Resource> {
    (attributes(), any::<u32>(), vec(entity_ref(), 0..2)).prop_map(
        |(attributes, dropped_attributes_count, entity_refs)| Resource {
            attributes,
            dropped_attributes_count,
            entity_refs,
        },
    )
}

fn entity_ref() -> impl Strategy<Value = EntityRef> {
    (text(), text(), vec(text(), 0..3), vec(text(), 0..3)).prop_map(
        |(schema_url, r#type, id_keys, description_keys)| EntityRef {
            schema_url,
            r#type,
            id_keys,
            description_keys,
        },
    )
}

fn scope_logs() -> impl Strategy<Value = ScopeLogs> {
    (option::of(scope()), vec(record(), 0..4), text())
        .prop_map(|(scope, log_records, schema_url)| ScopeLogs { scope, log_records, schema_url })
}

fn scope() -> impl Strategy<Value = InstrumentationScope> {
    (text(), text(), attributes(), any::<u32>()).prop_map(
        |(name, version, attributes, dropped_attributes_count)| InstrumentationScope {
            name,
            version,
            attributes,
            dropped_attributes_count,
        },
    )
}

fn record() -> impl Strategy<Value = LogRecord> {
    let numbers = (any::<u64>(), any::<u64>(), any::<i32>(), any::<[u32; 2]>());
    let ids = (
        prop_oneof![Just(vec![]), vec(any::<u8>(), 16)],
        prop_oneof![Just(vec![]), vec(any::<u8>(), 8)],
    );
    (numbers, ids, text(), text(), option::of(value()), attributes()).prop_map(
        |(numbers, ids, severity_text, event_name, body, attributes)| LogRecord {
            time_unix_nano: numbers.0,
            observed_time_unix_nano: numbers.1,
            severity_number: numbers.2,
            severity_text,
            body,
            attributes,
            dropped_attributes_count: numbers.3[0],
            flags: numbers.3[1],
            trace_id: ids.0,
            span_id: ids.1,
            event_name,
        },
    )
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    vec(attribute(value()), 0..4)
}

fn attribute(value: impl Strategy<Value = AnyValue>) -> impl Strategy<Value = KeyValue> {
    (text(), option::of(value)).prop_map(|(key, value)| KeyValue {
        key,
        value,
        ..KeyValue::default()
    })
}

fn value() -> impl Strategy<Value = AnyValue> {
    let scalar = prop_oneof![
        text().prop_map(Value::StringValue),
        any::<bool>().prop_map(Value::BoolValue),
        any::<i64>().prop_map(Value::IntValue),
        (-20..20i64).prop_map(|ten| Value::IntValue(ten * 1000)),
        any::<f64>().prop_map(Value::DoubleValue),
        (-20..20i8).prop_map(|small| Value::DoubleValue(f64::from(small) / 4.0)),
        Just(Value::DoubleValue(f64::NAN)),
        Just(Value::DoubleValue(f64::INFINITY)),
        Just(Value::DoubleValue(f64::NEG_INFINITY)),
        vec(any::<u8>(), 0..200).prop_map(Value::BytesValue),
    ];
    let any_value = option::of(scalar).prop_map(|value| AnyValue { value });
    any_value.prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|values| Value::ArrayValue(ArrayValue { values })),
            vec(attribute(inner), 0..4)
                .prop_map(|values| Value::KvlistValue(KeyValueList { values })),
        ]
        .prop_map(|value| AnyValue { value: Some(value) })
    })
}

/// Mostly short; sometimes as long as lengths of two bytes.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => ".{0,12}",
        1 => "[a-z\"\\\\/\u{0}-\u{1f}é😀]{100,300}",
    ]
}

/// Writes JSON, choosing at random among the spellings that OTLP allows.
struct Writer {
    rng: Rng,
}

/// A key and its JSON; `None` for a field at its default, which may stay away.
type Member = (&'static str, Option<String>);

impl Writer {
    fn request(&mut self, request: &ExportLogsServiceRequest) -> String {
        let resource_logs = self.array(&request.resource_logs, Self::resource_logs);
        let json = self.object(vec![("resourceLogs", resource_logs)]);
        format!("{}{json}{}", self.space(), self.space())
    }

    fn resource_logs(&mut self, logs: &ResourceLogs) -> String {
        let members = vec![
            ("resource", logs.resource.as_ref().map(|resource| self.resource(resource))),
            ("scopeLogs", self.array(&logs.scope_logs, Self::scope_logs)),
            ("schemaUrl", self.string_field(&logs.schema_url)),
        ];
        self.object(members)
    }

    fn resource(&mut self, resource: &Resource) -> String {
        let members = vec![
            ("attributes", self.array(&resource.attributes, Self::attribute)),
            ("droppedAttributesCount", self.integer_field(resource.dropped_attributes_count)),
            ("entityRefs", self.array(&resource.entity_refs, Self::entity_ref)),
        ];
        self.object(members)
    }

    fn entity_ref(&mut self, entity: &EntityRef) -> String {
        let members = vec![
            ("schemaUrl", self.string_field(&entity.schema_url)),
            ("type", self.string_field(&entity.r#type)),
            ("idKeys", self.array(&entity.id_keys, |writer, key| writer.string(key))),
            (
                "descriptionKeys",
                self.array(&entity.description_keys, |writer, key| writer.string(key)),
            ),
        ];
        self.object(members)
    }

    fn scope_logs(&mut self, logs: &ScopeLogs) -> String {
        let members = vec![
            ("scope", logs.scope.as_ref().map(|scope| self.scope(scope))),
            ("logRecords", self.array(&logs.log_records, Self::record)),
            ("schemaUrl", self.string_field(&logs.schema_url)),
        ];
        self.object(members)
    }

    fn scope(&mut self, scope: &InstrumentationScope) -> String {
        let members = vec![
            ("name", self.string_field(&scope.name)),
            ("version", self.string_field(&scope.version)),
            ("attributes", self.array(&scope.attributes, Self::attribute)),
            ("droppedAttributesCount", self.integer_field(scope.dropped_attributes_count)),
        ];
        self.object(members)
    }

    fn record(&mut self, record: &LogRecord) -> String {
        let severity = (record.severity_number != 0).then(|| record.severity_number.to_string());
        let members = vec![
            ("timeUnixNano", self.integer_field(record.time_unix_nano)),
            ("observedTimeUnixNano", self.integer_field(record.observed_time_unix_nano)),
            ("severityNumber", severity),
            ("severityText", self.string_field(&record.severity_text)),
            ("body", record.body.as_ref().map(|body| self.value(body))),
            ("attributes", self.array(&record.attributes, Self::attribute)),
            ("droppedAttributesCount", self.integer_field(record.dropped_attributes_count)),
            ("flags", self.integer_field(record.flags)),
            ("traceId", Some(self.hex(&record.trace_id))),
            ("spanId", Some(self.hex(&record.span_id))),
            ("eventName", self.string_field(&record.event_name)),
        ];
        self.object(members)
    }

    fn attribute(&mut self, attribute: &KeyValue) -> String {
        let members = vec![
            ("key", self.string_field(&attribute.key)),
            ("value", attribute.value.as_ref().map(|value| self.value(value))),
        ];
        self.object(members)
    }

    fn value(&mut self, value: &AnyValue) -> String {
        let member = value.value.as_ref().map(|value| match value {
            Value::StringValue(text) => ("stringValue", self.string(text)),
            Value::BoolValue(value) => ("boolValue", value.to_string()),
            Value::IntValue(value) => ("intValue", self.integer(i128::from(*value))),
            Value::DoubleValue(value) => ("doubleValue", self.double(*value)),
            Value::BytesValue(bytes) => ("bytesValue", self.base64(bytes)),
            Value::ArrayValue(array) => {
                let values = self.array(&array.values, Self::value);
                ("arrayValue", self.object(vec![("values", values)]))
            }
            Value::KvlistValue(map) => {
                let values = self.array(&map.values, Self::attribute);
                ("kvlistValue", self.object(vec![("values", values)]))
            }
            Value::StringValueStrindex(_) => unreachable!("no strategy makes it"),
        });
        let members = member.map(|(key, json)| vec![(key, Some(json))]);
        self.object(members.unwrap_or_default())
    }

    /// Members in any order; those that are absent may be null; unknown ones between.
    fn object(&mut self, mut members: Vec<Member>) -> String {
        const UNKNOWN: [(&str, &str); 4] = [
            ("unknown", "1e999"),
            ("resource_logs", r#"[{"a":[true,"\ud800"]},[]]"#),
            ("", "null"),
            ("body ", r#"{"stringValue":1}"#),
        ];
        if self.rng.u8(..8) == 0 {
            let (key, json) = *self.rng.choice(&UNKNOWN).unwrap();
            members.push((key, Some(json.to_owned())));
        }
        self.rng.shuffle(&mut members);
        let mut written = Vec::new();
        for (key, json) in members {
            let json = match json {
                Some(json) => json,
                None if self.rng.u8(..4) == 0 => "null".to_owned(),
                None => continue,
            };
            let key = if self.rng.u8(..16) == 0 { self.string(key) } else { format!("\"{key}\"") };
            written.push(format!("{}{key}{}:{}{json}", self.space(), self.space(), self.space()));
        }
        format!("{{{}{}}}", written.join(","), self.space())
    }

    fn array<T>(
        &mut self,
        elements: &[T],
        write: impl Fn(&mut Self, &T) -> String,
    ) -> Option<String> {
        if elements.is_empty() && self.rng.bool() {
            return None;
        }
        let elements: Vec<_> = elements.iter().map(|element| write(self, element)).collect();
        Some(format!("[{}{}]", elements.join(&format!("{},", self.space())), self.space()))
    }

    fn string_field(&mut self, text: &str) -> Option<String> {
        if text.is_empty() && self.rng.bool() { None } else { Some(self.string(text)) }
    }

    fn integer_field(&mut self, value: impl Into<i128>) -> Option<String> {
        let value = value.into();
        if value == 0 && self.rng.bool() { None } else { Some(self.integer(value)) }
    }

    fn string(&mut self, text: &str) -> String {
        let mut json = String::from("\"");
        for char in text.chars() {
            match char {
                '"' | '\\' => json.extend(['\\', char]),
                '/' if self.rng.bool() => json.push_str("\\/"),
                '\n' if self.rng.bool() => json.push_str("\\n"),
                '\0'..' ' => json.push_str(&format!("\\u{:04x}", u32::from(char))),
                _ if self.rng.u8(..16) == 0 => {
                    for unit in char.encode_utf16(&mut [0; 2]) {
                        json.push_str(&format!("\\u{unit:04X}"));
                    }
                }
                _ => json.push(char),
            }
        }
        json.push('"');
        json
    }

    fn integer(&mut self, value: i128) -> String {
        let json = match self.rng.u8(..6) {
            0 => format!("{value}.0"),
            1 if value != 0 => format!("{value}0e-1"),
            2 if value % 1000 == 0 => format!("{}e3", value / 1000),
            3 => format!("{value}E+0"),
            _ => value.to_string(),
        };
        if self.rng.bool() { format!("\"{json}\"") } else { json }
    }

    fn double(&mut self, value: f64) -> String {
        match value {
            value if value.is_nan() => return "\"NaN\"".to_owned(),
            f64::INFINITY => return "\"Infinity\"".to_owned(),
            f64::NEG_INFINITY => return "\"-Infinity\"".to_owned(),
            _ => {}
        }
        let json = match self.rng.u8(..3) {
            0 => format!("{value:e}"),
            1 => format!("{value:?}"),
            _ => value.to_string(),
        };
        if self.rng.bool() { format!("\"{json}\"") } else { json }
    }

    fn base64(&mut self, bytes: &[u8]) -> String {
        let text = match self.rng.u8(..4) {
            0 => STANDARD.encode(bytes),
            1 => STANDARD_NO_PAD.encode(bytes),
            2 => URL_SAFE.encode(bytes),
            _ => URL_SAFE_NO_PAD.encode(bytes),
        };
        format!("\"{text}\"")
    }

    fn hex(&mut self, bytes: &[u8]) -> String {
        let digits = bytes.iter().map(|byte| {
            if self.rng.bool() { format!("{byte:02x}") } else { format!("{byte:02X}") }
        });
        format!("\"{}\"", digits.collect::<String>())
    }

    fn space(&mut self) -> &'static str {
        self.rng.choice(["", "", "", " ", "\n", "\t\r "]).unwrap_or("")
    }
}
