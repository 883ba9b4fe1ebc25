//! What two computations of a window compare.
//!
//! A digest is the wrapping sum of its members, so that no order enters. The
//! members are made of event keys and value hashes: 128-bit outputs of SipHash
//! under the cluster's key, mixed so that no sum of two equals that of two others
//! by their structure. Whoever does not know the key cannot aim at a collision, and
//! nodes, which know it, do not try; two different sets then have the same digest
//! with a chance of 2^-128.

use super::SlotTotals;
use crate::event::fingerprint::{SLOTS, slot_of};

/// Odd, with bits without a pattern: the fraction of the golden ratio, and of e.
const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
const ODD_TOO: u128 = 0xb7e1_5162_8aed_2a6a_bf71_5880_9cf4_f3c7;

/// Which kind of member it is; each kind is mixed on its own.
const KEY: u128 = 1;
const COUNT: u128 = 2;
const SLOT: u128 = 3;
const RECORDS: u128 = 4;

/// One-to-one in `one` and, independently, in `other`.
fn member(kind: u128, one: u128, other: u128) -> u128 {
    let mixed = (one ^ kind).wrapping_mul(ODD);
    let mixed = (mixed ^ mixed >> 67).wrapping_add(other.wrapping_mul(ODD_TOO));
    let mixed = (mixed ^ mixed >> 64).wrapping_mul(ODD);
    mixed ^ mixed >> 71
}

/// Counts and digests for each slot, as they add up.
pub(super) struct SlotSums(Box<[(u64, u128); SLOTS]>);

impl SlotSums {
    pub(super) fn new() -> Self {
        SlotSums(Box::new([(0, 0); SLOTS]))
    }

    /// Counts a key that was not counted before.
    pub(super) fn add_key(&mut self, key: u128, value_hash: u128) {
        self.add(slot_of(key), 1, member(KEY, key, value_hash));
    }

    /// Counts all records of a value that are counted without a key, at once.
    pub(super) fn add_count(&mut self, value_hash: u128, count: u64) {
        if count > 0 {
            let member = member(COUNT, value_hash, u128::from(count));
            self.add(slot_of(value_hash), count, member);
        }
    }

    fn add(&mut self, slot: u8, count: u64, member: u128) {
        let (distinct, digest) = &mut self.0[usize::from(slot)];
        *distinct += count;
        *digest = digest.wrapping_add(member);
    }

    /// The slots that counted anything, and the digest of all and of the number of records.
    pub(super) fn finish(&self, records: u64) -> (Vec<SlotTotals>, u128) {
        let counted = (0..=u8::MAX).zip(self.0.iter()).filter(|(_, (distinct, _))| *distinct > 0);
        let slots: Vec<_> = counted
            .map(|(slot, &(distinct, digest))| SlotTotals { slot, distinct, digest })
            .collect();
        let digest = slots.iter().fold(member(RECORDS, u128::from(records), 0), |sum, totals| {
            let slot = u128::from(totals.distinct) << 8 | u128::from(totals.slot);
            sum.wrapping_add(member(SLOT, slot, totals.digest))
        });
        (slots, digest)
    }
}
