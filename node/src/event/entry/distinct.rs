//! The section of an aggregation of the type `DistinctLogs`: which values its
//! attribute had, and which events, or how many, each of them had.
//!
//! ```text
//! 0      kind: 1 keys, 2 counts
//! 1      width of an index in bytes: 0 (there is one value), 1, 2 or 4; 0 for counts
//! 2..4   zero
//! 4..8   records, R
//! 8..12  values, V
//! 12..16 bytes of all values, B
//! keys   R x 16  (only keys) the events' keys, sorted by slot
//! hashes V x 16  the values' hashes
//! ends   V x 4   where each value ends within the bytes
//! counts V x 4   (only counts) the records of each value; together R
//! index  R x width  (only keys) which value each key belongs to
//! bytes  B       the values in their canonical encoding, one after the other
//! ```
//! All numbers are little-endian. Every value of a section belongs to a record of it.
//! What is fixed in size comes first, so that its place needs no search; the slots'
//! order lets one slot's part be cut out without looking at the others.

use std::ops::Range;

use crate::event::entry::{EntryWriter, MalformedEntry};
use crate::event::fingerprint::{SLOTS, slot_of};

pub(super) const KEYS: u8 = 1;
pub(super) const COUNTS: u8 = 2;
const HEAD_BYTES: usize = 16;
const HASH_BYTES: usize = 16;

/// The different values of one request, in the order in which they were first seen.
#[derive(Clone, Copy, Debug)]
pub struct Dictionary<'a> {
    /// Each value's hash.
    pub hashes: &'a [u128],
    /// Where each value ends within `bytes`; it starts where the one before ends.
    pub ends: &'a [u32],
    /// The values in their canonical encoding.
    pub bytes: &'a [u8],
}

impl EntryWriter {
    /// Adds a section of keys; `indices` says for each key which value of the
    /// dictionary it belongs to.
    ///
    /// # Panics
    /// When the section would be 4 GiB or larger.
    pub fn distinct_keys(
        &mut self,
        aggregation: u32,
        dictionary: Dictionary<'_>,
        keys: &[u128],
        indices: &[u32],
    ) {
        debug_assert_eq!(keys.len(), indices.len());
        let width = index_width(dictionary.hashes.len());
        let shape = Shape::new(KEYS, width, keys.len(), dictionary);
        let section = self.section(aggregation, shape.length());
        let fields = shape.write(section, dictionary);
        scatter_by_slot(keys, indices, |place, key, index| {
            fields.keys[place] = key.to_le_bytes();
            put_index(fields.indices, width, place, index);
        });
    }

    /// Adds a section of those keys of another that stand in `runs`, which ascend;
    /// `indices` says for each of them which value of the dictionary it belongs to.
    pub(super) fn copy_distinct_keys(
        &mut self,
        aggregation: u32,
        dictionary: Dictionary<'_>,
        keys: Keys<'_>,
        runs: &[Range<usize>],
        indices: &[u32],
    ) {
        debug_assert_eq!(runs.iter().map(Range::len).sum::<usize>(), indices.len());
        let width = index_width(dictionary.hashes.len());
        let shape = Shape::new(KEYS, width, indices.len(), dictionary);
        let section = self.section(aggregation, shape.length());
        let fields = shape.write(section, dictionary);
        let mut rest = fields.keys;
        for run in runs {
            let (place, after) = rest.split_at_mut(run.len());
            place.copy_from_slice(&keys.keys[run.clone()]);
            rest = after;
        }
        for (place, &index) in indices.iter().enumerate() {
            put_index(fields.indices, width, place, index);
        }
    }

    /// Adds a section of counts: the number of records of each value.
    ///
    /// # Panics
    /// When the section would be 4 GiB or larger.
    pub fn distinct_counts(
        &mut self,
        aggregation: u32,
        dictionary: Dictionary<'_>,
        counts: &[u32],
    ) {
        debug_assert_eq!(dictionary.hashes.len(), counts.len());
        let records = counts.iter().map(|&count| count as usize).sum();
        let shape = Shape::new(COUNTS, 0, records, dictionary);
        let section = self.section(aggregation, shape.length());
        let fields = shape.write(section, dictionary);
        for (field, count) in fields.counts.iter_mut().zip(counts) {
            *field = count.to_le_bytes();
        }
    }
}

