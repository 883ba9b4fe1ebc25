//! Hash tables from 128-bit keys to numbers, one per slot.
//!
//! Each grows on its own, so that no insertion waits for more than a 256th of them
//! all. The keys are keyed hashes already and are not hashed again: a key's place is
//! its share of the key space below the slot, which keeps a table almost sorted.

use crate::event::fingerprint::{SLOTS, slot_of};

/// How far ahead it is worth to prefetch a key or a value.
pub(super) const PREFETCH_AHEAD: usize = 16;

const FIRST_CAPACITY: usize = 8;
const EMPTY: Row = Row { key: 0, number: 0 };

/// A key and its number, in as few bytes as they have.
#[derive(Clone, Copy)]
#[repr(C, packed(4))]
pub(super) struct Row {
    pub(super) key: u128,
    pub(super) number: u32,
}

/// The key 0 marks an empty place, so it is kept as 1. That makes one of two keys
/// out of 2^128 lose itself in the other.
fn stored(key: u128) -> u128 {
    key.max(1)
}

#[derive(Default)]
struct Table {
    rows: Vec<Row>,
    len: usize,
}

impl Table {
    /// Where the search for a key begins; 0 in a table without any place.
    fn home(&self, key: u128) -> usize {
        let below_slot = (key >> 56) as u64;
        ((u128::from(below_slot) * self.rows.len() as u128) >> 64) as usize
    }

    fn find(&self, key: u128) -> Result<u32, usize> {
        let mut at = self.home(key);
        loop {
            let row = self.rows[at];
            if row.key == key {
                return Ok(row.number);
            }
            if row.key == 0 {
                return Err(at);
            }
            at += 1;
            if at == self.rows.len() {
                at = 0;
            }
        }
    }

    fn is_full(&self) -> bool {
        self.len >= self.rows.len() / 4 * 3
    }

    fn into_sorted(self) -> Vec<Row> {
        let overflow = |row: &&Row| row.key != 0 && self.home(row.key) > self.rows.len() / 2;
        let overflowed = self.rows.iter().take_while(overflow).count();
        let mut rows = self.rows;
        rows.retain(|row| row.key != 0);
        rows.rotate_left(overflowed);
        sort_almost_sorted(&mut rows);
        rows
    }

    fn into_rows(self) -> Vec<Row> {
        let mut rows = self.rows;
        rows.retain(|row| row.key != 0);
        rows
    }

    /// Makes room, half as much again as there is, but at least `least`.
    fn grow(&mut self, least: usize) {
        let capacity = (self.rows.len() / 2 * 3).max(least).max(FIRST_CAPACITY);
        let old = std::mem::replace(&mut self.rows, vec![EMPTY; capacity]);
        for row in old {
            if row.key != 0
                && let Err(free) = self.find(row.key)
            {
                self.rows[free] = row;
            }
        }
    }
}

/// Sorts by key. Takes time in proportion to how far the rows are from their places.
fn sort_almost_sorted(rows: &mut [Row]) {
    for end in 1..rows.len() {
        let row = rows[end];
        let mut at = end;
        while at > 0 && rows[at - 1].key > row.key {
            rows[at] = rows[at - 1];
            at -= 1;
        }
        rows[at] = row;
    }
}

/// One table for each slot.
pub(super) struct Tables {
    tables: Box<[Table; SLOTS]>,
    len: usize,
    places: usize,
    first_capacity: usize,
}

impl Tables {
    /// Tables that will hold about `expected` keys together. They take their memory
    /// when their first key comes.
    pub(super) fn new(expected: usize) -> Self {
        let tables = Box::new(std::array::from_fn(|_| Table::default()));
        let first_capacity = expected / SLOTS * 3 / 2;
        Tables { tables, len: 0, places: 0, first_capacity }
    }

    /// The number of keys.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The memory that the tables take.
    pub(super) fn bytes(&self) -> usize {
        self.places * size_of::<Row>()
    }

