//! The bytes of values, each once, with what was counted for it.
//!
//! ```text
//! 0..8   records that were counted without a key
//! 8..12  keys that were counted
//! 12..16 rank: the value's place in the order of hashes, once it is known
//! 16..20 bytes of the value
//! 20..   the value in its canonical encoding, and up to 15 bytes of nothing
//! ```
//! Values stand one after the other in chunks. A value's id is its place, in units
//! of 16 bytes, so that counting needs no table between the two.

use super::table::{self, PREFETCH_AHEAD, Row, Tables};
use crate::event::value::Tag;

const UNIT: usize = 16;
const UNITS_BITS: u32 = 14;
const CHUNK_BYTES: usize = UNIT << UNITS_BITS;
const FIRST_CHUNK_BYTES: usize = 4 << 10;
const HEAD_BYTES: usize = 20;

/// The most memory for values: a quarter of what ids of 32 bits can tell apart,
/// since a value that is larger than a chunk may leave the one before unfilled.
pub(super) const BYTES_MAX: usize = (UNIT << 32) / 4;

/// A value and what was counted for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted<'a> {
    pub(super) canonical: &'a [u8],
    /// Records that were counted without a key.
    pub(super) plain: u64,
    /// Keys that were counted.
    pub(super) keys: u32,
}

impl Counted<'_> {
    pub(super) fn total(&self) -> u64 {
        self.plain + u64::from(self.keys)
    }
}

/// Whether a value stands for the records without the attribute.
pub(super) fn is_unknown(canonical: &[u8]) -> bool {
    canonical.first() == Some(&(Tag::Absent as u8))
}

/// The values of a window, or of the part of it that is in memory.
pub(super) struct Values {
    index: Tables,
    arena: Arena,
    unknown: Option<u32>,
}

impl Values {
    /// Room for about `expected` values.
    pub(super) fn new(expected: usize) -> Self {
        Values { index: Tables::new(expected), arena: Arena::default(), unknown: None }
    }

    /// The number of values.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// The memory that the values take.
    pub(super) fn bytes(&self) -> usize {
        self.index.bytes() + self.arena.bytes
    }

    /// Starts to load the place of a value that is soon to be interned.
    #[inline]
    pub(super) fn prefetch(&self, hash: u128) {
        self.index.prefetch(hash);
    }

    /// The id of a value, which is copied if it is new.
    ///
    /// Values with equal hashes are taken for equal: the hash has 128 bits and a
    /// secret key.
    pub(super) fn intern(&mut self, hash: u128, canonical: &[u8]) -> u32 {
        let next = self.arena.next_id(canonical.len());
        match self.index.insert(hash, next) {
            Some(id) => id,
            None => {
                self.arena.push(canonical);
                if is_unknown(canonical) {
                    self.unknown = Some(next);
                }
                next
            }
        }
    }

    /// Counts one more key for a value.
    #[inline]
    pub(super) fn add_key(&mut self, id: u32) {
        self.arena.update(id, 8, |keys| u32::from_le_bytes(keys).wrapping_add(1).to_le_bytes());
    }

    /// Counts `records` more records for a value, without their keys.
    pub(super) fn add_plain(&mut self, id: u32, records: u32) {
        let records = u64::from(records);
        self.arena.update(id, 0, |plain| (u64::from_le_bytes(plain) + records).to_le_bytes());
    }

    /// What was counted for the value with this hash.
    pub(super) fn get(&self, hash: u128) -> Option<Counted<'_>> {
        self.index.get(hash).map(|id| self.arena.counted(id))
    }

    /// What was counted for the records without the attribute.
    pub(super) fn unknown(&self) -> u64 {
        self.unknown.map_or(0, |id| self.arena.counted(id).total())
    }

    /// All values, in the order in which they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = Counted<'_>> {
        self.arena.ids().map(|id| self.arena.counted(id))
    }

    /// All values with their hashes, in no order.
    pub(super) fn iter_hashed(&self) -> impl Iterator<Item = (u128, Counted<'_>)> {
        self.index.iter().map(|row| (row.key, self.arena.counted(row.number)))
    }

    /// Puts the values in the order of their hashes.
    pub(super) fn into_ranked(mut self) -> RankedValues {
        let mut order: Vec<Row> = Vec::with_capacity(self.index.len());
        for rows in self.index.into_sorted() {
            for (at, &row) in rows.iter().enumerate() {
                if let Some(ahead) = rows.get(at + PREFETCH_AHEAD) {
                    self.arena.prefetch(ahead.number);
                }
                let rank = (order.len() as u32).to_le_bytes();
                self.arena.update(row.number, 12, |_| rank);
                order.push(row);
            }
        }
        RankedValues { order, arena: self.arena }
    }
}