/// Counting sort by the key's top byte; keys of one slot keep their order.
fn scatter_by_slot(keys: &[u128], indices: &[u32], mut put: impl FnMut(usize, u128, u32)) {
    let mut next = [0_usize; SLOTS];
    for &key in keys {
        next[usize::from(slot_of(key))] += 1;
    }
    let mut place = 0;
    for slot in &mut next {
        place += std::mem::replace(slot, place);
    }
    for (&key, &index) in keys.iter().zip(indices) {
        let slot = usize::from(slot_of(key));
        put(next[slot], key, index);
        next[slot] += 1;
    }
}

fn put_index(indices: &mut [u8], width: usize, place: usize, index: u32) {
    let at = place * width;
    match width {
        0 => {}
        1 => indices[at] = index as u8,
        2 => indices[at..at + 2].copy_from_slice(&(index as u16).to_le_bytes()),
        _ => indices[at..at + 4].copy_from_slice(&index.to_le_bytes()),
    }
}

fn index_width(values: usize) -> usize {
    match values {
        0..=1 => 0,
        2..=0x100 => 1,
        0x101..=0x1_0000 => 2,
        _ => 4,
    }
}

/// A section's head, from which every place in it follows.
#[derive(Clone, Copy)]
struct Shape {
    kind: u8,
    width: usize,
    records: usize,
    values: usize,
    value_bytes: usize,
}

/// The parts of a section that is being written.
struct Fields<'a> {
    keys: &'a mut [[u8; 16]],
    counts: &'a mut [[u8; 4]],
    indices: &'a mut [u8],
}

impl Shape {
    fn new(kind: u8, width: usize, records: usize, dictionary: Dictionary<'_>) -> Self {
        let Dictionary { hashes, ends, bytes } = dictionary;
        debug_assert_eq!(hashes.len(), ends.len());
        assert!(records <= u32::MAX as usize, "a section of {records} records");
        Shape { kind, width, records, values: hashes.len(), value_bytes: bytes.len() }
    }

    fn keys(self) -> usize {
        if self.kind == KEYS { self.records } else { 0 }
    }

    fn counts(self) -> usize {
        if self.kind == COUNTS { self.values } else { 0 }
    }

    /// Cannot overflow: each number is below 2^32 and usize has 64 bits.
    fn length(self) -> usize {
        const { assert!(usize::BITS == 64) };
        let per_value = HASH_BYTES + 4;
        let per_key = 16 + self.width;
        HEAD_BYTES
            + self.keys() * per_key
            + self.values * per_value
            + self.counts() * 4
            + self.value_bytes
    }

    fn write<'a>(self, section: &'a mut [u8], dictionary: Dictionary<'_>) -> Fields<'a> {
        let (head, rest) = section.split_at_mut(HEAD_BYTES);
        head[0] = self.kind;
        head[1] = self.width as u8;
        head[4..8].copy_from_slice(&(self.records as u32).to_le_bytes());
        head[8..12].copy_from_slice(&(self.values as u32).to_le_bytes());
        head[12..16].copy_from_slice(&(self.value_bytes as u32).to_le_bytes());
        let (keys, rest) = rest.split_at_mut(self.keys() * 16);
        let (hashes, rest) = rest.split_at_mut(self.values * HASH_BYTES);
        let (ends, rest) = rest.split_at_mut(self.values * 4);
        let (counts, rest) = rest.split_at_mut(self.counts() * 4);
        let (indices, bytes) = rest.split_at_mut(self.keys() * self.width);
        for (field, hash) in hashes.as_chunks_mut().0.iter_mut().zip(dictionary.hashes) {
            *field = hash.to_le_bytes();
        }
        for (field, end) in ends.as_chunks_mut().0.iter_mut().zip(dictionary.ends) {
            *field = end.to_le_bytes();
        }
        bytes.copy_from_slice(dictionary.bytes);
        let (keys, counts) = (keys.as_chunks_mut().0, counts.as_chunks_mut().0);
        Fields { keys, counts, indices }
    }
}

