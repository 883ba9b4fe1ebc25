//! Segments of other nodes of which this one has a copy.
//!
//! A copy takes entries as the writer made them, in their order, and only in the life in
//! which it began. Once it is fenced it takes no more, and that is durable before it says
//! how far it got: so the cluster can fix the segment's end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::event::time::UnixNanos;
use crate::journal::follow::Follower;
use crate::journal::frame::{self, DamagedFrame, Header};
use crate::journal::marks::Marks;
use crate::journal::replay::{self, JournalError};
use crate::journal::rows;
use crate::journal::{Events, Extent, Position, Stamped};
use crate::store::{Store, StoreError, Table, keys};

/// Why a copy does not take entries.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// It was fenced, or began in an earlier life: the writer has to open another segment.
    #[error("this copy of segment {0} takes nothing more")]
    Closed(u64),
    /// Entries are missing before those that came.
    #[error("this copy of segment {segment} has {has} entries, and entry {came} came")]
    Gap {
        /// The segment.
        segment: u64,
        /// The entries that are there.
        has: u64,
        /// The first that came.
        came: u64,
    },
    /// What came is not what a writer makes.
    #[error("an entry for a copy of segment {segment}: {source}")]
    Damaged {
        /// The segment.
        segment: u64,
        /// What is wrong with it.
        source: DamagedFrame,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the database has of a copy is damaged.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The copies; cheap to clone.
#[derive(Clone)]
pub struct Copies {
    store: Arc<Store>,
    known: Arc<Mutex<BTreeMap<u64, Arc<Mutex<Copy>>>>>,
}

#[derive(Default)]
struct Copy {
    fact: Fact,
    marks: Marks,
    /// Whether it takes entries.
    grows: bool,
}

/// What is recorded of a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Fact {
    /// Whether it never takes anything more.
    fenced: bool,
    /// What all entries of the writer before the segment carry.
    before: Events,
    /// What was trimmed of it.
    trimmed: Extent,
}

impl Copies {
    /// The copies that earlier lives have made; none of them grows any more.
    ///
    /// # Errors
    /// When one is damaged, or the database cannot be read.
    pub fn open(store: Arc<Store>) -> Result<Copies, JournalError> {
        let (from, to) = keys::copies();
        let mut known = BTreeMap::new();
        for (key, fact) in store.facts::<Fact>(&from, &to)? {
            let Some(segment) = keys::segment_number(&key) else { continue };
            let marks = replay::marks(&store, segment, fact.trimmed, None)?;
            known.insert(segment, Arc::new(Mutex::new(Copy { fact, marks, grows: false })));
        }
        Ok(Copies { store, known: Arc::new(Mutex::new(known)) })
    }

    /// Begins a copy of a segment that was just opened.
    ///
    /// # Errors
    /// When there is one already, or the database cannot be written.
    pub fn begin(&self, segment: u64) -> Result<(), CopyError> {
        let mut known = self.known();
        if known.contains_key(&segment) {
            return Err(CopyError::Closed(segment));
        }
        let (fact, marks) = (Fact::default(), Marks::default());
        self.record(segment, fact)?;
        known.insert(segment, Arc::new(Mutex::new(Copy { fact, marks, grows: true })));
        Ok(())
    }

    /// Waits until the disk takes a write.
    pub async fn ready(&self) {
        self.store.ready().await;
    }

    /// Makes entries durable that follow those before; returns how many there are then.
    /// Blocks for as long as that takes.
    ///
    /// # Errors
    /// As [`CopyError`] says.
    pub fn append(&self, segment: u64, first: u64, frames: &[Bytes]) -> Result<u64, CopyError> {
        let copy = self.copy(segment).ok_or(CopyError::Closed(segment))?;
        let mut copy = lock(&copy);
        if !copy.grows {
            return Err(CopyError::Closed(segment));
        }
        let has = copy.marks.end().entries;
        if first != has {
            return Err(CopyError::Gap { segment, has, came: first });
        }
        let mut batch = self.store.batch();
        let mut stamped = Vec::with_capacity(frames.len());
        for (index, bytes) in (first..).zip(frames) {
            let opened = frame::open(bytes, Position { segment, index });
            let (header, _) = opened.map_err(|source| CopyError::Damaged { segment, source })?;
            if index == 0 {
                copy.fact.before = header.before;
                batch.put_fact(&keys::copy(segment), &copy.fact)?;
            }
            stamped.push(header);
        }
        rows::put(&self.store, &mut batch, Position { segment, index: first }, frames)?;
        self.store.commit(batch)?;
        for Header { stamp, events, .. } in stamped {
            copy.marks.append(stamp, Extent::new(1, events));
        }
        Ok(copy.marks.end().entries)
    }

