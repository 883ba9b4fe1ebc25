//! What the journal holds at the start: every entry since the last trim, in order,
//! each checked, with nothing missing between them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::event::time::UnixNanos;
use crate::journal::frame::{self, DamagedFrame, Header};
use crate::journal::{Position, watermark};
use crate::store::{Store, StoreError, Table, keys};

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The database below failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An entry's bytes are not what was written.
    #[error(
        "the journal in {} is damaged: entry {index} of segment {segment}: {source}; \
         restore the folder from a copy, or remove it to start empty", path.display()
    )]
    Damaged {
        /// The database's folder.
        path: PathBuf,
        /// The entry's segment.
        segment: u64,
        /// The entry's number.
        index: u64,
        /// What is wrong with it.
        source: DamagedFrame,
    },
    /// An entry that must be there is not.
    #[error(
        "the journal in {} has a gap: entry {index} of segment {segment} is missing; \
         restore the folder from a copy, or remove it to start empty", path.display()
    )]
    Gap {
        /// The database's folder.
        path: PathBuf,
        /// The missing entry's segment.
        segment: u64,
        /// The missing entry's number.
        index: u64,
    },
}

/// Where the journal begins: everything before it was flushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Trimmed {
    segment: u64,
    index: u64,
    /// Records in all entries before.
    records: u64,
}

/// A segment, as the facts know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Segment {
    /// The number of its entries, once it is sealed.
    sealed: Option<u64>,
}

/// What replaying found: where the writer goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// The segment that was open last, if there was one; it ends at `open_end`.
    pub open: Option<u64>,
    /// The number of entries in it.
    pub open_end: u64,
    /// The last stamp.
    pub last_stamp: UnixNanos,
    /// Records in all entries, since the journal began.
    pub records: u64,
    /// Entries that were replayed.
    pub entries: u64,
}

/// An entry at its place.
pub struct Replayed<'a> {
    /// Where it stands.
    pub position: Position,
    /// What its frame says.
    pub header: Header,
    /// The packed entry.
    pub entry: &'a [u8],
}

/// Reads and checks the journal from its beginning, and shows every entry to `visit`.
///
/// # Errors
/// When an entry is damaged or missing, also one that this machine noted as
/// acknowledged, or when `visit` fails.
pub fn replay<E: From<JournalError>>(
    store: &Store,
    mut visit: impl FnMut(Replayed<'_>) -> Result<(), E>,
) -> Result<Replay, E> {
    let trimmed = trimmed(store).map_err(JournalError::from)?;
    let mut found = Replay { records: trimmed.records, ..Replay::default() };
    for (number, segment) in segments(store).map_err(JournalError::from)? {
        let begin = if number == trimmed.segment { trimmed.index } else { 0 };
        let end = read_segment(store, number, begin, segment.sealed, &mut found, &mut visit)?;
        if segment.sealed.is_none() {
            found.open = Some(number);
            found.open_end = end;
        }
    }
    check_acknowledged(store, trimmed, &found)?;
    Ok(found)
}

fn read_segment<E: From<JournalError>>(
    store: &Store,
    segment: u64,
    begin: u64,
    sealed: Option<u64>,
    found: &mut Replay,
    visit: &mut impl FnMut(Replayed<'_>) -> Result<(), E>,
) -> Result<u64, E> {
    let (from, to) = (keys::entry(segment, begin), keys::entry(segment + 1, 0));
    let mut next = begin;
    for row in store.scan(Table::Journal, &from, &to).map_err(JournalError::from)? {
        let (key, value) = row.map_err(JournalError::from)?;
        let position = Position { segment, index: next };
        if *key != keys::entry(segment, next) {
            return Err(gap(store, position).into());
        }
        let (header, entry) =
            frame::open(&value, position).map_err(|source| damaged(store, position, source))?;
        // The running total ties each entry to all before it, across segments too.
        if header.records_before != found.records {
            return Err(gap(store, position).into());
        }
        visit(Replayed { position, header, entry })?;
        found.records += header.records;
        found.last_stamp = found.last_stamp.max(header.stamp);
        found.entries += 1;
        next += 1;
    }
    match sealed {
        Some(end) if end != next => Err(gap(store, Position { segment, index: next }).into()),
        _ => Ok(next),
    }
}

/// A torn tail is only a torn tail if nothing of it was acknowledged.
fn check_acknowledged(store: &Store, trimmed: Trimmed, found: &Replay) -> Result<(), JournalError> {
    let Some(last) = watermark::acknowledged(store)? else { return Ok(()) };
    let was_trimmed = last < Position { segment: trimmed.segment, index: trimmed.index };
    let is_there = found.open.is_none_or(|open| last.segment < open)
        || (found.open == Some(last.segment) && last.index < found.open_end);
    if was_trimmed || is_there { Ok(()) } else { Err(gap(store, last)) }
}

/// Seals the segment that was open, and opens the next: `Ok` is its number.
pub(super) fn open_segment(store: &Store, replay: &Replay) -> Result<u64, JournalError> {
    let newest = segments(store)?.last().map_or(0, |(number, _)| *number);
    let segment = newest + 1;
    let mut batch = store.batch();
    if let Some(open) = replay.open {
        batch.put_fact(&keys::segment(open), &Segment { sealed: Some(replay.open_end) })?;
    }
    batch.put_fact(&keys::segment(segment), &Segment { sealed: None })?;
    store.commit(batch)?;
    Ok(segment)
}

pub(super) fn trim(store: &Store, begin: Position, records: u64) -> Result<(), StoreError> {
    let mut batch = store.batch();
    let trimmed = Trimmed { segment: begin.segment, index: begin.index, records };
    batch.put_fact(&keys::TRIMMED, &trimmed)?;
    let (first, _) = keys::segments();
    batch.delete_range(Table::Facts, &first, &keys::segment(begin.segment))?;
    store.commit(batch)?;
    let begin = keys::entry(begin.segment, begin.index);
    store.release(Table::Journal, &keys::entry(0, 0), &begin)
}

fn trimmed(store: &Store) -> Result<Trimmed, StoreError> {
    Ok(store.fact(&keys::TRIMMED)?.unwrap_or_default())
}

fn segments(store: &Store) -> Result<Vec<(u64, Segment)>, StoreError> {
    let (from, to) = keys::segments();
    let facts = store.facts(&from, &to)?;
    Ok(facts
        .into_iter()
        .filter_map(|(key, segment)| Some((keys::segment_number(&key)?, segment)))
        .collect())
}

fn gap(store: &Store, at: Position) -> JournalError {
    let Position { segment, index } = at;
    JournalError::Gap { path: store.path().to_owned(), segment, index }
}

fn damaged(store: &Store, at: Position, source: DamagedFrame) -> JournalError {
    let Position { segment, index } = at;
    JournalError::Damaged { path: store.path().to_owned(), segment, index, source }
}
