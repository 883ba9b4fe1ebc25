//! Records that are refused while the rest of their request is taken.

use crate::event::value::NESTING_MAX;
use crate::intake::wire::Undecodable;

/// Why a record is refused for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RejectReason {
    /// A string that is read is not UTF-8.
    #[error("a string is not valid UTF-8")]
    InvalidUtf8,
    /// Arrays and maps stand too deep in one another.
    #[error("values are nested deeper than {NESTING_MAX}")]
    NestedTooDeep,
    /// An array or map has so many elements that its canonical form outgrows the scratch.
    #[error("an array or map has too many elements")]
    TooManyElements,
}

impl RejectReason {
    /// Every reason.
    pub const ALL: [RejectReason; 3] =
        [RejectReason::InvalidUtf8, RejectReason::NestedTooDeep, RejectReason::TooManyElements];

    /// The reason's name in the ledger and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            RejectReason::InvalidUtf8 => "invalid_utf8",
            RejectReason::NestedTooDeep => "nested_too_deep",
            RejectReason::TooManyElements => "too_many_elements",
        }
    }
}

/// How many records of a request were refused, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rejected {
    counts: [u64; RejectReason::ALL.len()],
    message: Option<String>,
}

impl Rejected {
    /// All refused records.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The records refused for this reason.
    pub fn count(&self, reason: RejectReason) -> u64 {
        self.counts[reason as usize]
    }

    /// Which record was the first to be refused, and why: for the sender.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Counts a record; `part` says which part of it is to blame.
    #[cold]
    pub(super) fn add(&mut self, reason: RejectReason, record: u64, part: &str) {
        self.counts[reason as usize] += 1;
        self.message.get_or_insert_with(|| format!("record {record}, {part}: {reason}"));
    }
}

/// Why something cannot be read: the whole request is at fault, or one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    Request(Undecodable),
    Record(RejectReason),
}

impl From<Undecodable> for Unreadable {
    fn from(undecodable: Undecodable) -> Unreadable {
        Unreadable::Request(undecodable)
    }
}

impl From<RejectReason> for Unreadable {
    fn from(reason: RejectReason) -> Unreadable {
        Unreadable::Record(reason)
    }
}
