//! The node's database: a few tables, atomic batches, durable writes.
//!
//! It is RocksDB in a folder, or for a simulation a database in memory on a [`Disk`]
//! that can crash. A failed write leaves the handle unusable on purpose: the page cache
//! no longer tells what is on disk, so the handle is dropped, the database opened again,
//! and replayed.

pub mod folder; // folders that survive a power cut
pub mod keys; // every key's bytes
mod memory; // in memory, on a disk that can crash
mod payloads; // large values of the journal, in files
mod rocks; // in a folder; alone names `rocksdb`

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use crate::failpoint::{is_to_fail, may_die};

pub use memory::Disk;
pub use payloads::{PayloadFile, PayloadLimits, Place};

use payloads::Payloads;

/// A set of keys with an order of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Small facts: identity, segments, definitions, claims, progress.
    Facts,
    /// The journal's entries, by position.
    Journal,
    /// The windows that were printed in the last hour.
    Windows,
    /// The results of the windows of the last hour, slots by slots.
    Results,
    /// Raft's vote, log and newest snapshot.
    Raft,
    /// How far the checkpoints have each rebuilt file, and what waits behind a gap in it.
    Files,
}

impl Table {
    const ALL: [Table; 6] =
        [Table::Facts, Table::Journal, Table::Windows, Table::Results, Table::Raft, Table::Files];
}

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database could not be opened, or what it holds is damaged.
    #[error("open the database in {}: {reason}", path.display())]
    Open {
        /// The database's folder.
        path: PathBuf,
        /// What failed, and in which file.
        reason: String,
    },
    /// A write or its sync failed; the handle must not be used again.
    #[error("write to the database in {}: {reason}", path.display())]
    Write {
        /// The database's folder.
        path: PathBuf,
        /// What failed.
        reason: String,
    },
    /// A fact is not what this version writes.
    #[error("the database in {} has an unreadable fact: {source}", path.display())]
    Fact {
        /// The database's folder.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A read failed, or what was read is damaged.
    #[error("read from the database in {}: {reason}", path.display())]
    Read {
        /// The database's folder.
        path: PathBuf,
        /// What failed.
        reason: String,
    },
}

/// What failed, in words; the store adds where.
type Reason = String;

/// A key and its value.
pub type Row = (Box<[u8]>, Box<[u8]>);

/// A key and the fact that it has.
pub type Keyed<T> = (Box<[u8]>, T);

/// The rows of a scan.
type Scan<'a> = Box<dyn Iterator<Item = Result<Row, Reason>> + 'a>;

/// What a store stands on. Its methods mean what those of [`Store`] and [`Batch`] do.
trait Backend: Send + Sync {
    fn writes(&self) -> Box<dyn Writes + '_>;
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Reason>;
    fn scan(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Scan<'_>, Reason>;
    fn release(&self, table: Table, from: &[u8], to: &[u8]) -> Result<(), Reason>;
    fn note(&self) -> Result<Vec<u8>, Reason>;
    fn write_note(&self, note: &[u8]) -> Result<(), Reason>;
    fn payloads(&self) -> &dyn Payloads;
    /// How long the disk makes the next write wait, if not in the write itself.
    fn delay(&self) -> Option<Duration>;
}

/// Writes that a backend gathers.
trait Writes: Send {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Reason>;
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), Reason>;
    fn delete_range(&mut self, table: Table, from: &[u8], to: &[u8]) -> Result<(), Reason>;
    /// All of them take effect, or none. They are durable only with `sync`, which makes
    /// all earlier commits durable too.
    fn commit(self: Box<Self>, sync: bool) -> Result<(), Reason>;
}

/// The open database.
pub struct Store {
    backend: Box<dyn Backend>,
    path: PathBuf,
    broken: AtomicBool,
}

