//! A request's attribute values and fingerprints into a section.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Place;

use crate::event::entry::EntryWriter;
use crate::event::entry::distinct::Dictionary;
use crate::event::fingerprint::{FingerprintKey, event_key};
use crate::event::value::{AttributeValue, HEADER_BYTES, Tag, string_header};

/// A dictionary that is this much larger than it had to be is given back.
const SPARE_PLACES: usize = 4096;

/// Packs the records of one request after the other for one aggregation. What it
/// needs for that it keeps from request to request.
pub struct Packer {
    key: FingerprintKey,
    values: Values,
    last: Option<u32>,
    keys: Vec<u128>,
    indices: Vec<u32>,
    counts: Vec<u32>,
}

impl Packer {
    /// A packer that hashes values under the cluster's key.
    pub fn new(key: FingerprintKey) -> Self {
        Packer {
            key,
            values: Values::default(),
            last: None,
            keys: Vec::new(),
            indices: Vec::new(),
            counts: Vec::new(),
        }
    }

    /// Forgets the request before.
    pub fn clear(&mut self) {
        self.values.clear();
        self.last = None;
        self.keys.clear();
        self.indices.clear();
        self.counts.clear();
    }

    /// Adds a record: its attribute's value, and its fingerprint, or `None` if every
    /// record is counted. All records of a request have one, or none has.
    #[inline]
    pub fn add(&mut self, value: &AttributeValue<'_>, fingerprint: Option<u128>) {
        let index = match self.last {
            Some(last) if self.values.is(last, value) => last,
            _ => self.values.intern(value, self.key),
        };
        self.last = Some(index);
        if let Some(fingerprint) = fingerprint {
            self.keys.push(event_key(self.values.hashes[index as usize], fingerprint));
            self.indices.push(index);
        } else if let Some(count) = self.counts.get_mut(index as usize) {
            *count += 1;
        } else {
            self.counts.push(1);
        }
    }

    /// Adds the request's section to an entry.
    ///
    /// # Panics
    /// When the section would be 4 GiB or larger: see
    /// [`REQUEST_BYTES_MAX`](crate::event::entry::REQUEST_BYTES_MAX).
    pub fn finish(&mut self, out: &mut EntryWriter, aggregation: u32) {
        let Values { hashes, ends, bytes, .. } = &self.values;
        let dictionary = Dictionary { hashes, ends, bytes };
        if self.counts.is_empty() {
            out.distinct_keys(aggregation, dictionary, &self.keys, &self.indices);
        } else {
            debug_assert!(self.keys.is_empty(), "records with and without a fingerprint");
            out.distinct_counts(aggregation, dictionary, &self.counts);
        }
    }
}

/// The different values of a request, in the order in which they were first seen.
#[derive(Default)]
struct Values {
    places: HashTable<u32>,
    state: RandomState,
    hashes: Vec<u128>,
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl Values {
    fn clear(&mut self) {
        if self.places.capacity() > SPARE_PLACES && self.places.capacity() / 8 > self.places.len() {
            self.places = HashTable::new();
        } else {
            self.places.clear();
        }
        self.hashes.clear();
        self.ends.clear();
        self.bytes.clear();
    }

    fn is(&self, index: u32, value: &AttributeValue<'_>) -> bool {
        equal(canonical(&self.bytes, &self.ends, index), value)
    }

    fn intern(&mut self, value: &AttributeValue<'_>, key: FingerprintKey) -> u32 {
        let Values { places, state, hashes, ends, bytes } = self;
        let place = places.entry(
            lookup_hash(state, value),
            |&index| equal(canonical(bytes, ends, index), value),
            |&index| lookup_hash(state, &written(canonical(bytes, ends, index))),
        );
        match place {
            Place::Occupied(place) => *place.get(),
            Place::Vacant(place) => {
                let index = hashes.len() as u32;
                place.insert(index);
                let start = bytes.len();
                value.write_canonical(bytes);
                hashes.push(key.value(&bytes[start..]));
                ends.push(bytes.len() as u32);
                index
            }
        }
    }
}

fn canonical<'a>(bytes: &'a [u8], ends: &[u32], index: u32) -> &'a [u8] {
    let end = |index: usize| ends[index] as usize;
    let index = index as usize;
    &bytes[index.checked_sub(1).map_or(0, end)..end(index)]
}

/// A value as it was before [`AttributeValue::write_canonical`].
fn written(canonical: &[u8]) -> AttributeValue<'_> {
    match canonical.split_at_checked(HEADER_BYTES) {
        Some((header, content)) if header[0] == Tag::String as u8 => {
            AttributeValue::String(content)
        }
        Some((header, _)) if header[0] == Tag::Absent as u8 => AttributeValue::Absent,
        _ => AttributeValue::Other(canonical),
    }
}

fn equal(canonical: &[u8], value: &AttributeValue<'_>) -> bool {
    match *value {
        AttributeValue::Absent => canonical.first() == Some(&(Tag::Absent as u8)),
        AttributeValue::Other(other) => canonical == other,
        AttributeValue::String(string) => {
            let header = string_header(string.len()).to_le_bytes();
            canonical.split_at_checked(HEADER_BYTES) == Some((&header, string))
        }
    }
}

fn lookup_hash(state: &RandomState, value: &AttributeValue<'_>) -> u64 {
    let mut hasher = state.build_hasher();
    match *value {
        AttributeValue::Absent => hasher.write_u8(Tag::Absent as u8),
        AttributeValue::Other(canonical) => hasher.write(canonical),
        AttributeValue::String(string) => hasher.write(string),
    }
    hasher.finish()
}
