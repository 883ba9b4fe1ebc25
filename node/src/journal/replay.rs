//! What the journal holds at the start: every entry since the last trim, in order,
//! each checked, with nothing missing between them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::blocking::Interrupted;
use crate::event::entry::MalformedEntry;
use crate::event::time::UnixNanos;
use crate::journal::follow::Followed;
use crate::journal::frame::{DamagedFrame, Header};
use crate::journal::marks::Marks;
use crate::journal::rows::{self, Stored, Unread};
use crate::journal::{Events, Extent, FRAME_BYTES, Position, watermark};
use crate::store::{Row, Store, StoreError, Table, keys};

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
    /// An entry whose checksum is right cannot be read: it is another version's.
    #[error("read entry {} of segment {}: {source}", position.index, position.segment)]
    Malformed {
        /// Where it stands.
        position: Position,
        /// What is wrong with it.
        source: MalformedEntry,
    },
    /// The process ends in the midst of reading.
    #[error("reading the journal was interrupted")]
    Interrupted(#[from] Interrupted),
}

/// Where the journal begins: everything before it was flushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Trimmed {
    segment: u64,
    index: u64,
    /// What all entries before carry.
    before: Events,
}

/// A segment that this node opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Opened {
    /// What all entries before it carry, since the journal began.
    before: Events,
    /// The number of its entries, once another segment was opened.
    sealed: Option<u64>,
}

/// A segment that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What all entries before it carry, since the journal began.
    pub before: Events,
    /// How much of it is stamped before which second.
    pub marks: Marks,
}

/// What replaying found: where the writer goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// The segments of which something may be there, by number.
    pub segments: BTreeMap<u64, Found>,
    /// The last stamp.
    pub last_stamp: UnixNanos,
    /// What all entries carry, since the journal began.
    pub events: Events,
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