    /// Takes no more entries of a segment, durably, and says what there is. A copy that has not
    /// begun is empty, and never does. `None` for segment 0, which there is not.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn fence(&self, segment: u64) -> Result<Option<Stamped>, CopyError> {
        if segment == 0 {
            return Ok(None);
        }
        let copy = Arc::clone(self.known().entry(segment).or_default());
        let mut copy = lock(&copy);
        (copy.grows, copy.fact.fenced) = (false, true);
        self.record(segment, copy.fact)?;
        Ok(Some(Stamped { before: copy.marks.end(), last: copy.marks.last() }))
    }

    /// Cuts off what lies beyond the end of a segment that was sealed.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn seal(&self, segment: u64, end: u64) -> Result<(), CopyError> {
        let Some(copy) = self.copy(segment) else { return Ok(()) };
        let mut copy = lock(&copy);
        copy.grows = false;
        if copy.marks.end().entries > end {
            replay::truncate(&self.store, Position { segment, index: end })?;
            copy.marks = replay::marks(&self.store, segment, copy.fact.trimmed, Some(end))?;
        }
        Ok(())
    }

    /// How much of a copy is stamped before a time, and its last stamp.
    pub fn stamped(&self, segment: u64, time: UnixNanos) -> Option<Stamped> {
        let copy = self.copy(segment)?;
        let copy = lock(&copy);
        Some(Stamped { before: copy.marks.before(time), last: copy.marks.last() })
    }

    /// Reads a sealed segment from a position on, if all of it is here.
    pub fn follow(&self, from: Position, end: u64) -> Option<Follower> {
        let copy = self.copy(from.segment)?;
        let has = lock(&copy).marks.end().entries;
        (has >= end).then(|| Follower::of_sealed(Arc::clone(&self.store), from, end))
    }

    /// Forgets all copies but those in `needed`, and of these what is before the first entry
    /// that is needed. Nobody asks any more what is stamped before `cut`.
    pub(super) fn trim(
        &self,
        needed: &BTreeMap<u64, u64>,
        cut: UnixNanos,
    ) -> Result<(), JournalError> {
        let known: Vec<_> = self.known().iter().map(|(&id, copy)| (id, Arc::clone(copy))).collect();
        for (segment, copy) in known {
            match needed.get(&segment) {
                // It may have begun, or been fenced, before this node knows of the segment.
                None if lock(&copy).may_be_new() && needed.range(segment..).next().is_none() => {}
                None => self.forget(segment)?,
                Some(&index) => self.trim_one(segment, &mut lock(&copy), index, cut)?,
            }
        }
        Ok(())
    }

    /// The first entry that is kept, if there is a copy.
    pub(super) fn first(&self) -> Option<Position> {
        let known = self.known();
        let (&segment, copy) = known.first_key_value()?;
        Some(Position { segment, index: lock(copy).fact.trimmed.entries })
    }

    /// The first entry of a segment that is kept, if there is a copy.
    pub(super) fn begin_of(&self, segment: u64) -> Option<u64> {
        let copy = self.copy(segment)?;
        let begin = lock(&copy).fact.trimmed.entries;
        Some(begin)
    }

    fn forget(&self, segment: u64) -> Result<(), StoreError> {
        let mut batch = self.store.batch();
        batch.delete(Table::Facts, &keys::copy(segment))?;
        self.store.commit(batch)?;
        self.known().remove(&segment);
        Ok(())
    }

    fn trim_one(
        &self,
        segment: u64,
        copy: &mut Copy,
        index: u64,
        cut: UnixNanos,
    ) -> Result<(), JournalError> {
        copy.marks.forget(cut);
        // What is before an entry stands in its frame.
        let index = index.min(copy.marks.end().entries.saturating_sub(1));
        if index <= copy.fact.trimmed.entries {
            return Ok(());
        }
        let before = replay::before(&self.store, Position { segment, index })?;
        let Some(before) = before else { return Ok(()) };
        copy.fact.trimmed = Extent::new(index, before.beyond(copy.fact.before));
        Ok(self.record(segment, copy.fact)?)
    }

    fn record(&self, segment: u64, fact: Fact) -> Result<(), StoreError> {
        let mut batch = self.store.batch();
        batch.put_fact(&keys::copy(segment), &fact)?;
        self.store.commit(batch)
    }

    fn copy(&self, segment: u64) -> Option<Arc<Mutex<Copy>>> {
        self.known().get(&segment).cloned()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Mutex<Copy>>>> {
        lock(&self.known)
    }
}

