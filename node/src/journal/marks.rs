//! How much of a segment is stamped before each whole second.

use std::collections::VecDeque;

use crate::event::time::UnixNanos;
use crate::journal::Extent;

/// The seconds in which something was appended to a segment, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    seconds: VecDeque<Mark>,
    end: Extent,
    last: UnixNanos,
}

/// A second in which something was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    /// Its first instant.
    second: UnixNanos,
    /// What was stamped before it.
    before: Extent,
}

impl Marks {
    /// Nothing yet, in a segment of which `begin` was trimmed.
    pub(super) fn after(begin: Extent) -> Marks {
        Marks { end: begin, ..Marks::default() }
    }

    /// Takes note of entries that were appended with one stamp, never an earlier one than
    /// the last.
    pub(super) fn append(&mut self, stamp: UnixNanos, appended: Extent) {
        let second = stamp.whole_second();
        if self.seconds.back().is_none_or(|mark| mark.second < second) {
            self.seconds.push_back(Mark { second, before: self.end });
        }
        self.end += appended;
        self.last = stamp;
    }

    /// The whole segment.
    pub fn end(&self) -> Extent {
        self.end
    }

    /// The stamp of the last entry; 0 when there is none, or it was trimmed.
    pub fn last(&self) -> UnixNanos {
        self.last
    }

    /// What is stamped before `time`, a whole second.
    pub fn before(&self, time: UnixNanos) -> Extent {
        let first_later = self.seconds.partition_point(|mark| mark.second < time);
        self.seconds.get(first_later).map_or(self.end, |mark| mark.before)
    }

    /// Forgets the seconds before `time`: nobody asks for them again.
    pub(super) fn forget(&mut self, time: UnixNanos) {
        while self.seconds.front().is_some_and(|mark| mark.second < time) {
            self.seconds.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::time::SECOND;

    fn at(second: u64) -> UnixNanos {
        UnixNanos(second * SECOND)
    }

    fn extent(entries: u64, records: u64) -> Extent {
        Extent { entries, records, chunks: 2 * entries }
    }

    fn marks() -> Marks {
        let mut marks = Marks::after(extent(5, 50));
        marks.append(UnixNanos(at(3).0 + 1), extent(2, 20));
        marks.append(UnixNanos(at(3).0 + 9), extent(1, 10));
        marks.append(at(7), extent(1, 5));
        marks
    }

    #[test]
    fn what_is_stamped_before_a_second_is_known_for_each_second() {
        let marks = marks();
        let before: Vec<_> = (2..=9).map(|second| marks.before(at(second)).entries).collect();
        assert_eq!(before, [5, 5, 8, 8, 8, 8, 9, 9]);
        assert_eq!(marks.before(at(7)), extent(8, 80));
        assert_eq!((marks.end(), marks.last()), (extent(9, 85), at(7)));
    }

    #[test]
    fn forgotten_seconds_do_not_change_what_is_said_of_later_ones() {
        let mut marks = marks();
        marks.forget(at(4));
        assert_eq!(marks.before(at(4)), extent(8, 80));
        assert_eq!(marks.before(at(8)), extent(9, 85));
        assert_eq!(marks.seconds.len(), 1);
    }
}
