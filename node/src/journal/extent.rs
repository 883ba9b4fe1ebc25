//! How much of a segment: its first so many entries, and what these carry.

use std::fmt;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// What entries carry. One has either log records or chunks of files; whoever counts the ones
/// does not count the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// The number of log records, whatever counts them.
    pub records: u64,
    /// The number of chunks of files.
    pub chunks: u64,
}

impl Events {
    /// So many log records.
    pub fn of_records(records: u64) -> Events {
        Events { records, ..Events::default() }
    }

    /// So many chunks.
    pub fn of_chunks(chunks: u64) -> Events {
        Events { chunks, ..Events::default() }
    }

    /// What there is that was not there `earlier`.
    pub fn beyond(self, earlier: Events) -> Events {
        Events {
            records: self.records.saturating_sub(earlier.records),
            chunks: self.chunks.saturating_sub(earlier.chunks),
        }
    }

    fn has_all_of(self, earlier: Events) -> bool {
        self.records >= earlier.records && self.chunks >= earlier.chunks
    }
}

impl AddAssign for Events {
    fn add_assign(&mut self, other: Events) {
        self.records += other.records;
        self.chunks += other.chunks;
    }
}

/// A segment's first entries and what they carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The number of entries.
    pub entries: u64,
    /// The number of records in these entries, whatever counts them.
    pub records: u64,
    /// The number of chunks in these entries.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub chunks: u64,
}

impl Extent {
    /// So many entries, which carry `events`.
    pub fn new(entries: u64, events: Events) -> Extent {
        let Events { records, chunks } = events;
        Extent { entries, records, chunks }
    }

    /// What the entries carry.
    pub fn events(self) -> Events {
        let Extent { records, chunks, .. } = self;
        Events { records, chunks }
    }

    /// Whether this can be the same segment as `earlier`, at that time or later: more
    /// entries carry no less, and the same entries carry the same.
    pub fn continues(self, earlier: Extent) -> bool {
        if self.entries == earlier.entries {
            self == earlier
        } else {
            self.entries > earlier.entries && self.events().has_all_of(earlier.events())
        }
    }

    /// What it has that `earlier`, which it continues, has not.
    pub fn beyond(self, earlier: Extent) -> Extent {
        let entries = self.entries.saturating_sub(earlier.entries);
        Extent::new(entries, self.events().beyond(earlier.events()))
    }
}

impl AddAssign for Extent {
    fn add_assign(&mut self, other: Extent) {
        self.entries += other.entries;
        self.records += other.records;
        self.chunks += other.chunks;
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Extent { entries, records, chunks } = self;
        write!(f, "{entries} entries with {records} records")?;
        if *chunks > 0 { write!(f, " and {chunks} chunks") } else { Ok(()) }
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(entries: u64, records: u64, chunks: u64) -> Extent {
        Extent { entries, records, chunks }
    }

    #[test]
    fn entries_and_what_they_carry_grow_together() {
        let earlier = extent(5, 8, 3);
        for later in [extent(5, 8, 3), extent(6, 8, 3), extent(6, 9, 3), extent(6, 8, 4)] {
            assert!(later.continues(earlier), "{later:?}");
        }
        for other in [(5, 7, 3), (5, 9, 3), (4, 8, 3), (4, 9, 3), (6, 7, 3)] {
            assert!(!extent(other.0, other.1, other.2).continues(earlier), "{other:?}");
        }
        for other in [extent(5, 8, 4), extent(5, 8, 2), extent(6, 9, 2)] {
            assert!(!other.continues(earlier), "{other:?}");
        }
    }

    #[test]
    fn what_lies_beyond_adds_up_to_the_whole() {
        let (earlier, later) = (extent(5, 8, 1), extent(8, 20, 2));
        let mut sum = earlier;
        sum += later.beyond(earlier);
        assert_eq!(sum, later);
        assert_eq!(later.beyond(earlier).to_string(), "3 entries with 12 records and 1 chunks");
        assert_eq!(extent(2, 12, 0).to_string(), "2 entries with 12 records");
    }

    #[test]
    fn chunks_are_named_where_there_are_some() {
        let json = |extent| serde_json::to_string(&extent).unwrap();
        assert_eq!(json(extent(1, 2, 0)), r#"{"entries":1,"records":2}"#);
        let with_chunks = r#"{"entries":2,"records":2,"chunks":1}"#;
        assert_eq!(json(extent(2, 2, 1)), with_chunks);
        assert_eq!(serde_json::from_str::<Extent>(with_chunks).unwrap(), extent(2, 2, 1));
        let without = serde_json::from_str::<Extent>(r#"{"entries":1,"records":2}"#);
        assert_eq!(without.unwrap(), extent(1, 2, 0));
    }
}
