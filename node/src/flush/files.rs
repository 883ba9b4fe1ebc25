//! Rebuilt files, and how far checkpoints have them.
//!
//! A file may be longer than its newest checkpoint says: the rest is in the journals too, and is
//! written again when another life goes on from the checkpoint. Beside each file there
//! is an index, with the fingerprints of its chunks, 16 bytes each, so that a chunk that comes
//! again can be told from one that contradicts it.

mod content; // one file and its index
mod lent; // what another owner reads
mod parts; // where the bytes of a file are on disk
mod received; // what comes from another owner
mod room; // how much there is, and may be
mod shown; // what readers see
mod tidied; // what is old goes, what is full is compressed
mod turns; // who writes the files of a slot

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::aggregation::definition::PartLength;
use crate::aggregation::log_files::names::path_of;
use crate::aggregation::log_files::session::{Found, Held, Reached, Recorded};
use crate::checkpoint::facts::Slot;
use crate::event::chunk::{Sequence, StreamId};
use crate::event::fingerprint::slot_of;
use crate::event::slots::SlotSet;
use crate::event::time::UnixNanos;
use crate::failpoint::is_to_fail;
use crate::store::{Store, StoreError, Table, folder, keys};
pub use content::OpenFile;
use content::{Index, Waiting};
pub use lent::{Asked, FilePart, Known};
pub use parts::Pieces;
use parts::{Parts, Writing};
pub use received::Incoming;
pub use room::{Left, Room};
use shown::Tail;
pub use shown::{Named, Shown, Wanted};
pub use tidied::{Tidied, Tidy};
pub use turns::Folded;
use turns::Openings;

/// Beyond so many files that changed, all that the system has to write is written at once.
const SYNCED_ONE_BY_ONE: usize = 16;

/// Which file: of an id, by its hash, and a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    /// The aggregation's number.
    pub aggregation: u32,
    /// The id's hash under the cluster's key.
    pub hash: u128,
    /// Which file of that name.
    pub session: u64,
}

impl FileKey {
    /// The slot that the file belongs to.
    pub fn slot(&self) -> Slot {
        slot_of(self.hash)
    }

    fn row(&self) -> [u8; 29] {
        keys::file(self.aggregation, self.hash, self.session)
    }

    fn waiting(&self, seq: Sequence) -> [u8; 37] {
        keys::waiting_chunk(self.aggregation, self.hash, self.session, seq.number())
    }
}

/// What checkpoints say of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// What the file is called.
    pub id: StreamId,
    /// The newest checkpoint that has something of it.
    pub now: Version,
    /// The one before, for whoever learns that the newest was never completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Version>,
}

/// What one checkpoint says of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The number of the slot's checkpoint; 0 before the first.
    pub checkpoint: u64,
    /// How far the file reaches without a gap.
    pub reached: Reached,
    /// The chunks that wait behind a gap.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub waiting: BTreeSet<Sequence>,
    /// Chunks that came for a place that has another one, with other bytes.
    #[serde(default)]
    pub contradicting: u64,
    /// The cut of the last checkpoint that made the file longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grown: Option<UnixNanos>,
}

impl Kept {
    /// The file as of one of the slot's checkpoints.
    pub fn as_of(&self, checkpoint: u64) -> Version {
        let versions = [Some(&self.now), self.before.as_ref()].into_iter().flatten();
        let known = versions.filter(|version| version.checkpoint <= checkpoint);
        known.max_by_key(|version| version.checkpoint).cloned().unwrap_or_default()
    }

    /// All chunks that are kept behind a gap.
    fn waiting(&self) -> BTreeSet<Sequence> {
        let versions = [Some(&self.now), self.before.as_ref()].into_iter().flatten();
        versions.flat_map(|version| version.waiting.iter().copied()).collect()
    }
}

