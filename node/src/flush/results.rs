//! What came of closed windows: count tables of some slots each, on disk for an hour.
//!
//! A table's chunks are written while its window closes. Nobody sees them before
//! [`Results::finish`] says whose they are; what a crash leaves behind goes with the hour.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use sheaf_proto::statistics::WindowCounts;

use crate::aggregation::distinct_logs::count_table::MalformedTable;
use crate::checkpoint::facts::Slot;
use crate::event::slots::SlotSet;
use crate::event::time::{SECOND, UnixNanos, Window};
use crate::store::{Batch, Store, StoreError, Table, keys};

/// How long results are kept after their window's end.
const KEPT: u64 = 3600 * SECOND;
/// Windows that are changed at the same time, at most: each change waits for the disk.
const TURNS: usize = 16;

/// The results that a node keeps; cheap to clone. Clones change those of a window in turns.
#[derive(Clone)]
pub struct Results {
    store: Arc<Store>,
    turns: Arc<[Mutex<()>; TURNS]>,
}

/// What is known of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlotResults {
    /// The slots whose results these are, whatever else the table has.
    pub slots: SlotSet,
    /// What the table would add up to, in place of a table: of all slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<WindowCounts>,
    /// Accepted records of each slot that has some, whatever other slots it names: a table
    /// knows distinct ones only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub records: BTreeMap<Slot, u64>,
    /// Which table it is.
    pub table: u64,
    chunks: u32,
}

/// Why a table is not read.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What it holds is no table.
    #[error(transparent)]
    Malformed(#[from] MalformedTable),
}

/// A table that is being written.
pub struct Writing {
    store: Arc<Store>,
    aggregation: u32,
    window: Window,
    table: u64,
    records: BTreeMap<Slot, u64>,
    chunks: u32,
    /// The last chunk, which is not on disk yet: most tables are written at once.
    last: Option<Vec<u8>>,
}

/// Whether results of a window that has ended then are kept, by the time of the newest cut.
pub fn are_kept(end: UnixNanos, now: UnixNanos) -> bool {
    end.0.saturating_add(KEPT) >= now.0
}

impl Results {
    /// The results in `store`.
    pub fn new(store: Arc<Store>) -> Results {
        Results { store, turns: Arc::default() }
    }

    /// Begins a table of a window.
    pub fn begin(&self, aggregation: u32, window: Window) -> Writing {
        let (store, table) = (Arc::clone(&self.store), fastrand::u64(..));
        let records = BTreeMap::new();
        Writing { store, aggregation, window, table, records, chunks: 0, last: None }
    }

    /// Makes durable that a table has the results of `slots`, and no earlier table any more, or
    /// that `summary` has. Results that are an hour older are forgotten.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn finish(
        &self,
        written: Writing,
        slots: SlotSet,
        summary: Option<WindowCounts>,
    ) -> Result<(), StoreError> {
        let turn = self.turn(written.window);
        self.finish_in(&turn, written, slots, summary)
    }

    /// As [`Results::finish`], for what another node had: of slots that have a result here by
    /// now, that is at least as new. Over tables a summary, which cannot be divided, is not kept.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn fill(
        &self,
        written: Writing,
        slots: SlotSet,
        summary: Option<WindowCounts>,
    ) -> Result<(), StoreError> {
        let turn = self.turn(written.window);
        let found = self.find(written.aggregation, written.window.end)?;
        let slots = match &summary {
            Some(_) if found.iter().any(|found| found.summary.is_none()) => SlotSet::default(),
            Some(_) => slots,
            None => found.iter().fold(slots, |lacks, found| lacks.difference(&found.slots)),
        };
        if slots.is_empty() { Ok(()) } else { self.finish_in(&turn, written, slots, summary) }
    }

    /// Forgets what a table has of some slots, where no later one has come in its place.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn withdraw(
        &self,
        aggregation: u32,
        window: Window,
        table: u64,
        slots: &SlotSet,
    ) -> Result<(), StoreError> {
        let _turn = self.turn(window);
        let found = self.find(aggregation, window.end)?;
        let Some(found) = found.into_iter().find(|found| found.table == table) else {
            return Ok(());
        };
        let rest = found.slots.difference(slots);
        let key = keys::result(window.end, aggregation, table);
        let mut batch = self.store.batch();
        if rest.is_empty() {
            batch.delete(Table::Results, &key)?;
        } else if found.summary.is_none() && rest != found.slots {
            batch.put_json(Table::Results, &key, &SlotResults { slots: rest, ..found })?;
        }
        self.store.commit(batch)
    }

    fn turn(&self, window: Window) -> MutexGuard<'_, ()> {
        let turn = (window.end.0 / SECOND) as usize % TURNS;
        self.turns[turn].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish_in(
        &self,
        _turn: &MutexGuard<'_, ()>,
        written: Writing,
        slots: SlotSet,
        summary: Option<WindowCounts>,
    ) -> Result<(), StoreError> {
        let mut batch = self.store.batch();
        written.put_last(&mut batch)?;
        let Writing { aggregation, window: Window { end, .. }, table, records, chunks, .. } =
            written;
        let result = SlotResults { slots, summary, records, table, chunks };
        for earlier in self.find(aggregation, end)? {
            let key = keys::result(end, aggregation, earlier.table);
            let rest: SlotSet =
                earlier.slots.iter().filter(|&slot| !slots.contains(slot)).collect();
            if rest.is_empty() {
                batch.delete(Table::Results, &key)?;
            } else if earlier.summary.is_none() && rest != earlier.slots {
                // What a summary adds up cannot be taken apart.
                batch.put_json(Table::Results, &key, &SlotResults { slots: rest, ..earlier })?;
            }
        }
        let key = keys::result(end, aggregation, table);
        batch.put_json(Table::Results, &key, &result)?;
        let expired = UnixNanos(end.0.saturating_sub(KEPT));
        let (oldest, expired) = (keys::results_since(UnixNanos(0)), keys::results_since(expired));
        batch.delete_range(Table::Results, &oldest, &expired)?;
        self.store.commit(batch)
    }

    /// The results of a window that this node has.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn find(&self, aggregation: u32, end: UnixNanos) -> Result<Vec<SlotResults>, StoreError> {
        let (from, to) = keys::results(end, aggregation);
        let rows = self.store.scan(Table::Results, &from, &to)?;
        rows.map(|row| self.store.decode(&row?.1)).collect()
    }

    /// The chunks of a table, in their order.
    pub fn chunks(
        &self,
        aggregation: u32,
        end: UnixNanos,
        result: SlotResults,
    ) -> impl Iterator<Item = Result<Vec<u8>, StoreError>> + Send + use<> {
        let store = Arc::clone(&self.store);
        (0..result.chunks).map(move |chunk| {
            let key = keys::result_chunk(end, aggregation, result.table, chunk);
            let found = store.get(Table::Results, &key)?;
            found.ok_or_else(|| store.missing("a chunk of a count table"))
        })
    }

    /// Where the results are.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

