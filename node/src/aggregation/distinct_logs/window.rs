//! One window of one aggregation, from its first section to its counts.

use std::path::{Path, PathBuf};

use super::closing::Closing;
use super::count_table::{Chunks, NoTable, TakeRows};
use super::memory::{Ids, Memory, PART, Sizes};
use super::ranking::Ranking;
use super::records::SlotRecords;
use super::run::Scratch;
use super::spill::Spilled;
use super::values;
use super::{Carried, Closed, Counts, FoldError, merge};
use crate::event::entry::distinct::{Content, DistinctSection, Keys};

/// How much memory a window may take, in bytes; beyond it the window spills.
///
/// The limit holds for what is being filled and what is being written together. To
/// sort a part that is being written takes up to half as much again as the part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimit(pub usize);

impl MemoryLimit {
    /// What may be filled: half, so that the other half can be written meanwhile.
    fn share(self) -> usize {
        self.0.min(values::BYTES_MAX) / 2
    }
}

/// The state of one window of one aggregation.
///
/// Dropping it removes all that it has on disk, unless it was carried.
pub struct OpenWindow {
    limit: MemoryLimit,
    folder: PathBuf,
    records: SlotRecords,
    memory: Memory,
    ids: Ids,
    sizes: Sizes,
    spilled: Option<Spilled>,
    failed: bool,
}

impl OpenWindow {
    /// An empty window. Its runs, if it needs any, go to the folder `scratch`; `like`
    /// is the size of the window before, if it is known.
    pub fn new(limit: MemoryLimit, scratch: &Path, like: Option<&Sizes>) -> Self {
        let sizes = like.copied().unwrap_or_default();
        OpenWindow {
            limit,
            folder: scratch.to_owned(),
            records: SlotRecords::default(),
            memory: Memory::new(sizes.within(limit.share() / 2)),
            ids: Ids::default(),
            sizes: Sizes::default(),
            spilled: None,
            failed: false,
        }
    }

    /// Adds a section.
    ///
    /// When memory is full, it is handed to a thread that writes it to disk. Folding
    /// goes on meanwhile; it waits only if memory is full again before the thread is
    /// done.
    ///
    /// # Errors
    /// When the scratch folder fails; the window cannot go on then.
    pub fn fold(&mut self, section: &DistinctSection<'_>) -> Result<(), FoldError> {
        if self.failed {
            return Err(FoldError::Failed);
        }
        let folded = match section.content() {
            Content::Keys(keys) => self.fold_keys(section, keys),
            Content::Counts(counts) => self.fold_counts(section, counts.iter()),
        };
        let folded = folded.and_then(|()| self.spilled.as_mut().map_or(Ok(()), Spilled::poll));
        self.failed = folded.is_err();
        self.records.add(section);
        folded
    }

    fn fold_keys(
        &mut self,
        section: &DistinctSection<'_>,
        keys: Keys<'_>,
    ) -> Result<(), FoldError> {
        self.ids.reset(section.values());
        for start in (0..keys.len()).step_by(PART) {
            if self.make_room()? {
                self.ids.reset(section.values());
            }
            self.memory.fold_keys(section, keys.part(start, PART), &mut self.ids);
        }
        Ok(())
    }

    fn fold_counts(
        &mut self,
        section: &DistinctSection<'_>,
        counts: impl Iterator<Item = u32>,
    ) -> Result<(), FoldError> {
        for (index, count) in counts.enumerate() {
            self.make_room()?;
            self.memory.fold_count(section, index, count);
        }
        Ok(())
    }

    /// Spills if memory is full, and says whether it did.
    fn make_room(&mut self) -> Result<bool, FoldError> {
        if self.memory.bytes() <= self.limit.share() {
            return Ok(false);
        }
        self.spill()?;
        Ok(true)
    }

    /// Hands what is in memory to a thread that writes it, after the part before.
    pub(super) fn spill(&mut self) -> Result<(), FoldError> {
        let sizes = self.memory.sizes();
        self.sizes.keys = self.sizes.keys.max(sizes.keys);
        self.sizes.values = self.sizes.values.max(sizes.values);
        let spilled = match &mut self.spilled {
            Some(spilled) => spilled,
            none => none.insert(Spilled::new(Scratch::create(&self.folder)?)),
        };
        spilled.wait()?;
        let fresh = Memory::new(sizes.within(self.limit.share() / 2));
        spilled.write(std::mem::replace(&mut self.memory, fresh))
    }

