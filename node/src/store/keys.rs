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
/// Facts: which requests there were, and which entries repeat them.
pub const REQUESTS: [u8; 1] = [0x0b];
/// Facts: what the cluster heard of this node's settings.
pub const REGISTERED: [u8; 1] = [0x0c];

/// Raft: the vote.
pub const RAFT_VOTE: [u8; 1] = [0x01];
/// Raft: the last entry that is known to be committed.
pub const RAFT_COMMITTED: [u8; 1] = [0x02];
/// Raft: the last entry that was purged from the log.
pub const RAFT_PURGED: [u8; 1] = [0x03];
/// Raft: the newest snapshot.
pub const RAFT_SNAPSHOT: [u8; 1] = [0x04];

const SEGMENT: u8 = 0x02;
const CARRY: u8 = 0x08;
const COPY: u8 = 0x0a;
const RAFT_ENTRY: u8 = 0x05;

/// Within the rebuilt files.
const FILE: u8 = 0x01;
const WAITING_CHUNK: u8 = 0x02;

/// Within a window's results.
const RESULT: u8 = 0x01;
const RESULT_CHUNK: u8 = 0x02;

/// Facts: a segment of the journal.
pub fn segment(segment: u64) -> [u8; 9] {
    prefixed(SEGMENT, segment.to_be_bytes())
}

/// The keys of all segments, from and to.
pub fn segments() -> ([u8; 1], [u8; 1]) {
    ([SEGMENT], [SEGMENT + 1])
}

/// Facts: a copy of another node's segment.
pub fn copy(segment: u64) -> [u8; 9] {
    prefixed(COPY, segment.to_be_bytes())
}

/// The keys of all copies, from and to.
pub fn copies() -> ([u8; 1], [u8; 1]) {
    ([COPY], [COPY + 1])
}

/// Facts: what is kept of an open window of some slots, of which `first` is the first, in
/// place of a part of the journal.
pub fn carry(aggregation: u32, start: UnixNanos, first: u8) -> [u8; 14] {
    let mut key = [0; 14];
    key[0] = CARRY;
    key[1..5].copy_from_slice(&aggregation.to_be_bytes());
    key[5..13].copy_from_slice(&start.0.to_be_bytes());
    key[13] = first;
    key
}

