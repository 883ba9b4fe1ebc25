//! The most frequent values.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::Counts;
use super::values::is_unknown;
use crate::event::value::{HEADER_BYTES, Tag};

/// See [`super::compare_values`]. Bytes that are no canonical encoding have a place
/// as well, so that the order is total.
pub(super) fn compare_values(one: &[u8], other: &[u8]) -> Ordering {
    one.first().cmp(&other.first()).then_with(|| match (one.first(), number(one), number(other)) {
        (Some(&tag), Some(a), Some(b)) if tag == Tag::Int as u8 => {
            i64::from_le_bytes(a).cmp(&i64::from_le_bytes(b))
        }
        (Some(&tag), Some(a), Some(b)) if tag == Tag::Double as u8 => {
            f64::from_le_bytes(a).total_cmp(&f64::from_le_bytes(b))
        }
        _ => content(one).cmp(content(other)).then_with(|| one.cmp(other)),
    })
}

fn content(canonical: &[u8]) -> &[u8] {
    canonical.get(HEADER_BYTES..).unwrap_or_default()
}

fn number(canonical: &[u8]) -> Option<[u8; 8]> {
    content(canonical).try_into().ok()
}

/// A listed value. The greatest is the one that has to go first.
#[derive(PartialEq, Eq)]
struct Listed {
    count: u64,
    canonical: Vec<u8>,
}

impl Ord for Listed {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.count, &self.canonical, other)
    }
}

impl PartialOrd for Listed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn compare(count: u64, canonical: &[u8], other: &Listed) -> Ordering {
    other.count.cmp(&count).then_with(|| compare_values(canonical, &other.canonical))
}

/// Takes each value once, and keeps the most frequent.
pub(super) struct Ranking {
    limit: usize,
    listed: BinaryHeap<Listed>,
    unknown: u64,
    values: u64,
    count: u64,
}

impl Ranking {
    /// Keeps at most `limit` values.
    pub(super) fn new(limit: usize) -> Self {
        Ranking { limit, listed: BinaryHeap::new(), unknown: 0, values: 0, count: 0 }
    }

    /// Takes a value with its count; a count of zero is no value.
    pub(super) fn add(&mut self, canonical: &[u8], count: u64) {
        if count == 0 {
            return;
        }
        if is_unknown(canonical) {
            self.unknown += count;
            return;
        }
        self.values += 1;
        self.count += count;
        if self.listed.len() < self.limit {
            self.listed.push(Listed { count, canonical: canonical.to_vec() });
        } else if let Some(mut last) = self.listed.peek_mut()
            && compare(count, canonical, &last).is_lt()
        {
            *last = Listed { count, canonical: canonical.to_vec() };
        }
    }

    /// The counts of everything that was taken.
    pub(super) fn finish(self, records: u64) -> Counts {
        let listed = self.listed.into_sorted_vec();
        let listed_count: u64 = listed.iter().map(|listed| listed.count).sum();
        Counts {
            records,
            distinct: self.unknown + self.count,
            unknown: self.unknown,
            other_values: self.values - listed.len() as u64,
            other_count: self.count - listed_count,
            counts: listed.into_iter().map(|listed| (listed.canonical, listed.count)).collect(),
            upper_bound: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::value::{put_bool, put_bytes, put_double, put_header, put_int, put_string};

    fn canonical(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes);
        bytes
    }

    fn string(content: &str) -> Vec<u8> {
        canonical(|out| put_string(content.as_bytes(), out))
    }

    #[test]
    fn the_most_frequent_come_first_and_the_rest_is_added_up() {
        let mut ranking = Ranking::new(2);
        for (value, count) in [("b", 3), ("c", 1), ("a", 3), ("d", 2), ("none", 0)] {
            ranking.add(&string(value), count);
        }
        ranking.add(&canonical(|out| put_header(Tag::Absent, 0, out)), 5);
        let expected = Counts {
            records: 20,
            distinct: 14,
            unknown: 5,
            counts: vec![(string("a"), 3), (string("b"), 3)],
            other_values: 2,
            other_count: 3,
            upper_bound: false,
        };
        assert_eq!(ranking.finish(20), expected);
    }

    #[test]
    fn an_empty_list_leaves_everything_to_the_rest() {
        let mut ranking = Ranking::new(0);
        ranking.add(&string("a"), 3);
        let counts = ranking.finish(3);
        assert_eq!((counts.counts.len(), counts.other_values, counts.other_count), (0, 1, 3));
    }

    #[test]
    fn values_are_listed_as_people_expect() {
        let ordered = [
            canonical(|out| put_header(Tag::Empty, 0, out)),
            string(""),
            string("a"),
            string("ab"),
            string("b"),
            canonical(|out| put_bool(false, out)),
            canonical(|out| put_bool(true, out)),
            canonical(|out| put_int(-300, out)),
            canonical(|out| put_int(2, out)),
            canonical(|out| put_int(256, out)),
            canonical(|out| put_double(f64::NEG_INFINITY, out)),
            canonical(|out| put_double(-1.5, out)),
            canonical(|out| put_double(0.0, out)),
            canonical(|out| put_double(2.0, out)),
            canonical(|out| put_double(f64::NAN, out)),
            canonical(|out| put_bytes(&[1, 2], out)),
            canonical(|out| put_bytes(&[2], out)),
        ];
        for (at, one) in ordered.iter().enumerate() {
            for (other_at, other) in ordered.iter().enumerate() {
                assert_eq!(compare_values(one, other), at.cmp(&other_at), "{one:?} {other:?}");
            }
        }
    }
}
