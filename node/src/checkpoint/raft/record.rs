//! Raft's records in the node's database: a checksum around JSON, under keys that are
//! named.
//!
//! ```text
//! 0..4   checksum of the key and of the bytes 4.. (CRC-32, little-endian)
//! 4..    JSON
//! ```

use std::fmt;
use std::io;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::task::block_in_place;

use super::Entry;
use crate::store::{Batch, Store, StoreError, Table, keys};

const CHECKSUM_BYTES: usize = 4;

/// One record of Raft's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// Which candidate this node voted for, and in which term.
    Vote,
    /// The last entry that is known to be committed.
    Committed,
    /// The last entry that was removed because a snapshot contains it.
    Purged,
    /// The newest snapshot.
    Snapshot,
    /// The log's entry with this index.
    Entry(u64),
}

impl Record {
    fn key(self) -> Vec<u8> {
        match self {
            Record::Vote => keys::RAFT_VOTE.into(),
            Record::Committed => keys::RAFT_COMMITTED.into(),
            Record::Purged => keys::RAFT_PURGED.into(),
            Record::Snapshot => keys::RAFT_SNAPSHOT.into(),
            Record::Entry(index) => keys::raft_entry(index).into(),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::Vote => f.write_str("Raft's vote"),
            Record::Committed => f.write_str("the index that Raft knows to be committed"),
            Record::Purged => f.write_str("the index that Raft's log was purged to"),
            Record::Snapshot => f.write_str("Raft's snapshot"),
            Record::Entry(index) => write!(f, "entry {index} of Raft's log"),
        }
    }
}

/// What is wrong with a record.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It must have been there, because its neighbours are.
    #[error("it is missing")]
    Missing,
    /// A byte changed, or it is another record's.
    #[error("its checksum is wrong")]
    Checksum,
    /// It is whole, and not what this version writes.
    #[error("its content is unknown: {0}")]
    Content(#[source] serde_json::Error),
}

