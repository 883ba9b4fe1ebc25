//! The folds: what a node makes of records and chunks. No clock, no network.
//!
//! An aggregation is one folder here, one member of [`definition::Kind`], and the
//! lines where that is matched.

pub mod definition; // an aggregation in the settings' shape, parsed into what cannot be wrong
pub mod distinct_logs; // distinct records per value of an attribute
pub mod log_files; // files, byte for byte

/// What a checkpoint has found in one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotTotals {
    /// The slot's number.
    pub slot: u8,
    /// The records that were folded in it, or the chunks that were settled.
    pub records: u64,
    /// Of these, the distinct ones, or those that are in a file now.
    pub distinct: u64,
    /// Of the slot's part of the result, from which whoever has that can make it again: equal
    /// for equal results, whatever the order in which they came about, and different for
    /// different ones.
    pub digest: u128,
}
