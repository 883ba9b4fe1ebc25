//! What JSON carries, as messages: the same figures under the same names.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;
use sheaf_proto::service::value::Value as Kind;
use sheaf_proto::{cluster, service, statistics};

/// A window as it was printed, or as far as it has got.
pub(super) fn window(window: statistics::WindowCounts) -> service::Window {
    service::Window {
        aggregation: window.aggregation,
        r#type: window.kind,
        attribute: window.attribute,
        start: Some(time(window.window.start)),
        end: Some(time(window.window.end)),
        complete: window.complete,
        waits_for: window.waits_for.map(waits_for),
        settled: window.settled,
        lost: window.lost.into_iter().map(lost).collect(),
        revision: window.revision,
        records: window.records,
        distinct: window.distinct,
        upper_bound: window.upper_bound,
        unknown: window.unknown,
        counts: window.counts.into_iter().map(value_count).collect(),
        other: Some(service::Other { values: window.other.values, count: window.other.count }),
        slots: window.slots,
    }
}

fn time(time: Timestamp) -> prost_types::Timestamp {
    // Before 1970 both count down from there, but a protobuf's nanoseconds count up.
    let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
    if nanos < 0 {
        return prost_types::Timestamp { seconds: seconds - 1, nanos: nanos + 1_000_000_000 };
    }
    prost_types::Timestamp { seconds, nanos }
}

fn waits_for(waits: statistics::WaitsFor) -> service::WaitsFor {
    let statistics::WaitsFor { slots, nodes, segments } = waits;
    service::WaitsFor { slots, nodes, segments }
}

fn lost(lost: statistics::Lost) -> service::Lost {
    service::Lost {
        node: lost.node,
        segments: lost.segments,
        slots: lost.slots,
        records: lost.records,
        from: Some(time(lost.from)),
        until: Some(time(lost.until)),
    }
}

fn value_count(counted: statistics::ValueCount) -> service::ValueCount {
    let value = value(counted.value, counted.kind.as_deref());
    service::ValueCount { value: Some(service::Value { value }), count: counted.count }
}

/// A value with the type that JSON, or the hint beside it, says; an empty one has none.
fn value(value: Value, hint: Option<&str>) -> Option<Kind> {
    match (value, hint) {
        (Value::Null, _) => None,
        (Value::String(text), Some("bytes")) => Some(match STANDARD.decode(&text) {
            Ok(bytes) => Kind::BytesValue(bytes.into()),
            // We wrote it; what cannot be read is shown, not hidden.
            Err(_) => Kind::StringValue(text),
        }),
        (Value::String(text), Some("double")) => Some(match text.as_str() {
            "Infinity" => Kind::DoubleValue(f64::INFINITY),
            "-Infinity" => Kind::DoubleValue(f64::NEG_INFINITY),
            _ => Kind::DoubleValue(f64::NAN),
        }),
        (Value::String(text), _) => Some(Kind::StringValue(text)),
        (Value::Bool(truth), _) => Some(Kind::BoolValue(truth)),
        (Value::Number(number), _) => match number.as_i64() {
            Some(whole) => Some(Kind::IntValue(whole)),
            None => number.as_f64().map(Kind::DoubleValue),
        },
        (value @ (Value::Array(_) | Value::Object(_)), _) => {
            Some(Kind::JsonValue(value.to_string()))
        }
    }
}

/// A ledger.
pub(super) fn ledger(ledger: statistics::Ledger) -> service::Ledger {
    let statistics::Ledger { received, accepted, rejected, aggregations, balanced } = ledger;
    let aggregations = aggregations.into_iter().map(account).collect();
    service::Ledger { received, accepted, rejected, aggregations, balanced }
}

fn account(account: statistics::Account) -> service::Account {
    service::Account {
        aggregation: account.aggregation,
        accepted: account.accepted,
        flushed: account.flushed,
        distinct: account.distinct,
        duplicate: account.duplicate,
        pending: account.pending,
        lost: account.lost,
        deduplicated: account.deduplicated,
    }
}

