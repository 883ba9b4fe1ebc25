//! What closing a window gathers, value by value, in the order of their hashes.

use super::Closed;
use super::count_table::{CountRow, TakeRows};
use super::digest::{SlotSum, SlotSums};
use super::memory::Sizes;
use super::ranking::Ranking;
use super::records::SlotRecords;
use crate::aggregation::SlotTotals;
use crate::event::fingerprint::slot_of;

/// How many distinct records each slot has of one value, as they are counted.
#[derive(Default)]
pub(super) struct SlotCounts(Vec<(u8, u64)>);

impl SlotCounts {
    /// Begins with another value.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Counts keys of a slot; those of a lower one must have been counted before.
    #[inline]
    pub(super) fn add_keys(&mut self, slot: u8, keys: u64) {
        match self.0.last_mut() {
            Some((last, count)) if *last == slot => *count += keys,
            _ => self.0.push((slot, keys)),
        }
    }

    /// Counts records without a key, which are of the slot of the value's hash. All keys
    /// must have been counted before.
    pub(super) fn add_plain(&mut self, hash: u128, records: u64) {
        if records == 0 {
            return;
        }
        let slot = slot_of(hash);
        match self.0.binary_search_by_key(&slot, |&(slot, _)| slot) {
            Ok(at) => self.0[at].1 += records,
            Err(at) => self.0.insert(at, (slot, records)),
        }
    }
}

/// The sums over the values so far; `T` takes the window's count table.
pub(super) struct Closing<T> {
    sums: SlotSums,
    ranking: Ranking,
    table: T,
}

impl<T: TakeRows> Closing<T> {
    /// Lists at most `limit` values.
    pub(super) fn new(limit: usize, table: T) -> Self {
        Closing { sums: SlotSums::new(), ranking: Ranking::new(limit), table }
    }

    /// Adds the next value.
    pub(super) fn add(
        &mut self,
        hash: u128,
        canonical: &[u8],
        counts: &SlotCounts,
    ) -> Result<(), T::Error> {
        let row = CountRow { hash, canonical, slots: &counts.0 };
        // A section may name a value of which it has no record.
        if row.slots.is_empty() {
            return Ok(());
        }
        self.sums.add(&row);
        self.ranking.add(canonical, row.total());
        self.table.take(&row)
    }

    /// The result, when all values were added.
    pub(super) fn finish(self, records: &SlotRecords, sizes: Sizes) -> Result<Closed, T::Error> {
        self.table.finish()?;
        let totals = |(slot, records)| {
            let SlotSum { distinct, digest } = self.sums.of(slot);
            SlotTotals { slot, records, distinct, digest }
        };
        let slots: Vec<SlotTotals> = records.iter().map(totals).collect();
        let counts = self.ranking.finish(records.total());
        let counted: u64 = slots.iter().map(|slot| slot.distinct).sum();
        debug_assert_eq!(counted, counts.distinct);
        Ok(Closed { counts, slots, sizes })
    }
}
