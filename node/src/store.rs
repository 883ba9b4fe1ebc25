//! The node's database: a few tables, atomic batches, durable writes.
//!
//! This module alone names `rocksdb`. A failed write leaves the handle unusable on
//! purpose: the page cache no longer tells what is on
//! disk, so the handle is dropped, the database opened again, and replayed.

pub mod keys; // every key's bytes

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, Direction, Env, IteratorMode, LogLevel, Options, ReadOptions, WriteBatch,
    WriteOptions,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failpoint::{is_to_fail, may_die};

const MIB: usize = 1 << 20;
/// What the journal gathers in memory before it becomes a file: little, so that writing
/// the file holds up nobody for long.
const JOURNAL_MEMTABLE_BYTES: usize = 8 * MIB;
/// Memtables at most: one that is written, and those that wait to become files.
const JOURNAL_MEMTABLES: i32 = 4;
const FACTS_MEMTABLE_BYTES: usize = 4 * MIB;
/// Past this the write-ahead log's oldest tables are flushed, so that it can be cut.
const WAL_BYTES_MAX: u64 = 160 << 20;
const BLOCK_CACHE_BYTES: usize = 4 * MIB;
/// Journal files are moved down one by one, never merged, so their number stalls nobody.
const LEVEL_ZERO_FILES_STALL: i32 = 1 << 20;
const _: () = assert!(WAL_BYTES_MAX as usize > JOURNAL_MEMTABLE_BYTES * JOURNAL_MEMTABLES as usize);

/// A set of keys with an order of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Small facts: identity, segments, definitions, claims, progress.
    Facts,
    /// The journal's entries, by position.
    Journal,
    /// The windows that were printed in the last hour.
    Windows,
}

impl Table {
    const ALL: [Table; 3] = [Table::Facts, Table::Journal, Table::Windows];

    fn name(self) -> &'static str {
        match self {
            Table::Facts => "facts",
            Table::Journal => "journal",
            Table::Windows => "windows",
        }
    }

    fn options(self, cache: &Cache) -> Options {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(cache);
        let mut options = Options::default();
        options.set_block_based_table_factory(&blocks);
        match self {
            Table::Journal => {
                options.set_write_buffer_size(JOURNAL_MEMTABLE_BYTES);
                options.set_max_write_buffer_number(JOURNAL_MEMTABLES);
                // Hashes do not compress; and a file of ever rising keys only has to be moved.
                options.set_compression_type(DBCompressionType::None);
                options.set_level_zero_file_num_compaction_trigger(1);
                options.set_level_zero_slowdown_writes_trigger(LEVEL_ZERO_FILES_STALL);
                options.set_level_zero_stop_writes_trigger(LEVEL_ZERO_FILES_STALL);
            }
            Table::Facts | Table::Windows => {
                options.set_write_buffer_size(FACTS_MEMTABLE_BYTES);
                options.set_compression_type(DBCompressionType::Lz4);
            }
        }
        options
    }
}

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database could not be opened, or what it holds is damaged.
    #[error("open the database in {}: {source} ({})", path.display(), logs.join(", "))]
    Open {
        /// The database's folder.
        path: PathBuf,
        /// What RocksDB said; it names a damaged file, unless that is one of `logs`.
        source: rocksdb::Error,
        /// The write-ahead logs, which are read first.
        logs: Vec<String>,
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
    #[error("read from the database in {}: {source}", path.display())]
    Read {
        /// The database's folder.
        path: PathBuf,
        /// What RocksDB said.
        source: rocksdb::Error,
    },
}

/// A key and its value.
pub type Row = (Box<[u8]>, Box<[u8]>);

/// A key and the fact that it has.
pub type Keyed<T> = (Box<[u8]>, T);

