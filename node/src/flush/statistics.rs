//! A window's counts as statistics carry them.

use sheaf_proto::statistics::{Other, ValueCount, WindowCounts, WindowSpan};

use crate::aggregation::definition::Definition;
use crate::aggregation::distinct_logs::Counts;
use crate::event::time::Window;
use crate::event::value;

/// A window of which nothing was printed yet, and of which something may be missing.
pub fn statistics(definition: &Definition, window: Window, counts: Counts) -> WindowCounts {
    let values = counts.counts.into_iter().map(|(canonical, count)| {
        // The canonical bytes are ours; bytes that cannot be read are shown, not hidden.
        let (value, kind) = value::to_json(&canonical).unwrap_or_else(|error| {
            (serde_json::Value::String(error.to_string()), Some("malformed"))
        });
        ValueCount { value, kind: kind.map(str::to_owned), count }
    });
    WindowCounts {
        aggregation: definition.name.as_str().to_owned(),
        kind: definition.kind.name().to_owned(),
        attribute: definition.kind.attribute().unwrap_or_default().to_owned(),
        window: WindowSpan { start: window.start.timestamp(), end: window.end.timestamp() },
        complete: false,
        waits_for: None,
        settled: false,
        lost: Vec::new(),
        revision: 0,
        records: counts.records,
        distinct: counts.distinct,
        upper_bound: counts.upper_bound,
        unknown: counts.unknown,
        counts: values.collect(),
        other: Other { values: counts.other_values, count: counts.other_count },
        slots: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::value::{put_bytes, put_int};
    use crate::flush::example::{definition, window};

    #[test]
    fn counts_are_told_with_their_values_as_json() {
        let (mut int, mut bytes) = (Vec::new(), Vec::new());
        put_int(7, &mut int);
        put_bytes(b"x", &mut bytes);
        let counts = vec![(int, 3), (bytes, 2), (vec![1, 2, 3], 1)];
        let (records, distinct, unknown, other_values, other_count) = (20, 10, 1, 2, 3);
        let upper_bound = true;
        let counts =
            Counts { records, distinct, unknown, counts, other_values, other_count, upper_bound };
        let definition = serde_json::from_value(definition("by-foo", 10)).unwrap();
        let told = serde_json::to_value(statistics(&definition, window(0, 10), counts)).unwrap();
        let malformed = &told["counts"][2];
        assert_eq!((&malformed["type"], &malformed["count"]), (&json!("malformed"), &json!(1)));
        let mut expected = json!({
            "aggregation": "by-foo", "type": "DistinctLogs", "attribute": "foo",
            "window": {"start": "1970-01-01T00:00:00Z", "end": "1970-01-01T00:00:10Z"},
            "complete": false, "revision": 0, "records": 20, "distinct": 10,
            "upper_bound": true, "unknown": 1,
            "counts": [
                {"value": 7, "count": 3},
                {"value": "eA==", "type": "bytes", "count": 2},
            ],
            "other": {"values": 2, "count": 3},
        });
        expected["counts"].as_array_mut().unwrap().push(malformed.clone());
        assert_eq!(told, expected);
    }
}
