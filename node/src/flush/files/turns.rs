//! Who writes the files of a slot: whoever folds it, and else whoever takes them from another
//! owner. The one does not know at once when the facts make it the other.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{FileKey, Files, FilesError, Kept};
use crate::checkpoint::facts::Slot;
use crate::event::slots::SlotSet;
use crate::store::Table;

/// Slots that are folded here: nobody else writes their files meanwhile.
pub struct Folded {
    slots: SlotSet,
    files: Files,
}

impl Files {
    /// Begins to fold slots, once nobody else is writing.
    pub fn fold(&self, slots: SlotSet) -> Folded {
        let mut folded = self.turn();
        *folded = folded.union(&slots);
        drop(folded);
        Folded { slots, files: self.clone() }
    }

    /// The slots that are folded here.
    pub fn folded(&self) -> SlotSet {
        *self.turn()
    }

    /// The slots that are folded, and stay so until this is dropped.
    pub(super) fn turn(&self) -> MutexGuard<'_, SlotSet> {
        self.folded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes so many files of a slot that nobody needs here, at most, and says how many.
    ///
    /// # Errors
    /// When a file cannot be removed, or the database fails.
    pub fn forget(
        &self,
        aggregation: u32,
        slot: Slot,
        most: usize,
        may_forget: impl Fn(Slot) -> bool,
    ) -> Result<usize, FilesError> {
        let found: Vec<_> = self.rows(aggregation, slot)?.take(most).collect::<Result<_, _>>()?;
        if found.is_empty() {
            return Ok(0);
        }
        let folded = self.turn();
        if folded.contains(slot) || !may_forget(slot) {
            return Ok(0);
        }
        let mut batch = self.store.batch();
        for (key, kept) in &found {
            // The row goes last: as long as there is one, what is left is found again.
            self.remove(key, &kept.id)?;
            for seq in Kept::waiting(kept) {
                batch.delete(Table::Files, &key.waiting(seq))?;
            }
            batch.delete(Table::Files, &key.row())?;
        }
        self.store.commit(batch)?;
        Ok(found.len())
    }
}

/// The files that are open to be written.
#[derive(Default)]
pub(super) struct Openings {
    now: BTreeMap<FileKey, u32>,
    /// A file that is being compressed, and whether it was opened since.
    compressed: Option<(FileKey, bool)>,
}

/// A file stays open to be written until this is dropped.
pub(super) struct Opened {
    key: FileKey,
    openings: Arc<Mutex<Openings>>,
}

impl Openings {
    /// Whether a file is open to be written.
    pub(super) fn has(&self, key: &FileKey) -> bool {
        self.now.contains_key(key)
    }

    /// A file begins to be compressed.
    pub(super) fn compress(&mut self, key: FileKey) {
        self.compressed = Some((key, false));
    }

    /// Whether it was opened since.
    pub(super) fn was_opened(&mut self) -> bool {
        self.compressed.take().is_none_or(|(_, was_opened)| was_opened)
    }
}

impl Files {
    /// The files that are open to be written: no other is opened until this is dropped.
    pub(super) fn openings(&self) -> MutexGuard<'_, Openings> {
        self.openings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file is about to be opened.
    pub(super) fn opened(&self, key: &FileKey) -> Opened {
        let mut openings = self.openings();
        *openings.now.entry(*key).or_default() += 1;
        if let Some((compressed, was_opened)) = &mut openings.compressed
            && compressed == key
        {
            *was_opened = true;
        }
        Opened { key: *key, openings: Arc::clone(&self.openings) }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut openings = self.openings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut open) = openings.now.entry(self.key) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

impl Folded {
    /// Goes on with these slots only.
    pub fn retain(&mut self, slots: &SlotSet) {
        let left = self.slots.difference(slots);
        self.slots = self.slots.intersection(slots);
        let mut folded = self.files.turn();
        *folded = folded.difference(&left);
        self.files.hide(|key| left.contains(key.slot()));
    }
}

impl Drop for Folded {
    fn drop(&mut self) {
        self.retain(&SlotSet::default());
    }
}