/// A cluster; what it does not have yet is empty or 0.
pub(super) fn cluster(cluster: cluster::Cluster) -> service::Cluster {
    service::Cluster {
        cluster: cluster.cluster.map(|id| id.to_string()).unwrap_or_default(),
        node: cluster.node.unwrap_or_default(),
        formed: cluster.formed,
        waiting: cluster.waiting,
        leader: cluster.leader.unwrap_or_default(),
        term: cluster.term,
        epoch: cluster.epoch,
        members: cluster.members.into_iter().map(member).collect(),
        segments: cluster.segments.into_iter().map(segment).collect(),
        missing: cluster.missing,
        slots: cluster.slots.unwrap_or_default().into(),
        unfolded: cluster.unfolded,
    }
}

fn member(member: cluster::Member) -> service::Member {
    use cluster::{MemberState, Role};
    let state = match member.state {
        MemberState::Joining => service::MemberState::Joining,
        MemberState::Active => service::MemberState::Active,
        MemberState::Draining => service::MemberState::Draining,
        MemberState::Drained => service::MemberState::Drained,
        MemberState::Forgotten => service::MemberState::Forgotten,
    };
    let role = match member.role {
        Role::Leader => service::Role::Leader,
        Role::Voter => service::Role::Voter,
        Role::Learner => service::Role::Learner,
        Role::None => service::Role::None,
    };
    service::Member {
        id: member.id,
        uuid: member.uuid.to_string(),
        address: member.address,
        zone: member.zone,
        state: state.into(),
        role: role.into(),
        reachable: member.reachable,
        slots: member.slots,
        owned: member.owned,
        segments: member.segments,
        lag: member.lag,
        clock_offset_micros: member.clock_offset_micros,
        filling: member.filling,
    }
}

fn segment(segment: cluster::Segment) -> service::Segment {
    use cluster::SegmentState;
    let state = match segment.state {
        SegmentState::Open => service::SegmentState::Open,
        SegmentState::Sealing => service::SegmentState::Sealing,
        SegmentState::Sealed => service::SegmentState::Sealed,
    };
    service::Segment {
        id: segment.id,
        writer: segment.writer,
        copies: segment.copies,
        state: state.into(),
        entries: segment.entries,
        trimmed: segment.trimmed,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_has_the_type_that_json_or_its_hint_says() {
        for (json, hint, kind) in [
            (json!("7"), None, Kind::StringValue("7".into())),
            (json!("NaN"), None, Kind::StringValue("NaN".into())),
            (json!(true), None, Kind::BoolValue(true)),
            (json!(i64::MIN), None, Kind::IntValue(i64::MIN)),
            (json!(i64::MAX), None, Kind::IntValue(i64::MAX)),
            (json!(2.0), None, Kind::DoubleValue(2.0)),
            (json!("-Infinity"), Some("double"), Kind::DoubleValue(f64::NEG_INFINITY)),
            (json!("Infinity"), Some("double"), Kind::DoubleValue(f64::INFINITY)),
            (json!("AP8="), Some("bytes"), Kind::BytesValue(vec![0, 255].into())),
            (json!(["a", 1]), None, Kind::JsonValue(r#"["a",1]"#.into())),
        ] {
            assert!(value(json.clone(), hint) == Some(kind), "{json} {hint:?}");
        }
        assert!(value(Value::Null, None).is_none());
        let nan = value(json!("NaN"), Some("double"));
        assert!(matches!(nan, Some(Kind::DoubleValue(number)) if number.is_nan()));
    }

    #[test]
    fn a_time_before_1970_has_nanoseconds_that_count_up() {
        let message = |time: &str| super::time(time.parse().unwrap());
        let before = message("1969-12-31T23:59:59.25Z");
        assert_eq!((before.seconds, before.nanos), (-1, 250_000_000));
        let after = message("1970-01-01T00:00:01.5Z");
        assert_eq!((after.seconds, after.nanos), (1, 500_000_000));
    }
}