impl SlotResults {
    /// Accepted records of each of these slots, if it has results of it and some records.
    pub fn records_of(&self, slots: &SlotSet) -> BTreeMap<Slot, u64> {
        let counted = self.slots.intersection(slots);
        let records = self.records.iter().filter(|(slot, _)| counted.contains(**slot));
        records.map(|(&slot, &records)| (slot, records)).collect()
    }
}

impl Writing {
    /// Which table it will be.
    pub fn table(&self) -> u64 {
        self.table
    }

    /// Says how many records were accepted in each slot that has some.
    pub fn count_records(&mut self, records: BTreeMap<Slot, u64>) {
        self.records = records;
    }

    /// Writes the next chunk, at the latest when the table is finished.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn push(&mut self, chunk: Vec<u8>) -> Result<(), StoreError> {
        if self.last.is_some() {
            let mut batch = self.store.batch();
            self.put_last(&mut batch)?;
            self.store.commit(batch)?;
        }
        self.last = Some(chunk);
        self.chunks += 1;
        Ok(())
    }

    fn put_last(&self, batch: &mut Batch<'_>) -> Result<(), StoreError> {
        let Some(last) = &self.last else { return Ok(()) };
        let Writing { aggregation, window: Window { end, .. }, table, chunks, .. } = *self;
        let key = keys::result_chunk(end, aggregation, table, chunks - 1);
        batch.put(Table::Results, &key, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregation::distinct_logs::Counts;
    use crate::flush::example::definition;
    use crate::flush::statistics::statistics;
    use crate::store::Disk;

    fn window(end: u64) -> Window {
        Window { start: UnixNanos(end - SECOND), end: UnixNanos(end) }
    }

    fn keep(results: &Results, end: u64, slots: &str, chunks: &[&str]) {
        let mut writing = results.begin(1, window(end));
        chunks.iter().for_each(|chunk| writing.push(chunk.as_bytes().to_vec()).unwrap());
        results.finish(writing, slots.parse().unwrap(), None).unwrap();
    }

    fn found(results: &Results, end: u64) -> Vec<(String, Vec<String>)> {
        let mut found = Vec::new();
        for result in results.find(1, UnixNanos(end)).unwrap() {
            let slots = result.slots.to_string();
            let chunks = results.chunks(1, UnixNanos(end), result);
            let chunks = chunks.map(|chunk| String::from_utf8(chunk.unwrap()).unwrap());
            found.push((slots, chunks.collect()));
        }
        found.sort();
        found
    }

    fn results() -> Results {
        Results::new(Arc::new(Store::in_memory(&Disk::default()).unwrap()))
    }

    #[test]
    fn tables_of_a_window_are_found_with_their_chunks_in_order() {
        let results = results();
        keep(&results, SECOND, "0-9", &["a", "b"]);
        keep(&results, SECOND, "10-19", &[]);
        keep(&results, 2 * SECOND, "0-9", &["c"]);
        let (first, second) = ("0-9".to_owned(), "10-19".to_owned());
        let chunks = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(found(&results, SECOND), [(first, chunks), (second, Vec::new())]);
    }

    #[test]
    fn a_table_that_was_not_finished_is_not_found() {
        let results = results();
        let mut writing = results.begin(1, window(SECOND));
        [b"a", b"b"].iter().for_each(|chunk| writing.push(chunk.to_vec()).unwrap());
        assert_eq!(found(&results, SECOND), []);
    }

    #[test]
    fn what_is_withdrawn_of_a_table_is_not_found_and_later_tables_stay() {
        let results = results();
        keep(&results, SECOND, "0-9", &["a"]);
        let [first] = <[_; 1]>::try_from(results.find(1, UnixNanos(SECOND)).unwrap()).unwrap();
        keep(&results, SECOND, "9", &["b"]);
        let withdraw = |of: &str| {
            results.withdraw(1, window(SECOND), first.table, &of.parse().unwrap()).unwrap();
        };
        let later = ("9".to_owned(), vec!["b".to_owned()]);
        withdraw("7-9");
        let rest = ("0-6".to_owned(), vec!["a".to_owned()]);
        assert_eq!(found(&results, SECOND), [rest, later.clone()]);
        withdraw("0-9");
        assert_eq!(found(&results, SECOND), std::slice::from_ref(&later));
        withdraw("0-9");
        assert_eq!(found(&results, SECOND), [later]);
    }

    #[test]
    fn slots_that_are_counted_again_are_taken_from_the_table_that_had_them() {
        let results = results();
        keep(&results, SECOND, "0-9", &["a"]);
        keep(&results, SECOND, "9", &["b"]);
        let (rest, again) = ("0-8".to_owned(), "9".to_owned());
        let expected = [(rest, vec!["a".to_owned()]), (again, vec!["b".to_owned()])];
        assert_eq!(found(&results, SECOND), expected);
        keep(&results, SECOND, "0-9", &["c"]);
        assert_eq!(found(&results, SECOND), [("0-9".to_owned(), vec!["c".to_owned()])]);
    }

    #[test]
    fn what_another_node_had_takes_the_place_of_nothing() {
        let results = results();
        keep(&results, SECOND, "3-9", &["new"]);
        let fill = |slots: &str, chunk: &str, summary| {
            let mut writing = results.begin(1, window(SECOND));
            writing.push(chunk.as_bytes().to_vec()).unwrap();
            results.fill(writing, slots.parse().unwrap(), summary).unwrap();
        };
        fill("0-5", "old", None);
        fill("4-9", "older", None);
        let definition = serde_json::from_value(definition("by-foo", 1)).unwrap();
        let summary = statistics(&definition, window(SECOND), Counts::default());
        fill("0-255", "", Some(summary));
        let table = |slots: &str, chunk: &str| (slots.to_owned(), vec![chunk.to_owned()]);
        assert_eq!(found(&results, SECOND), [table("0-2", "old"), table("3-9", "new")]);
    }

    #[test]
    fn records_go_with_the_slots_that_they_were_counted_in() {
        let results = results();
        let mut writing = results.begin(1, window(SECOND));
        writing.count_records(BTreeMap::from([(0, 5), (9, 7)]));
        results.finish(writing, "0-9".parse().unwrap(), None).unwrap();
        keep(&results, SECOND, "9", &[]);
        let all = SlotSet::all(256);
        let found = results.find(1, UnixNanos(SECOND)).unwrap();
        let mut records: Vec<_> = found.iter().map(|found| found.records_of(&all)).collect();
        records.sort();
        assert_eq!(records, [BTreeMap::new(), BTreeMap::from([(0, 5)])]);
        assert!(found.iter().all(|found| found.records_of(&SlotSet::default()).is_empty()));
    }

    /// Bytes on disk: as they were written before there were records, and since.
    #[test]
    fn the_bytes_of_what_is_known_of_a_table_are_fixed() {
        let before = r#"{"slots":"0-9","table":7,"chunks":2}"#;
        let since = r#"{"slots":"0-9","records":{"0":5,"9":7},"table":7,"chunks":2}"#;
        let records = BTreeMap::from([(0, 5), (9, 7)]);
        for (json, records) in [(before, BTreeMap::new()), (since, records)] {
            let slots = "0-9".parse().unwrap();
            let result = SlotResults { slots, summary: None, records, table: 7, chunks: 2 };
            assert_eq!(serde_json::to_string(&result).unwrap(), json);
            assert_eq!(serde_json::from_str::<SlotResults>(json).unwrap(), result);
        }
    }

    #[test]
    fn tables_go_with_the_hour() {
        let results = results();
        keep(&results, SECOND, "0-9", &["a"]);
        keep(&results, 2 * SECOND + KEPT, "0-9", &[]);
        assert_eq!(found(&results, SECOND), []);
    }
}