/// The open database.
pub struct Store {
    db: DB,
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
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_paranoid_checks(true);
        options.set_max_total_wal_size(WAL_BYTES_MAX);
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(2);
        options.set_max_open_files(512);
        options.set_stats_dump_period_sec(0);
        let failed = |source| StoreError::Open { path: path.to_owned(), source, logs: logs(path) };
        options.set_env(&patient_environment().map_err(failed)?);
        let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
        let tables = Table::ALL
            .iter()
            .map(|table| ColumnFamilyDescriptor::new(table.name(), table.options(&cache)));
        let db = DB::open_cf_descriptors(&options, path, tables).map_err(failed)?;
        Ok(Store { db, path: path.to_owned(), broken: AtomicBool::new(false) })
    }

    /// The database's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts a batch: nothing of it is seen or kept before [`Store::commit`].
    pub fn batch(&self) -> Batch<'_> {
        Batch { store: self, writes: WriteBatch::default() }
    }

    /// Makes the batch durable, whole or not at all: one write, one sync.
    ///
    /// # Errors
    /// After any error the handle refuses every later write.
    pub fn commit(&self, batch: Batch<'_>) -> Result<(), StoreError> {
        if self.broken.load(Ordering::Acquire) {
            return Err(self.write_error("an earlier write failed; it has to be opened again"));
        }
        let result = self.write_and_sync(batch.writes);
        if result.is_err() {
            self.broken.store(true, Ordering::Release);
        }
        result
    }

    fn write_and_sync(&self, writes: WriteBatch) -> Result<(), StoreError> {
        may_die("store-before-write");
        if is_to_fail("store-write-fails") {
            return Err(self.write_error("a test says so"));
        }
        let mut options = WriteOptions::default();
        // A planted bug: the power-cut test has to go red when a sync is missing.
        options.set_sync(!is_to_fail("store-sync-is-missing"));
        let written = self.db.write_opt(writes, &options);
        written.map_err(|error| self.write_error(error.as_ref()))?;
        may_die("store-after-sync");
        if is_to_fail("store-sync-fails") {
            return Err(self.write_error("a test says so"));
        }
        Ok(())
    }

    /// The value of one key.
    ///
    /// # Errors
    /// When the database cannot be read or is damaged.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.db.get_cf(self.family(table)?, key).map_err(|source| self.read_error(source))
    }

    /// A small fact, if it is there.
    ///
    /// # Errors
    /// As [`Store::get`], and when the fact has another shape.
    pub fn fact<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        let bytes = self.get(Table::Facts, key)?;
        bytes.map(|bytes| self.decode_fact(&bytes)).transpose()
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
        rows.map(|row| row.and_then(|(key, value)| Ok((key, self.decode_fact(&value)?)))).collect()
    }

    fn decode_fact<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, StoreError> {
        serde_json::from_slice(bytes)
            .map_err(|source| StoreError::Fact { path: self.path.clone(), source })
    }

    /// The rows from `from` (included) to `to` (excluded), in the order of their keys.
    ///
    /// # Errors
    /// As [`Store::get`]; a row that cannot be read ends the scan with an error.
    pub fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
    ) -> Result<impl Iterator<Item = Result<Row, StoreError>> + '_, StoreError> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        options.set_verify_checksums(true);
        options.fill_cache(false);
        let start = IteratorMode::From(from, Direction::Forward);
        let rows = self.db.iterator_cf_opt(self.family(table)?, options, start);
        Ok(rows.map(|row| row.map_err(|source| self.read_error(source))))
    }

    /// Gives back the files that hold only keys from `from` (included) to `to`
    /// (excluded), without a tombstone: some of the keys may stay readable.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn release(&self, table: Table, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        // RocksDB's range includes its end.
        let Some(last) = keys::before(to) else { return Ok(()) };
        let released = self.db.delete_file_in_range_cf(self.family(table)?, from, &last);
        released.map_err(|error| self.write_error(error.as_ref()))
    }

    fn family(&self, table: Table) -> Result<&ColumnFamily, StoreError> {
        self.db.cf_handle(table.name()).ok_or_else(|| self.write_error("a table is missing"))
    }

    fn write_error(&self, reason: &str) -> StoreError {
        StoreError::Write { path: self.path.clone(), reason: reason.to_owned() }
    }

    fn read_error(&self, source: rocksdb::Error) -> StoreError {
        StoreError::Read { path: self.path.clone(), source }
    }
}

/// RocksDB's own threads write files that nobody waits for: senders come first.
fn patient_environment() -> Result<Env, rocksdb::Error> {
    let mut environment = Env::new()?;
    environment.lower_high_priority_thread_pool_cpu_priority();
    environment.lower_thread_pool_cpu_priority();
    Ok(environment)
}

/// The names of the write-ahead logs in a database's folder.
fn logs(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".log")).collect()
}

/// Writes that take effect together.
pub struct Batch<'a> {
    store: &'a Store,
    writes: WriteBatch,
}

impl Batch<'_> {
    /// Sets a key's value.
    ///
    /// # Errors
    /// When the table is missing from the database.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.writes.put_cf(self.store.family(table)?, key, value);
        Ok(())
    }

    /// Sets a small fact.
    ///
    /// # Errors
    /// As [`Batch::put`], and when the fact cannot be written as JSON.
    pub fn put_fact(&mut self, key: &[u8], fact: &impl Serialize) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(fact)
            .map_err(|source| StoreError::Fact { path: self.store.path.clone(), source })?;
        self.put(Table::Facts, key, &bytes)
    }

    /// Removes a key, if it is there.
    ///
    /// # Errors
    /// When the table is missing from the database.
    pub fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.writes.delete_cf(self.store.family(table)?, key);
        Ok(())
    }

    /// Removes the keys from `from` (included) to `to` (excluded).
    ///
    /// # Errors
    /// When the table is missing from the database.
    pub fn delete_range(&mut self, table: Table, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        self.writes.delete_range_cf(self.store.family(table)?, from, to);
        Ok(())
    }
}
