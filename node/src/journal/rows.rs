//! How entries stand in the database: as a frame with the packed entry behind it or, of a
//! large entry, as a frame with the place of the packed entry in a payload file.
//!
//! ```text
//! 0..52   the frame
//! 52..60  the number of the file: the index of the first entry that may be in it
//! 60..68  where in the file the packed entry begins
//! ```
//! All numbers are little-endian. A row of this length is one with a place, unless the frame
//! says that the packed entry is that short. A wrong place shows by the checksum of the packed
//! entry, which is in the frame.

use bytes::Bytes;

use crate::failpoint::is_to_fail;
use crate::journal::Position;
use crate::journal::frame::{self, DamagedFrame, FRAME_BYTES, Header};
use crate::store::{Batch, PayloadFile, PayloadLimits, Place, Store, StoreError, Table, keys};

/// The length of a place.
const PLACE_BYTES: usize = 16;

/// An entry as it was read.
pub(super) struct Stored {
    pub(super) header: Header,
    /// The packed entry.
    pub(super) entry: Bytes,
    /// Where the packed entry ends, if it stands in a payload file.
    pub(super) end: Option<Place>,
}

/// Why an entry was not read.
pub(super) enum Unread {
    Damaged(DamagedFrame),
    Store(StoreError),
}

impl From<DamagedFrame> for Unread {
    fn from(damaged: DamagedFrame) -> Unread {
        Unread::Damaged(damaged)
    }
}

/// Adds sealed entries to a batch, which follow each other from a position on. Large ones, if
/// there is enough of them, are durable in a payload file before this returns.
pub(super) fn put(
    store: &Store,
    batch: &mut Batch<'_>,
    first: Position,
    frames: &[Bytes],
) -> Result<(), StoreError> {
    let Position { segment, index } = first;
    let mut limits = store.payload_limits();
    if is_to_fail("payload-any-size") {
        limits = PayloadLimits { value: 0, together: 0 };
    }
    // What is no longer than a place would be taken for one.
    let value_min = limits.value.max(PLACE_BYTES + 1);
    let is_large = |frame: &&Bytes| frame.len().saturating_sub(FRAME_BYTES) >= value_min;
    let large = frames.iter().filter(is_large);
    let payloads: Vec<_> = large.map(|frame| &frame[FRAME_BYTES..]).collect();
    let together: usize = payloads.iter().map(|payload| payload.len()).sum();
    let mut places = Vec::new().into_iter();
    if together > 0 && together >= limits.together {
        places = store.append_payloads(segment, index, &payloads)?.into_iter();
    }
    for (index, frame) in (index..).zip(frames) {
        let key = keys::entry(segment, index);
        match Some(frame).filter(is_large).and_then(|_| places.next()) {
            Some(place) => batch.put(Table::Journal, &key, &placed(frame, place))?,
            None => batch.put(Table::Journal, &key, frame)?,
        }
    }
    Ok(())
}

fn placed(frame: &[u8], place: Place) -> Vec<u8> {
    let (first, offset) = (place.file.first.to_le_bytes(), place.offset.to_le_bytes());
    [&frame[..FRAME_BYTES], &first, &offset].concat()
}

/// What the row of the entry at `position` says of it, and the bytes of the packed entry.
pub(super) fn header(row: &[u8], position: Position) -> Result<(Header, usize), DamagedFrame> {
    let (header, content, _) = frame::head(row, position)?;
    Ok((header, content.bytes))
}

/// Reads the entry at `position`, of which `row` is in the database.
pub(super) fn open(store: &Store, position: Position, row: Box<[u8]>) -> Result<Stored, Unread> {
    let (header, content, rest) = frame::head(&row, position)?;
    let place = place(position.segment, content.bytes, rest);
    let (entry, end) = match place {
        None => (Bytes::from(row).slice(FRAME_BYTES..), None),
        Some(place) => {
            let read = store.payload(place, content.bytes).map_err(Unread::Store)?;
            let entry = read.ok_or(DamagedFrame::Payload)?;
            let end = Place { offset: place.offset + entry.len() as u64, ..place };
            (entry.into(), Some(end))
        }
    };
    content.check(&entry)?;
    Ok(Stored { header, entry, end })
}

