//! The database in memory, for simulations: its disk outlives the process that they
//! kill, and loses what was not synced when they cut its power.

mod payloads; // large values, in files

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::store::payloads::Payloads;
use crate::store::{Backend, Reason, Scan, Table, Writes};

use payloads::Files;

/// How many notes may wait in the page cache before the first of them is on the disk.
const NOTES_CACHED_MAX: usize = 4;

/// A disk in memory, for one database at a time; cheap to clone.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Content>>);

#[derive(Default)]
struct Content {
    /// What the open store sees.
    visible: Tables,
    /// What a crash leaves.
    durable: Tables,
    /// The writes that lead from `durable` to `visible`.
    unsynced: Vec<Write>,
    durable_note: Vec<u8>,
    /// Later notes, the newest last.
    unsynced_notes: VecDeque<Vec<u8>>,
    payloads: Files,
    /// How often the disk was opened: this tells its stores apart.
    opened: u64,
    /// The store that is open.
    open: Option<u64>,
    writes_fail: bool,
    /// How long a write waits at most, if it waits.
    delay: Option<Duration>,
    syncs_are_skipped: bool,
}

impl Disk {
    /// Cuts the power: what was not synced is lost, but for some of the payloads, and so is
    /// all but the oldest of the notes that may be left. A store that is open fails whatever it is asked from now
    /// on: it belongs to a process that is dead.
    pub fn crash(&self) {
        let mut content = self.lock();
        content.open = None;
        content.visible = content.durable.clone();
        content.unsynced.clear();
        content.unsynced_notes.clear();
        content.payloads.crash();
    }

    /// Whether every write fails from now on, as on a disk that is full or broken.
    pub fn fail_writes(&self, fail: bool) {
        self.lock().writes_fail = fail;
    }

    /// Has [`Store::ready`] wait for up to so long from now on, as on a disk that is slow.
    ///
    /// [`Store::ready`]: crate::store::Store::ready
    pub fn delay_writes(&self, longest: Option<Duration>) {
        self.lock().delay = longest;
    }

    /// Whether commits leave out their sync from now on: a fault that a simulation has
    /// to find.
    pub fn skip_syncs(&self, skip: bool) {
        self.lock().syncs_are_skipped = skip;
    }

    /// Bytes of all keys, values and payloads that are visible.
    pub fn used(&self) -> u64 {
        let content = self.lock();
        let rows = content.visible.0.iter().flatten();
        let rows: u64 = rows.map(|(key, value)| (key.len() + value.len()) as u64).sum();
        rows + content.payloads.used()
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn write(&mut self, writes: Vec<Write>) {
        for write in &writes {
            self.visible.apply(write);
        }
        self.unsynced.extend(writes);
    }

    fn sync(&mut self) {
        for write in mem::take(&mut self.unsynced) {
            self.durable.apply(&write);
        }
    }
}

/// A key or a value, which both layers share.
type Bytes = Arc<[u8]>;

/// The rows of a table.
type Rows = BTreeMap<Bytes, Bytes>;

/// All tables, each at its place in [`Table::ALL`].
#[derive(Clone, Default)]
struct Tables([Rows; Table::ALL.len()]);

impl Tables {
    fn rows(&self, table: Table) -> &Rows {
        &self.0[table as usize]
    }

    fn apply(&mut self, write: &Write) {
        let rows = &mut self.0[write.table as usize];
        match &write.change {
            Change::Put(key, value) => {
                rows.insert(Arc::clone(key), Arc::clone(value));
            }
            Change::Delete(key) => {
                rows.remove(key);
            }
            Change::DeleteRange(from, to) => {
                for (key, _) in range(rows, from, to) {
                    rows.remove(&key);
                }
            }
        }
    }
}

fn range(rows: &Rows, from: &[u8], to: &[u8]) -> Vec<(Bytes, Bytes)> {
    // A range that ends before it begins is empty.
    let bounds = (Bound::Included(from), Bound::Excluded(to.max(from)));
    let rows = rows.range::<[u8], _>(bounds);
    rows.map(|(key, value)| (Arc::clone(key), Arc::clone(value))).collect()
}

struct Write {
    table: Table,
    change: Change,
}

enum Change {
    Put(Bytes, Bytes),
    Delete(Bytes),
    DeleteRange(Bytes, Bytes),
}

/// An open database.
pub(super) struct Database {
    disk: Disk,
    /// Which of the disk's stores it is.
    number: u64,
}

impl Database {
    /// Opens the database on `disk`, or makes one.
    pub(super) fn open(disk: &Disk) -> Result<Database, Reason> {
        let mut content = disk.lock();
        if content.open.is_some() {
            return Err("it is in use".to_owned());
        }
        content.opened += 1;
        content.open = Some(content.opened);
        Ok(Database { disk: disk.clone(), number: content.opened })
    }

