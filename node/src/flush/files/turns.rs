//! Who writes the files of a slot: whoever folds it, and else whoever takes them from another
//! owner. The one does not know at once when the facts make it the other.

use std::sync::{MutexGuard, PoisonError};

use super::{Files, FilesError, Kept};
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
