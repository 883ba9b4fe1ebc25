//! How much of a segment: its first so many entries, and the records in them.

use std::fmt;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// A segment's first entries and the records in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The number of entries.
    pub entries: u64,
    /// The number of records in these entries, whatever counts them.
    pub records: u64,
}

impl Extent {
    /// Whether this can be the same segment as `earlier`, at that time or later: more
    /// entries have no fewer records, and the same entries have the same.
    pub fn continues(self, earlier: Extent) -> bool {
        if self.entries == earlier.entries {
            self.records == earlier.records
        } else {
            self.entries > earlier.entries && self.records >= earlier.records
        }
    }

    /// What it has that `earlier`, which it continues, has not.
    pub fn beyond(self, earlier: Extent) -> Extent {
        Extent {
            entries: self.entries.saturating_sub(earlier.entries),
            records: self.records.saturating_sub(earlier.records),
        }
    }
}

impl AddAssign for Extent {
    fn add_assign(&mut self, other: Extent) {
        self.entries += other.entries;
        self.records += other.records;
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries with {} records", self.entries, self.records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_records_grow_together() {
        let extent = |entries, records| Extent { entries, records };
        let earlier = extent(5, 8);
        for later in [(5, 8), (6, 8), (6, 9)] {
            assert!(extent(later.0, later.1).continues(earlier), "{later:?}");
        }
        for other in [(5, 7), (5, 9), (4, 8), (4, 9), (6, 7)] {
            assert!(!extent(other.0, other.1).continues(earlier), "{other:?}");
        }
    }

    #[test]
    fn what_lies_beyond_adds_up_to_the_whole() {
        let (earlier, later) =
            (Extent { entries: 5, records: 8 }, Extent { entries: 7, records: 20 });
        let mut sum = earlier;
        sum += later.beyond(earlier);
        assert_eq!(sum, later);
        assert_eq!(later.beyond(earlier).to_string(), "2 entries with 12 records");
    }
}