impl Store {
    /// Opens the database in `path`, or makes one.
    ///
    /// # Errors
    /// When its files are damaged, in use, or cannot be read. Recovery accepts a
    /// torn tail of the write-ahead log and nothing else; whether that tail held
    /// something acknowledged is the journal's to know.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        Store::on(rocks::Database::open(path), path)
    }

    /// Opens the database on a disk in memory, or makes one.
    ///
    /// # Errors
    /// When it is in use.
    pub fn in_memory(disk: &Disk) -> Result<Store, StoreError> {
        Store::on(memory::Database::open(disk), Path::new("memory"))
    }

    fn on(
        opened: Result<impl Backend + 'static, Reason>,
        path: &Path,
    ) -> Result<Store, StoreError> {
        let path = path.to_owned();
        match opened {
            Ok(backend) => {
                Ok(Store { backend: Box::new(backend), path, broken: AtomicBool::new(false) })
            }
            Err(reason) => Err(StoreError::Open { path, reason }),
        }
    }

    /// The database's folder, for messages; one in memory has none, and is called so.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts a batch: nothing of it is seen or kept before [`Store::commit`].
    pub fn batch(&self) -> Batch<'_> {
        Batch { store: self, writes: self.backend.writes() }
    }

    /// Waits until the disk takes a write: at no time where the write itself waits for it, but
    /// for a while on a slow [`Disk`], whose machine has no thread that could stand still.
    pub async fn ready(&self) {
        if let Some(delay) = self.backend.delay() {
            sleep(delay).await;
        }
    }

    /// Makes a batch of this store durable, whole or not at all: one write, one sync.
    ///
    /// # Errors
    /// After any error the handle refuses every later write.
    pub fn commit(&self, batch: Batch<'_>) -> Result<(), StoreError> {
        debug_assert!(std::ptr::eq(self, batch.store), "a batch of another store");
        self.write(|| write_and_sync(batch.writes))
    }

    /// After an error nothing is written any more.
    fn write<T>(&self, write: impl FnOnce() -> Result<T, Reason>) -> Result<T, StoreError> {
        if self.broken.load(Ordering::Acquire) {
            let reason = "an earlier write failed; it has to be opened again";
            return Err(self.write_error(reason.to_owned()));
        }
        let result = write();
        if result.is_err() {
            self.broken.store(true, Ordering::Release);
        }
        result.map_err(|reason| self.write_error(reason))
    }

    /// The value of one key.
    ///
    /// # Errors
    /// When the database cannot be read or is damaged.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.backend.get(table, key).map_err(|reason| self.read_error(reason))
    }

    /// A small fact, if it is there.
    ///
    /// # Errors
    /// As [`Store::get`], and when the fact has another shape.
    pub fn fact<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        let bytes = self.get(Table::Facts, key)?;
        bytes.map(|bytes| self.decode(&bytes)).transpose()
    }

    /// The small facts from `from` (included) to `to` (excluded), with their keys.
    ///
    /// # Errors
    /// As [`Store::fact`].
    pub fn facts<T: DeserializeOwned>(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> Result<Vec<Keyed<T>>, StoreError> {
        let rows = self.scan(Table::Facts, from, to)?;
        rows.map(|row| row.and_then(|(key, value)| Ok((key, self.decode(&value)?)))).collect()
    }

    /// What [`Batch::put_json`] has written.
    ///
    /// # Errors
    /// When it has another shape.
    pub fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, StoreError> {
        serde_json::from_slice(bytes)
            .map_err(|source| StoreError::Fact { path: self.path.clone(), source })
    }

    /// The rows from `from` (included) to `to` (excluded), in the order of their keys.
    ///
    /// # Errors
    /// As [`Store::get`]; a row that cannot be read ends the scan with an error.
    pub fn scan<'a>(
        &'a self,
        table: Table,
        from: &[u8],
        to: &[u8],
    ) -> Result<impl Iterator<Item = Result<Row, StoreError>> + use<'a>, StoreError> {
        let rows = self.backend.scan(table, from, to).map_err(|reason| self.read_error(reason))?;
        Ok(rows.map(|row| row.map_err(|reason| self.read_error(reason))))
    }

    /// Gives back the files that hold only keys from `from` (included) to `to`
    /// (excluded), without a tombstone: some of the keys may stay readable.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn release(&self, table: Table, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        self.backend.release(table, from, to).map_err(|reason| self.write_error(reason))
    }

    /// The note that is kept beside the database, as it was last written; empty if none
    /// was.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn note(&self) -> Result<Vec<u8>, StoreError> {
        self.backend.note().map_err(|reason| self.read_error(reason))
    }

    /// Writes the note, without a sync: it outlives the process, but a power cut may
    /// leave an older one, a torn one, or none. Notes are all of one length.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_note(&self, note: &[u8]) -> Result<(), StoreError> {
        self.backend.write_note(note).map_err(|reason| self.write_error(reason))
    }

    /// The error for something that has to be there and is not.
    pub fn missing(&self, what: &str) -> StoreError {
        self.read_error(format!("{what} is missing"))
    }

    fn write_error(&self, reason: Reason) -> StoreError {
        StoreError::Write { path: self.path.clone(), reason }
    }

    fn read_error(&self, reason: Reason) -> StoreError {
        StoreError::Read { path: self.path.clone(), reason }
    }
}

fn write_and_sync(writes: Box<dyn Writes + '_>) -> Result<(), Reason> {
    may_die("store-before-write");
    if is_to_fail("store-write-fails") {
        return Err("a test says so".to_owned());
    }
    // A planted bug: the power-cut test has to go red when a sync is missing.
    writes.commit(!is_to_fail("store-sync-is-missing"))?;
    may_die("store-after-sync");
    if is_to_fail("store-sync-fails") {
        return Err("a test says so".to_owned());
    }
    Ok(())
}

/// Writes that take effect together.
pub struct Batch<'a> {
    store: &'a Store,
    writes: Box<dyn Writes + 'a>,
}

impl Batch<'_> {
    /// Sets a key's value.
    ///
    /// # Errors
    /// When the table is missing from the database.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.writes.put(table, key, value).map_err(|reason| self.store.write_error(reason))
    }

    /// Sets a small fact.
    ///
    /// # Errors
    /// As [`Batch::put`], and when the fact cannot be written as JSON.
    pub fn put_fact(&mut self, key: &[u8], fact: &impl Serialize) -> Result<(), StoreError> {
        self.put_json(Table::Facts, key, fact)
    }

    /// Sets a key's value, as JSON.
    ///
    /// # Errors
    /// As [`Batch::put_fact`].
    pub fn put_json(
        &mut self,
        table: Table,
        key: &[u8],
        value: &impl Serialize,
    ) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(value)
            .map_err(|source| StoreError::Fact { path: self.store.path.clone(), source })?;
        self.put(table, key, &bytes)
    }

    /// Removes a key, if it is there.
    ///
    /// # Errors
    /// When the table is missing from the database.
    pub fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.writes.delete(table, key).map_err(|reason| self.store.write_error(reason))
    }

    /// Removes the keys from `from` (included) to `to` (excluded).
    ///
    /// # Errors
    /// When the table is missing from the database.
    pub fn delete_range(&mut self, table: Table, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        self.writes.delete_range(table, from, to).map_err(|reason| self.store.write_error(reason))
    }
}

#[cfg(test)]
mod tests;