/// Reads and checks the journal from its beginning, and shows every entry to `visit`. What its
/// payload files have beyond is cut off: nobody may append meanwhile.
///
/// # Errors
/// When an entry is damaged or missing, also one that this machine noted as
/// acknowledged, or when `visit` fails.
pub fn replay<E: From<JournalError>>(
    store: &Store,
    mut visit: impl FnMut(Replayed<'_>) -> Result<(), E>,
) -> Result<Replay, E> {
    let trimmed = trimmed(store).map_err(JournalError::from)?;
    let mut found = Replay { events: trimmed.before, ..Replay::default() };
    for (number, opened) in segments(store).map_err(JournalError::from)? {
        let begin = if number == trimmed.segment { trimmed.index } else { 0 };
        read_segment(
            store,
            Position { segment: number, index: begin },
            opened,
            &mut found,
            &mut visit,
        )?;
    }
    check_acknowledged(store, trimmed, &found)?;
    Ok(found)
}

fn read_segment<E: From<JournalError>>(
    store: &Store,
    begin: Position,
    opened: Opened,
    found: &mut Replay,
    visit: &mut impl FnMut(Replayed<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let Opened { before, sealed } = opened;
    let mut position = begin;
    let trimmed = Extent::new(begin.index, found.events.beyond(before));
    let (mut marks, mut end) = (Marks::after(trimmed), None);
    for row in rows(store, begin, None).map_err(JournalError::from)? {
        let (key, value) = row.map_err(JournalError::from)?;
        let Stored { header, entry, end: ends } = check(store, position, &key, value)?;
        // The running total ties each entry to all before it, across segments too.
        if header.before != found.events {
            return Err(gap(store, position).into());
        }
        visit(Replayed { position, header, entry: &entry })?;
        end = ends.or(end);
        marks.append(header.stamp, Extent::new(1, header.events));
        found.events += header.events;
        found.last_stamp = found.last_stamp.max(header.stamp);
        found.entries += 1;
        position.index += 1;
    }
    if sealed.is_some_and(|end| end != position.index) {
        return Err(gap(store, position).into());
    }
    rows::cut(store, begin.segment, end).map_err(JournalError::from)?;
    found.segments.insert(begin.segment, Found { before, marks });
    Ok(())
}

/// Entries of a segment from one on, about `bytes` of them and at least one, all of them
/// before `end`.
///
/// # Errors
/// When one is damaged or missing.
pub(super) fn read(
    store: &Store,
    from: Position,
    end: u64,
    bytes: usize,
) -> Result<Vec<Followed>, JournalError> {
    let mut read = Vec::new();
    let (mut position, mut taken) = (from, 0);
    for row in rows(store, from, Some(end))? {
        let (key, value) = row?;
        taken += FRAME_BYTES + header(store, position, &key, &value)?.1;
        if taken > bytes && !read.is_empty() {
            return Ok(read);
        }
        let Stored { header: Header { stamp, .. }, entry, .. } =
            check(store, position, &key, value)?;
        read.push(Followed { index: position.index, stamp, entry });
        position.index += 1;
    }
    if position.index < end { Err(gap(store, position)) } else { Ok(read) }
}

/// How much is stamped before which second in a segment of another node of which so much was
/// trimmed, up to `end` or all that is there. What its payload files have beyond is cut off.
///
/// # Errors
/// When an entry is damaged or missing.
pub(super) fn marks(
    store: &Store,
    segment: u64,
    trimmed: Extent,
    end: Option<u64>,
) -> Result<Marks, JournalError> {
    let (mut marks, mut payloads_end) = (Marks::after(trimmed), None);
    let mut position = Position { segment, index: trimmed.entries };
    for row in rows(store, position, end)? {
        let (key, value) = row?;
        let Stored { header, end, .. } = check(store, position, &key, value)?;
        marks.append(header.stamp, Extent::new(1, header.events));
        payloads_end = end.or(payloads_end);
        position.index += 1;
    }
    rows::cut(store, segment, payloads_end)?;
    Ok(marks)
}

/// Removes a segment's entries from a position on: they do not exist and never did.
pub(super) fn truncate(store: &Store, from: Position) -> Result<(), StoreError> {
    let mut batch = store.batch();
    let (from, to) = (keys::entry(from.segment, from.index), keys::entry(from.segment + 1, 0));
    batch.delete_range(Table::Journal, &from, &to)?;
    store.commit(batch)
}

/// The segment's rows from a position on, all of them or those before an index.
fn rows(
    store: &Store,
    Position { segment, index }: Position,
    end: Option<u64>,
) -> Result<impl Iterator<Item = Result<Row, StoreError>> + '_, StoreError> {
    let to = end.map_or(keys::entry(segment + 1, 0), |end| keys::entry(segment, end));
    store.scan(Table::Journal, &keys::entry(segment, index), &to)
}

/// Refuses a row that is not the entry at this position as it was written.
fn check(
    store: &Store,
    position: Position,
    key: &[u8],
    value: Box<[u8]>,
) -> Result<Stored, JournalError> {
    check_key(store, position, key)?;
    rows::open(store, position, value).map_err(|unread| match unread {
        Unread::Damaged(source) => damaged(store, position, source),
        Unread::Store(error) => error.into(),
    })
}

/// As [`check`], but does not look at the packed entry; returns its length.
fn header(
    store: &Store,
    position: Position,
    key: &[u8],
    value: &[u8],
) -> Result<(Header, usize), JournalError> {
    check_key(store, position, key)?;
    rows::header(value, position).map_err(|source| damaged(store, position, source))
}

fn check_key(store: &Store, position: Position, key: &[u8]) -> Result<(), JournalError> {
    let is_next = *key == keys::entry(position.segment, position.index);
    if is_next { Ok(()) } else { Err(gap(store, position)) }
}

/// What all entries before a position carry, since the journal began, if there is an entry.
pub(super) fn before(store: &Store, position: Position) -> Result<Option<Events>, JournalError> {
    let Position { segment, index } = position;
    let key = keys::entry(segment, index);
    let value = store.get(Table::Journal, &key)?;
    let header = value.map(|value| header(store, position, &key, &value)).transpose()?;
    Ok(header.map(|(header, _)| header.before))
}

/// A torn tail is only a torn tail if nothing of it was acknowledged.
fn check_acknowledged(store: &Store, trimmed: Trimmed, found: &Replay) -> Result<(), JournalError> {
    let Some(last) = watermark::acknowledged(store)? else { return Ok(()) };
    let was_trimmed = last < Position { segment: trimmed.segment, index: trimmed.index };
    let end = found.segments.get(&last.segment).map(|found| found.marks.end().entries);
    if was_trimmed || end.is_some_and(|end| last.index < end) {
        Ok(())
    } else {
        Err(gap(store, last))
    }
}

/// Ends one of this node's segments that `replay` found where the cluster has fixed its end:
/// what lies beyond was never acknowledged.
///
/// # Errors
/// When the database cannot be written.
pub fn cut_off(store: &Store, replay: &Replay, segment: u64, end: u64) -> Result<(), StoreError> {
    let Some(found) = replay.segments.get(&segment) else { return Ok(()) };
    seal_segment(store, Position { segment, index: end }, found.before)
}

/// Ends a segment of this node: it has the entries before `end`, and no others.
pub(super) fn seal_segment(store: &Store, end: Position, before: Events) -> Result<(), StoreError> {
    let Position { segment, index } = end;
    let mut batch = store.batch();
    let sealed = Opened { before, sealed: Some(index) };
    batch.put_fact(&keys::segment(segment), &sealed)?;
    let (from, to) = (keys::entry(segment, index), keys::entry(segment + 1, 0));
    batch.delete_range(Table::Journal, &from, &to)?;
    store.commit(batch)
}

/// Opens the segment `number` behind others, of which each is given with what is before it
/// and its end: they are never appended to again.
pub(super) fn open_segment(
    store: &Store,
    number: u64,
    before: Events,
    others: &[(u64, Events, u64)],
) -> Result<(), StoreError> {
    let mut batch = store.batch();
    for &(number, before, end) in others {
        let sealed = Opened { before, sealed: Some(end) };
        batch.put_fact(&keys::segment(number), &sealed)?;
    }
    let opened = Opened { before, sealed: None };
    batch.put_fact(&keys::segment(number), &opened)?;
    store.commit(batch)
}

pub(super) fn trim(store: &Store, begin: Position, before: Events) -> Result<(), StoreError> {
    let mut batch = store.batch();
    let trimmed = Trimmed { segment: begin.segment, index: begin.index, before };
    batch.put_fact(&keys::TRIMMED, &trimmed)?;
    let (first, _) = keys::segments();
    batch.delete_range(Table::Facts, &first, &keys::segment(begin.segment))?;
    store.commit(batch)
}

/// Gives back the files that hold only entries before one, of all segments.
pub(super) fn release(store: &Store, before: Position) -> Result<(), StoreError> {
    let Position { segment, index } = before;
    store.release(Table::Journal, &keys::entry(0, 0), &keys::entry(segment, index))
}

fn trimmed(store: &Store) -> Result<Trimmed, StoreError> {
    Ok(store.fact(&keys::TRIMMED)?.unwrap_or_default())
}

fn segments(store: &Store) -> Result<Vec<(u64, Opened)>, StoreError> {
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