/// Values in the order of their hashes; a rank is a place in it.
pub(super) struct RankedValues {
    order: Vec<Row>,
    arena: Arena,
}

impl RankedValues {
    /// The rank of the value with this id.
    fn rank(&self, id: u32) -> u32 {
        u32::from_le_bytes(self.arena.field(id, 12))
    }

    /// The values with their ranks, in the order in which they came: the fastest one.
    pub(super) fn iter_unordered(&self) -> impl Iterator<Item = (u32, Counted<'_>)> {
        self.arena.ids().map(|id| (self.rank(id), self.arena.counted(id)))
    }

    /// The value with this rank, with its hash.
    pub(super) fn get(&self, rank: u32) -> (u128, Counted<'_>) {
        let row = self.order[rank as usize];
        (row.key, self.arena.counted(row.number))
    }

    /// What `item` makes of each key, in the order of the ranks of the keys' values; items
    /// of one value stay in order. The keys of a slot are freed when they were taken.
    pub(super) fn group<T: Clone + Default>(
        &self,
        slots: impl Iterator<Item = Vec<Row>>,
        item: impl Fn(Row) -> T,
    ) -> Vec<T> {
        let mut next = vec![0; self.order.len()];
        for (rank, value) in self.iter_unordered() {
            next[rank as usize] = value.keys;
        }
        let mut place = 0;
        for next in &mut next {
            place += std::mem::replace(next, place);
        }
        let mut grouped = vec![T::default(); place as usize];
        for rows in slots {
            for (at, &row) in rows.iter().enumerate() {
                if let Some(ahead) = rows.get(at + PREFETCH_AHEAD) {
                    self.arena.prefetch(ahead.number);
                }
                let next = &mut next[self.rank(row.number) as usize];
                grouped[*next as usize] = item(row);
                *next += 1;
            }
        }
        grouped
    }

    /// The values with their hashes, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u128, Counted<'_>)> {
        self.order.iter().enumerate().map(|(at, row)| {
            if let Some(ahead) = self.order.get(at + PREFETCH_AHEAD) {
                self.arena.prefetch(ahead.number);
            }
            (row.key, self.arena.counted(row.number))
        })
    }
}

#[derive(Default)]
struct Arena {
    chunks: Vec<Vec<u8>>,
    bytes: usize,
}

impl Arena {
    /// The id that a value of this length gets when it is pushed next.
    fn next_id(&self, length: usize) -> u32 {
        let place = match self.chunks.last() {
            Some(chunk) if Self::fits(chunk, length) => {
                ((self.chunks.len() - 1) << UNITS_BITS) | (chunk.len() / UNIT)
            }
            _ => self.chunks.len() << UNITS_BITS,
        };
        debug_assert!(place <= u32::MAX as usize, "more than the memory for values");
        place as u32
    }

    /// Whether another value goes into a chunk. A value larger than that has its own.
    fn fits(chunk: &[u8], length: usize) -> bool {
        chunk.len() + HEAD_BYTES + length <= CHUNK_BYTES
    }

    fn push(&mut self, canonical: &[u8]) {
        let fits = self.chunks.last().is_some_and(|chunk| Self::fits(chunk, canonical.len()));
        if !fits {
            let first = self.chunks.is_empty();
            let capacity = if first { FIRST_CHUNK_BYTES } else { CHUNK_BYTES };
            self.chunks.push(Vec::with_capacity(capacity));
            self.bytes += capacity;
        }
        let Some(chunk) = self.chunks.last_mut() else { return };
        let before = chunk.capacity();
        chunk.extend_from_slice(&[0; 16]);
        chunk.extend_from_slice(&(canonical.len() as u32).to_le_bytes());
        chunk.extend_from_slice(canonical);
        chunk.resize(chunk.len().next_multiple_of(UNIT), 0);
        self.bytes += chunk.capacity() - before;
    }