    /// Moves everything to disk and makes it durable: with the answer, the window can be
    /// taken up again as it is now.
    ///
    /// # Errors
    /// When the scratch folder fails; the window cannot go on then.
    pub fn carry(&mut self) -> Result<Carried, FoldError> {
        if self.failed {
            return Err(FoldError::Failed);
        }
        let carried = self.spill().and_then(|()| match &mut self.spilled {
            Some(spilled) => spilled.carry(),
            None => Err(FoldError::Failed),
        });
        self.failed = carried.is_err();
        Ok(Carried { records: self.records.clone(), sizes: self.sizes, runs: carried? })
    }

    /// Takes up a window that was carried to the folder `scratch`. What it spills from now on
    /// goes to another file, where what was carried is copied first.
    ///
    /// # Errors
    /// When its file is not what was carried.
    pub fn resume(limit: MemoryLimit, scratch: &Path, carried: Carried) -> Result<Self, FoldError> {
        let Carried { records, sizes, runs } = carried;
        let path = scratch.join(&runs.file);
        let spilled = Spilled::resume(scratch, runs);
        let spilled = spilled.map_err(|source| FoldError::Carried { path, source: source.into() });
        let spilled = Some(spilled?);
        let fresh = OpenWindow::new(limit, scratch, Some(&sizes));
        Ok(OpenWindow { records, sizes, spilled, ..fresh })
    }

    /// The records that were folded.
    pub fn records(&self) -> &SlotRecords {
        &self.records
    }

    /// The memory that the window takes, including what is being written to disk.
    pub fn memory_bytes(&self) -> usize {
        self.memory.bytes() + self.spilled.as_ref().map_or(0, Spilled::memory_bytes)
    }

    /// What the window's memory held at most, for the next window to begin with.
    pub fn sizes(&self) -> Sizes {
        let now = self.memory.sizes();
        let Sizes { keys, values } = self.sizes;
        Sizes { keys: keys.max(now.keys), values: values.max(now.values) }
    }

    /// How often memory was full.
    pub fn spills(&self) -> u64 {
        self.spilled.as_ref().map_or(0, Spilled::parts)
    }

    /// The counts so far, with at most `limit` values. Takes time in proportion to
    /// the values in memory. Exact unless something was spilled: see
    /// [`Counts::upper_bound`].
    pub fn current(&self, limit: usize) -> Counts {
        if let Some(spilled) = &self.spilled {
            return spilled.current(&self.memory, self.records.total(), limit);
        }
        let mut ranking = Ranking::new(limit);
        for value in self.memory.values.iter() {
            ranking.add(value.canonical, value.total());
        }
        ranking.finish(self.records.total())
    }

    /// The exact counts, with at most `limit` values in the list.
    ///
    /// If anything was spilled, the rest is too, and then memory is given back: the
    /// runs are merged as they are read, in 64 KiB for each of them.
    ///
    /// # Errors
    /// When the scratch folder fails, or did before.
    pub fn close(self, limit: usize) -> Result<Closed, FoldError> {
        self.close_into(limit, NoTable)
    }

    /// As [`OpenWindow::close`], and calls `hand_out` with each chunk of the window's
    /// [count table](super::count_table), in order. One chunk at a time is in memory.
    ///
    /// # Errors
    /// As [`OpenWindow::close`], and what `hand_out` fails with.
    pub fn close_with_table<E: From<FoldError>>(
        self,
        limit: usize,
        hand_out: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<Closed, E> {
        self.close_into(limit, Chunks::to(hand_out))
    }

    fn close_into<T: TakeRows>(mut self, limit: usize, table: T) -> Result<Closed, T::Error> {
        if self.failed {
            return Err(FoldError::Failed.into());
        }
        if self.spilled.is_none() {
            return self.memory.close(&self.records, limit, table);
        }
        if self.memory.values.len() > 0 {
            self.spill()?;
        }
        let OpenWindow { records, sizes, spilled, memory, .. } = self;
        drop(memory);
        let Some(spilled) = spilled else { return Err(FoldError::Failed.into()) };
        let (scratch, runs) = spilled.into_runs()?;
        let mut closing = Closing::new(limit, table);
        merge::merge(&scratch, &runs, &mut closing)?;
        closing.finish(&records, sizes)
    }
}