/// A section, read in place; everything in it is checked when it is parsed.
#[derive(Clone, Copy, Debug)]
pub struct DistinctSection<'a> {
    records: u32,
    hashes: &'a [[u8; 16]],
    ends: &'a [[u8; 4]],
    bytes: &'a [u8],
    content: Content<'a>,
}

/// What a section says of its values.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// The key of each record.
    Keys(Keys<'a>),
    /// The number of records of each value.
    Counts(Counts<'a>),
}

/// One value of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// Its hash: [`FingerprintKey::value`](crate::event::fingerprint::FingerprintKey::value).
    pub hash: u128,
    /// Its canonical encoding.
    pub canonical: &'a [u8],
}

impl<'a> DistinctSection<'a> {
    /// Reads and checks a section. Allocates nothing.
    ///
    /// # Errors
    /// When its length does not follow from its head, an index or an end points
    /// nowhere, the keys are not sorted by slot, or counts do not add up.
    pub fn parse(section: &'a [u8]) -> Result<Self, MalformedEntry> {
        let (head, rest) =
            section.split_first_chunk::<HEAD_BYTES>().ok_or(MalformedEntry::CutOff)?;
        let shape = read_head(head)?;
        if section.len() != shape.length() {
            return Err(MalformedEntry::Section("length"));
        }
        let (keys, rest) = rest.split_at(shape.keys() * 16);
        let (hashes, rest) = rest.split_at(shape.values * HASH_BYTES);
        let (ends, rest) = rest.split_at(shape.values * 4);
        let (counts, rest) = rest.split_at(shape.counts() * 4);
        let (indices, bytes) = rest.split_at(shape.keys() * shape.width);
        let (hashes, ends) = (hashes.as_chunks().0, ends.as_chunks().0);
        check_ends(ends, bytes)?;
        let content = if shape.kind == KEYS {
            Content::Keys(Keys::parse(keys.as_chunks().0, indices, shape)?)
        } else {
            Content::Counts(Counts::parse(counts.as_chunks().0, shape)?)
        };
        Ok(DistinctSection { records: shape.records as u32, hashes, ends, bytes, content })
    }

    /// The number of records that the section was made of.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// The number of different values.
    pub fn values(&self) -> usize {
        self.hashes.len()
    }

    /// The hash of a value.
    ///
    /// # Panics
    /// When there is no such value, as for a slice.
    pub fn hash(&self, index: usize) -> u128 {
        u128::from_le_bytes(self.hashes[index])
    }

    /// A value.
    ///
    /// # Panics
    /// When there is no such value, as for a slice.
    pub fn value(&self, index: usize) -> Value<'a> {
        let end = |index: usize| u32::from_le_bytes(self.ends[index]) as usize;
        let start = index.checked_sub(1).map_or(0, end);
        Value { hash: self.hash(index), canonical: &self.bytes[start..end(index)] }
    }

    /// What the section says of its values.
    pub fn content(&self) -> Content<'a> {
        self.content
    }
}

/// The keys of a section, sorted by slot.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    keys: &'a [[u8; 16]],
    indices: &'a [u8],
    width: usize,
}

impl<'a> Keys<'a> {
    fn parse(
        keys: &'a [[u8; 16]],
        indices: &'a [u8],
        shape: Shape,
    ) -> Result<Self, MalformedEntry> {
        if !keys.is_sorted_by_key(|key| key[15]) {
            return Err(MalformedEntry::Section("order"));
        }
        // The width is the one that this many values have, so it fits the largest index.
        let largest = match shape.width {
            0 => 0,
            1 => indices.iter().copied().max().map_or(0, usize::from),
            2 => {
                let indices = indices.as_chunks().0.iter();
                indices.map(|&index| u16::from_le_bytes(index)).max().map_or(0, usize::from)
            }
            _ => {
                let indices = indices.as_chunks().0.iter();
                indices.map(|&index| u32::from_le_bytes(index)).max().unwrap_or(0) as usize
            }
        };
        if largest >= shape.values && shape.records > 0 {
            return Err(MalformedEntry::Section("index"));
        }
        Ok(Keys { keys, indices, width: shape.width })
    }

