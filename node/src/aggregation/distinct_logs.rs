//! Distinct logs: how many different records each value of an attribute had in a window.
//!
//! A request is packed once, by [`Packer`], into a section of its entry. Sections
//! are folded, in any order, into the window that their entry's stamp falls into:
//! [`OpenWindow`] keeps the set of keys, in memory or, past a limit, in sorted runs
//! on disk. Closing it gives [`Closed`], which depends only on the set of sections
//! that were folded, and the window's [`count_table`], in full, to whoever needs it.

use std::cmp::Ordering;
use std::io;
use std::path::PathBuf;

pub mod count_table; // full counts of a closed window, by slot: kept, sent and merged

pub use carry::{Carried, remove_all_but};
pub use memory::Sizes;
pub use pack::Packer;
pub use records::SlotRecords;
pub use window::{MemoryLimit, OpenWindow};

mod carry; // what outlives the process of an open window
mod closing; // values with their counts -> the closed window
mod digest; // what two computations of a window compare
mod memory; // the keys and values of a window that are in memory
mod merge; // runs -> the closed window
mod pack; // attribute values and fingerprints -> a section
mod ranking; // the most frequent values
mod records; // how many records were folded in each slot
mod run; // keys and values as a sorted run on disk, and back
mod spill; // what left the memory, and what is known of it
mod table; // hash tables, one per slot
mod values; // the bytes of values, each once
mod window; // sections -> an open window -> a closed one

use super::SlotTotals;

/// The counts of a window, shortened to the most frequent values.
///
/// `distinct` is the sum of `unknown`, of the listed counts and of `other_count`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The records that were folded.
    pub records: u64,
    /// The records that were counted.
    pub distinct: u64,
    /// Of `distinct`, those without the attribute.
    pub unknown: u64,
    /// Values in their canonical encoding with their counts: the highest count
    /// first, equal counts in the order of [`compare_values`].
    pub counts: Vec<(Vec<u8>, u64)>,
    /// How many values are not listed.
    pub other_values: u64,
    /// Of `distinct`, those with a value that is not listed.
    pub other_count: u64,
    /// Set while the window is open and a part of it was spilled. Then `distinct`,
    /// `unknown` and `other_values` are upper bounds, for what was spilled twice is
    /// counted twice, and a listed count may lack what a spilled part had of the
    /// value if it was not among that part's most frequent.
    pub upper_bound: bool,
}

/// A window to which nothing is added any more: the exact result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The counts, over all slots.
    pub counts: Counts,
    /// The slots in which a record was folded, in ascending order.
    pub slots: Vec<SlotTotals>,
    /// What the window held, for the next one to begin with.
    pub sizes: Sizes,
}

impl Closed {
    /// The sum of the slots' digests, modulo 2^128.
    pub fn digest(&self) -> u128 {
        self.slots.iter().fold(0, |sum, slot| sum.wrapping_add(slot.digest))
    }
}

/// Why a window could not be folded or closed. It cannot go on after that: it is
/// dropped, and its sections are folded again into a new one; but for
/// [`FoldError::Carried`], after which that cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The scratch folder cannot be used, for lack of space perhaps.
    #[error("{operation} scratch file {}", path.display())]
    Scratch {
        /// What was tried.
        operation: &'static str,
        /// The file, or where it was to be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The scratch file does not hold what was written to it.
    #[error("scratch file {} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// What was kept of a window in place of the journal is gone or damaged.
    #[error(
        "{} is damaged or missing, and the journal no longer has what it held; \
         restore the data folder from a copy, or remove it to start empty", path.display()
    )]
    Carried {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<FoldError>,
    },
    /// No thread could be started to write a part of the window.
    #[error("start a thread")]
    Thread(#[source] io::Error),
    /// The window failed before, and the error was returned then.
    #[error("the window failed before")]
    Failed,
}

/// The order in which values with equal counts are listed.
///
/// By type, in the order of the canonical tags; within one type strings, bytes,
/// arrays and maps by their bytes (so that strings are in alphabetical order), and
/// false before true, integers and doubles by size, NaN last.
pub fn compare_values(one: &[u8], other: &[u8]) -> Ordering {
    ranking::compare_values(one, other)
}

#[cfg(test)]
mod tests;
