//! The folds: what a node makes of records and chunks. No clock, no network.
//!
//! An aggregation is one folder here, one member of [`definition::Kind`], and the
//! lines where that is matched.

pub mod definition; // an aggregation in the settings' shape, parsed into what cannot be wrong
pub mod distinct_logs; // distinct records per value of an attribute
pub mod log_files; // files, byte for byte
