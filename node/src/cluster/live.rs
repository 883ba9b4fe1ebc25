//! What nodes have counted and not flushed yet, added up.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::{Deserialize, Serialize};
use sheaf_proto::statistics::{Other, ValueCount, WindowCounts};

use crate::flush::folding::{Folding, Pending};
use crate::flush::statistics::statistics;

/// Values of each window that a node tells of. If it has more, sums over nodes may lack
/// some of a listed value.
pub const VALUES_MAX: usize = 10_000;

/// What one node has at the moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Live {
    /// Records that it has accepted, since its journal began.
    pub accepted: u64,
    /// Records that it has refused for good, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// What of its slots is not flushed, if it has folded up to the newest cut.
    pub pending: Option<Pending>,
    /// Its part of the open windows.
    pub windows: Vec<WindowCounts>,
}

/// A node's part of the open windows.
pub async fn windows(folding: &Folding, limit: usize) -> Vec<WindowCounts> {
    let current = folding.current(limit).await.into_iter();
    let counted =
        current.map(|open| statistics(&open.aggregation.definition, open.window, open.counts));
    counted.collect()
}

/// Adds up the parts of windows, and lists at most `limit` values of each.
pub fn add_up(parts: impl IntoIterator<Item = WindowCounts>, limit: usize) -> Vec<WindowCounts> {
    let mut windows: BTreeMap<_, WindowCounts> = BTreeMap::new();
    for part in parts {
        match windows.entry((part.aggregation.clone(), part.window.start)) {
            Entry::Vacant(first) => drop(first.insert(part)),
            Entry::Occupied(mut sum) => add(sum.get_mut(), part),
        }
    }
    let mut sums: Vec<_> = windows.into_values().collect();
    sums.iter_mut().for_each(|window| shorten(window, limit));
    sums
}

fn add(sum: &mut WindowCounts, part: WindowCounts) {
    let more = sum.other.values > 0 || part.other.values > 0;
    sum.records += part.records;
    sum.distinct += part.distinct;
    sum.unknown += part.unknown;
    sum.other.values += part.other.values;
    sum.other.count += part.other.count;
    sum.upper_bound |= part.upper_bound | more;
    // JSON values have no order, but their texts do.
    let key = |count: &ValueCount| (count.value.to_string(), count.kind.clone());
    let mut values: BTreeMap<_, _> =
        sum.counts.drain(..).map(|count| (key(&count), count)).collect();
    for count in part.counts {
        match values.entry(key(&count)) {
            Entry::Vacant(new) => drop(new.insert(count)),
            Entry::Occupied(mut known) => known.get_mut().count += count.count,
        }
    }
    sum.counts = values.into_values().collect();
}

fn shorten(window: &mut WindowCounts, limit: usize) {
    window.counts.sort_by(|one, other| {
        let by_text = || one.value.to_string().cmp(&other.value.to_string());
        other.count.cmp(&one.count).then_with(by_text)
    });
    let rest = window.counts.split_off(limit.min(window.counts.len()));
    window.other = Other {
        values: window.other.values + rest.len() as u64,
        count: window.other.count + rest.iter().map(|count| count.count).sum::<u64>(),
    };
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sheaf_proto::statistics::WindowSpan;

    use super::*;
    use crate::flush::example::at;

    /// A part of the window that begins then, with these values.
    fn part(name: &str, start: u64, values: &[(Value, u64)], other: u64) -> WindowCounts {
        let count = |(value, count): &(Value, u64)| {
            let (value, count) = (value.clone(), *count);
            ValueCount { value, kind: None, count }
        };
        let listed: u64 = values.iter().map(|value| value.1).sum();
        WindowCounts {
            aggregation: name.to_owned(),
            kind: "DistinctLogs".to_owned(),
            attribute: "foo".to_owned(),
            window: WindowSpan { start: at(start).timestamp(), end: at(start + 10).timestamp() },
            complete: false,
            waits_for: None,
            settled: false,
            lost: Vec::new(),
            revision: 0,
            records: 2 * (listed + other) + 1,
            distinct: listed + other + 1,
            upper_bound: false,
            unknown: 1,
            counts: values.iter().map(count).collect(),
            other: Other { values: other, count: other },
            slots: None,
        }
    }

    fn listed(window: &WindowCounts) -> Vec<(Value, u64)> {
        window.counts.iter().map(|count| (count.value.clone(), count.count)).collect()
    }

    #[test]
    fn parts_of_a_window_add_up_and_those_of_others_stay_apart() {
        let parts = [
            part("by-foo", 0, &[(json!("a"), 3), (json!("b"), 2)], 0),
            part("by-foo", 10, &[(json!("a"), 1)], 0),
            part("by-foo", 0, &[(json!("b"), 4), (json!("c"), 1)], 0),
            part("by-bar", 0, &[(json!("a"), 1)], 0),
        ];
        let sums = add_up(parts, 9);
        let names: Vec<_> =
            sums.iter().map(|sum| (sum.aggregation.as_str(), sum.distinct)).collect();
        assert_eq!(names, [("by-bar", 2), ("by-foo", 12), ("by-foo", 2)]);
        assert_eq!(listed(&sums[1]), [(json!("b"), 6), (json!("a"), 3), (json!("c"), 1)]);
        assert_eq!((sums[1].records, sums[1].unknown, sums[1].upper_bound), (22, 2, false));
    }

    #[test]
    fn a_number_is_not_its_text_and_bytes_are_no_string() {
        let bytes = |mut part: WindowCounts| {
            part.counts[0].kind = Some("bytes".to_owned());
            part
        };
        let one = part("by-foo", 0, &[(json!("1"), 1)], 0);
        let parts = [one.clone(), part("by-foo", 0, &[(json!(1), 2)], 0), bytes(one.clone()), one];
        let [sum] = <[_; 1]>::try_from(add_up(parts, 9)).unwrap();
        let counts: Vec<_> = sum.counts.iter().map(|count| (count.count, &count.kind)).collect();
        assert_eq!(counts.len(), 3, "{counts:?}");
        assert_eq!(sum.counts.iter().map(|count| count.count).sum::<u64>(), 5);
    }

    #[test]
    fn the_list_is_shortened_to_the_most_frequent_values() {
        let parts = [
            part("by-foo", 0, &[(json!("a"), 3), (json!("b"), 2)], 0),
            part("by-foo", 0, &[(json!("c"), 2), (json!("b"), 4)], 0),
        ];
        let [sum] = <[_; 1]>::try_from(add_up(parts, 1)).unwrap();
        assert_eq!((listed(&sum), sum.upper_bound), (vec![(json!("b"), 6)], false));
        assert_eq!(sum.other, Other { values: 2, count: 5 });
    }

    #[test]
    fn where_a_part_was_shortened_sums_are_bounds() {
        for (one, other) in [(1, 0), (0, 1)] {
            let parts = [one, other].map(|more| part("by-foo", 0, &[(json!("a"), 3)], more));
            let [sum] = <[_; 1]>::try_from(add_up(parts, 9)).unwrap();
            assert_eq!((sum.upper_bound, sum.other.values), (true, 1));
        }
    }
}
