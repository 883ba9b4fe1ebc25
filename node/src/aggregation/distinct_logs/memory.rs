//! The part of a window that is in memory: its keys, and its values.

use serde::{Deserialize, Serialize};

use super::Closed;
use super::closing::{Closing, SlotCounts};
use super::count_table::TakeRows;
use super::records::SlotRecords;
use super::table::{PREFETCH_AHEAD, Row, Tables};
use super::values::Values;
use crate::event::entry::distinct::{DistinctSection, Keys};
use crate::event::fingerprint::slot_of;

/// How much a window held in memory at once, for the next one to begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Keys.
    pub keys: usize,
    /// Values.
    pub values: usize,
}

impl Sizes {
    /// At most what takes about `bytes` in tables, in the same proportion.
    pub(super) fn within(self, bytes: usize) -> Sizes {
        let rows = (self.keys + self.values).max(1);
        let fitting = bytes / (2 * size_of::<Row>());
        let scale =
            |count: usize| count.min((count as u128 * fitting as u128 / rows as u128) as usize);
        Sizes { keys: scale(self.keys), values: scale(self.values) }
    }
}

/// The most keys that [`Memory::fold_keys`] takes at once.
pub(super) const PART: usize = 1024;

/// Stands for a value of a section that was not interned yet.
const NOT_INTERNED: u32 = u32::MAX;

/// The ids of a section's values, as far as they were needed.
#[derive(Default)]
pub(super) struct Ids {
    ids: Vec<u32>,
    part: Vec<u32>,
}

impl Ids {
    /// For a section with this many values, or for new memory in the midst of one.
    pub(super) fn reset(&mut self, values: usize) {
        self.ids.clear();
        self.ids.resize(values, NOT_INTERNED);
        self.part.resize(PART, 0);
    }
}

/// Keys, and what was counted for each value.
pub(super) struct Memory {
    pub(super) keys: Tables,
    pub(super) values: Values,
    plain: u64,
}

impl Memory {
    /// Room for about as much as `expected` says, taken when it is needed.
    pub(super) fn new(expected: Sizes) -> Self {
        let (keys, values) = (Tables::new(expected.keys), Values::new(expected.values));
        Memory { keys, values, plain: 0 }
    }

    /// The memory that is taken.
    pub(super) fn bytes(&self) -> usize {
        self.keys.bytes() + self.values.bytes()
    }

    pub(super) fn sizes(&self) -> Sizes {
        Sizes { keys: self.keys.len(), values: self.values.len() }
    }

    /// What was counted.
    pub(super) fn distinct(&self) -> u64 {
        self.keys.len() as u64 + self.plain
    }

    /// Adds a part of a section's keys, at most [`PART`].
    ///
    /// The indices must point into the section, as in a section that was parsed.
    pub(super) fn fold_keys(
        &mut self,
        section: &DistinctSection<'_>,
        part: Keys<'_>,
        Ids { ids, part: indices }: &mut Ids,
    ) {
        let indices = part.indices(indices);
        for (at, &index) in indices.iter().enumerate() {
            if let Some(&ahead) = indices.get(at + PREFETCH_AHEAD)
                && ids[ahead as usize] == NOT_INTERNED
            {
                self.values.prefetch(section.hash(ahead as usize));
            }
            let id = &mut ids[index as usize];
            if *id == NOT_INTERNED {
                let value = section.value(index as usize);
                *id = self.values.intern(value.hash, value.canonical);
            }
        }
        for at in 0..part.len().min(PREFETCH_AHEAD) {
            self.keys.prefetch(part.key(at));
        }
        for (at, &index) in indices.iter().enumerate() {
            if at + PREFETCH_AHEAD < part.len() {
                self.keys.prefetch(part.key(at + PREFETCH_AHEAD));
            }
            let id = ids[index as usize];
            if self.keys.insert(part.key(at), id).is_none() {
                self.values.add_key(id);
            }
        }
    }

    /// Adds records of a section's value, without their keys.
    pub(super) fn fold_count(&mut self, section: &DistinctSection<'_>, index: usize, count: u32) {
        let value = section.value(index);
        let id = self.values.intern(value.hash, value.canonical);
        self.values.add_plain(id, count);
        self.plain += u64::from(count);
    }

    /// The exact result, if nothing of the window is elsewhere; its rows go to `table`.
    pub(super) fn close<T: TakeRows>(
        self,
        records: &SlotRecords,
        limit: usize,
        table: T,
    ) -> Result<Closed, T::Error> {
        let sizes = self.sizes();
        let values = self.values.into_ranked();
        // Of a key no more than its slot is needed, which is a byte and not sixteen.
        let slots = values.group(self.keys.into_slots(), |row| slot_of(row.key));
        let mut slots = slots.as_slice();
        let mut closing = Closing::new(limit, table);
        let mut counts = SlotCounts::default();
        for (hash, value) in values.iter() {
            let (own, rest) = slots.split_at(value.keys as usize);
            slots = rest;
            counts.clear();
            for run in own.chunk_by(|one, next| one == next) {
                counts.add_keys(run[0], run.len() as u64);
            }
            counts.add_plain(hash, value.plain);
            closing.add(hash, value.canonical, &counts)?;
        }
        closing.finish(records, sizes)
    }
}
