//! The database in a folder: RocksDB, and the note and the payloads in files beside its own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, Direction, Env, IteratorMode, LogLevel, Options, ReadOptions, WriteBatch,
    WriteOptions,
};

use crate::store::payloads::Payloads;
use crate::store::payloads::files::{self, Files};
use crate::store::{Backend, Reason, Scan, Table, Writes, keys};

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

/// The note says how far the journal was acknowledged.
const NOTE_FILE: &str = "ACKNOWLEDGED";

/// An open database.
pub(super) struct Database {
    db: DB,
    note: File,
    payloads: Files,
}

impl Database {
    /// Opens the database in `folder`, or makes one.
    pub(super) fn open(folder: &Path) -> Result<Database, Reason> {
        // The error names a damaged file, unless that is one of the logs, which are read first.
        let db = open(folder).map_err(|error| format!("{error} ({})", logs(folder).join(", ")))?;
        let note = open_note(&folder.join(NOTE_FILE)).map_err(|error| of_note(&error))?;
        let payloads = Files::open(folder).map_err(|error| files::of_files(&error))?;
        Ok(Database { db, note, payloads })
    }

    fn family(&self, table: Table) -> Result<&ColumnFamily, Reason> {
        self.db.cf_handle(name(table)).ok_or_else(|| "a table is missing".to_owned())
    }
}

impl Backend for Database {
    fn writes(&self) -> Box<dyn Writes + '_> {
        Box::new(Batch { database: self, writes: WriteBatch::default() })
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Reason> {
        self.db.get_cf(self.family(table)?, key).map_err(rocksdb::Error::into_string)
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Scan<'_>, Reason> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        options.set_verify_checksums(true);
        options.fill_cache(false);
        let start = IteratorMode::From(from, Direction::Forward);
        let rows = self.db.iterator_cf_opt(self.family(table)?, options, start);
        Ok(Box::new(rows.map(|row| row.map_err(rocksdb::Error::into_string))))
    }

    fn release(&self, table: Table, from: &[u8], to: &[u8]) -> Result<(), Reason> {
        // RocksDB's range includes its end.
        let Some(last) = keys::before(to) else { return Ok(()) };
        let released = self.db.delete_file_in_range_cf(self.family(table)?, from, &last);
        released.map_err(rocksdb::Error::into_string)
    }

    fn note(&self) -> Result<Vec<u8>, Reason> {
        read(&self.note).map_err(|error| of_note(&error))
    }

    fn write_note(&self, note: &[u8]) -> Result<(), Reason> {
        self.note.write_all_at(note, 0).map_err(|error| of_note(&error))
    }

    fn payloads(&self) -> &dyn Payloads {
        &self.payloads
    }

    fn delay(&self) -> Option<Duration> {
        None
    }
}

struct Batch<'a> {
    database: &'a Database,
    writes: WriteBatch,
}

impl Writes for Batch<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Reason> {
        self.writes.put_cf(self.database.family(table)?, key, value);
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), Reason> {
        self.writes.delete_cf(self.database.family(table)?, key);
        Ok(())
    }

    fn delete_range(&mut self, table: Table, from: &[u8], to: &[u8]) -> Result<(), Reason> {
        // RocksDB refuses a whole batch for a range that ends before it begins.
        if from < to {
            self.writes.delete_range_cf(self.database.family(table)?, from, to);
        }
        Ok(())
    }

    fn commit(self: Box<Self>, sync: bool) -> Result<(), Reason> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.database.db.write_opt(self.writes, &options).map_err(rocksdb::Error::into_string)
    }
}

fn open(folder: &Path) -> Result<DB, rocksdb::Error> {
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
    options.set_env(&patient_environment()?);
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
    let tables = Table::ALL.map(|t| ColumnFamilyDescriptor::new(name(t), table_options(t, &cache)));
    DB::open_cf_descriptors(&options, folder, tables)
}

/// What the database's files call a table.
fn name(table: Table) -> &'static str {
    match table {
        Table::Facts => "facts",
        Table::Journal => "journal",
        Table::Windows => "windows",
        Table::Results => "results",
        Table::Raft => "raft",
        Table::Files => "files",
    }
}

fn table_options(table: Table, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    match table {
        Table::Journal => {
            options.set_write_buffer_size(JOURNAL_MEMTABLE_BYTES);
            options.set_max_write_buffer_number(JOURNAL_MEMTABLES);
            // Hashes do not compress; and a file of ever rising keys only has to be moved.
            options.set_compression_type(DBCompressionType::None);
            options.set_level_zero_file_num_compaction_trigger(1);
            options.set_level_zero_slowdown_writes_trigger(LEVEL_ZERO_FILES_STALL);
            options.set_level_zero_stop_writes_trigger(LEVEL_ZERO_FILES_STALL);
        }
        Table::Facts | Table::Windows | Table::Results | Table::Raft | Table::Files => {
            options.set_write_buffer_size(FACTS_MEMTABLE_BYTES);
            options.set_compression_type(DBCompressionType::Lz4);
        }
    }
    options
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

fn open_note(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn of_note(error: &io::Error) -> Reason {
    format!("{NOTE_FILE}: {error}")
}
