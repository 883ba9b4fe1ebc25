//! How many records were folded in each slot.

use serde::{Deserialize, Serialize};

use crate::event::entry::distinct::{Content, DistinctSection};
use crate::event::fingerprint::{SLOTS, slot_of};
use crate::event::slots::SlotSet;

/// The records of each slot, distinct or not. In JSON, those of the slots that have any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u8, u64)>", into = "Vec<(u8, u64)>")]
pub struct SlotRecords(Box<[u64; SLOTS]>);

impl Default for SlotRecords {
    fn default() -> Self {
        SlotRecords(Box::new([0; SLOTS]))
    }
}

impl SlotRecords {
    /// Adds a section's records: each belongs to the slot of its key or, without keys, of
    /// its value's hash.
    pub fn add(&mut self, section: &DistinctSection<'_>) {
        match section.content() {
            Content::Keys(keys) => {
                for at in 0..keys.len() {
                    self.0[usize::from(slot_of(keys.key(at)))] += 1;
                }
            }
            Content::Counts(counts) => {
                for (index, count) in counts.iter().enumerate() {
                    self.0[usize::from(slot_of(section.hash(index)))] += u64::from(count);
                }
            }
        }
    }

    /// The records of these slots.
    pub fn of(&self, slots: &SlotSet) -> u64 {
        slots.iter().map(|slot| self.0[usize::from(slot)]).sum()
    }

    /// The records of all slots.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The slots that have records, in ascending order, with how many.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u8, u64)> {
        let slots = (0..=u8::MAX).zip(self.0.iter().copied());
        slots.filter(|&(_, records)| records > 0)
    }
}

impl From<Vec<(u8, u64)>> for SlotRecords {
    fn from(slots: Vec<(u8, u64)>) -> Self {
        let mut all = SlotRecords::default();
        for (slot, records) in slots {
            all.0[usize::from(slot)] = records;
        }
        all
    }
}

impl From<SlotRecords> for Vec<(u8, u64)> {
    fn from(records: SlotRecords) -> Self {
        records.iter().collect()
    }
}
