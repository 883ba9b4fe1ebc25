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

    /// Whether [`Carry::of`] some slots is `part`.
    pub fn has(&self, part: &Carry) -> bool {
        let Carry { slots, next, state, .. } = part;
        self.is_of_window_of(part)
            && self.slots.intersection(slots) == *slots
            && (&self.next, &self.state) == (next, state)
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

/// The carries of a node; cheap to clone. Clones change them in turns, and nobody else does: a
/// node that joins has one for each window of each group of slots, and looks at all of them for
/// each that comes.
#[derive(Clone)]
pub struct Carries {
    store: Arc<Store>,
    known: Arc<Mutex<Option<Known>>>,
}

/// All carries, as the database has them, in the order of their keys.
type Known = Arc<[Carry]>;
type Turn<'a> = MutexGuard<'a, Option<Known>>;

impl Carries {
    /// The carries in `store`.
    pub fn new(store: Arc<Store>) -> Carries {
        Carries { store, known: Arc::default() }
    }

    /// Where they are.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Makes carries durable, all or none, in place of what earlier ones have of the same
    /// windows and slots. Returns these, as they were.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn record(&self, carries: &[Carry]) -> Result<Vec<Carry>, StoreError> {
        self.record_in(&mut self.turn(), carries)
    }

    /// Makes a carry durable for the slots that [`Carries::lacking`] names. Of slots that were
    /// folded together elsewhere, some may have more here. Returns what it takes the place of.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn record_lacking(
        &self,
        carry: &Carry,
        is_enough: impl Fn(&Carry, Slot) -> bool,
    ) -> Result<Vec<Carry>, StoreError> {
        let mut turn = self.turn();
        let lacking = lacking(&self.read(&mut turn)?, carry, is_enough);
        carry.of(&lacking).map_or(Ok(Vec::new()), |carry| self.record_in(&mut turn, &[carry]))
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
        Ok(lacking(&self.all()?, carry, is_enough))
    }

    /// Forgets what was kept of a window of these slots: it was flushed. Returns what had it.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn forget(
        &self,
        aggregation: u32,
        window: Window,
        slots: &SlotSet,
    ) -> Result<Vec<Carry>, StoreError> {
        let is_of = |carry: &Carry| (carry.aggregation, carry.window) == (aggregation, window);
        self.retain(|carry| match is_of(carry) {
            true => carry.slots.difference(slots),
            false => carry.slots,
        })
    }

    /// Keeps of each carry these of its slots only. Returns those that had others.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn retain(&self, stay: impl Fn(&Carry) -> SlotSet) -> Result<Vec<Carry>, StoreError> {
        self.change(&mut self.turn(), stay, &[])
    }

    /// All carries.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn all(&self) -> Result<Arc<[Carry]>, StoreError> {
        self.read(&mut self.turn())
    }

    fn turn(&self) -> Turn<'_> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, turn: &mut Turn<'_>) -> Result<Known, StoreError> {
        if let Some(known) = &**turn {
            return Ok(Arc::clone(known));
        }
        let (from, to) = keys::carries();
        let known: Known = self.store.facts(&from, &to)?.into_iter().map(|(_, it)| it).collect();
        **turn = Some(Arc::clone(&known));
        Ok(known)
    }

    fn record_in(&self, turn: &mut Turn<'_>, carries: &[Carry]) -> Result<Vec<Carry>, StoreError> {
        let stay = |old: &Carry| {
            let replaced = carries.iter().filter(|new| new.is_of_window_of(old));
            replaced.fold(old.slots, |stay, new| stay.difference(&new.slots))
        };
        may_die("checkpoint-before-carry");
        let changed = match is_to_fail("planted-carry-unkept") {
            true => Vec::new(),
            false => self.change(turn, stay, carries)?,
        };
        may_die("checkpoint-after-carry");
        Ok(changed)
    }

    fn change(
        &self,
        turn: &mut Turn<'_>,
        stay: impl Fn(&Carry) -> SlotSet,
        new: &[Carry],
    ) -> Result<Vec<Carry>, StoreError> {
        let mut batch = self.store.batch();
        let (mut same, mut changed, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for old in self.read(turn)?.iter() {
            let stay = stay(old);
            if stay == old.slots {
                same.push(old.clone());
            } else {
                batch.delete(Table::Facts, &key(old))?;
                rest.extend(old.of(&stay));
                changed.push(old.clone());
            }
        }
        if changed.is_empty() && new.is_empty() {
            return Ok(changed);
        }
        rest.extend_from_slice(new);
        for carry in &rest {
            batch.put_fact(&key(carry), carry)?;
        }
        // Of a commit that fails nobody knows what it has done.
        **turn = None;
        self.store.commit(batch)?;
        same.append(&mut rest);
        same.sort_by_key(key);
        **turn = Some(same.into());
        Ok(changed)
    }
}

