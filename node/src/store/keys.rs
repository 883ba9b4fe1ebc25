//! Every key's bytes, in one place.
//!
//! Numbers are big-endian, so that keys sort as numbers do. A prefix byte once
//! assigned is never used for anything else.

use crate::event::time::UnixNanos;

/// Facts: who this node is.
pub const IDENTITY: [u8; 1] = [0x01];
/// Facts: where the journal begins.
pub const TRIMMED: [u8; 1] = [0x03];
/// Facts: what was rejected, by reason.
pub const REJECTED: [u8; 1] = [0x07];

/// Facts: what the volume was born with.
pub const BIRTH: [u8; 1] = [0x09];

/// Raft: the vote.
pub const RAFT_VOTE: [u8; 1] = [0x01];
/// Raft: the last entry that is known to be committed.
pub const RAFT_COMMITTED: [u8; 1] = [0x02];
/// Raft: the last entry that was purged from the log.
pub const RAFT_PURGED: [u8; 1] = [0x03];
/// Raft: the newest snapshot.
pub const RAFT_SNAPSHOT: [u8; 1] = [0x04];

const SEGMENT: u8 = 0x02;
const DEFINITION: u8 = 0x04;
const CLAIM: u8 = 0x05;
const PROGRESS: u8 = 0x06;
const CARRY: u8 = 0x08;
const RAFT_ENTRY: u8 = 0x05;

/// Facts: a segment of the journal.
pub fn segment(segment: u64) -> [u8; 9] {
    prefixed(SEGMENT, segment.to_be_bytes())
}

/// The keys of all segments, from and to.
pub fn segments() -> ([u8; 1], [u8; 1]) {
    ([SEGMENT], [SEGMENT + 1])
}

/// Facts: what the aggregation with this number counts.
pub fn definition(aggregation: u32) -> [u8; 5] {
    prefixed(DEFINITION, aggregation.to_be_bytes())
}

/// The keys of all definitions, from and to.
pub fn definitions() -> ([u8; 1], [u8; 1]) {
    ([DEFINITION], [DEFINITION + 1])
}

/// Facts: a window that was claimed and is not complete.
pub fn claim(aggregation: u32, start: UnixNanos) -> [u8; 13] {
    of_window(CLAIM, aggregation, start)
}

/// Facts: what is kept of an open window in place of a part of the journal.
pub fn carry(aggregation: u32, start: UnixNanos) -> [u8; 13] {
    of_window(CARRY, aggregation, start)
}

/// The keys of all carries, from and to.
pub fn carries() -> ([u8; 1], [u8; 1]) {
    ([CARRY], [CARRY + 1])
}

/// Facts: how far an aggregation was flushed.
pub fn progress(aggregation: u32) -> [u8; 5] {
    prefixed(PROGRESS, aggregation.to_be_bytes())
}

/// The keys of all aggregations' progress, from and to.
pub fn all_progress() -> ([u8; 1], [u8; 1]) {
    ([PROGRESS], [PROGRESS + 1])
}

/// Journal: an entry's position.
pub fn entry(segment: u64, index: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&segment.to_be_bytes());
    key[8..].copy_from_slice(&index.to_be_bytes());
    key
}

/// Windows: a printed window, by its end.
pub fn window(end: UnixNanos, aggregation: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&end.0.to_be_bytes());
    key[8..].copy_from_slice(&aggregation.to_be_bytes());
    key
}

/// Raft: an entry of the log, by its index.
pub fn raft_entry(index: u64) -> [u8; 9] {
    prefixed(RAFT_ENTRY, index.to_be_bytes())
}

/// The index in an entry's key, or `None` if the key has another length.
pub fn raft_index(key: &[u8]) -> Option<u64> {
    key.get(1..)?.try_into().ok().map(u64::from_be_bytes)
}

/// The greatest key of the same length before `key`, if there is one.
pub fn before(key: &[u8]) -> Option<Vec<u8>> {
    let mut before = key.to_vec();
    let last = before.iter().rposition(|byte| *byte > 0)?;
    before[last] -= 1;
    before[last + 1..].fill(u8::MAX);
    Some(before)
}

/// The number after a one-byte prefix, or `None` if the key has another length.
pub fn number(key: &[u8]) -> Option<u32> {
    key.get(1..)?.try_into().ok().map(u32::from_be_bytes)
}

/// The segment in a segment's key, or `None` if the key has another length.
pub fn segment_number(key: &[u8]) -> Option<u64> {
    key.get(1..)?.try_into().ok().map(u64::from_be_bytes)
}

fn of_window(prefix: u8, aggregation: u32, start: UnixNanos) -> [u8; 13] {
    let mut key = [0; 13];
    key[0] = prefix;
    key[1..5].copy_from_slice(&aggregation.to_be_bytes());
    key[5..].copy_from_slice(&start.0.to_be_bytes());
    key
}

fn prefixed<const N: usize, const M: usize>(prefix: u8, rest: [u8; N]) -> [u8; M] {
    const { assert!(M == N + 1) };
    let mut key = [0; M];
    key[0] = prefix;
    key[1..].copy_from_slice(&rest);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_never_change() {
        assert_eq!(segment(0x0102), [2, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(definition(7), [4, 0, 0, 0, 7]);
        assert_eq!(claim(7, UnixNanos(9)), [5, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9]);
        assert_eq!(progress(7), [6, 0, 0, 0, 7]);
        assert_eq!(carry(7, UnixNanos(9)), [8, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9]);
        assert_eq!(entry(1, 2), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(window(UnixNanos(1), 2), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!((IDENTITY, TRIMMED, REJECTED, BIRTH), ([1], [3], [7], [9]));
        assert_eq!((RAFT_VOTE, RAFT_COMMITTED), ([1], [2]));
        assert_eq!((RAFT_PURGED, RAFT_SNAPSHOT), ([3], [4]));
        assert_eq!(raft_entry(0x0102), [5, 0, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn the_key_before_another_is_one_less() {
        assert_eq!(before(&entry(1, 0)).as_deref(), Some(entry(0, u64::MAX).as_slice()));
        assert_eq!(before(&entry(1, 5)).as_deref(), Some(entry(1, 4).as_slice()));
        assert_eq!(before(&[0, 0]), None);
    }

    #[test]
    fn positions_sort_as_numbers_do() {
        assert!(entry(1, 256) > entry(1, 255));
        assert!(entry(2, 0) > entry(1, u64::MAX));
    }
}