    /// The ids of all values, in the order in which they were pushed.
    fn ids(&self) -> impl Iterator<Item = u32> {
        self.chunks.iter().enumerate().flat_map(|(number, chunk)| {
            let mut start = 0;
            std::iter::from_fn(move || {
                let head: &[u8; HEAD_BYTES] = chunk.get(start..)?.first_chunk()?;
                let id = (number << UNITS_BITS) | (start / UNIT);
                let length = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
                start = (start + HEAD_BYTES + length as usize).next_multiple_of(UNIT);
                Some(id as u32)
            })
        })
    }

    fn prefetch(&self, id: u32) {
        let (chunk, start) = Self::place(id);
        table::prefetch(self.chunks[chunk].as_ptr().wrapping_add(start));
    }

    fn place(id: u32) -> (usize, usize) {
        let unit = id as usize & ((1 << UNITS_BITS) - 1);
        ((id >> UNITS_BITS) as usize, unit * UNIT)
    }

    fn field<const N: usize>(&self, id: u32, at: usize) -> [u8; N] {
        let (chunk, start) = Self::place(id);
        let mut field = [0; N];
        field.copy_from_slice(&self.chunks[chunk][start + at..][..N]);
        field
    }

    fn update<const N: usize>(&mut self, id: u32, at: usize, new: impl Fn([u8; N]) -> [u8; N]) {
        let field = new(self.field(id, at));
        let (chunk, start) = Self::place(id);
        self.chunks[chunk][start + at..][..N].copy_from_slice(&field);
    }

    fn counted(&self, id: u32) -> Counted<'_> {
        let (chunk, start) = Self::place(id);
        let length = u32::from_le_bytes(self.field(id, 16)) as usize;
        Counted {
            canonical: &self.chunks[chunk][start + HEAD_BYTES..][..length],
            plain: u64::from_le_bytes(self.field(id, 0)),
            keys: u32::from_le_bytes(self.field(id, 8)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_kept_once_and_counted() {
        let mut values = Values::new(0);
        let one = values.intern(1, b"one");
        let two = values.intern(2, b"two");
        assert_eq!(values.intern(1, b"one"), one);
        values.add_key(two);
        values.add_key(two);
        values.add_plain(one, 7);
        assert_eq!(values.len(), 2);
        assert_eq!(values.get(1), Some(Counted { canonical: b"one", plain: 7, keys: 0 }));
        assert_eq!(values.get(2), Some(Counted { canonical: b"two", plain: 0, keys: 2 }));
        assert_eq!(values.get(3), None);
    }

    #[test]
    fn values_of_every_size_keep_their_bytes_and_are_ranked_by_hash() {
        let mut values = Values::new(0);
        let size = |number: usize| match number % 50 {
            0 => CHUNK_BYTES - HEAD_BYTES,
            1 => CHUNK_BYTES + 1,
            _ => number,
        };
        let canonical = |number: usize| vec![number as u8; size(number)];
        let hash = |number: usize| (number as u128 + 1).wrapping_mul(u128::MAX / 1009);
        let ids: Vec<u32> =
            (0..1000).map(|number| values.intern(hash(number), &canonical(number))).collect();
        for number in 0..1000 {
            let kept = values.get(hash(number)).unwrap();
            assert_eq!(kept.canonical, canonical(number), "{number}");
        }
        assert!(values.bytes() > (0..1000).map(size).sum());
        let ranked = values.into_ranked();
        assert!(ranked.iter().map(|(hash, _)| hash).is_sorted());
        for (number, &id) in ids.iter().enumerate() {
            assert_eq!(ranked.get(ranked.rank(id)).0, hash(number));
        }
        let unordered: Vec<&[u8]> =
            ranked.iter_unordered().map(|(_, value)| value.canonical).collect();
        assert_eq!(unordered, (0..1000).map(canonical).collect::<Vec<_>>());
    }
}
