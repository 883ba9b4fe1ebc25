use std::thread;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;

use super::*;

fn request(json: &str) -> ExportLogsServiceRequest {
    let transcoded = to_protobuf(json.as_bytes()).unwrap();
    ExportLogsServiceRequest::decode(&transcoded.request[..]).unwrap()
}

/// The record with these members.
fn record(members: &str) -> LogRecord {
    let json =
        format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{{members}}}]}}]}}]}}"#);
    request(&json).resource_logs[0].scope_logs[0].log_records[0].clone()
}

/// The body with these members; `None` is an AnyValue without a value.
fn body(members: &str) -> Option<Value> {
    record(&format!(r#""body":{{{members}}}"#)).body.unwrap().value
}

/// Why a record with these members is refused.
fn refusal(members: &str) -> String {
    let json =
        format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{{members}}}]}}]}}]}}"#);
    to_protobuf(json.as_bytes()).unwrap_err().to_string()
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// `{"arrayValue":..}` around itself, `depth` AnyValues in all.
fn nested_body(depth: usize) -> String {
    let outer = depth - 1;
    format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{}{{"intValue":1}}{}}}]}}]}}]}}"#,
        r#"{"arrayValue":{"values":["#.repeat(outer),
        "]}}".repeat(outer)
    )
}

#[test]
fn a_whole_request_keeps_every_field() {
    let request = request(
        r#" {"resourceLogs": [{
              "resource": {
                "attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}],
                "droppedAttributesCount": 1,
                "entityRefs": [{"schemaUrl": "s", "type": "service", "idKeys": ["a", "b"],
                                "descriptionKeys": ["c"]}]
              },
              "scopeLogs": [{
                "scope": {"name": "lib", "version": "1", "droppedAttributesCount": 2,
                          "attributes": [{"key": "k", "value": {"boolValue": true}}]},
                "logRecords": [{
                  "timeUnixNano": "1544712660300000000",
                  "observedTimeUnixNano": 1544712660300000001,
                  "severityNumber": 10, "severityText": "Information",
                  "body": {"stringValue": "Example \"log\""},
                  "attributes": [{"key": "d", "value": {"doubleValue": 637.704}}],
                  "droppedAttributesCount": 3, "flags": 1,
                  "traceId": "5B8EFFF798038103D269B633813FC60C",
                  "spanId": "eee19b7ec3c1b174", "eventName": "event"
                }],
                "schemaUrl": "scope"
              }],
              "schemaUrl": "resource"
            }]} "#,
    );

    let resource_logs = &request.resource_logs[0];
    let resource = resource_logs.resource.as_ref().unwrap();
    assert_eq!(
        resource.attributes,
        [attribute("service.name", Value::StringValue("shop".to_owned()))]
    );
    assert_eq!(resource.dropped_attributes_count, 1);
    let entity = &resource.entity_refs[0];
    assert_eq!((entity.schema_url.as_str(), entity.r#type.as_str()), ("s", "service"));
    assert_eq!(entity.id_keys, ["a", "b"]);
    assert_eq!(entity.description_keys, ["c"]);
    assert_eq!(resource_logs.schema_url, "resource");

    let scope_logs = &resource_logs.scope_logs[0];
    let scope = scope_logs.scope.as_ref().unwrap();
    assert_eq!((scope.name.as_str(), scope.version.as_str()), ("lib", "1"));
    assert_eq!(scope.attributes, [attribute("k", Value::BoolValue(true))]);
    assert_eq!(scope.dropped_attributes_count, 2);
    assert_eq!(scope_logs.schema_url, "scope");

    let expected = LogRecord {
        time_unix_nano: 1_544_712_660_300_000_000,
        observed_time_unix_nano: 1_544_712_660_300_000_001,
        severity_number: 10,
        severity_text: "Information".to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(r#"Example "log""#.to_owned())) }),
        attributes: vec![attribute("d", Value::DoubleValue(637.704))],
        dropped_attributes_count: 3,
        flags: 1,
        trace_id: vec![
            0x5b, 0x8e, 0xff, 0xf7, 0x98, 0x03, 0x81, 0x03, 0xd2, 0x69, 0xb6, 0x33, 0x81, 0x3f,
            0xc6, 0x0c,
        ],
        span_id: vec![0xee, 0xe1, 0x9b, 0x7e, 0xc3, 0xc1, 0xb1, 0x74],
        event_name: "event".to_owned(),
    };
    assert_eq!(scope_logs.log_records, [expected]);
}

#[test]
fn a_fields_bytes_are_the_wire_format() {
    let transcoded = to_protobuf(br#"{"resourceLogs":[{"schemaUrl":"ab"},{}]}"#).unwrap();
    assert_eq!(transcoded.request, b"\x0a\x04\x1a\x02ab\x0a\x00");
}

#[test]
fn an_empty_object_is_an_empty_request() {
    for json in ["{}", " {\n} ", r#"{"resourceLogs":[]}"#, r#"{"resourceLogs":null}"#] {
        let transcoded = to_protobuf(json.as_bytes()).unwrap();
        assert_eq!(transcoded.request, b"", "{json}");
        assert!(transcoded.known, "{json}");
    }
}

#[test]
fn a_request_of_unknown_keys_alone_says_so() {
    let unknown = to_protobuf(br#"{"resourceSpans":[{"a":[1,{"b":null}]}],"x":1}"#).unwrap();
    assert!(!unknown.known);
    assert_eq!(unknown.request, b"");

    let mixed = to_protobuf(br#"{"x":1,"resourceLogs":[]}"#).unwrap();
    assert!(mixed.known);
}

#[test]
fn unknown_keys_are_ignored_at_every_level() {
    let request = request(
        r#"{"x":1,"resourceLogs":[{"x":[{}],"resource":{"x":"y","attributes":[{"x":0,"key":"k",
           "value":{"x":{"y":1},"intValue":1}}]},"scopeLogs":[{"x":null,"scope":{"x":1e999},
           "logRecords":[{"x":"\ud800","severityText":"t"}]}]}]}"#,
    );
    let resource_logs = &request.resource_logs[0];
    assert_eq!(
        resource_logs.resource.as_ref().unwrap().attributes,
        [attribute("k", Value::IntValue(1))]
    );
    assert_eq!(resource_logs.scope_logs[0].log_records[0].severity_text, "t");
}

