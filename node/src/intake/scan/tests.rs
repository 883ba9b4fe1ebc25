//! Golden fingerprints, records that are refused, and requests made to hurt.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::*;
use crate::event::value::NESTING_MAX;

/// 00 01 .. 0f, as in the golden vectors of fingerprints.
fn key() -> FingerprintKey {
    FingerprintKey(std::array::from_fn(|index| index as u8))
}

fn plan(attributes: &[&str], body: bool, record: bool) -> Plan {
    Plan {
        attributes: attributes.iter().map(|name| name.as_bytes().into()).collect(),
        body,
        record,
    }
}

/// What is told of each record: the values' canonical bytes, the fingerprints.
type Visits = Vec<(Vec<Vec<u8>>, u128, u128)>;

fn scan(plan: &Plan, request: &[u8]) -> Result<(Scan, Visits), Undecodable> {
    let mut visits = Vec::new();
    let scan = Scanner::new(key()).scan(plan, request, &mut |scanned| {
        let values = scanned.values.iter().map(|value| {
            let mut canonical = Vec::new();
            value.write_canonical(&mut canonical);
            canonical
        });
        visits.push((values.collect(), scanned.body, scanned.record));
    })?;
    Ok((scan, visits))
}

fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn text(text: &str) -> AnyValue {
    any(Value::StringValue(text.to_owned()))
}

fn attribute(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), key_strindex: 0 }
}

/// The canonical bytes of a string.
fn canonical(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    AttributeValue::String(text.as_bytes()).write_canonical(&mut out);
    out
}