impl Version {
    /// What it is after a checkpoint, whose cut has that time.
    fn after(&self, checkpoint: u64, at: UnixNanos, found: &Found) -> Version {
        let mut waiting = self.waiting.clone();
        if !is_to_fail("planted-file-forgets") {
            waiting.extend(found.waiting.keys());
        }
        waiting.retain(|seq| !found.placed.contains(seq));
        let contradicting = self.contradicting + found.contradicting;
        let grown = if found.appended.is_empty() { self.grown } else { Some(at) };
        Version { checkpoint, reached: found.reached, waiting, contradicting, grown }
    }
}

/// What a checkpoint found of a file.
#[derive(Debug)]
pub struct Change {
    /// Which file.
    pub key: FileKey,
    /// What it is called.
    pub id: StreamId,
    /// What of it is new.
    pub found: Found,
}

/// A file that is longer than it was when it was made durable.
struct Grown<'a> {
    key: FileKey,
    id: &'a StreamId,
    /// How long it was.
    before: u64,
}

/// Why a rebuilt file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The system refuses, for lack of space perhaps.
    #[error("{operation} {}: {source}", path.display())]
    System {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database below failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file is shorter than a checkpoint says: somebody has changed it.
    #[error(
        "{} has {found} bytes, and {expected} that were made durable: restore it from another \
         owner, or forget this node", path.display()
    )]
    Short {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// How long the checkpoint says that it is.
        expected: u64,
    },
    /// What is asked for was removed because of its age.
    #[error("{} begins with byte {begin}: what was before was removed because of its age", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
        /// The place of the first byte that is there.
        begin: u64,
    },
    /// Another owner sends what no owner has.
    #[error("another owner sends {0}")]
    Foreign(String),
    /// What comes from another owner is not to be kept here any more.
    #[error("slot {slot} is not one that this node keeps for another")]
    Moved {
        /// The slot.
        slot: Slot,
    },
}

/// A chunk that waits, as the database has it.
fn row_of(Held { fingerprint, payload }: &Held) -> Vec<u8> {
    [&fingerprint.to_be_bytes()[..], payload].concat()
}

/// A chunk that waits in the database.
fn waiting_chunk(store: &Store, key: &FileKey, seq: Sequence) -> Result<Held, StoreError> {
    let missing = || store.missing("a chunk that waits behind a gap");
    let row = store.get(Table::Files, &key.waiting(seq))?.ok_or_else(missing)?;
    let fingerprint = *row.first_chunk::<16>().ok_or_else(missing)?;
    let payload = Bytes::from(row).slice(16..);
    Ok(Held { fingerprint: u128::from_be_bytes(fingerprint), payload })
}

fn system<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> FilesError + use<'a> {
    move |source| FilesError::System { operation, path: path.to_owned(), source }
}

/// The rebuilt files of a node; cheap to clone.
#[derive(Clone)]
pub struct Files {
    root: PathBuf,
    store: Arc<Store>,
    /// The slots that are folded here.
    folded: Arc<Mutex<SlotSet>>,
    /// How far the files are written that are folded here.
    tails: Arc<Mutex<BTreeMap<FileKey, Tail>>>,
    /// Which ones are open to be written.
    openings: Arc<Mutex<Openings>>,
    /// Bytes after which a file goes on in another part, by aggregation.
    part_bytes: Arc<Mutex<BTreeMap<u32, PartLength>>>,
    /// How many more bytes there may be.
    left: Left,
}

impl Files {
    /// The files in a folder, and what `store` says of them.
    pub fn new(root: PathBuf, store: Arc<Store>) -> Files {
        let (folded, tails, openings) = (Arc::default(), Arc::default(), Arc::default());
        let (part_bytes, left) = (Arc::default(), Arc::new(|| Ok(u64::MAX)) as Left);
        Files { root, store, folded, tails, openings, part_bytes, left }
    }

    /// From now on, files of an aggregation go on in another part when one has so many bytes.
    pub fn divide(&self, aggregation: u32, part: Option<PartLength>) {
        let mut known = self.part_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        match part {
            Some(part) => drop(known.insert(aggregation, part)),
            None => drop(known.remove(&aggregation)),
        }
    }