    /// The number of keys: one for each record.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether the section is of no record.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The section's keys from `start` on, `length` of them or as many as there are.
    pub fn part(&self, start: usize, length: usize) -> Keys<'a> {
        let start = start.min(self.len());
        let end = self.len().min(start + length);
        let indices = &self.indices[start * self.width..end * self.width];
        Keys { keys: &self.keys[start..end], indices, width: self.width }
    }

    /// Each slot that has keys, in ascending order, and where they stand.
    ///
    /// Parsing has read every key, so a search would not save much.
    pub(super) fn slots(&self) -> impl Iterator<Item = (u8, Range<usize>)> + use<'a> {
        let slot = |key: &[u8; 16]| slot_of(u128::from_le_bytes(*key));
        let mut start = 0;
        self.keys.chunk_by(move |one, next| slot(one) == slot(next)).map(move |run| {
            let places = start..start + run.len();
            start = places.end;
            (slot(&run[0]), places)
        })
    }

    /// A key.
    ///
    /// # Panics
    /// When there is no such key, as for a slice.
    pub fn key(&self, at: usize) -> u128 {
        u128::from_le_bytes(self.keys[at])
    }

    /// Writes into `out` which value each key belongs to, and returns that part of it.
    ///
    /// # Panics
    /// When there are more keys than fit in `out`.
    pub fn indices<'b>(&self, out: &'b mut [u32]) -> &'b [u32] {
        let out = &mut out[..self.len()];
        match self.width {
            0 => out.fill(0),
            1 => {
                for (out, &index) in out.iter_mut().zip(self.indices) {
                    *out = u32::from(index);
                }
            }
            2 => {
                for (out, &index) in out.iter_mut().zip(self.indices.as_chunks().0) {
                    *out = u32::from(u16::from_le_bytes(index));
                }
            }
            _ => {
                for (out, &index) in out.iter_mut().zip(self.indices.as_chunks().0) {
                    *out = u32::from_le_bytes(index);
                }
            }
        }
        out
    }
}

/// The counts of a section, one for each value.
#[derive(Clone, Copy, Debug)]
pub struct Counts<'a>(&'a [[u8; 4]]);

impl<'a> Counts<'a> {
    fn parse(counts: &'a [[u8; 4]], shape: Shape) -> Result<Self, MalformedEntry> {
        let counts = Counts(counts);
        if counts.iter().map(u64::from).sum::<u64>() == shape.records as u64 {
            Ok(counts)
        } else {
            Err(MalformedEntry::Section("sum of counts"))
        }
    }

    /// The number of records of each value, in the values' order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.0.iter().map(|&count| u32::from_le_bytes(count))
    }
}

fn read_head(head: &[u8; HEAD_BYTES]) -> Result<Shape, MalformedEntry> {
    let number =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let [kind, width, zero, zero_too, ..] = *head;
    let shape = Shape {
        kind,
        width: usize::from(width),
        records: number(4) as usize,
        values: number(8) as usize,
        value_bytes: number(12) as usize,
    };
    let width = match kind {
        KEYS => index_width(shape.values),
        COUNTS => 0,
        _ => return Err(MalformedEntry::Kind(kind)),
    };
    if width != shape.width || [zero, zero_too] != [0, 0] {
        return Err(MalformedEntry::Section("head"));
    }
    if shape.values > shape.records {
        return Err(MalformedEntry::Section("number of values"));
    }
    Ok(shape)
}

fn check_ends(ends: &[[u8; 4]], bytes: &[u8]) -> Result<(), MalformedEntry> {
    let end = |end: &[u8; 4]| u32::from_le_bytes(*end) as usize;
    if ends.is_sorted_by_key(end) && ends.last().map_or(0, end) == bytes.len() {
        Ok(())
    } else {
        Err(MalformedEntry::Section("values' ends"))
    }
}