/// The place that stands behind a frame, if it is not the packed entry of so many bytes.
fn place(segment: u64, entry_bytes: usize, rest: &[u8]) -> Option<Place> {
    let (first, offset) = rest.split_first_chunk::<8>()?;
    let offset = u64::from_le_bytes(offset.try_into().ok()?);
    let file = PayloadFile { segment, first: u64::from_le_bytes(*first) };
    (entry_bytes != PLACE_BYTES).then_some(Place { file, offset })
}

/// Cuts off what a segment has in payload files behind a place, or all of it.
pub(super) fn cut(store: &Store, segment: u64, end: Option<Place>) -> Result<(), StoreError> {
    for file in store.payload_files()?.into_iter().filter(|file| file.segment == segment) {
        match end {
            Some(end) if file < end.file => {}
            Some(end) if file == end.file => store.cut_payloads(end)?,
            _ => store.remove_payloads(file)?,
        }
    }
    Ok(())
}

/// Gives back the payload files of which nothing is needed; `needed` says from which entry of a
/// segment on something is, if anything is.
pub(super) fn release(
    store: &Store,
    needed: impl Fn(u64) -> Option<u64>,
) -> Result<(), StoreError> {
    // Listed before it is asked what is needed: whoever makes a file has its segment known first.
    let files = store.payload_files()?;
    for (at, &file) in files.iter().enumerate() {
        let next = files.get(at + 1).filter(|next| next.segment == file.segment);
        let is_over = match needed(file.segment) {
            None => true,
            Some(index) => next.is_some_and(|next| next.first <= index),
        };
        if is_over {
            store.remove_payloads(file)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::time::UnixNanos;
    use crate::journal::Events;
    use crate::store::Disk;

    /// What stands in a file, on a disk in memory.
    const LARGE: usize = 300;

    fn at(index: u64) -> Position {
        Position { segment: 5, index }
    }

    fn frame(index: u64, content: &[u8]) -> Bytes {
        let mut frame = vec![0; FRAME_BYTES];
        frame.extend_from_slice(content);
        frame::checksum_content(&mut frame);
        let events = Events::of_chunks(1);
        let header = Header { stamp: UnixNanos(7), before: Events::of_chunks(index), events };
        frame::seal(&mut frame, at(index), header);
        frame.into()
    }

    /// Entries of these sizes from an index on, each of one byte over and over.
    fn commit(store: &Store, first: u64, sizes: &[usize]) {
        let frames =
            (first..).zip(sizes).map(|(index, &size)| frame(index, &vec![index as u8; size]));
        let mut batch = store.batch();
        put(store, &mut batch, at(first), &frames.collect::<Vec<_>>()).unwrap();
        store.commit(batch).unwrap();
    }

    fn row(store: &Store, index: u64) -> Box<[u8]> {
        store.get(Table::Journal, &keys::entry(5, index)).unwrap().unwrap().into()
    }

    fn read(store: &Store, index: u64) -> Result<Bytes, String> {
        match open(store, at(index), row(store, index)) {
            Ok(row) => Ok(row.entry),
            Err(Unread::Damaged(damaged)) => Err(damaged.to_string()),
            Err(Unread::Store(error)) => Err(error.to_string()),
        }
    }

    fn files(store: &Store) -> Vec<u64> {
        store.payload_files().unwrap().iter().map(|file| file.first).collect()
    }

    #[test]
    fn a_row_never_changes() {
        let store = Store::in_memory(&Disk::default()).unwrap();
        commit(&store, 3, &[1, LARGE, LARGE]);
        assert_eq!(row(&store, 3).len(), FRAME_BYTES + 1);
        for (index, offset) in [(4, [0, 0]), (5, [0x2c, 1])] {
            let row = row(&store, index);
            assert_eq!(row[..FRAME_BYTES], frame(index, &[index as u8; LARGE])[..FRAME_BYTES]);
            assert_eq!(row[FRAME_BYTES..FRAME_BYTES + 8], [3, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(row[FRAME_BYTES + 8..], [&offset[..], &[0; 6]].concat());
        }
    }

    #[test]
    fn a_few_large_entries_are_not_worth_a_sync() {
        let store = Store::in_memory(&Disk::default()).unwrap();
        for (first, sizes) in [(0, &[199, 95][..]), (2, &[95; 9])] {
            commit(&store, first, sizes);
            assert_eq!(files(&store), [0; 0], "{sizes:?}");
        }
        commit(&store, 11, &[95, 104, 96]);
        assert_eq!(files(&store), [11]);
        assert_eq!(row(&store, 11).len(), FRAME_BYTES + 95);
    }

    #[test]
    fn entries_of_every_size_are_read_as_they_were_written() {
        let store = Store::in_memory(&Disk::default()).unwrap();
        let sizes = [0, 1, PLACE_BYTES, PLACE_BYTES + 1, 95, 96, LARGE, 5000];
        commit(&store, 0, &sizes);
        for (index, size) in (0..).zip(sizes) {
            assert_eq!(read(&store, index).unwrap(), vec![index as u8; size], "{size} bytes");
        }
    }

    #[test]
    fn a_file_that_lacks_a_payload_and_a_place_that_is_wrong_are_damage() {
        let store = Store::in_memory(&Disk::default()).unwrap();
        commit(&store, 0, &[LARGE, LARGE]);
        let misread = |place: usize, byte: u8, to: u8| {
            let mut row = row(&store, 0);
            row[FRAME_BYTES + place..][..usize::from(to)].fill(byte);
            open(&store, at(0), row).err()
        };
        let one_later = misread(8, 1, 1);
        assert!(matches!(one_later, Some(Unread::Damaged(DamagedFrame::Content))));
        for nowhere in [misread(0, 0xff, 8), misread(8, 0xff, 8)] {
            assert!(matches!(nowhere, Some(Unread::Damaged(DamagedFrame::Payload))));
        }
        let file = PayloadFile { segment: 5, first: 0 };
        store.cut_payloads(Place { file, offset: 2 * LARGE as u64 - 1 }).unwrap();
        assert!(read(&store, 0).is_ok());
        assert_eq!(read(&store, 1).unwrap_err(), DamagedFrame::Payload.to_string());
        store.remove_payloads(file).unwrap();
        assert_eq!(read(&store, 0).unwrap_err(), DamagedFrame::Payload.to_string());
    }

    #[test]
    fn a_file_is_given_back_when_the_next_has_all_that_is_needed() {
        let store = Store::in_memory(&Disk::default()).unwrap();
        for first in [0, 4, 8] {
            commit(&store, first, &[LARGE; 4]);
        }
        assert_eq!(files(&store), [0, 4, 8]);
        for (needed, left) in [(Some(3), vec![0, 4, 8]), (Some(4), vec![4, 8]), (Some(99), vec![8])]
        {
            release(&store, |_| needed).unwrap();
            assert_eq!(files(&store), left, "{needed:?}");
        }
        release(&store, |segment| (segment != 5).then_some(0)).unwrap();
        assert_eq!(files(&store), [0; 0]);
    }

    #[test]
    fn what_is_behind_the_last_entry_is_cut_off() {
        let store = Store::in_memory(&Disk::default()).unwrap();
        commit(&store, 0, &[LARGE; 4]);
        commit(&store, 4, &[LARGE; 2]);
        let end = |index| open(&store, at(index), row(&store, index)).ok().unwrap().end;
        cut(&store, 6, None).unwrap();
        cut(&store, 5, end(5)).unwrap();
        assert!(read(&store, 5).is_ok());
        cut(&store, 5, end(4)).unwrap();
        assert!(read(&store, 4).is_ok() && read(&store, 5).is_err());
        cut(&store, 5, end(3)).unwrap();
        assert_eq!(files(&store), [0]);
        assert!(read(&store, 3).is_ok());
        cut(&store, 5, None).unwrap();
        assert_eq!(files(&store), [0; 0]);
    }
}
