//! What two computations of a window compare.
//!
//! A slot's digest is the wrapping sum of its members, so that no order enters. A member
//! is made of a value's hash, the slot, and how many distinct records of the value the
//! slot has: so whoever has the slot's part of a count table can make the digest again,
//! and the sum of the slots' digests is one of the whole table.
//!
//! Hashes are 128-bit outputs of SipHash under the cluster's key, mixed so that no sum of
//! two members equals that of two others by their structure. Whoever does not know the
//! key cannot aim at a collision, and nodes, which know it, do not try; two different
//! tables then have the same digest with a chance of 2^-128.

use super::count_table::CountRow;
use crate::event::fingerprint::SLOTS;

/// Odd, with bits without a pattern: the fraction of the golden ratio, and of e.
const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
const ODD_TOO: u128 = 0xb7e1_5162_8aed_2a6a_bf71_5880_9cf4_f3c7;

/// The half of a member that a value has in all slots; one-to-one.
fn mix_hash(hash: u128) -> u128 {
    let mixed = hash.wrapping_mul(ODD);
    mixed ^ mixed >> 67
}

/// One-to-one in the hash and, independently, in slot and count.
fn member(mixed_hash: u128, slot: u8, count: u64) -> u128 {
    let records = u128::from(count) << 8 | u128::from(slot);
    let mixed = mixed_hash.wrapping_add(records.wrapping_mul(ODD_TOO));
    let mixed = (mixed ^ mixed >> 64).wrapping_mul(ODD);
    mixed ^ mixed >> 71
}

/// What a table has of one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SlotSum {
    pub(super) distinct: u64,
    pub(super) digest: u128,
}

/// Counts and digests of all slots, as they add up.
pub(super) struct SlotSums(Box<[SlotSum; SLOTS]>);

impl SlotSums {
    pub(super) fn new() -> Self {
        SlotSums(Box::new([SlotSum::default(); SLOTS]))
    }

    /// Adds what the slots have of a value. The counts of all rows together must fit in
    /// 64 bits.
    pub(super) fn add(&mut self, row: &CountRow<'_>) {
        let mixed_hash = mix_hash(row.hash);
        for &(slot, count) in row.slots {
            let SlotSum { distinct, digest } = &mut self.0[usize::from(slot)];
            *distinct += count;
            *digest = digest.wrapping_add(member(mixed_hash, slot, count));
        }
    }

    /// What was added of one slot.
    pub(super) fn of(&self, slot: u8) -> SlotSum {
        self.0[usize::from(slot)]
    }
}
