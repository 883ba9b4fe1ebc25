//! Encodings that protobuf allows and no exporter writes: padded varints, shuffled
//! fields, values that later ones replace, messages in pieces, unknown fields.

use fastrand::Rng;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;

/// Encodes `request` oddly; equal seeds give equal bytes.
pub(crate) fn encode(request: &ExportLogsServiceRequest, seed: u64) -> Vec<u8> {
    let mut odd = Odd::new(seed);
    let fields = request.resource_logs.iter().map(|logs| (1, odd.resource_logs(logs))).collect();
    let fields = odd.repeated(fields);
    odd.finish(fields)
}

/// An encoded field, with its number.
type Field = (u32, Vec<u8>);

/// How likely each oddity is, in percent. A request does not have all of them, so that
/// each is met alone too, in surroundings that are otherwise usual.
struct Odd {
    rng: Rng,
    padded: u8,
    shuffled: u8,
    replaced: u8,
    split: u8,
    unknown: u8,
}

impl Odd {
    fn new(seed: u64) -> Odd {
        let mut rng = Rng::with_seed(seed);
        let mut likely = || [0, 0, 5, 30][rng.usize(..4)];
        let (padded, shuffled, replaced, split, unknown) =
            (likely(), likely(), likely(), likely(), likely());
        Odd { rng, padded, shuffled, replaced, split, unknown }
    }

    /// True in so many of a hundred cases.
    fn is(&mut self, percent: u8) -> bool {
        self.rng.u8(..100) < percent
    }

    fn resource_logs(&mut self, logs: &ResourceLogs) -> Vec<u8> {
        let mut fields = self.text(3, &logs.schema_url);
        if let Some(resource) = &logs.resource {
            let inner = self.resource(resource);
            fields.extend(self.split(1, inner));
        }
        let scopes = logs.scope_logs.iter().map(|logs| (2, self.scope_logs(logs))).collect();
        fields.extend(self.repeated(scopes));
        self.shuffle(fields)
    }

    fn resource(&mut self, resource: &Resource) -> Vec<Field> {
        let mut fields = self.attributes(1, &resource.attributes);
        fields.extend(self.varint_field(2, resource.dropped_attributes_count.into()));
        self.shuffled(fields)
    }

    fn scope_logs(&mut self, logs: &ScopeLogs) -> Vec<u8> {
        let mut fields = self.text(3, &logs.schema_url);
        if let Some(scope) = &logs.scope {
            let inner = self.scope(scope);
            fields.extend(self.split(1, inner));
        }
        let records = logs.log_records.iter().map(|record| (2, self.record(record))).collect();
        fields.extend(self.repeated(records));
        self.shuffle(fields)
    }

    fn scope(&mut self, scope: &InstrumentationScope) -> Vec<Field> {
        let mut fields = self.attributes(3, &scope.attributes);
        fields.extend(self.text(1, &scope.name));
        fields.extend(self.text(2, &scope.version));
        fields.extend(self.varint_field(4, scope.dropped_attributes_count.into()));
        self.shuffled(fields)
    }

    fn record(&mut self, record: &LogRecord) -> Vec<u8> {
        let mut fields = self.attributes(6, &record.attributes);
        fields.extend(self.fixed64(1, record.time_unix_nano));
        fields.extend(self.fixed64(11, record.observed_time_unix_nano));
        // Usually a negative enum takes ten bytes; the bits above its 32 do not count.
        fields.extend(self.varint_field(2, record.severity_number as u32 as u64));
        fields.extend(self.text(3, &record.severity_text));
        if let Some(body) = &record.body {
            let inner = self.any_value(body);
            fields.extend(self.split(5, inner));
        }
        fields.extend(self.varint_field(7, record.dropped_attributes_count.into()));
        fields.extend(self.fixed32(8, record.flags));
        fields.extend(self.bytes(9, &record.trace_id));
        fields.extend(self.bytes(10, &record.span_id));
        fields.extend(self.text(12, &record.event_name));
        self.shuffle(fields)
    }

