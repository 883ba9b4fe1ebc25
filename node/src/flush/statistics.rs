//! A window's counts as statistics carry them.

use sheaf_proto::statistics::{Other, ValueCount, WindowCounts, WindowSpan};

use crate::aggregation::definition::{Definition, Kind};
use crate::aggregation::distinct_logs::Counts;
use crate::event::time::Window;
use crate::event::value;

/// A window of which nothing was printed yet, and of which something may be missing.
pub fn statistics(definition: &Definition, window: Window, counts: Counts) -> WindowCounts {
    let Kind::DistinctLogs(distinct_logs) = &definition.kind;
    let values = counts.counts.into_iter().map(|(canonical, count)| {
        // The canonical bytes are ours; bytes that cannot be read are shown, not hidden.
        let (value, kind) = value::to_json(&canonical).unwrap_or_else(|error| {
            (serde_json::Value::String(error.to_string()), Some("malformed"))
        });
        ValueCount { value, kind: kind.map(str::to_owned), count }
    });
    WindowCounts {
        aggregation: definition.name.as_str().to_owned(),
        kind: "DistinctLogs".to_owned(),
        attribute: distinct_logs.attribute.clone(),
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
    }
}
