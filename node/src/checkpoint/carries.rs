//! What a node keeps of open windows in place of the journal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoint::facts::Slot;
use crate::event::slots::SlotSet;
use crate::event::time::Window;
use crate::failpoint::{is_to_fail, may_die};
use crate::store::{Store, StoreError, Table, keys};

/// What is kept of an open window of some slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carry {
    /// The aggregation's number.
    pub aggregation: u32,
    /// The window.
    pub window: Window,
    /// The slots that were folded together. No other carry of the window has one of them.
    pub slots: SlotSet,
    /// Of each segment, the number of the first entry that is not in the state.
    pub next: BTreeMap<u64, u64>,
    /// Where the state is, as the aggregation wrote it.
    pub state: Value,
}

impl Carry {
    /// What it is of these slots; `None` if it has none of them.
    pub fn of(&self, slots: &SlotSet) -> Option<Carry> {
        let slots = self.slots.intersection(slots);
        (!slots.is_empty()).then(|| Carry { slots, ..self.clone() })
    }

    /// Whether all entries before these are in the state.
    pub fn covers(&self, next: &BTreeMap<u64, u64>) -> bool {
        let own = |segment| self.next.get(segment).copied().unwrap_or(0);
        next.iter().all(|(segment, &index)| own(segment) >= index)
    }

    fn is_of_window_of(&self, other: &Carry) -> bool {
        (self.aggregation, self.window) == (other.aggregation, other.window)
    }
}

/// The carries of a node; cheap to clone. Clones change them in turns.
#[derive(Clone)]
pub struct Carries {
    store: Arc<Store>,
    turn: Arc<Mutex<()>>,
}

impl Carries {
    /// The carries in `store`.
    pub fn new(store: Arc<Store>) -> Carries {
        Carries { store, turn: Arc::default() }
    }

    /// Where they are.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Makes carries durable, all or none, in place of what earlier ones have of the same
    /// windows and slots.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn record(&self, carries: &[Carry]) -> Result<(), StoreError> {
        self.record_in(&self.turn(), carries)
    }

    /// Makes a carry durable for the slots that [`Carries::lacking`] names. Of slots that were
    /// folded together elsewhere, some may have more here.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn record_lacking(
        &self,
        carry: &Carry,
        is_enough: impl Fn(&Carry, Slot) -> bool,
    ) -> Result<(), StoreError> {
        let turn = self.turn();
        let lacking = self.lacking(carry, is_enough)?;
        carry.of(&lacking).map_or(Ok(()), |carry| self.record_in(&turn, &[carry]))
    }

    /// Those slots of a carry of which there is none of the window that has as much, or
    /// `is_enough` all the same.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn lacking(
        &self,
        carry: &Carry,
        is_enough: impl Fn(&Carry, Slot) -> bool,
    ) -> Result<SlotSet, StoreError> {
        let all = self.all()?;
        let of_window: Vec<_> = all.iter().filter(|own| own.is_of_window_of(carry)).collect();
        let has = |slot: &Slot| {
            of_window.iter().any(|own| {
                own.slots.contains(*slot) && (own.covers(&carry.next) || is_enough(own, *slot))
            })
        };
        Ok(carry.slots.iter().filter(|slot| !has(slot)).collect())
    }

    /// Forgets what was kept of a window of these slots: it was flushed.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn forget(
        &self,
        aggregation: u32,
        window: Window,
        slots: &SlotSet,
    ) -> Result<(), StoreError> {
        let is_of = |carry: &Carry| (carry.aggregation, carry.window) == (aggregation, window);
        self.retain(|carry| match is_of(carry) {
            true => carry.slots.difference(slots),
            false => carry.slots,
        })
    }

    /// Keeps of each carry these of its slots only.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn retain(&self, stay: impl Fn(&Carry) -> SlotSet) -> Result<(), StoreError> {
        self.change(&self.turn(), stay, &[])
    }

    /// All carries.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn all(&self) -> Result<Vec<Carry>, StoreError> {
        let (from, to) = keys::carries();
        Ok(self.store.facts(&from, &to)?.into_iter().map(|(_, carry)| carry).collect())
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record_in(&self, turn: &MutexGuard<'_, ()>, carries: &[Carry]) -> Result<(), StoreError> {
        let stay = |old: &Carry| {
            let replaced = carries.iter().filter(|new| new.is_of_window_of(old));
            replaced.fold(old.slots, |stay, new| stay.difference(&new.slots))
        };
        may_die("checkpoint-before-carry");
        if !is_to_fail("planted-carry-unkept") {
            self.change(turn, stay, carries)?;
        }
        may_die("checkpoint-after-carry");
        Ok(())
    }

    fn change(
        &self,
        _turn: &MutexGuard<'_, ()>,
        stay: impl Fn(&Carry) -> SlotSet,
        new: &[Carry],
    ) -> Result<(), StoreError> {
        let (mut batch, mut is_changed) = (self.store.batch(), !new.is_empty());
        let mut rest = Vec::new();
        for old in self.all()? {
            let stay = stay(&old);
            if stay != old.slots {
                batch.delete(Table::Facts, &key(&old))?;
                rest.extend(old.of(&stay));
                is_changed = true;
            }
        }
        for carry in rest.iter().chain(new) {
            batch.put_fact(&key(carry), carry)?;
        }
        if is_changed { self.store.commit(batch) } else { Ok(()) }
    }
}

/// A slot is in one carry of a window at most, so the first one names it.
fn key(Carry { aggregation, window, slots, .. }: &Carry) -> [u8; 14] {
    keys::carry(*aggregation, window.start, slots.iter().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::time::UnixNanos;
    use crate::store::Disk;

    fn carry(slots: &str, entries: u64) -> Carry {
        Carry {
            aggregation: 1,
            window: Window { start: UnixNanos(0), end: UnixNanos(10) },
            slots: slots.parse().unwrap(),
            next: BTreeMap::from([(1, entries)]),
            state: Value::Null,
        }
    }

    fn carries() -> Carries {
        Carries::new(Arc::new(Store::in_memory(&Disk::default()).unwrap()))
    }

    #[test]
    fn a_carry_takes_the_place_of_what_others_have_of_its_slots() {
        let carries = carries();
        carries.record(&[carry("0-9", 5), carry("10-19", 5)]).unwrap();
        carries.record(&[carry("0,3-4", 7)]).unwrap();
        let expected = [carry("0,3-4", 7), carry("1-2,5-9", 5), carry("10-19", 5)];
        assert_eq!(carries.all().unwrap(), expected);
        carries.forget(1, carry("", 0).window, &"0-4,12".parse().unwrap()).unwrap();
        assert_eq!(carries.all().unwrap(), [carry("5-9", 5), carry("10-11,13-19", 5)]);
    }

    #[test]
    fn what_is_kept_for_nobody_goes() {
        let carries = carries();
        carries.record(&[carry("0-9", 5), carry("10-19", 5)]).unwrap();
        let some = "9-10".parse().unwrap();
        carries.retain(|carry| carry.slots.intersection(&some)).unwrap();
        assert_eq!(carries.all().unwrap(), [carry("9", 5), carry("10", 5)]);
    }

    #[test]
    fn a_carry_covers_what_it_has_of_every_segment() {
        let carry = Carry { next: BTreeMap::from([(1, 5), (2, 3)]), ..carry("0", 0) };
        assert!(carry.covers(&BTreeMap::from([(1, 5), (2, 2), (3, 0)])));
        assert!(!carry.covers(&BTreeMap::from([(1, 6)])));
        assert!(!carry.covers(&BTreeMap::from([(3, 1)])));
    }
}