    fn attributes(&mut self, number: u32, attributes: &[KeyValue]) -> Vec<Field> {
        let fields =
            attributes.iter().map(|attribute| (number, self.key_value(attribute))).collect();
        self.repeated(fields)
    }

    fn key_value(&mut self, attribute: &KeyValue) -> Vec<u8> {
        let mut fields = self.text(1, &attribute.key);
        if let Some(value) = &attribute.value {
            let inner = self.any_value(value);
            fields.extend(self.split(2, inner));
        }
        fields.extend(self.varint_field(3, attribute.key_strindex as u64));
        self.shuffle(fields)
    }

    /// The members of a value, in an order that matters: the last one counts.
    fn any_value(&mut self, any: &AnyValue) -> Vec<Field> {
        let mut fields = Vec::new();
        while self.is(self.replaced) {
            fields.extend(self.replaced_member());
        }
        match &any.value {
            // No value is either none at all or the one that has no meaning here.
            None if fields.is_empty() => {}
            None => fields.extend(self.one_varint(8, 1)),
            Some(Value::StringValue(text)) => fields.extend(self.one(1, text.as_bytes())),
            Some(Value::BoolValue(value)) => {
                let truth = if *value { self.rng.u64(1..) } else { 0 };
                fields.extend(self.one_varint(2, truth));
            }
            Some(Value::IntValue(value)) => fields.extend(self.one_varint(3, *value as u64)),
            Some(Value::DoubleValue(value)) => {
                fields.push((4, self.tagged(4, 1, &value.to_le_bytes())))
            }
            Some(Value::BytesValue(bytes)) => fields.extend(self.one(7, bytes)),
            Some(Value::StringValueStrindex(index)) => {
                fields.extend(self.one_varint(8, *index as u64))
            }
            Some(Value::ArrayValue(array)) => {
                fields.extend(self.end_of_run(5, &fields));
                let inner = array.values.iter().map(|value| {
                    let inner = self.any_value(value);
                    (1, self.finish(inner))
                });
                let inner = inner.collect();
                let inner = self.repeated(inner);
                fields.extend(self.split(5, inner));
            }
            Some(Value::KvlistValue(list)) => {
                fields.extend(self.end_of_run(6, &fields));
                let inner = self.attributes(1, &list.values);
                fields.extend(self.split(6, inner));
            }
        }
        fields
    }

    /// A member that a later one replaces.
    fn replaced_member(&mut self) -> Vec<Field> {
        match self.rng.u8(..5) {
            0 => self.one(1, b"replaced"),
            1 => self.one_varint(3, 5),
            2 => self.one_varint(8, 5),
            3 => {
                let element = self.one(1, &[0x10, 1]);
                self.split(5, element)
            }
            _ => {
                let entry = self.one(1, &[0x0a, 1, b'a']);
                self.split(6, entry)
            }
        }
    }

    /// What keeps a list from being merged with a replaced one just before it.
    fn end_of_run(&mut self, number: u32, before: &[Field]) -> Vec<Field> {
        match before.last() {
            Some((last, _)) if *last == number => self.one_varint(2, 1),
            _ => Vec::new(),
        }
    }

    /// A message field, in one piece or in several, some of them empty.
    fn split(&mut self, number: u32, mut fields: Vec<Field>) -> Vec<Field> {
        let mut pieces = Vec::new();
        while self.is(self.split) {
            let rest = fields.split_off(self.rng.usize(..=fields.len()));
            let piece = self.finish(fields);
            pieces.extend(self.one(number, &piece));
            fields = rest;
        }
        let piece = self.finish(fields);
        pieces.extend(self.one(number, &piece));
        pieces
    }

    fn text(&mut self, number: u32, text: &str) -> Vec<Field> {
        self.bytes(number, text.as_bytes())
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) -> Vec<Field> {
        let mut fields =
            if self.is(self.replaced) { self.one(number, b"replaced") } else { Vec::new() };
        if !bytes.is_empty() || !fields.is_empty() || self.rng.bool() {
            fields.extend(self.one(number, bytes));
        }
        fields
    }