    /// Starts to load the place of a key that is soon to be inserted.
    #[inline]
    pub(super) fn prefetch(&self, key: u128) {
        let table = &self.tables[usize::from(slot_of(key))];
        prefetch(table.rows.as_ptr().wrapping_add(table.home(stored(key))));
    }

    /// The number of a key, if it was inserted.
    pub(super) fn get(&self, key: u128) -> Option<u32> {
        let key = stored(key);
        let table = &self.tables[usize::from(slot_of(key))];
        if table.rows.is_empty() { None } else { table.find(key).ok() }
    }

    /// Inserts a key with its number, unless it is there: then its number is returned.
    #[inline]
    pub(super) fn insert(&mut self, key: u128, number: u32) -> Option<u32> {
        let key = stored(key);
        let table = &mut self.tables[usize::from(slot_of(key))];
        if table.is_full() {
            self.places -= table.rows.len();
            table.grow(self.first_capacity);
            self.places += table.rows.len();
        }
        match table.find(key) {
            Ok(number) => Some(number),
            Err(free) => {
                table.rows[free] = Row { key, number };
                table.len += 1;
                self.len += 1;
                None
            }
        }
    }

    /// All keys with their numbers, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Row> {
        let rows = self.tables.iter().flat_map(|table| table.rows.iter().copied());
        rows.filter(|row| row.key != 0)
    }

    /// The keys with their numbers, slot by slot, each in no order. The memory of a slot is
    /// given back when the next one is asked for.
    pub(super) fn into_slots(self) -> impl Iterator<Item = Vec<Row>> {
        self.tables.into_iter().map(Table::into_rows)
    }

    /// The keys with their numbers, slot by slot, each sorted by key. The memory of a
    /// slot is given back when the next one is asked for.
    pub(super) fn into_sorted(self) -> impl Iterator<Item = Vec<Row>> {
        self.tables.into_iter().map(Table::into_sorted)
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn prefetch<T>(place: *const T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint that reads nothing and cannot fault, whatever the address; the
    // instruction is part of every x86-64 processor.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(super) fn prefetch<T>(_place: *const T) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_inserted_once() {
        let mut tables = Tables::new(0);
        assert_eq!(tables.insert(5, 1), None);
        assert_eq!(tables.insert(5, 2), Some(1));
        assert_eq!((tables.len(), tables.get(5), tables.get(6)), (1, Some(1), None));
    }

    #[test]
    fn keys_survive_growth_and_come_out_sorted() {
        let mut tables = Tables::new(0);
        let key = |number: u32| u128::from(number).wrapping_mul(u128::MAX / 7919);
        for number in 0..10_000 {
            assert_eq!(tables.insert(key(number), number), None, "{number}");
        }
        for number in 0..10_000 {
            assert_eq!(tables.insert(key(number), 0), Some(number));
        }
        assert_eq!(tables.iter().count(), 10_000);
        assert!(tables.bytes() >= 10_000 * size_of::<Row>());
        let sorted: Vec<u128> = tables.into_sorted().flatten().map(|row| row.key).collect();
        assert_eq!(sorted.len(), 10_000);
        assert!(sorted.is_sorted());
    }

    #[test]
    fn the_last_places_of_a_table_overflow_into_its_first() {
        let mut tables = Tables::new(0);
        let high = |number: u128| (u128::MAX >> 8) - number;
        for number in 0..100 {
            assert_eq!(tables.insert(high(number), number as u32), None);
        }
        for number in 0..100 {
            assert_eq!(tables.get(high(number)), Some(number as u32));
        }
    }

    #[test]
    fn the_key_0_is_kept_as_1() {
        let mut tables = Tables::new(0);
        assert_eq!(tables.insert(0, 7), None);
        assert_eq!((tables.get(0), tables.get(1)), (Some(7), Some(7)));
    }
}