/// Why a record was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The database below failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record is not what was written, or not for this version.
    #[error("{record} cannot be used: {damage}")]
    Damaged {
        /// Which record.
        record: Record,
        /// What is wrong with it.
        damage: Damage,
    },
    /// The record cannot be written as JSON.
    #[error("write {record}: {source}")]
    Encode {
        /// Which record.
        record: Record,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl Damage {
    pub(super) fn of(self, record: Record) -> RecordError {
        RecordError::Damaged { record, damage: self }
    }
}

impl From<RecordError> for io::Error {
    fn from(error: RecordError) -> io::Error {
        io::Error::other(error)
    }
}

/// Raft's table; clones share it.
#[derive(Clone)]
pub(super) struct Records {
    store: Arc<Store>,
    /// Held by everybody who may still use the store.
    _in_use: watch::Receiver<()>,
}

impl Records {
    /// Raft's table in `store`, and what is closed when nobody uses it any more.
    pub(super) fn new(store: Arc<Store>) -> (Records, watch::Sender<()>) {
        let (in_use, _in_use) = watch::channel(());
        (Records { store, _in_use }, in_use)
    }

    /// A record, if it is there.
    pub(super) fn get<T: DeserializeOwned>(
        &self,
        record: Record,
    ) -> Result<Option<T>, RecordError> {
        let key = record.key();
        let bytes = self.store.get(Table::Raft, &key)?;
        bytes.map(|bytes| open(record, &key, &bytes)).transpose()
    }

    /// The log's entries from `from` (included) to `to` (excluded). Those at either end
    /// may be absent; one in between may not. Where they take more than `bytes_max` of
    /// the database, the later ones are left out, but never the first.
    pub(super) fn entries(
        &self,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, RecordError> {
        let (first, end) = (keys::raft_entry(from), keys::raft_entry(to));
        let mut entries: Vec<Entry> = Vec::new();
        let mut total = 0;
        for row in self.store.scan(Table::Raft, &first, &end)? {
            let (key, bytes) = row?;
            total += bytes.len();
            if total > bytes_max && !entries.is_empty() {
                break;
            }
            // A key of another length is no entry's, which its checksum will tell.
            let index = keys::raft_index(&key).unwrap_or(from);
            let expected = entries.last().map_or(index, |before| before.log_id.index + 1);
            if index != expected {
                return Err(Damage::Missing.of(Record::Entry(expected)));
            }
            entries.push(open(Record::Entry(index), &key, &bytes)?);
        }
        Ok(entries)
    }

    /// Waits until the disk takes a write.
    pub(super) async fn ready(&self) {
        self.store.ready().await;
    }

    /// Makes what `fill` writes durable, whole or not at all, before it returns.
    pub(super) fn write(
        &self,
        fill: impl FnOnce(&mut Change<'_>) -> Result<(), RecordError>,
    ) -> Result<(), RecordError> {
        blocking(|| {
            let mut change = Change(self.store.batch());
            fill(&mut change)?;
            Ok(self.store.commit(change.0)?)
        })
    }
}

/// Records that change together.
pub(super) struct Change<'a>(Batch<'a>);

impl Change<'_> {
    /// Sets a record.
    pub(super) fn put(
        &mut self,
        record: Record,
        content: &impl Serialize,
    ) -> Result<(), RecordError> {
        let key = record.key();
        let bytes = seal(&key, content).map_err(|source| RecordError::Encode { record, source })?;
        Ok(self.0.put(Table::Raft, &key, &bytes)?)
    }

    /// Removes the log's entries from `from` (included) to `to` (excluded).
    pub(super) fn delete_entries(&mut self, from: u64, to: u64) -> Result<(), RecordError> {
        let (first, end) = (keys::raft_entry(from), keys::raft_entry(to));
        Ok(self.0.delete_range(Table::Raft, &first, &end)?)
    }
}

fn seal(key: &[u8], content: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = vec![0; CHECKSUM_BYTES];
    serde_json::to_writer(&mut bytes, content)?;
    let checksum = checksum(key, &bytes[CHECKSUM_BYTES..]);
    bytes[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

fn open<T: DeserializeOwned>(record: Record, key: &[u8], bytes: &[u8]) -> Result<T, RecordError> {
    let (stored, content) = bytes.split_first_chunk().ok_or_else(|| Damage::Checksum.of(record))?;
    if u32::from_le_bytes(*stored) != checksum(key, content) {
        return Err(Damage::Checksum.of(record));
    }
    serde_json::from_slice(content).map_err(|source| Damage::Content(source).of(record))
}

/// Covers the key, so that a record cannot stand in another one's place.
fn checksum(key: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(content);
    hasher.finalize()
}

/// Runs what may wait for the disk. A worker of a runtime with several first passes on
/// its other tasks; a runtime with one thread, as in a simulation, just waits.
pub(super) fn blocking<T>(run: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(run),
        _ => run(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn damage<T>(result: Result<T, RecordError>) -> String {
        result.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_record_never_changes() {
        let bytes = seal(&[0x01], &serde_json::json!({"a": 1})).unwrap();
        assert_eq!(bytes, b"\x26\xac\xff\x62{\"a\":1}");
    }

    #[test]
    fn any_flipped_bit_is_detected_and_the_record_named() {
        let record = Record::Entry(17);
        let bytes = seal(&record.key(), &"some content").unwrap();
        assert_eq!(open::<String>(record, &record.key(), &bytes).unwrap(), "some content");
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = damage(open::<String>(record, &record.key(), &damaged));
            assert_eq!(error, "entry 17 of Raft's log cannot be used: its checksum is wrong");
        }
    }

    #[test]
    fn a_record_in_another_ones_place_is_detected() {
        let bytes = seal(&Record::Entry(17).key(), &"some content").unwrap();
        let elsewhere = Record::Entry(18);
        assert!(open::<String>(elsewhere, &elsewhere.key(), &bytes).is_err());
    }

    #[test]
    fn a_record_that_is_cut_short_is_detected() {
        let record = Record::Vote;
        let bytes = seal(&record.key(), &1234).unwrap();
        for length in 0..bytes.len() {
            assert!(open::<u64>(record, &record.key(), &bytes[..length]).is_err());
        }
    }

    #[test]
    fn a_record_of_another_version_is_named() {
        let record = Record::Snapshot;
        let bytes = seal(&record.key(), &"text").unwrap();
        let error = damage(open::<u64>(record, &record.key(), &bytes));
        assert!(
            error.starts_with("Raft's snapshot cannot be used: its content is unknown"),
            "{error}"
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_only_worker_goes_on_while_somebody_waits_for_the_disk() {
        let (written, disk) = std::sync::mpsc::channel();
        let waiting = tokio::spawn(async move {
            tokio::spawn(async move { written.send(()) });
            blocking(|| disk.recv_timeout(Duration::from_secs(10)))
        });
        waiting.await.unwrap().unwrap();
    }
}
