//! Sets of slots.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::event::fingerprint::SLOTS;

const WORD_BITS: usize = u64::BITS as usize;
const WORD_BYTES: usize = size_of::<u64>();

/// Some of the slots, or all, or none.
///
/// As text, and so in JSON, it is a list of ranges: `0-84,90,200-255`. Every set has
/// one text; the empty set's is empty. Between nodes it is 32 bytes: slot `n` is bit
/// `n % 8`, from the lowest, of byte `n / 8`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SlotSet([u64; SLOTS / WORD_BITS]);

/// A text that is not a [`SlotSet`]'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a list of slots: ranges in ascending order, with gaps, such as 0-84,90")]
pub struct MalformedSlots(String);

impl SlotSet {
    /// The first `count` slots: all that there are in a cluster of so many.
    pub fn all(count: u16) -> SlotSet {
        (0..=u8::MAX).take(usize::from(count)).collect()
    }

    /// Whether a slot is in the set.
    pub fn contains(&self, slot: u8) -> bool {
        let slot = usize::from(slot);
        self.0[slot / WORD_BITS] >> (slot % WORD_BITS) & 1 == 1
    }

    /// The number of slots.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether it is the empty set.
    pub fn is_empty(&self) -> bool {
        *self == SlotSet::default()
    }

    /// The slots that are in at least one of the two sets.
    pub fn union(&self, other: &SlotSet) -> SlotSet {
        SlotSet(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    /// The slots that are in both sets.
    pub fn intersection(&self, other: &SlotSet) -> SlotSet {
        SlotSet(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    /// The slots that are not in the other set.
    pub fn difference(&self, other: &SlotSet) -> SlotSet {
        SlotSet(std::array::from_fn(|word| self.0[word] & !other.0[word]))
    }

    /// The slots in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u8> + use<> {
        let slots = *self;
        (0..=u8::MAX).filter(move |&slot| slots.contains(slot))
    }

    /// The set as nodes send it.
    pub fn to_bytes(&self) -> [u8; SLOTS / 8] {
        let mut bytes = [0; SLOTS / 8];
        for (chunk, word) in bytes.chunks_exact_mut(WORD_BYTES).zip(self.0) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The set that has these bytes; all bytes are some set's.
    pub fn from_bytes(bytes: [u8; SLOTS / 8]) -> SlotSet {
        let (words, _) = bytes.as_chunks::<WORD_BYTES>();
        SlotSet(std::array::from_fn(|word| u64::from_le_bytes(words[word])))
    }

    /// Puts a slot into the set, if it is not there.
    pub fn insert(&mut self, slot: u8) {
        let slot = usize::from(slot);
        self.0[slot / WORD_BITS] |= 1 << (slot % WORD_BITS);
    }

    /// Takes a slot out of the set, if it is there.
    pub fn remove(&mut self, slot: u8) {
        let slot = usize::from(slot);
        self.0[slot / WORD_BITS] &= !(1 << (slot % WORD_BITS));
    }
}

impl FromIterator<u8> for SlotSet {
    fn from_iter<I: IntoIterator<Item = u8>>(slots: I) -> Self {
        let mut set = SlotSet::default();
        for slot in slots {
            set.insert(slot);
        }
        set
    }
}

impl fmt::Display for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots: Vec<u8> = self.iter().collect();
        let mut separator = "";
        for range in slots.chunk_by(|one, next| *next == one + 1) {
            f.write_str(separator)?;
            separator = ",";
            match range {
                [first, .., last] => write!(f, "{first}-{last}")?,
                slots => slots.iter().try_for_each(|slot| write!(f, "{slot}"))?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotSet({self})")
    }
}

impl FromStr for SlotSet {
    type Err = MalformedSlots;

    fn from_str(text: &str) -> Result<Self, MalformedSlots> {
        let malformed = || MalformedSlots(text.to_owned());
        let mut set = SlotSet::default();
        for range in text.split_terminator(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (Ok(first), Ok(last)) = (first.parse::<u8>(), last.parse()) else {
                return Err(malformed());
            };
            (first..=last).for_each(|slot| set.insert(slot));
        }
        if set.to_string() == text { Ok(set) } else { Err(malformed()) }
    }
}

impl Serialize for SlotSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SlotSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(slots: &[u8]) -> SlotSet {
        slots.iter().copied().collect()
    }

    #[test]
    fn a_set_is_written_as_ranges() {
        assert_eq!(set(&[]).to_string(), "");
        assert_eq!(set(&[7]).to_string(), "7");
        assert_eq!(set(&[5, 4, 0, 63, 64, 4]).to_string(), "0,4-5,63-64");
        assert_eq!(set(&[254, 255, 0, 1]).to_string(), "0-1,254-255");
        let all: SlotSet = (0..=u8::MAX).collect();
        assert_eq!((all.to_string().as_str(), all.len()), ("0-255", SLOTS));
        assert_eq!(format!("{:?}", set(&[1, 3])), "SlotSet(1,3)");
    }

    #[test]
    fn all_slots_are_the_first_ones() {
        assert_eq!(SlotSet::all(0), set(&[]));
        assert_eq!(SlotSet::all(3), set(&[0, 1, 2]));
        assert_eq!(SlotSet::all(256).len(), SLOTS);
        assert_eq!(SlotSet::all(u16::MAX).len(), SLOTS);
    }

    #[test]
    fn a_set_is_one_string_in_json() {
        assert_eq!(serde_json::to_string(&set(&[9, 10, 200])).unwrap(), r#""9-10,200""#);
        let read: SlotSet = serde_json::from_str(r#""9-10,200""#).unwrap();
        assert_eq!(read, set(&[9, 10, 200]));
    }

    #[test]
    fn a_set_is_one_bit_for_each_slot_between_nodes() {
        let mut bytes = [0; 32];
        (bytes[0], bytes[1], bytes[8], bytes[31]) = (0b1000_0001, 0b10, 0b1, 0b1000_0000);
        assert_eq!(set(&[0, 7, 9, 64, 255]).to_bytes(), bytes);
    }

    #[test]
    fn another_text_is_refused() {
        for text in [
            " ", ",", "1,", ",1", "-", "1-", "-1", "256", "0-256", "+1", "01", "1 ", "2,1", "1,1",
            "0-1,2", "1-1", "3-1", "1-2-3", "0-5,3-9", "a",
        ] {
            assert_eq!(text.parse::<SlotSet>(), Err(MalformedSlots(text.to_owned())));
        }
        assert!(serde_json::from_str::<SlotSet>(r#""2,1""#).is_err());
    }

    proptest! {
        #[test]
        fn a_set_is_like_a_set_of_numbers(
            one: BTreeSet<u8>, other in prop::collection::btree_set(any::<u8>(), 0..256)
        ) {
            let collect = |slots: &BTreeSet<u8>| slots.iter().copied().collect::<SlotSet>();
            let (left, right) = (collect(&one), collect(&other));
            prop_assert!(left.iter().eq(one.iter().copied()));
            prop_assert_eq!((left.len(), left.is_empty()), (one.len(), one.is_empty()));
            prop_assert!((0..=u8::MAX).all(|slot| right.contains(slot) == other.contains(&slot)));
            prop_assert_eq!(left.union(&right), collect(&(&one | &other)));
            prop_assert_eq!(right.to_string().parse(), Ok(right));
            let mut rest = left;
            other.iter().for_each(|&slot| rest.remove(slot));
            prop_assert_eq!(rest, collect(&(&one - &other)));
            prop_assert_eq!(SlotSet::from_bytes(right.to_bytes()), right);
        }
    }
}
