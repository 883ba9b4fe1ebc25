//! What a node keeps of open windows in place of the journal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// Makes carries durable, all or none, in place of earlier ones of the same windows and slots.
///
/// # Errors
/// When the database cannot be written.
pub fn record(store: &Store, carries: &[Carry]) -> Result<(), StoreError> {
    let mut batch = store.batch();
    let replaces = |new: &Carry, old: &Carry| {
        (new.aggregation, new.window) == (old.aggregation, old.window)
            && overlap(&new.slots, &old.slots)
    };
    for old in all(store)?.iter().filter(|old| carries.iter().any(|new| replaces(new, old))) {
        batch.delete(Table::Facts, &key(old))?;
    }
    for carry in carries {
        batch.put_fact(&key(carry), carry)?;
    }
    may_die("checkpoint-before-carry");
    if !is_to_fail("planted-carry-unkept") {
        store.commit(batch)?;
    }
    may_die("checkpoint-after-carry");
    Ok(())
}

/// Forgets what was kept of a window of these slots: it was flushed.
///
/// # Errors
/// When the database cannot be read or written.
pub fn forget(
    store: &Store,
    aggregation: u32,
    window: Window,
    slots: &SlotSet,
) -> Result<(), StoreError> {
    let mut batch = store.batch();
    let is_of = |carry: &&Carry| {
        (carry.aggregation, carry.window) == (aggregation, window) && overlap(&carry.slots, slots)
    };
    for carry in all(store)?.iter().filter(is_of) {
        batch.delete(Table::Facts, &key(carry))?;
    }
    store.commit(batch)
}

/// All carries.
///
/// # Errors
/// When the database cannot be read.
pub fn all(store: &Store) -> Result<Vec<Carry>, StoreError> {
    let (from, to) = keys::carries();
    Ok(store.facts(&from, &to)?.into_iter().map(|(_, carry)| carry).collect())
}

fn overlap(one: &SlotSet, other: &SlotSet) -> bool {
    one.iter().any(|slot| other.contains(slot))
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

    #[test]
    fn a_carry_takes_the_place_of_those_that_have_one_of_its_slots() {
        let store = Store::in_memory(&Disk::default()).unwrap();
        record(&store, &[carry("0-9", 5), carry("10-19", 5)]).unwrap();
        record(&store, &[carry("3-4", 7)]).unwrap();
        assert_eq!(all(&store).unwrap(), [carry("3-4", 7), carry("10-19", 5)]);
        forget(&store, 1, carry("", 0).window, &"4,12".parse().unwrap()).unwrap();
        assert_eq!(all(&store).unwrap(), []);
    }
}