    fn part_bytes(&self, aggregation: u32) -> Option<u64> {
        let known = self.part_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&aggregation).map(|part| part.bytes())
    }

    /// As [`Store::ready`].
    pub async fn ready(&self) {
        self.store.ready().await;
    }

    /// Where a file is, or the first part of it.
    pub fn path(&self, aggregation: u32, id: &StreamId, session: u64) -> PathBuf {
        self.root.join(aggregation.to_string()).join(path_of(id, session))
    }

    fn index_path(&self, aggregation: u32, id: &StreamId, session: u64) -> PathBuf {
        self.root.join(format!("{aggregation}.index")).join(path_of(id, session))
    }

    /// What checkpoints say of a file, if one has something of it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn kept(&self, key: &FileKey) -> Result<Option<Kept>, StoreError> {
        let row = self.store.get(Table::Files, &key.row())?;
        row.map(|row| self.store.decode(&row)).transpose()
    }

    /// All files of a slot that checkpoints have something of.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn of_slot(
        &self,
        aggregation: u32,
        slot: Slot,
    ) -> Result<Vec<(FileKey, Kept)>, StoreError> {
        self.rows(aggregation, slot)?.collect()
    }

    fn rows(
        &self,
        aggregation: u32,
        slot: Slot,
    ) -> Result<impl Iterator<Item = Result<(FileKey, Kept), StoreError>>, StoreError> {
        let (from, to) = keys::files(aggregation, slot);
        let rows = self.store.scan(Table::Files, &from, &to)?;
        Ok(rows.map(move |row| {
            let (key, row) = row?;
            Ok((self.key(aggregation, &key)?, self.store.decode(&row)?))
        }))
    }

    /// The files of a slot in which chunks wait behind a gap.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn with_gaps(&self, aggregation: u32, slot: Slot) -> Result<BTreeSet<FileKey>, StoreError> {
        let (from, to) = keys::waiting_chunks(aggregation, slot);
        let rows = self.store.scan(Table::Files, &from, &to)?;
        rows.map(|row| self.key(aggregation, &row?.0)).collect()
    }

    fn key(&self, aggregation: u32, key: &[u8]) -> Result<FileKey, StoreError> {
        let read = keys::of_file_key(key);
        let (hash, session) = read.ok_or_else(|| self.store.missing("a part of a file's key"))?;
        Ok(FileKey { aggregation, hash, session })
    }

    /// The chunks that wait in a version of a file.
    ///
    /// # Errors
    /// When the database cannot be read, or lacks one.
    pub fn waiting(
        &self,
        key: &FileKey,
        version: &Version,
    ) -> Result<BTreeMap<Sequence, Held>, StoreError> {
        let read = |&seq: &Sequence| Ok((seq, waiting_chunk(&self.store, key, seq)?));
        version.waiting.iter().map(read).collect()
    }

    /// The same without what is in them, of which only one is in memory at a time.
    ///
    /// # Errors
    /// As [`Files::waiting`].
    pub fn recorded(
        &self,
        key: &FileKey,
        version: &Version,
    ) -> Result<BTreeMap<Sequence, Recorded>, StoreError> {
        let read = |&seq: &Sequence| {
            let Held { fingerprint, payload } = waiting_chunk(&self.store, key, seq)?;
            Ok((seq, Recorded { fingerprint, bytes: payload.len() as u64 }))
        };
        version.waiting.iter().map(read).collect()
    }

    /// Makes durable what a checkpoint found, whose number each slot has and whose cut has that
    /// time: first the files, and then how far it has them. What another node has made of it
    /// since, as the slot is its own, stays.
    ///
    /// # Errors
    /// When a file cannot be synced, or the database fails. Then nothing of it counts.
    pub fn keep(
        &self,
        changes: &[Change],
        numbers: &BTreeMap<Slot, u64>,
        at: UnixNanos,
    ) -> Result<(), FilesError> {
        let changes: Vec<_> = changes
            .iter()
            .filter_map(|change| Some((change, *numbers.get(&change.key.slot())?)))
            .collect();
        if changes.is_empty() {
            return Ok(());
        }
        let mut grown = Vec::new();
        for (Change { key, id, found }, number) in &changes {
            if !found.appended.is_empty() {
                let kept = self.kept(key)?;
                let before = kept.map_or(0, |kept| kept.as_of(number - 1).reached.length);
                grown.push(Grown { key: *key, id, before });
            }
        }
        self.sync(&grown)?;
        let _turn = self.turn();
        let mut batch = self.store.batch();
        for (Change { key, id, found }, number) in changes {
            let kept = self.kept(key)?;
            if kept.as_ref().is_some_and(|kept| kept.now.checkpoint > number) {
                continue;
            }
            let before = kept.as_ref().map(|kept| kept.as_of(number - 1)).unwrap_or_default();
            let now = before.after(number, at, found);
            for (&seq, held) in &found.waiting {
                batch.put(Table::Files, &key.waiting(seq), &row_of(held))?;
            }
            let known = kept.map(|kept| kept.waiting()).unwrap_or_default();
            let is_needed =
                |seq: &Sequence| before.waiting.contains(seq) || now.waiting.contains(seq);
            for seq in known.into_iter().filter(|seq| !is_needed(seq)) {
                batch.delete(Table::Files, &key.waiting(seq))?;
            }
            let before = Some(before).filter(|before| before.checkpoint > 0);
            let kept = Kept { id: id.clone(), now, before };
            batch.put_json(Table::Files, &key.row(), &kept)?;
        }
        Ok(self.store.commit(batch)?)
    }

    fn sync(&self, grown: &[Grown<'_>]) -> Result<(), FilesError> {
        if grown.len() > SYNCED_ONE_BY_ONE {
            let root = File::open(&self.root).map_err(system("open", &self.root))?;
            return rustix::fs::syncfs(&root)
                .map_err(|error| system("sync", &self.root)(error.into()));
        }
        let mut folders = BTreeSet::new();
        for Grown { key: FileKey { aggregation, session, .. }, id, before } in grown {
            let parts = Parts::find(&self.path(*aggregation, id, *session))?;
            let is_new = |(_, end): &(_, Option<u64>)| end.is_none_or(|end| end > *before);
            let parts = parts.iter().filter(is_new).map(|(part, _)| part.path.clone());
            for path in parts.chain([self.index_path(*aggregation, id, *session)]) {
                let synced = File::open(&path).and_then(|file| file.sync_data());
                synced.map_err(system("sync", &path))?;
                folders.extend(path.parent().map(Path::to_owned));
            }
        }
        for folder in folders {
            folder::sync(&folder).map_err(system("sync", &folder))?;
        }
        Ok(())
    }

    fn remove(&self, key: &FileKey, id: &StreamId) -> Result<(), FilesError> {
        parts::remove(&self.index_path(key.aggregation, id, key.session))?;
        Parts::remove(&self.path(key.aggregation, id, key.session))
    }

    /// Opens a file that is written up to `tail`, and whose newest checkpoint has `reached`.
    ///
    /// # Errors
    /// When the system refuses, or the file lacks something.
    pub fn open(
        &self,
        key: &FileKey,
        id: &StreamId,
        tail: Reached,
        reached: Reached,
    ) -> Result<OpenFile, FilesError> {
        let path = self.path(key.aggregation, id, key.session);
        let index = self.index(key, id, reached)?;
        let (_opened, part_bytes) = (self.opened(key), self.part_bytes(key.aggregation));
        let file = Writing::open(path.clone(), tail.length, part_bytes)?;
        let waiting = Waiting { key: *key, store: Arc::clone(&self.store) };
        Ok(OpenFile { path, file, index, waiting, _opened })
    }

    /// Opens the index of a file whose newest checkpoint has `reached`.
    fn index(&self, key: &FileKey, id: &StreamId, reached: Reached) -> Result<Index, FilesError> {
        let path = self.index_path(key.aggregation, id, key.session);
        parts::make_folder(&path)?;
        Index::open(path, reached.next)
    }
}

#[cfg(test)]
pub(super) mod tests;