impl Copy {
    fn may_be_new(&self) -> bool {
        self.grows || self.marks.end().entries == 0
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked held it for one change: what is there is whole.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::time::SECOND;
    use crate::journal::FRAME_BYTES;
    use crate::store::Disk;

    fn frame(segment: u64, index: u64, second: u64) -> Bytes {
        let mut bytes = vec![7; FRAME_BYTES + 3];
        frame::checksum_content(&mut bytes);
        let stamp = UnixNanos(second * SECOND);
        let before = Events { records: 100 + 10 * index, chunks: 20 + index };
        let header = Header { stamp, before, events: Events { records: 10, chunks: 1 } };
        frame::seal(&mut bytes, Position { segment, index }, header);
        bytes.into()
    }

    fn copies(disk: &Disk) -> Copies {
        Copies::open(Arc::new(Store::in_memory(disk).unwrap())).unwrap()
    }

    fn extent(entries: u64) -> Extent {
        Extent { entries, records: 10 * entries, chunks: entries }
    }

    /// A copy of segment 5 with three entries, of the seconds 1, 2 and 3.
    fn filled(disk: &Disk) -> Copies {
        let copies = copies(disk);
        copies.begin(5).unwrap();
        let frames: Vec<_> = (0..3).map(|index| frame(5, index, index + 1)).collect();
        assert_eq!(copies.append(5, 0, &frames[..1]).unwrap(), 1);
        assert_eq!(copies.append(5, 1, &frames[1..]).unwrap(), 3);
        copies
    }

    #[test]
    fn what_a_copy_took_is_there_after_a_crash_and_it_takes_no_more() {
        let disk = Disk::default();
        drop(filled(&disk));
        disk.crash();
        let copies = copies(&disk);
        let stamped = copies.stamped(5, UnixNanos(3 * SECOND)).unwrap();
        assert_eq!((stamped.before, stamped.last), (extent(2), UnixNanos(3 * SECOND)));
        let more = copies.append(5, 3, &[frame(5, 3, 4)]);
        assert!(matches!(more, Err(CopyError::Closed(5))), "{more:?}");
        assert!(matches!(copies.begin(5), Err(CopyError::Closed(5))));
    }

    #[test]
    fn a_fenced_copy_takes_nothing_more_and_says_how_far_it_got() {
        let copies = filled(&Disk::default());
        let reached = copies.fence(5).unwrap().unwrap();
        assert_eq!((reached.before, reached.last), (extent(3), UnixNanos(3 * SECOND)));
        let more = copies.append(5, 3, &[frame(5, 3, 4)]);
        assert!(matches!(more, Err(CopyError::Closed(5))), "{more:?}");
    }

    #[test]
    fn a_copy_that_is_fenced_before_it_begins_is_empty_and_never_begins() {
        let disk = Disk::default();
        let copies = filled(&disk);
        assert_eq!(copies.fence(0).unwrap(), None);
        assert_eq!(copies.fence(7).unwrap().unwrap().before, extent(0));
        // This node does not know of the segment yet.
        copies.trim(&BTreeMap::from([(5, 0)]), UnixNanos(0)).unwrap();
        assert!(matches!(copies.begin(7), Err(CopyError::Closed(7))));
        drop(copies);
        disk.crash();
        let copies = self::copies(&disk);
        assert!(matches!(copies.begin(7), Err(CopyError::Closed(7))));
        copies.trim(&BTreeMap::from([(8, 0)]), UnixNanos(0)).unwrap();
        assert_eq!(copies.stamped(7, UnixNanos(0)), None, "it is gone from the facts by now");
    }

    #[test]
    fn a_gap_and_a_damaged_entry_are_refused_and_nothing_of_them_is_kept() {
        let copies = filled(&Disk::default());
        let gap = copies.append(5, 4, &[frame(5, 4, 4)]);
        assert!(matches!(gap, Err(CopyError::Gap { has: 3, came: 4, .. })), "{gap:?}");
        let misplaced = copies.append(5, 3, &[frame(5, 3, 4), frame(5, 5, 4)]);
        assert!(matches!(misplaced, Err(CopyError::Damaged { .. })), "{misplaced:?}");
        assert_eq!(copies.append(5, 3, &[frame(5, 3, 4)]).unwrap(), 4);
    }

    #[tokio::test]
    async fn a_sealed_copy_ends_where_the_cluster_says() {
        let disk = Disk::default();
        let copies = filled(&disk);
        let from = Position { segment: 5, index: 1 };
        assert!(copies.follow(from, 4).is_none(), "not all of it is here");
        copies.seal(5, 2).unwrap();
        let mut follower = copies.follow(from, 2).unwrap();
        let read = follower.next(1 << 20).await.unwrap();
        assert_eq!(read.iter().map(|entry| entry.index).collect::<Vec<_>>(), [1]);
        let stamped = copies.stamped(5, UnixNanos(9 * SECOND)).unwrap();
        assert_eq!((stamped.before, stamped.last), (extent(2), UnixNanos(2 * SECOND)));
    }

    #[test]
    fn what_is_trimmed_of_a_copy_still_counts() {
        let disk = Disk::default();
        let copies = filled(&disk);
        copies.trim(&BTreeMap::from([(5, 2)]), UnixNanos(0)).unwrap();
        replay::release(&copies.store, copies.first().unwrap()).unwrap();
        drop(copies);
        let copies = self::copies(&disk);
        assert_eq!(copies.fence(5).unwrap().unwrap().before, extent(3));
        copies.trim(&BTreeMap::new(), UnixNanos(0)).unwrap();
        assert_eq!(copies.stamped(5, UnixNanos(0)), None);
        drop(copies);
        assert_eq!(self::copies(&disk).stamped(5, UnixNanos(0)), None);
    }
}