fn lacking(all: &[Carry], carry: &Carry, is_enough: impl Fn(&Carry, Slot) -> bool) -> SlotSet {
    let of_window: Vec<_> = all.iter().filter(|own| own.is_of_window_of(carry)).collect();
    let has = |slot: &Slot| {
        of_window.iter().any(|own| {
            own.slots.contains(*slot) && (own.covers(&carry.next) || is_enough(own, *slot))
        })
    };
    carry.slots.iter().filter(|slot| !has(slot)).collect()
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
        assert_eq!(*carries.all().unwrap(), expected);
        carries.forget(1, carry("", 0).window, &"0-4,12".parse().unwrap()).unwrap();
        assert_eq!(*carries.all().unwrap(), [carry("5-9", 5), carry("10-11,13-19", 5)]);
    }

    #[test]
    fn what_is_kept_for_nobody_goes() {
        let carries = carries();
        carries.record(&[carry("0-9", 5), carry("10-19", 5)]).unwrap();
        let some = "9-10".parse().unwrap();
        carries.retain(|carry| carry.slots.intersection(&some)).unwrap();
        assert_eq!(*carries.all().unwrap(), [carry("9", 5), carry("10", 5)]);
    }

    #[test]
    fn what_is_known_is_what_the_database_has() {
        let disk = Disk::default();
        let store = Arc::new(Store::in_memory(&disk).unwrap());
        let carries = Carries::new(Arc::clone(&store));
        let in_database = || Carries::new(Arc::clone(&store)).all().unwrap();
        carries.record(&[carry("10-19", 5), carry("0-9", 5)]).unwrap();
        assert_eq!(carries.all().unwrap(), in_database());
        let replaced = carries.record(&[carry("0,3-4,12", 7)]).unwrap();
        assert_eq!(replaced, [carry("0-9", 5), carry("10-19", 5)]);
        assert_eq!(carries.all().unwrap(), in_database());
        assert_eq!(carries.retain(|carry| carry.slots).unwrap(), []);
        let is_enough = |_: &Carry, _| false;
        assert_eq!(
            carries.record_lacking(&carry("0-4", 6), is_enough).unwrap(),
            [carry("1-2,5-9", 5)]
        );
        assert_eq!(carries.all().unwrap(), in_database());
        disk.fail_writes(true);
        carries.record(&[carry("0-9", 9)]).unwrap_err();
        disk.fail_writes(false);
        assert_eq!(carries.all().unwrap(), in_database());
    }

    #[test]
    fn a_carry_has_what_it_is_of_fewer_slots() {
        let whole = carry("0-9", 5);
        let part = whole.of(&"3,8-12".parse().unwrap()).unwrap();
        assert!(whole.has(&part) && whole.has(&whole) && !part.has(&whole));
        assert!(!whole.has(&carry("3", 4)) && !whole.has(&carry("9-10", 5)));
        assert!(!whole.has(&Carry { aggregation: 2, ..part.clone() }));
        assert!(!whole.has(&Carry { state: Value::Bool(true), ..part }));
    }

    #[test]
    fn a_carry_covers_what_it_has_of_every_segment() {
        let carry = Carry { next: BTreeMap::from([(1, 5), (2, 3)]), ..carry("0", 0) };
        assert!(carry.covers(&BTreeMap::from([(1, 5), (2, 2), (3, 0)])));
        assert!(!carry.covers(&BTreeMap::from([(1, 6)])));
        assert!(!carry.covers(&BTreeMap::from([(3, 1)])));
    }
}