    fn varint_field(&mut self, number: u32, value: u64) -> Vec<Field> {
        let mut fields =
            if self.is(self.replaced) { self.one_varint(number, 77) } else { Vec::new() };
        fields.extend(self.one_varint(number, value));
        fields
    }

    fn fixed64(&mut self, number: u32, value: u64) -> Vec<Field> {
        let replaced = if self.is(self.replaced) { Some(77) } else { None };
        let values = replaced.into_iter().chain([value]);
        values.map(|value| (number, self.tagged(number, 1, &value.to_le_bytes()))).collect()
    }

    fn fixed32(&mut self, number: u32, value: u32) -> Vec<Field> {
        vec![(number, self.tagged(number, 5, &value.to_le_bytes()))]
    }

    fn one(&mut self, number: u32, bytes: &[u8]) -> Vec<Field> {
        let mut content = self.varint(bytes.len() as u64);
        content.extend(bytes);
        vec![(number, self.tagged(number, 2, &content))]
    }

    fn one_varint(&mut self, number: u32, value: u64) -> Vec<Field> {
        let content = self.varint(value);
        vec![(number, self.tagged(number, 0, &content))]
    }

    fn tagged(&mut self, number: u32, wire_type: u8, content: &[u8]) -> Vec<u8> {
        let mut field = self.varint(u64::from(number) << 3 | u64::from(wire_type));
        field.extend(content);
        field
    }

    /// Now and then padded, up to ten bytes.
    fn varint(&mut self, mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let len_min = if self.is(self.padded) { self.rng.usize(1..=10) } else { 1 };
        while value >= 0x80 || bytes.len() + 1 < len_min {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    /// The fields of a repeated message field, from their contents.
    fn repeated(&mut self, contents: Vec<Field>) -> Vec<Field> {
        contents.into_iter().flat_map(|(number, content)| self.one(number, &content)).collect()
    }

    /// In any order, except that fields of one number keep theirs.
    fn shuffled(&mut self, fields: Vec<Field>) -> Vec<Field> {
        let mut numbers: Vec<u32> = fields.iter().map(|(number, _)| *number).collect();
        if self.is(self.shuffled) {
            self.rng.shuffle(&mut numbers);
        }
        let mut fields: Vec<Option<Field>> = fields.into_iter().map(Some).collect();
        let next = |number: u32| {
            let same =
                |field: &&mut Option<Field>| field.as_ref().is_some_and(|(own, _)| *own == number);
            fields
                .iter_mut()
                .find(same)
                .and_then(Option::take)
                .expect("each number stands for a field")
        };
        numbers.into_iter().map(next).collect()
    }

    fn shuffle(&mut self, fields: Vec<Field>) -> Vec<u8> {
        let fields = self.shuffled(fields);
        self.finish(fields)
    }

    /// The message, with unknown fields between the known ones.
    fn finish(&mut self, fields: Vec<Field>) -> Vec<u8> {
        let mut message = Vec::new();
        for (_, field) in fields {
            while self.is(self.unknown) {
                message.extend(self.unknown(0));
            }
            message.extend(field);
        }
        message
    }

    fn unknown(&mut self, depth: u32) -> Vec<u8> {
        let number = self.rng.u32(100..(1 << 29));
        match self.rng.u8(..5) {
            0 => {
                let content = self.varint(u64::MAX);
                self.tagged(number, 0, &content)
            }
            1 => self.tagged(number, 1, &[0xff; 8]),
            2 => self.tagged(number, 5, &[0xff; 4]),
            3 if depth < 4 => {
                let mut inner = Vec::new();
                while self.rng.bool() {
                    inner.extend(self.unknown(depth + 1));
                }
                inner.extend(self.tagged(number, 4, &[]));
                self.tagged(number, 3, &inner)
            }
            _ => self.one(number, &[0xff, 0x0a]).remove(0).1,
        }
    }
}
