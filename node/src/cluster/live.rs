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
