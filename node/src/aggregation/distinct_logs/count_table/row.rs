//! The bytes of a row; see [`super`].

use super::MalformedTable;
use crate::event::fingerprint::SLOTS;

/// More slots than this are written as a set of bits, which is no larger.
const LISTED_SLOTS_MAX: usize = SLOT_SET_BYTES;
const SLOT_SET_BYTES: usize = SLOTS / 8;
const VARINT_BYTES_MAX: usize = 10;

/// One value of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct CountRow<'a> {
    pub(in super::super) hash: u128,
    pub(in super::super) canonical: &'a [u8],
    /// The slots that have records of the value, in ascending order, each with the number
    /// of distinct ones; at least one slot.
    pub(in super::super) slots: &'a [(u8, u64)],
}

impl CountRow<'_> {
    /// The distinct records of all slots.
    pub(in super::super) fn total(&self) -> u64 {
        self.slots.iter().map(|(_, count)| count).sum()
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.hash.to_le_bytes());
        put_varint(self.canonical.len() as u64, out);
        out.extend_from_slice(self.canonical);
        out.push((self.slots.len() - 1) as u8);
        if self.slots.len() <= LISTED_SLOTS_MAX {
            out.extend(self.slots.iter().map(|(slot, _)| slot));
        } else {
            let mut set = [0; SLOT_SET_BYTES];
            for (slot, _) in self.slots {
                set[usize::from(slot / 8)] |= 1 << (slot % 8);
            }
            out.extend_from_slice(&set);
        }
        for &(_, count) in self.slots {
            put_varint(count, out);
        }
    }
}

/// What [`read`] found before the slots, and what follows the row.
pub(super) struct Read<'a> {
    pub(super) hash: u128,
    pub(super) canonical: &'a [u8],
    pub(super) rest: &'a [u8],
}

/// Reads the row that `bytes` begin with. Its slots with their counts, which add up in 64
/// bits, replace what is in `slots`.
pub(super) fn read<'a>(
    bytes: &'a [u8],
    slots: &mut Vec<(u8, u64)>,
) -> Result<Read<'a>, MalformedTable> {
    let mut rest = Rest(bytes);
    let hash = u128::from_le_bytes(rest.array()?);
    let length = rest.varint()?;
    let canonical = rest.take(length)?;
    rest.slots(slots)?;
    let mut total: u64 = 0;
    for (_, count) in slots.iter_mut() {
        *count = rest.varint()?;
        if *count == 0 {
            return Err(MalformedTable::Zero);
        }
        total = total.checked_add(*count).ok_or(MalformedTable::Overflow)?;
    }
    Ok(Read { hash, canonical, rest: rest.0 })
}

/// What of a chunk is still to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: u64) -> Result<&'a [u8], MalformedTable> {
        let length = usize::try_from(length).map_err(|_| MalformedTable::CutOff)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(MalformedTable::CutOff)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MalformedTable> {
        let (array, rest) = self.0.split_first_chunk().ok_or(MalformedTable::CutOff)?;
        self.0 = rest;
        Ok(*array)
    }

    /// Reads the numbers of a row's slots, without their counts.
    fn slots(&mut self, slots: &mut Vec<(u8, u64)>) -> Result<(), MalformedTable> {
        let [last] = self.array()?;
        let length = usize::from(last) + 1;
        slots.clear();
        if length <= LISTED_SLOTS_MAX {
            let listed = self.take(length as u64)?;
            if !listed.is_sorted_by(|one, next| one < next) {
                return Err(MalformedTable::Slots);
            }
            slots.extend(listed.iter().map(|&slot| (slot, 0)));
        } else {
            let set: [u8; SLOT_SET_BYTES] = self.array()?;
            let contains = |slot: &u8| set[usize::from(slot / 8)] >> (slot % 8) & 1 == 1;
            slots.extend((0..=u8::MAX).filter(contains).map(|slot| (slot, 0)));
            if slots.len() != length {
                return Err(MalformedTable::Slots);
            }
        }
        Ok(())
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, MalformedTable> {
        let mut number = 0;
        for (at, &byte) in self.0.iter().take(VARINT_BYTES_MAX).enumerate() {
            number |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                let too_large = at == VARINT_BYTES_MAX - 1 && byte > 1;
                let too_long = at > 0 && byte == 0;
                if too_large || too_long {
                    return Err(MalformedTable::Number);
                }
                self.0 = &self.0[at + 1..];
                return Ok(number);
            }
        }
        let cut_off = self.0.len() < VARINT_BYTES_MAX;
        Err(if cut_off { MalformedTable::CutOff } else { MalformedTable::Number })
    }
}

fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
