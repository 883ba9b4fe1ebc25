//! Which aggregations there are. Entries name them by number, so a number means one
//! definition for ever: an aggregation whose definition changes gets a new one, and
//! the old number's open windows are still flushed as they were meant.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::store::{Store, StoreError, keys};

/// An aggregation and its number.
#[derive(Clone, Debug, PartialEq)]
pub struct Registered {
    /// The number that entries carry.
    pub number: u32,
    /// Its name and definition.
    pub fact: Fact,
}

/// What is kept of an aggregation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// Its name.
    pub name: String,
    /// What it counts, in the shape of the settings.
    pub definition: Value,
    /// Records that the node had accepted when it began.
    pub since: u64,
    /// Records that the node had accepted when it ended, if it did.
    pub until: Option<u64>,
}

impl Fact {
    /// Of the `records` that the node has accepted, those that this aggregation saw.
    pub fn accepted(&self, records: u64) -> u64 {
        self.until.unwrap_or(records).saturating_sub(self.since)
    }
}

/// Makes the wanted definitions, by name, the ones that are active, after `records`
/// accepted records. Returns all that there ever were, in the order of their numbers.
///
/// # Errors
/// When the database fails.
pub fn register(
    store: &Store,
    wanted: &[(String, Value)],
    records: u64,
) -> Result<Vec<Registered>, StoreError> {
    let known = load(store)?;
    let changed = plan(&known, wanted, records);
    if changed.is_empty() {
        return Ok(known);
    }
    let mut batch = store.batch();
    for Registered { number, fact } in &changed {
        batch.put_fact(&keys::definition(*number), fact)?;
    }
    store.commit(batch)?;
    load(store)
}

/// All aggregations that there ever were, in the order of their numbers.
///
/// # Errors
/// When the database fails.
pub fn load(store: &Store) -> Result<Vec<Registered>, StoreError> {
    let (from, to) = keys::definitions();
    let facts = store.facts::<Fact>(&from, &to)?.into_iter();
    Ok(facts
        .filter_map(|(key, fact)| keys::number(&key).map(|number| Registered { number, fact }))
        .collect())
}

/// The facts to write: ends and beginnings.
fn plan(known: &[Registered], wanted: &[(String, Value)], records: u64) -> Vec<Registered> {
    let is_wanted = |fact: &Fact| {
        wanted.iter().any(|(name, definition)| *name == fact.name && *definition == fact.definition)
    };
    let active = || known.iter().filter(|known| known.fact.until.is_none());
    let ended = active().filter(|known| !is_wanted(&known.fact)).map(|known| {
        let fact = Fact { until: Some(records), ..known.fact.clone() };
        Registered { fact, ..known.clone() }
    });
    let free = known.last().map_or(0, |last| last.number + 1);
    let begun = wanted
        .iter()
        .filter(|(name, definition)| {
            !active().any(|k| k.fact.name == *name && k.fact.definition == *definition)
        })
        .zip(free..)
        .map(|((name, definition), number)| {
            let (name, definition) = (name.clone(), definition.clone());
            Registered { number, fact: Fact { name, definition, since: records, until: None } }
        });
    ended.chain(begun).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Disk;

    fn wanted(name: &str, definition: u64) -> (String, Value) {
        (name.to_owned(), Value::from(definition))
    }

    #[test]
    fn a_changed_definition_gets_a_new_number_and_the_old_one_ends() {
        let store = Store::in_memory(&Disk::default()).unwrap();
        let first = register(&store, &[wanted("a", 1), wanted("b", 1)], 0).unwrap();
        assert_eq!(first.iter().map(|r| r.number).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(register(&store, &[wanted("a", 1), wanted("b", 1)], 50).unwrap(), first);

        let second = register(&store, &[wanted("a", 2), wanted("b", 1)], 70).unwrap();
        assert_eq!(second[0].fact.until, Some(70));
        assert_eq!(second[0].fact.accepted(100), 70);
        assert_eq!(second[1], first[1]);
        assert_eq!((second[2].number, second[2].fact.since), (2, 70));
    }
}