    fn content(&self) -> Result<MutexGuard<'_, Content>, Reason> {
        let content = self.disk.lock();
        if content.open != Some(self.number) {
            return Err("its disk crashed".to_owned());
        }
        Ok(content)
    }

    fn writable(&self) -> Result<MutexGuard<'_, Content>, Reason> {
        let content = self.content()?;
        if content.writes_fail {
            return Err("its disk takes no writes".to_owned());
        }
        Ok(content)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Ok(mut content) = self.content() {
            content.open = None;
        }
    }
}

impl Backend for Database {
    fn writes(&self) -> Box<dyn Writes + '_> {
        Box::new(Batch { database: self, writes: Vec::new() })
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Reason> {
        Ok(self.content()?.visible.rows(table).get(key).map(|value| value.to_vec()))
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Scan<'_>, Reason> {
        let rows = range(self.content()?.visible.rows(table), from, to);
        Ok(Box::new(rows.into_iter().map(|(key, value)| Ok(((*key).into(), (*value).into())))))
    }

    fn release(&self, table: Table, from: &[u8], to: &[u8]) -> Result<(), Reason> {
        let mut content = self.writable()?;
        let change = Change::DeleteRange(from.into(), to.into());
        let write = Write { table, change };
        // A file that was deleted does not come back in a crash.
        content.durable.apply(&write);
        content.write(vec![write]);
        Ok(())
    }

    fn note(&self) -> Result<Vec<u8>, Reason> {
        let content = self.content()?;
        Ok(content.unsynced_notes.back().unwrap_or(&content.durable_note).clone())
    }

    fn write_note(&self, note: &[u8]) -> Result<(), Reason> {
        let mut content = self.writable()?;
        content.unsynced_notes.push_back(note.to_vec());
        if content.unsynced_notes.len() > NOTES_CACHED_MAX
            && let Some(oldest) = content.unsynced_notes.pop_front()
        {
            content.durable_note = oldest;
        }
        Ok(())
    }

    fn payloads(&self) -> &dyn Payloads {
        self
    }

    fn delay(&self) -> Option<Duration> {
        Some(self.disk.lock().delay?.mul_f64(fastrand::f64()))
    }
}

struct Batch<'a> {
    database: &'a Database,
    writes: Vec<Write>,
}

impl Batch<'_> {
    fn push(&mut self, table: Table, change: Change) -> Result<(), Reason> {
        self.writes.push(Write { table, change });
        Ok(())
    }
}

