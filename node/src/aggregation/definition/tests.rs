use super::*;
use crate::checkpoint::facts::aggregations::Takes;

fn parse(json: &str) -> Result<Definition, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

fn named(name: &str) -> String {
    format!(r#"{{"name":"{name}","type":"DistinctLogs","distinctLogs":{{"attribute":"foo"}}}}"#)
}

#[test]
fn what_is_left_out_is_a_count_of_bodies_over_ten_seconds() {
    let Kind::DistinctLogs(distinct) = parse(&named("by-foo")).unwrap().kind else {
        panic!("another kind")
    };
    assert_eq!(distinct.attribute, "foo");
    assert_eq!(distinct.unique, Unique::Body);
    assert_eq!(distinct.window.seconds(), 10);
}

#[test]
fn a_definition_is_written_as_it_was_read() {
    let json = r#"{"name":"by-foo","type":"DistinctLogs","distinctLogs":{"attribute":"foo","unique":"Record","windowSeconds":60}}"#;
    let definition = parse(json).unwrap();
    assert_eq!(serde_json::to_string(&definition).unwrap(), json);
}

#[test]
fn a_name_is_a_dns_label_that_starts_with_a_letter() {
    let longest = "a".repeat(63);
    for name in ["a", "a1", "by-foo", "a--b", &longest] {
        assert!(parse(&named(name)).is_ok(), "{name}");
    }
    let too_long = "a".repeat(64);
    for name in ["", "1a", "-a", "a-", "By-foo", "by_foo", "by.foo", "bär", &too_long] {
        let error = parse(&named(name)).unwrap_err();
        assert!(error.contains("lower-case letters"), "{name}: {error}");
    }
}

#[test]
fn a_window_has_from_one_second_to_a_day() {
    for (seconds, valid) in
        [(0, false), (1, true), (86_400, true), (86_401, false), (u64::MAX, false)]
    {
        assert_eq!(WindowLength::try_from(seconds).is_ok(), valid, "{seconds}");
    }
    assert!(WindowLength::try_from((1 << 32) + 1).is_err(), "no cut to 32 bits");
}

#[test]
fn the_member_has_to_match_the_type() {
    let error = parse(r#"{"name":"by-foo","type":"DistinctLogs"}"#).unwrap_err();
    assert!(error.contains(r#"needs the member "distinctLogs""#), "{error}");
    let error = parse(r#"{"name":"files","type":"LogFiles","distinctLogs":{"attribute":"a"}}"#);
    assert!(error.unwrap_err().contains(r#"needs the member "logFiles""#));
    let both = r#"{"name":"a","type":"LogFiles","logFiles":{},"distinctLogs":{"attribute":"a"}}"#;
    assert!(parse(both).unwrap_err().contains("and no other"));
}

fn written_files(member: &str) -> String {
    format!(r#"{{"name":"files","type":"LogFiles","logFiles":{member}}}"#)
}

fn files(member: &str) -> Result<LogFiles, String> {
    match parse(&written_files(member))?.kind {
        Kind::LogFiles(files) => Ok(files),
        other => panic!("{} is another kind", other.name()),
    }
}

#[test]
fn files_are_rebuilt_with_a_checkpoint_every_second_to_every_hour() {
    assert_eq!(files("{}").unwrap().checkpoint.seconds(), 10);
    for (seconds, valid) in [(0, false), (1, true), (3600, true), (3601, false)] {
        let member = format!(r#"{{"checkpointSeconds":{seconds}}}"#);
        assert_eq!(files(&member).is_ok(), valid, "{seconds}");
    }
}

#[test]
fn files_are_kept_for_ever_in_one_part_as_they_are_if_nothing_is_said() {
    for member in ["{}", r#"{"compression":"None"}"#] {
        let found = files(member).unwrap();
        let wanted = (None, None, Compression::None);
        assert_eq!((found.retention, found.part, found.compression), wanted, "{member}");
        let written = serde_json::to_string(&parse(&written_files(member)).unwrap()).unwrap();
        assert_eq!(written, written_files(r#"{"checkpointSeconds":10}"#), "{member}");
    }
}

#[test]
fn what_is_said_of_files_is_written_as_it_was_read() {
    let member = r#"{"checkpointSeconds":60,"retentionSeconds":604800,"partBytes":67108864,"compression":"Zstd"}"#;
    let found = files(member).unwrap();
    assert_eq!(found.retention.map(Retention::seconds), Some(604_800));
    assert_eq!(found.part.map(PartLength::bytes), Some(64 << 20));
    assert_eq!(found.compression, Compression::Zstd);
    let json = written_files(member);
    assert_eq!(serde_json::to_string(&parse(&json).unwrap()).unwrap(), json);
}

#[test]
fn files_are_kept_from_one_second_to_ten_years() {
    for (seconds, valid) in
        [(0, false), (1, true), (315_360_000, true), (315_360_001, false), (u64::MAX, false)]
    {
        let error = files(&format!(r#"{{"retentionSeconds":{seconds}}}"#)).err();
        assert_eq!(error.is_none(), valid, "{seconds}");
        assert!(error.is_none_or(|it| it.contains("1 to 315360000")), "{seconds}");
    }
    assert!(Retention::try_from((1 << 32) + 1).is_err(), "no cut to 32 bits");
}

#[test]
fn a_part_has_from_a_kib_to_a_tib() {
    for (bytes, valid) in [
        (0, false),
        ((1 << 10) - 1, false),
        (1 << 10, true),
        (1_u64 << 40, true),
        ((1_u64 << 40) + 1, false),
    ] {
        let error = files(&format!(r#"{{"partBytes":{bytes}}}"#)).err();
        assert_eq!(error.is_none(), valid, "{bytes}");
        assert!(error.is_none_or(|it| it.contains("1024 (1 KiB)")), "{bytes}");
    }
}

#[test]
fn only_files_of_parts_are_compressed() {
    let error = files(r#"{"compression":"Zstd","retentionSeconds":60}"#).unwrap_err();
    assert!(error.contains("set partBytes, or leave compression out"), "{error}");
    assert!(files(r#"{"compression":"Zstd","partBytes":1048576}"#).is_ok());
    assert!(files(r#"{"compression":"None","partBytes":1048576}"#).is_ok());
    assert!(files(r#"{"compression":"zstd","partBytes":1048576}"#).is_err());
}

#[test]
fn two_aggregations_that_rebuild_files_are_refused() {
    let files = |name| parse(&format!(r#"{{"name":"{name}","type":"LogFiles","logFiles":{{}}}}"#));
    let list = [files("one").unwrap(), parse(&named("by-foo")).unwrap(), files("other").unwrap()];
    assert!(Definition::check_list(&list[..2]).is_ok());
    let error = Definition::check_list(&list).unwrap_err().to_string();
    assert!(error.contains("\"one\"") && error.contains("\"other\""), "{error}");
}

#[test]
fn an_unknown_type_field_or_choice_is_named_in_the_error() {
    for (json, word) in [
        (r#"{"name":"a","type":"Distinct"}"#, "Distinct"),
        (r#"{"name":"a","type":"DistinctLogs","counters":{}}"#, "counters"),
        (
            r#"{"name":"a","type":"DistinctLogs","distinctLogs":{"attribute":"b","window":1}}"#,
            "window",
        ),
        (
            r#"{"name":"a","type":"DistinctLogs","distinctLogs":{"attribute":"b","unique":"body"}}"#,
            "body",
        ),
        (r#"{"name":"a","type":"DistinctLogs","distinctLogs":{}}"#, "attribute"),
        (r#"{"name":"a","type":"DistinctLogs","distinctLogs":{"attribute":""}}"#, "attribute"),
    ] {
        let error = parse(json).unwrap_err();
        assert!(error.contains(word), "{json}: {error}");
    }
}

#[test]
fn two_aggregations_with_one_name_are_refused() {
    let one = parse(&named("by-foo")).unwrap();
    let other = parse(&named("by-bar")).unwrap();
    assert!(Definition::check_list(&[one.clone(), other.clone()]).is_ok());
    let error = Definition::check_list(&[one.clone(), other, one]).unwrap_err();
    assert!(error.to_string().contains("by-foo"), "{error}");
}

#[test]
fn the_name_made_from_an_attribute_is_valid() {
    for (attribute, name) in [
        ("service.name", "by-service-name"),
        ("K8s.Pod", "by-k8s-pod"),
        ("größe.", "by-gr--e"),
        ("...", "by"),
        (&"x".repeat(99), &format!("by-{}", "x".repeat(60))),
    ] {
        let made = AggregationName::by_attribute(attribute);
        assert_eq!(made.as_str(), name);
        assert!(AggregationName::try_from(made.0).is_ok());
    }
}

#[test]
fn the_facts_know_who_takes_chunks() {
    let takes = |json: &str| {
        let definition = parse(json).unwrap();
        Takes::of_definition(&serde_json::to_value(definition).unwrap())
    };
    assert_eq!(takes(&named("by-foo")), Takes::Records);
    assert_eq!(takes(r#"{"name":"files","type":"LogFiles","logFiles":{}}"#), Takes::Chunks);
}
