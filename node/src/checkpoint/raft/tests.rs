//! Whole clusters in one process, on a clock that runs ahead whenever everybody waits.

mod calls;
mod cluster;
pub(super) mod example;
mod members;
mod partitions;
mod restarts;
mod snapshots;
mod storage;