impl Writes for Batch<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Reason> {
        self.push(table, Change::Put(key.into(), value.into()))
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), Reason> {
        self.push(table, Change::Delete(key.into()))
    }

    fn delete_range(&mut self, table: Table, from: &[u8], to: &[u8]) -> Result<(), Reason> {
        self.push(table, Change::DeleteRange(from.into(), to.into()))
    }

    fn commit(self: Box<Self>, sync: bool) -> Result<(), Reason> {
        let mut content = self.database.writable()?;
        content.write(self.writes);
        if sync && !content.syncs_are_skipped {
            content.sync();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::store::{Store, StoreError};

    fn put(store: &Store, key: &[u8]) -> Result<(), StoreError> {
        let mut batch = store.batch();
        batch.put(Table::Facts, key, b"value")?;
        batch.put(Table::Journal, key, b"value")?;
        store.commit(batch)
    }

    fn release(store: &Store, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        store.release(Table::Facts, from, to)?;
        store.release(Table::Journal, from, to)
    }

    /// The keys in both tables, which have to be the same.
    fn keys(store: &Store) -> Vec<Box<[u8]>> {
        let [facts, journal] = [Table::Facts, Table::Journal].map(|table| {
            let rows = store.scan(table, b"", b"z").unwrap();
            rows.map(|row| row.unwrap().0).collect::<Vec<_>>()
        });
        assert_eq!(facts, journal);
        facts
    }

    fn reopen(disk: &Disk) -> Store {
        Store::in_memory(disk).unwrap()
    }

    #[test]
    fn a_crash_takes_nothing_that_was_committed_and_all_that_was_not() {
        let disk = Disk::default();
        let store = reopen(&disk);
        put(&store, b"a").unwrap();
        let mut batch = store.batch();
        batch.put(Table::Facts, b"b", b"value").unwrap();
        batch.delete_range(Table::Journal, b"a", b"b").unwrap();
        disk.crash();
        assert!(matches!(store.commit(batch), Err(StoreError::Write { .. })));
        assert_eq!(keys(&reopen(&disk)), [b"a".as_slice().into()]);
    }

    #[test]
    fn a_store_whose_disk_crashed_fails_whatever_it_is_asked() {
        let disk = Disk::default();
        let dead = reopen(&disk);
        put(&dead, b"a").unwrap();
        disk.crash();
        let store = reopen(&disk);
        assert!(matches!(dead.get(Table::Facts, b"a"), Err(StoreError::Read { .. })));
        assert!(dead.scan(Table::Facts, b"a", b"z").is_err());
        assert!(put(&dead, b"b").is_err());
        assert!(release(&dead, b"a", b"z").is_err());
        assert!(dead.note().is_err());
        assert!(dead.write_note(b"note").is_err());
        drop(dead);
        put(&store, b"c").unwrap();
        assert_eq!(keys(&store), [b"a".as_slice().into(), b"c".as_slice().into()]);
    }

    #[test]
    fn what_was_not_synced_is_there_until_a_crash() {
        let disk = Disk::default();
        let store = reopen(&disk);
        put(&store, b"a").unwrap();
        disk.skip_syncs(true);
        put(&store, b"b").unwrap();
        drop(store);
        let store = reopen(&disk);
        assert_eq!(keys(&store), [b"a".as_slice().into(), b"b".as_slice().into()]);
        disk.crash();
        assert_eq!(keys(&reopen(&disk)), [b"a".as_slice().into()]);
    }

    #[test]
    fn a_commit_without_a_sync_is_there_until_a_crash() {
        let disk = Disk::default();
        let database = Database::open(&disk).unwrap();
        let mut writes = database.writes();
        writes.put(Table::Facts, b"a", b"value").unwrap();
        writes.commit(false).unwrap();
        assert!(database.get(Table::Facts, b"a").unwrap().is_some());
        disk.crash();
        assert_eq!(keys(&reopen(&disk)), []);
    }

    #[test]
    fn a_sync_makes_earlier_commits_durable_too() {
        let disk = Disk::default();
        let store = reopen(&disk);
        disk.skip_syncs(true);
        put(&store, b"a").unwrap();
        disk.skip_syncs(false);
        put(&store, b"b").unwrap();
        disk.crash();
        assert_eq!(keys(&reopen(&disk)), [b"a".as_slice().into(), b"b".as_slice().into()]);
    }

    #[test]
    fn what_was_released_does_not_come_back() {
        let disk = Disk::default();
        let store = reopen(&disk);
        put(&store, b"a").unwrap();
        release(&store, b"a", b"b").unwrap();
        assert_eq!(keys(&store), []);
        disk.crash();
        let store = reopen(&disk);
        assert_eq!(keys(&store), []);
        disk.skip_syncs(true);
        put(&store, b"a").unwrap();
        release(&store, b"a", b"b").unwrap();
        disk.skip_syncs(false);
        put(&store, b"b").unwrap();
        disk.crash();
        assert_eq!(keys(&reopen(&disk)), [b"b".as_slice().into()]);
    }

    #[test]
    fn after_a_write_that_failed_a_store_has_to_be_opened_again() {
        let disk = Disk::default();
        let store = reopen(&disk);
        disk.fail_writes(true);
        assert!(put(&store, b"a").is_err());
        assert!(store.write_note(b"note").is_err());
        assert_eq!(keys(&store), []);
        disk.fail_writes(false);
        assert!(put(&store, b"a").is_err());
        drop(store);
        let store = reopen(&disk);
        put(&store, b"b").unwrap();
        assert_eq!(keys(&store), [b"b".as_slice().into()]);
    }

    #[test]
    fn a_crash_leaves_an_old_note_or_none() {
        let disk = Disk::default();
        let store = reopen(&disk);
        store.write_note(b"0").unwrap();
        disk.crash();
        let store = reopen(&disk);
        assert_eq!(store.note().unwrap(), b"");
        for note in 0..10 {
            store.write_note(&[note]).unwrap();
        }
        disk.crash();
        assert_eq!(reopen(&disk).note().unwrap(), [9 - NOTES_CACHED_MAX as u8]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_waits_for_a_disk_while_it_is_slow() {
        let disk = Disk::default();
        let store = reopen(&disk);
        let longest = Duration::from_secs(1);
        let mut waited = [None, Some(longest), None].map(|delay| (delay, Duration::ZERO));
        for (delay, waited) in &mut waited {
            let began = Instant::now();
            disk.delay_writes(*delay);
            store.ready().await;
            *waited = began.elapsed();
        }
        let [before, slow, after] = waited.map(|(_, waited)| waited);
        assert!(slow > Duration::ZERO && slow <= longest, "{slow:?}");
        assert_eq!((before, after), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn a_disk_says_how_much_of_it_is_used() {
        let disk = Disk::default();
        let store = reopen(&disk);
        put(&store, b"a").unwrap();
        put(&store, b"b").unwrap();
        assert_eq!(disk.used(), 2 * 2 * b"avalue".len() as u64);
        store.release(Table::Journal, b"a", b"z").unwrap();
        assert_eq!(disk.used(), 2 * b"avalue".len() as u64);
    }
}