/// The keys of all carries, from and to.
pub fn carries() -> ([u8; 1], [u8; 1]) {
    ([CARRY], [CARRY + 1])
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

/// Results: what is known of a count table, by its window's end.
pub fn result(end: UnixNanos, aggregation: u32, table: u64) -> [u8; 21] {
    of_result(RESULT, end, aggregation, table)
}

/// The keys of all results of a window, from and to.
pub fn results(end: UnixNanos, aggregation: u32) -> ([u8; 21], [u8; 21]) {
    let from = result(end, aggregation, 0);
    (from, of_result(RESULT_CHUNK, end, aggregation, 0))
}

/// The key before which all results of windows stand that ended before `end`.
pub fn results_since(end: UnixNanos) -> [u8; 21] {
    result(end, 0, 0)
}

/// Results: a chunk of a count table.
pub fn result_chunk(end: UnixNanos, aggregation: u32, table: u64, chunk: u32) -> [u8; 25] {
    let mut key = [0; 25];
    key[..21].copy_from_slice(&of_result(RESULT_CHUNK, end, aggregation, table));
    key[21..].copy_from_slice(&chunk.to_be_bytes());
    key
}

fn of_result(kind: u8, end: UnixNanos, aggregation: u32, table: u64) -> [u8; 21] {
    let mut key = [0; 21];
    key[..12].copy_from_slice(&window(end, aggregation));
    key[12] = kind;
    key[13..].copy_from_slice(&table.to_be_bytes());
    key
}

/// Files: how far checkpoints have a file, by the hash of its id.
pub fn file(aggregation: u32, hash: u128, session: u64) -> [u8; 29] {
    of_file(FILE, aggregation, hash, session)
}

/// The keys of all files of a slot, from and to.
pub fn files(aggregation: u32, slot: u8) -> ([u8; 29], [u8; 29]) {
    of_slot(FILE, aggregation, slot)
}

/// The keys of all files of an id, by its hash, from and to.
pub fn files_of(aggregation: u32, hash: u128) -> ([u8; 29], [u8; 29]) {
    let after = hash.checked_add(1).map(|hash| of_file(FILE, aggregation, hash, 0));
    (file(aggregation, hash, 0), after.unwrap_or_else(|| file(aggregation + 1, 0, 0)))
}

/// Files: a chunk that waits behind a gap of a file.
pub fn waiting_chunk(aggregation: u32, hash: u128, session: u64, seq: u64) -> [u8; 37] {
    let mut key = [0; 37];
    key[..29].copy_from_slice(&of_file(WAITING_CHUNK, aggregation, hash, session));
    key[29..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// The keys of all chunks that wait in files of a slot, from and to.
pub fn waiting_chunks(aggregation: u32, slot: u8) -> ([u8; 29], [u8; 29]) {
    of_slot(WAITING_CHUNK, aggregation, slot)
}

/// The hash and the session in the key of a file, or of a chunk that waits; `None` if the key is
/// too short.
pub fn of_file_key(key: &[u8]) -> Option<(u128, u64)> {
    let hash = key.get(5..21)?.try_into().ok()?;
    let session = key.get(21..29)?.try_into().ok()?;
    Some((u128::from_be_bytes(hash), u64::from_be_bytes(session)))
}

/// A slot is the top byte of a hash.
fn of_slot(kind: u8, aggregation: u32, slot: u8) -> ([u8; 29], [u8; 29]) {
    let first = |slot: u8| of_file(kind, aggregation, u128::from(slot) << 120, 0);
    let to = slot.checked_add(1).map(first);
    (first(slot), to.unwrap_or_else(|| of_file(kind, aggregation + 1, 0, 0)))
}

fn of_file(kind: u8, aggregation: u32, hash: u128, session: u64) -> [u8; 29] {
    let mut key = [0; 29];
    key[0] = kind;
    key[1..5].copy_from_slice(&aggregation.to_be_bytes());
    key[5..21].copy_from_slice(&hash.to_be_bytes());
    key[21..].copy_from_slice(&session.to_be_bytes());
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

/// The segment in a segment's key, or `None` if the key has another length.
pub fn segment_number(key: &[u8]) -> Option<u64> {
    key.get(1..)?.try_into().ok().map(u64::from_be_bytes)
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
        assert_eq!(carry(7, UnixNanos(9), 3), [8, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9, 3]);
        assert_eq!(result(UnixNanos(1), 2, 3)[7..], [1, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(
            result_chunk(UnixNanos(1), 2, 3, 4)[12..],
            [2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4]
        );
        assert_eq!(copy(0x0102), [10, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(entry(1, 2), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(window(UnixNanos(1), 2), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!((IDENTITY, TRIMMED, REJECTED, BIRTH), ([1], [3], [7], [9]));
        assert_eq!((REQUESTS, REGISTERED), ([11], [12]));
        assert_eq!((RAFT_VOTE, RAFT_COMMITTED), ([1], [2]));
        assert_eq!((RAFT_PURGED, RAFT_SNAPSHOT), ([3], [4]));
        assert_eq!(raft_entry(0x0102), [5, 0, 0, 0, 0, 0, 0, 1, 2]);
        let hash = u128::from_be_bytes([9; 16]);
        assert_eq!(file(7, hash, 3)[..6], [1, 0, 0, 0, 7, 9]);
        assert_eq!(waiting_chunk(7, hash, 3, 4)[..6], [2, 0, 0, 0, 7, 9]);
        assert_eq!(
            waiting_chunk(7, hash, 3, 4)[20..],
            [9, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4]
        );
    }

    #[test]
    fn the_files_of_a_slot_lie_between_those_of_its_neighbours() {
        for (slot, others) in [(0, [1, 2]), (9, [8, 10]), (255, [0, 254])] {
            let key = |slot: u8| file(7, u128::from(slot) << 120 | 5, 1);
            let (from, to) = files(7, slot);
            assert!((from..to).contains(&key(slot)));
            assert!(others.iter().all(|&other| !(from..to).contains(&key(other))));
            assert!(!(from..to).contains(&file(8, u128::from(slot) << 120 | 5, 1)));
        }
        assert_eq!(of_file_key(&waiting_chunk(7, 5, 6, 9)), Some((5, 6)));
        assert_eq!(of_file_key(&[1; 28]), None);
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