#[test]
fn snake_case_keys_are_unknown() {
    assert!(!to_protobuf(br#"{"resource_logs":[{}]}"#).unwrap().known);
    assert_eq!(record(r#""severity_text":"t""#).severity_text, "");
    assert_eq!(body(r#""string_value":"t""#), None);
}

#[test]
fn null_under_a_key_is_no_key() {
    let record = record(
        r#""timeUnixNano":null,"severityNumber":null,"severityText":null,"body":null,
           "attributes":null,"flags":null,"traceId":null"#,
    );
    assert_eq!(record, LogRecord::default());
    assert_eq!(body(r#""stringValue":null"#), None);
    assert_eq!(
        body(r#""boolValue":null,"intValue":1,"arrayValue":null"#),
        Some(Value::IntValue(1))
    );
}

#[test]
fn null_as_an_element_is_refused() {
    for members in [r#""attributes":[null]"#, r#""body":{"arrayValue":{"values":[{},null]}}"#] {
        assert!(refusal(members).contains("null"), "{members}");
    }
    assert!(to_protobuf(br#"{"resourceLogs":[null]}"#).is_err());
}

#[test]
fn a_value_set_to_its_default_is_not_an_empty_value() {
    assert_eq!(body(""), None);
    assert_eq!(body(r#""stringValue":"""#), Some(Value::StringValue(String::new())));
    assert_eq!(body(r#""boolValue":false"#), Some(Value::BoolValue(false)));
    assert_eq!(body(r#""intValue":0"#), Some(Value::IntValue(0)));
    assert_eq!(body(r#""doubleValue":0"#), Some(Value::DoubleValue(0.0)));
    assert_eq!(body(r#""bytesValue":"""#), Some(Value::BytesValue(Vec::new())));
    for member in
        [r#""arrayValue":{}"#, r#""arrayValue":{"values":[]}"#, r#""arrayValue":{"values":null}"#]
    {
        let Some(Value::ArrayValue(array)) = body(member) else {
            panic!("{member} is an array");
        };
        assert_eq!(array.values, []);
    }
    assert!(matches!(
        body(r#""kvlistValue":{}"#),
        Some(Value::KvlistValue(map)) if map.values.is_empty()
    ));
}

#[test]
fn an_array_keeps_its_empty_values() {
    let Some(Value::ArrayValue(array)) = body(r#""arrayValue":{"values":[{},{"intValue":1},{}]}"#)
    else {
        panic!("an array");
    };
    let values: Vec<_> = array.values.into_iter().map(|value| value.value).collect();
    assert_eq!(values, [None, Some(Value::IntValue(1)), None]);
}

#[test]
fn two_different_members_of_a_value_are_refused() {
    let refusal = refusal(r#""body":{"stringValue":"a","intValue":1}"#);
    assert!(refusal.contains("AnyValue has both `stringValue` and `intValue`"), "{refusal}");
    assert!(refusal.contains("line 1 column"), "{refusal}");
}

#[test]
fn of_a_scalar_that_comes_twice_the_last_wins() {
    let record = record(r#""severityText":"a","flags":7,"severityText":"","flags":8"#);
    assert_eq!((record.severity_text.as_str(), record.flags), ("", 8));
    assert_eq!(body(r#""intValue":1,"intValue":2"#), Some(Value::IntValue(2)));
}

#[test]
fn arrays_and_objects_that_come_twice_are_merged() {
    let request = request(
        r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"a","value":{"intValue":1}}]},
             "resource":{"attributes":[{"key":"b","value":{"intValue":2}}],
                         "droppedAttributesCount":3}}],
            "resourceLogs":[{}]}"#,
    );
    assert_eq!(request.resource_logs.len(), 2);
    let resource = request.resource_logs[0].resource.as_ref().unwrap();
    assert_eq!(
        resource.attributes,
        [attribute("a", Value::IntValue(1)), attribute("b", Value::IntValue(2))]
    );
    assert_eq!(resource.dropped_attributes_count, 3);
}

#[test]
fn ids_are_hexadecimal_in_either_case() {
    let lower = record(r#""traceId":"5b8efff798038103d269b633813fc60c","spanId":"""#);
    let upper = record(r#""traceId":"5B8EFFF798038103D269B633813FC60C""#);
    assert_eq!(lower, upper);
    assert_eq!(lower.trace_id[..3], [0x5b, 0x8e, 0xff]);
    assert!(lower.span_id.is_empty());
}

#[test]
fn an_id_of_another_length_or_alphabet_is_refused() {
    for (members, why) in [
        (
            r#""traceId":"5b8efff798038103""#,
            "`traceId`: expected 32 hexadecimal digits, found 16 bytes",
        ),
        (
            r#""spanId":"eee19b7ec3c1b17""#,
            "`spanId`: expected 16 hexadecimal digits, found 15 bytes",
        ),
        (r#""spanId":"eee19b7ec3c1b17g""#, "`spanId`: expected hexadecimal digits"),
        (r#""spanId":"éééééééé""#, "`spanId`: expected hexadecimal digits"),
        (r#""spanId":7"#, "expected a string of 16 hexadecimal digits for `spanId`"),
    ] {
        let refusal = refusal(members);
        assert!(refusal.contains(why), "{members}: {refusal}");
    }
}

#[test]
fn bytes_are_base64_of_either_alphabet_padded_or_not() {
    for text in ["+/8=", "-_8=", "+/8", "-_8", "+/9"] {
        assert_eq!(
            body(&format!(r#""bytesValue":"{text}""#)),
            Some(Value::BytesValue(vec![0xfb, 0xff])),
            "{text}"
        );
    }
    for text in ["+_8=", "A", "AA=A", "AA A", "AA\\n"] {
        assert!(
            refusal(&format!(r#""body":{{"bytesValue":"{text}"}}"#)).contains("`bytesValue`"),
            "{text}"
        );
    }
}

#[test]
fn long_bytes_get_the_length_that_they_need() {
    for size in [94, 95, 96, 127, 128, 20_000] {
        let text = BASE64.encode(vec![7; size]);
        assert_eq!(
            body(&format!(r#""bytesValue":"{text}""#)),
            Some(Value::BytesValue(vec![7; size])),
            "{size}"
        );
    }
}

#[test]
fn integers_are_numbers_or_strings_within_their_range() {
    for number in ["-9223372036854775808", "9223372036854775807", "1e3", "-1.0", "0"] {
        let bare = body(&format!(r#""intValue":{number}"#));
        assert_eq!(bare, body(&format!(r#""intValue":"{number}""#)), "{number}");
    }
    assert_eq!(body(r#""intValue":"1e3""#), Some(Value::IntValue(1000)));
    assert_eq!(body(r#""intValue":-9223372036854775808"#), Some(Value::IntValue(i64::MIN)));
    assert_eq!(record(r#""timeUnixNano":18446744073709551615"#).time_unix_nano, u64::MAX);
    assert_eq!(record(r#""flags":"4294967295""#).flags, u32::MAX);
    for members in [
        r#""body":{"intValue":9223372036854775808}"#,
        r#""timeUnixNano":-1"#,
        r#""timeUnixNano":"18446744073709551616""#,
        r#""flags":4294967296"#,
        r#""droppedAttributesCount":-1"#,
        r#""severityNumber":2147483648"#,
    ] {
        assert!(refusal(members).contains("out of range"), "{members}");
    }
    for members in [
        r#""timeUnixNano":"""#,
        r#""timeUnixNano":true"#,
        r#""timeUnixNano":[1]"#,
        r#""timeUnixNano":{}"#,
    ] {
        assert!(refusal(members).contains("`timeUnixNano`: expected a number"), "{members}");
    }
    assert!(refusal(r#""flags":1.5"#).contains("`flags`: expected an integer, found a fraction"));
}

#[test]
fn doubles_are_numbers_or_strings_and_may_be_infinite_by_name() {
    for (json, double) in [
        ("0.1", 0.1),
        ("\"0.1\"", 0.1),
        ("1", 1.0),
        ("-1e-7", -1e-7),
        ("\"Infinity\"", f64::INFINITY),
        ("\"-Infinity\"", f64::NEG_INFINITY),
    ] {
        assert_eq!(
            body(&format!(r#""doubleValue":{json}"#)),
            Some(Value::DoubleValue(double)),
            "{json}"
        );
    }
    assert!(matches!(
        body(r#""doubleValue":"NaN""#),
        Some(Value::DoubleValue(double)) if double.is_nan()
    ));
    for json in ["NaN", "Infinity", "\"inf\"", "\"+1\"", "1e400", "true"] {
        refusal(&format!(r#""body":{{"doubleValue":{json}}}"#));
    }
}

#[test]
fn an_enum_is_an_integer_and_never_a_name() {
    assert_eq!(record(r#""severityNumber":9"#).severity_number, 9);
    assert_eq!(record(r#""severityNumber":-1"#).severity_number, -1);
    for json in ["\"SEVERITY_NUMBER_INFO\"", "\"9\"", "9.5", "true"] {
        assert!(
            refusal(&format!(r#""severityNumber":{json}"#)).contains("`severityNumber`"),
            "{json}"
        );
    }
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_what_was_expected_and_where() {
    for (json, why) in [
        (
            r#"{"resourceLogs":{}}"#,
            "invalid type: map, expected an array for `resourceLogs` at line 1",
        ),
        (
            r#"{"resourceLogs":[[]]}"#,
            "invalid type: sequence, expected an object (ResourceLogs) for `resourceLogs` at line 1",
        ),
        (
            "{\n  \"resourceLogs\": \"x\"}",
            "invalid type: string, expected an array for `resourceLogs` at line 2 column 21",
        ),
        (
            r#"{"resourceLogs":[{"schemaUrl":1}]}"#,
            "invalid type: integer `1`, expected a string for `schemaUrl` at line 1 column 31",
        ),
        (
            r#"{"resourceLogs":[{"schemaUrl":true}]}"#,
            "invalid type: boolean `true`, expected a string for `schemaUrl`",
        ),
        (
            r#"{"resourceLogs":[{"resource":{"entityRefs":[{"idKeys":"x"}]}}]}"#,
            "invalid type: string, expected an array for `idKeys`",
        ),
        (
            r#"{"resourceLogs":[{"resource":{"entityRefs":[{"idKeys":[["x"]]}]}}]}"#,
            "invalid type: sequence, expected a string for `idKeys`",
        ),
        (
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"boolValue":"true"}}]}]}]}"#,
            "invalid type: string, expected true or false for `boolValue`",
        ),
        (
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":"text"}]}]}]}"#,
            "invalid type: string, expected an object (AnyValue) for `body`",
        ),
    ] {
        let refusal = to_protobuf(json.as_bytes()).unwrap_err().to_string();
        assert!(refusal.contains(why), "{json}: {refusal}");
    }
}

#[test]
fn a_refusal_does_not_repeat_what_was_sent() {
    let long = "x".repeat(100_000);
    for json in [
        format!(r#""{long}""#),
        format!(r#"{{"resourceLogs":"{long}"}}"#),
        format!(r#"{{"resourceLogs":[{{"resource":"{long}"}}]}}"#),
        format!(r#"{{"resourceLogs":[{{"resource":{{"droppedAttributesCount":"{long}"}}}}]}}"#),
    ] {
        let refusal = to_protobuf(json.as_bytes()).unwrap_err().to_string();
        assert!(refusal.len() < 200, "{refusal}");
    }
}

#[test]
fn a_text_that_is_not_one_json_object_is_refused() {
    for json in [
        "",
        " ",
        "null",
        "[]",
        "1",
        "\"x\"",
        "true",
        "{",
        "{}}",
        "{} x",
        "{}{}",
        "{\"resourceLogs\"}",
        "{\"a\":1,}",
        "{'a':1}",
        "{\"a\":\"\n\"}",
        "{\"a\":01}",
        "{\"a\":NaN}",
        "{\"resourceLogs\":[{}",
        "{\"resourceLogs\":[{\"schemaUrl\":\"\\ud800\"}]}",
        "\u{feff}{}",
    ] {
        let refusal = to_protobuf(json.as_bytes()).unwrap_err().to_string();
        assert!(refusal.contains("line 1 column"), "{json}: {refusal}");
    }
}

#[test]
fn a_text_that_is_not_utf8_is_refused_even_where_it_would_be_skipped() {
    let refusal = to_protobuf(b"{\"unknown\":\"\xff\"}").unwrap_err();
    assert!(matches!(refusal, InvalidJson::NotUtf8 { at: 12 }));
    assert_eq!(refusal.to_string(), "the text is not UTF-8 from byte 12 on");
}

#[test]
fn values_may_nest_64_deep_and_no_deeper() {
    let transcoded = to_protobuf(nested_body(NESTING_MAX).as_bytes()).unwrap();
    // 63 arrays around `1`: prost refuses to read that deep, so the end must do.
    assert!(transcoded.request.ends_with(&[0x0a, 0x02, 0x18, 0x01]));

    let refusal = to_protobuf(nested_body(NESTING_MAX + 1).as_bytes()).unwrap_err();
    assert!(refusal.to_string().contains("values are nested more than 64 deep"), "{refusal}");
}

#[test]
fn no_nesting_overflows_a_small_stack() {
    let maps = |depth: usize| {
        format!(
            r#"{{"resourceLogs":[{{"resource":{{"attributes":[{{"value":{}{{}}{}}}]}}}}]}}"#,
            r#"{"kvlistValue":{"values":[{"value":"#.repeat(depth - 1),
            "}]}}".repeat(depth - 1)
        )
    };
    let unknown = |open: &str, close: &str| {
        format!(r#"{{"x":{}1{}}}"#, open.repeat(1_000_000), close.repeat(1_000_000))
    };
    let accepted =
        [nested_body(NESTING_MAX), maps(NESTING_MAX), unknown("[", "]"), unknown(r#"{"a":"#, "}")];
    let refused = [
        nested_body(10_000),
        maps(10_000),
        "[".repeat(10_000),
        r#"{"resourceLogs":"#.repeat(10_000),
        format!(
            r#"{{"resourceLogs":[{{"resource":{{"droppedAttributesCount":{}"#,
            "[".repeat(1_000_000)
        ),
    ];
    thread::Builder::new()
        .stack_size(1 << 20) // half of what a runtime's worker has
        .spawn(move || {
            for json in &accepted {
                to_protobuf(json.as_bytes()).unwrap();
            }
            for json in &refused {
                to_protobuf(json.as_bytes()).unwrap_err();
            }
        })
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn keys_and_strings_with_escapes_are_read() {
    let record = record(r#""severity\u0054ext":"\ud83d\ude00 \/\n""#);
    assert_eq!(record.severity_text, "😀 /\n");
}