fn request(of_resource: &[KeyValue], of_scope: &[KeyValue], records: Vec<LogRecord>) -> Vec<u8> {
    let scope = InstrumentationScope { attributes: of_scope.to_vec(), ..Default::default() };
    let scope_logs =
        vec![ScopeLogs { scope: Some(scope), log_records: records, schema_url: String::new() }];
    let resource = Some(Resource { attributes: of_resource.to_vec(), ..Default::default() });
    let resource_logs = vec![ResourceLogs { resource, scope_logs, schema_url: String::new() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

/// A length-delimited field with a number below 16.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    prost::encode_length_delimiter(content.len(), &mut bytes).unwrap();
    bytes.extend_from_slice(content);
    bytes
}

/// A request of these encoded records.
fn raw_request(records: &[&[u8]]) -> Vec<u8> {
    let scope_logs: Vec<u8> = records.iter().flat_map(|record| field(2, record)).collect();
    field(1, &field(2, &scope_logs))
}

/// A record with this encoded `AnyValue` as its body.
fn raw_body(any_value: &[u8]) -> Vec<u8> {
    raw_request(&[&field(5, any_value)])
}

/// An encoded `AnyValue`: a string within arrays, `depth` values in all.
fn nested(depth: usize) -> Vec<u8> {
    (1..depth).fold(field(1, b"x"), |inner, _| field(5, &field(1, &inner)))
}

/// The expected numbers were computed apart, by an implementation of the encoding and
/// of SipHash-1-3-128 in another language.
mod golden {
    use super::*;

    fn body(body: Option<AnyValue>) -> u128 {
        let bytes = request(&[], &[], vec![LogRecord { body, ..Default::default() }]);
        scan(&plan(&[], true, false), &bytes).unwrap().1[0].1
    }

    fn record(record: LogRecord) -> u128 {
        scan(&plan(&[], false, true), &request(&[], &[], vec![record])).unwrap().1[0].2
    }

    #[test]
    fn bodies_of_every_type() {
        assert_eq!(body(None), 0x25fbf3e33e8ff111e2b3f81d9780e3df);
        assert_eq!(body(Some(AnyValue { value: None })), 0xebcbf88d728736017c2f445a304629bd);
        assert_eq!(body(Some(text(""))), 0xa0533088ad5563f544d4515fb260258f);
        assert_eq!(body(Some(text("hello"))), 0xc04cdc9f81c5a52a608c661ba3a22f6b);
        assert_eq!(body(Some(text("1"))), 0x57e536c66406aae1f691a0a849e52135);
        assert_eq!(body(Some(any(Value::BoolValue(true)))), 0xce230c633e767ec32377861e5a4c8e20);
        assert_eq!(body(Some(any(Value::BoolValue(false)))), 0x0f0c114ec45051a44d99216d6f27d384);
        assert_eq!(body(Some(any(Value::IntValue(1)))), 0xd66565afad1878de9472ef0a03d4abe2);
        assert_eq!(body(Some(any(Value::IntValue(-1)))), 0x381e7b0a7a65ecc6ab1a87fbcf6c40a2);
        assert_eq!(body(Some(any(Value::DoubleValue(-0.0)))), 0x4cb9410d197cc3797d36297e47faa364);
        assert_eq!(body(Some(any(Value::DoubleValue(1.5)))), 0xb5720106abd5812a1cbd8a923739322d);
        assert_eq!(
            body(Some(any(Value::DoubleValue(-f64::NAN)))),
            0x9a12c8637f7a97cf6b34d22be10417c2
        );
        assert_eq!(
            body(Some(any(Value::BytesValue(b"hello".to_vec())))),
            0x9c23cdc7244fae3cca4154b93be3bee0
        );
        let values = vec![any(Value::IntValue(1)), text("1"), AnyValue { value: None }];
        let array = Value::ArrayValue(ArrayValue { values });
        assert_eq!(body(Some(any(array))), 0xb1270f223068e05312e8fa076f4f06c7);
    }

    #[test]
    fn maps_are_sorted_and_keep_the_first_of_equal_keys() {
        let map = |values| any(Value::KvlistValue(KeyValueList { values }));
        let inner = map(vec![
            KeyValue { key: "y".to_owned(), value: None, key_strindex: 0 },
            attribute("x", any(Value::IntValue(1))),
            attribute("x", any(Value::IntValue(2))),
        ]);
        let array =
            Value::ArrayValue(ArrayValue { values: vec![any(Value::BoolValue(true)), inner] });
        let outer = map(vec![
            attribute("é", any(Value::DoubleValue(0.0))),
            attribute("b", text("first")),
            attribute("a", any(array)),
            attribute("b", text("second")),
        ]);
        assert_eq!(body(Some(outer)), 0x85b8b7b902cd16ae6e73117bad0abb69);
        assert_eq!(body(Some(map(vec![]))), 0x3f0fb573b724b603700654c5f7970c09);
    }

    #[test]
    fn whole_records() {
        assert_eq!(record(LogRecord::default()), 0xd61979b574d53b25a8219c9b2b462f81);
        let full = LogRecord {
            time_unix_nano: 1_760_000_000_000_000_000,
            severity_number: 9,
            severity_text: "INFO".to_owned(),
            body: Some(text("hello")),
            attributes: vec![attribute("s", text("t")), attribute("n", any(Value::IntValue(1)))],
            flags: 1,
            trace_id: (0..16).collect(),
            span_id: (0..8).collect(),
            event_name: "login".to_owned(),
            // Not covered.
            observed_time_unix_nano: 1,
            dropped_attributes_count: 1,
        };
        assert_eq!(record(full), 0x9edaada75babf4b03cbf6680df3ea345);
    }
}

#[test]
fn an_attribute_is_looked_up_in_the_record_then_the_scope_then_the_resource() {
    let of = |level| {
        let own = ["record", "scope", "resource"].into_iter().take(level);
        own.map(|name| attribute(name, text(&level.to_string()))).collect::<Vec<_>>()
    };
    let record = LogRecord { attributes: of(1), ..Default::default() };
    let bytes = request(&of(3), &of(2), vec![record]);
    let (_, visits) =
        scan(&plan(&["record", "scope", "resource", "none"], false, false), &bytes).unwrap();
    let absent = header(Tag::Absent, 0).to_le_bytes().to_vec();
    assert_eq!(visits[0].0, [canonical("1"), canonical("2"), canonical("3"), absent]);
}

#[test]
fn a_scope_and_a_resource_are_read_wherever_they_stand_and_in_pieces() {
    let list = |name: &str| attribute(name, text(name)).encode_to_vec();
    let record =
        field(2, &LogRecord { body: Some(text("x")), ..Default::default() }.encode_to_vec());
    let scope_logs =
        [&field(1, &field(3, &list("a")))[..], &record, &field(1, &field(3, &list("b")))].concat();
    let resource_logs = [
        &field(1, &field(1, &list("c")))[..],
        &field(2, &scope_logs),
        &field(1, &field(1, &list("d"))),
    ]
    .concat();
    let (_, visits) =
        scan(&plan(&["a", "b", "c", "d"], false, false), &field(1, &resource_logs)).unwrap();
    assert_eq!(visits[0].0, ["a", "b", "c", "d"].map(canonical));
}

#[test]
fn a_key_without_a_value_is_empty_and_hides_the_levels_above() {
    let of_resource = [attribute("foo", text("bar"))];
    let attributes = vec![KeyValue { key: "foo".to_owned(), value: None, key_strindex: 0 }];
    let record = LogRecord { attributes, ..Default::default() };
    let (_, visits) =
        scan(&plan(&["foo"], false, false), &request(&of_resource, &[], vec![record])).unwrap();
    assert_eq!(visits[0].0, [header(Tag::Empty, 0).to_le_bytes()]);
}

#[test]
fn a_string_that_is_not_utf8_rejects_the_records_that_read_it() {
    let bad = raw_request(&[&field(5, &field(1, b"\xff")), &field(3, b"\xff"), b""]);
    let rejected = |plan: &Plan| {
        let (scan, visits) = scan(plan, &bad).unwrap();
        assert_eq!(scan.accepted, visits.len() as u64);
        assert_eq!(scan.rejected.total(), scan.rejected.count(RejectReason::InvalidUtf8));
        (scan.accepted, scan.rejected.message().map(str::to_owned))
    };
    assert_eq!(rejected(&plan(&["foo"], false, false)), (3, None));
    let message = "record 1, body: a string is not valid UTF-8".to_owned();
    assert_eq!(rejected(&plan(&[], true, false)), (2, Some(message)));
    let message = "record 1, some field: a string is not valid UTF-8".to_owned();
    assert_eq!(rejected(&plan(&[], false, true)), (1, Some(message)));
}

#[test]
fn a_bad_attribute_of_a_resource_rejects_only_the_records_that_inherit_it() {
    let bad = field(1, &field(1, &[&field(1, b"foo")[..], &field(2, &field(1, b"\xff"))].concat()));
    let own = field(6, &attribute("foo", text("bar")).encode_to_vec());
    let scope_logs = field(2, &[&field(2, b"")[..], &field(2, &own), &field(2, b"")].concat());
    let bytes = field(1, &[bad, scope_logs].concat());
    let (scan, visits) = scan(&plan(&["foo"], false, false), &bytes).unwrap();
    assert_eq!((scan.accepted, scan.rejected.total()), (1, 2));
    assert_eq!(
        scan.rejected.message(),
        Some("record 1, attribute foo: a string is not valid UTF-8")
    );
    assert_eq!(visits[0].0, [canonical("bar")]);
}

#[test]
fn a_record_nested_too_deep_is_rejected_and_the_next_is_read() {
    let good = field(5, &nested(NESTING_MAX));
    for depth in [NESTING_MAX + 1, 10_000] {
        let bytes = raw_request(&[&good, &field(5, &nested(depth)), &good]);
        let (scan, _) = scan(&plan(&[], true, true), &bytes).unwrap();
        assert_eq!(
            (scan.accepted, scan.rejected.count(RejectReason::NestedTooDeep)),
            (2, 1),
            "{depth}"
        );
    }
}

#[test]
fn a_length_beyond_the_request_is_undecodable_on_every_level() {
    let bomb = |levels: &[u8]| {
        let huge = [&[0x0a][..], &[0xff; 9], &[0x01]].concat();
        levels.iter().fold(huge, |inner, number| field(*number, &inner))
    };
    // ExportLogsServiceRequest, then ScopeLogs, LogRecord, KeyValue, AnyValue.
    for levels in
        [&[][..], &[1], &[2, 1], &[2, 2, 1], &[6, 2, 2, 1], &[5, 2, 2, 1], &[1, 5, 5, 2, 2, 1]]
    {
        let scanned = scan(&plan(&["foo"], true, true), &bomb(levels));
        assert!(matches!(scanned, Err(Undecodable::Truncated)), "{levels:?}: {scanned:?}");
    }
}

#[test]
fn a_known_field_of_the_wrong_wire_type_is_undecodable_wherever_it_is_read() {
    let refused = |bytes: &[u8], name: &'static str, number: u32| {
        let scanned = scan(&plan(&["foo"], true, true), bytes).map(|(scan, _)| scan);
        assert_eq!(scanned, Err(Undecodable::WireType { message: name, field: number }));
    };
    let varint = |number: u8| vec![number << 3, 1];
    refused(&varint(1), "ExportLogsServiceRequest", 1);
    refused(&field(1, &varint(2)), "ResourceLogs", 2);
    refused(&field(1, &field(2, &varint(3))), "ScopeLogs", 3);
    for number in [1, 3, 5, 6, 8, 9, 10, 11, 12] {
        refused(&raw_request(&[&varint(number)]), "LogRecord", number.into());
    }
    for number in [2, 7] {
        refused(&raw_request(&[&field(number, b"")]), "LogRecord", number.into());
    }
    refused(&raw_request(&[&field(6, &varint(1))]), "KeyValue", 1);
    for number in [1, 4, 5, 6, 7] {
        refused(&raw_body(&varint(number)), "AnyValue", number.into());
    }
    for number in [2, 3, 8] {
        refused(&raw_body(&field(number, b"")), "AnyValue", number.into());
    }
}

#[test]
fn a_request_of_tiny_values_cannot_make_the_scratch_grow_without_bound() {
    let plan = plan(&["foo"], true, true);
    let mut scanner = Scanner::new(key());
    let lists = [field(5, &[0x0a, 0x00].repeat(4 << 20)), field(6, &[0x0a, 0x00].repeat(4 << 20))];
    for list in lists {
        let bytes = raw_body(&list);
        let mut walk = Walk::new(key(), &plan, &mut scanner.scratch, bytes.len());
        walk.request(&bytes, &mut |_| {}).unwrap();
        assert_eq!(walk.scan.rejected.count(RejectReason::TooManyElements), 1);
        let used = walk.scratch.capacity()
            + walk.entries.capacity() * size_of::<attributes::KeyValue<'_>>();
        // A vector doubles when it is full.
        assert!(
            used <= 2 * (2 * bytes.len() + SCRATCH_BYTES_MIN),
            "{used} bytes for {}",
            bytes.len()
        );
        scanner.scan(&plan, &bytes, &mut |_| {}).unwrap();
        assert!(scanner.scratch.capacity() <= SCRATCH_BYTES_KEPT);
    }
}

/// Each of these would take hours if pieces were read again for every piece.
#[test]
fn a_message_in_a_million_pieces_takes_no_longer_than_its_size() {
    const PIECES: usize = 1 << 20;
    let plan = plan(&["foo"], true, true);
    let accepted = |bytes: &[u8]| scan(&plan, bytes).unwrap().0.accepted;
    // The body, an array in it, the value of an attribute, the scope, the resource.
    assert_eq!(accepted(&raw_request(&[&field(5, &field(5, b"")).repeat(PIECES)])), 1);
    assert_eq!(accepted(&raw_body(&field(5, b"").repeat(PIECES))), 1);
    let value = [&field(1, b"foo")[..], &field(2, &field(6, b"")).repeat(PIECES)].concat();
    assert_eq!(accepted(&raw_request(&[&field(6, &value)])), 1);
    let late_scope = [&field(2, b"").repeat(PIECES)[..], &field(1, b"").repeat(PIECES)].concat();
    assert_eq!(accepted(&field(1, &field(2, &late_scope))), PIECES as u64);
    assert_eq!(
        accepted(&field(
            1,
            &[&field(2, b"").repeat(PIECES)[..], &field(1, b"").repeat(PIECES)].concat()
        )),
        0
    );
    // A key given again and again, in a map that has to be sorted.
    let entry = field(1, &field(1, b"k").repeat(PIECES));
    let map = [&entry[..], &field(1, &field(1, b"a")).repeat(1 << 10)].concat();
    assert_eq!(accepted(&raw_body(&field(6, &map))), 1);
}

#[test]
fn more_attributes_than_fit_in_the_small_array_are_told_too() {
    let names: Vec<String> = (0..=FEW_ATTRIBUTES).map(|index| format!("name{index}")).collect();
    let attributes = names.iter().map(|name| attribute(name, any(Value::IntValue(1)))).collect();
    let bytes = request(&[], &[], vec![LogRecord { attributes, ..Default::default() }]);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (_, visits) = scan(&plan(&names, false, false), &bytes).unwrap();
    let one = [4, 8, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(visits[0].0, vec![one; FEW_ATTRIBUTES + 1]);
}

#[test]
fn what_exporters_write_takes_the_short_paths() {
    let record = LogRecord {
        time_unix_nano: 1,
        observed_time_unix_nano: 2,
        severity_number: 9,
        severity_text: "INFO".to_owned(),
        body: Some(text(&"x".repeat(1000))),
        attributes: vec![attribute("foo", any(Value::IntValue(1))), attribute("bar", text("baz"))],
        dropped_attributes_count: 1,
        flags: 1,
        trace_id: vec![1; 16],
        span_id: vec![1; 8],
        event_name: "login".to_owned(),
    };
    let names = [Box::from(*b"foo"), Box::from(*b"qux")];
    let bytes = record.encode_to_vec();
    assert_eq!(Parts::short_path_is_right(&bytes, &names), Some(Ok(true)));
    // A body in two pieces is another matter, and so is an unknown field.
    for other in [field(5, &[]), field(13, &[])] {
        assert_eq!(Parts::short_path_is_right(&[&bytes[..], &other].concat(), &names), None);
    }
}
