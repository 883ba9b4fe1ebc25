//! Tables into shortened counts, in one pass and in the memory of a chunk for each table.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use bytes::Bytes;

use super::MalformedTable;
use super::reader::RowReader;
use super::row::CountRow;
use crate::aggregation::distinct_logs::Counts;
use crate::aggregation::distinct_logs::digest::{SlotSum, SlotSums};
use crate::aggregation::distinct_logs::ranking::Ranking;
use crate::event::slots::SlotSet;

/// A count table, from the database or from another node, chunk by chunk.
pub struct Table<I> {
    /// The slots that count of it, whatever else it has.
    pub slots: SlotSet,
    /// Its chunks, in their order.
    pub chunks: I,
}

/// What several tables say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The counts, over all slots that were counted.
    pub counts: Counts,
    /// These slots, in ascending order, also those without a record.
    pub slots: Vec<TableTotals>,
}

/// What tables say of one slot: the same as its [`SlotTotals`](crate::aggregation::SlotTotals)
/// if they are what was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableTotals {
    /// The slot's number.
    pub slot: u8,
    /// The records that were counted in it.
    pub distinct: u64,
    /// Of each value's count in it.
    pub digest: u128,
}

/// Why tables could not be merged.
#[derive(Debug, thiserror::Error)]
#[error("table {table}: {source}")]
pub struct MergeError<E> {
    /// Which table it was, in the order in which they were given.
    pub table: usize,
    /// Why its next chunk is not there, or what is wrong with it.
    pub source: E,
}

/// Merges tables of one window. Each slot counts of at most one of them.
///
/// Tables do not know how many records were folded, so `records` is taken over as it is;
/// the list has at most `limit` values.
///
/// # Errors
/// When a chunk does not come or is malformed.
pub fn merge<I, B, E>(
    tables: impl IntoIterator<Item = Table<I>>,
    records: u64,
    limit: usize,
) -> Result<Merged, MergeError<E>>
where
    I: Iterator<Item = Result<B, E>>,
    B: Into<Bytes>,
    E: From<MalformedTable>,
{
    let mut sum = Sum::new(limit);
    let mut readers = Vec::new();
    let mut waiting = BinaryHeap::new();
    for (table, Table { slots, chunks }) in tables.into_iter().enumerate() {
        sum.count(&slots);
        let mut reader = RowReader::new(chunks, slots);
        if let Some(hash) = reader.advance().map_err(|source| MergeError { table, source })? {
            waiting.push(Reverse((hash, table)));
        }
        readers.push(reader);
    }
    while let Some(mut next) = waiting.peek_mut() {
        let Reverse((_, table)) = *next;
        let reader = &mut readers[table];
        let added = sum.add(&reader.row()).map_err(E::from);
        match added.and_then(|()| reader.advance()) {
            Ok(Some(hash)) => *next = Reverse((hash, table)),
            Ok(None) => drop(PeekMut::pop(next)),
            Err(source) => return Err(MergeError { table, source }),
        }
    }
    Ok(sum.finish(records))
}

/// The rows so far, added up.
struct Sum {
    slots: SlotSet,
    sums: SlotSums,
    ranking: Ranking,
    distinct: u64,
    /// The value that the last row was of.
    hash: u128,
    canonical: Vec<u8>,
    count: u64,
}

impl Sum {
    fn new(limit: usize) -> Self {
        Sum {
            slots: SlotSet::default(),
            sums: SlotSums::new(),
            ranking: Ranking::new(limit),
            distinct: 0,
            hash: 0,
            canonical: Vec::new(),
            count: 0,
        }
    }

    /// Takes note of slots that count of another table.
    fn count(&mut self, slots: &SlotSet) {
        debug_assert!(slots.iter().all(|slot| !self.slots.contains(slot)), "a slot counts twice");
        self.slots = self.slots.union(slots);
    }

    /// Adds a row whose hash is not below the last one's.
    fn add(&mut self, row: &CountRow<'_>) -> Result<(), MalformedTable> {
        let count = row.total();
        // All other sums are parts of this one.
        self.distinct = self.distinct.checked_add(count).ok_or(MalformedTable::Overflow)?;
        self.sums.add(row);
        if row.hash != self.hash {
            self.ranking.add(&self.canonical, self.count);
            self.hash = row.hash;
            self.canonical.clear();
            self.canonical.extend_from_slice(row.canonical);
            self.count = 0;
        } else if row.canonical != self.canonical {
            return Err(MalformedTable::Value);
        }
        self.count += count;
        Ok(())
    }

    fn finish(mut self, records: u64) -> Merged {
        self.ranking.add(&self.canonical, self.count);
        let totals = |slot| {
            let SlotSum { distinct, digest } = self.sums.of(slot);
            TableTotals { slot, distinct, digest }
        };
        let slots = self.slots.iter().map(totals).collect();
        Merged { counts: self.ranking.finish(records), slots }
    }
}
