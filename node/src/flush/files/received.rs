//! Rebuilt files as they come from another owner of their slots.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::content::{OpenFile, index_length};
use super::lent::{Asked, FilePart, Known, fingerprints};
use super::parts::Parts;
use super::{FileKey, Files, FilesError, Grown, Kept, row_of};
use crate::aggregation::log_files::session::{Held, Reached};
use crate::checkpoint::facts::Slot;
use crate::event::chunk::Sequence;
use crate::store::Table;

/// Bytes after which what came is made durable, so that not all comes again after a failure.
const SETTLED_AFTER: u64 = 64 << 20;

/// Says of a slot whether its files may be written here: whoever leads it does that otherwise.
pub trait MayKeep: Fn(Slot) -> bool {}

impl<F: Fn(Slot) -> bool> MayKeep for F {}

/// Files on their way here.
pub struct Incoming<M> {
    files: Files,
    may_keep: M,
    /// How far files were said to be here.
    known: BTreeMap<FileKey, Reached>,
    coming: Option<Coming>,
    /// What is here, but not durable.
    whole: Vec<Coming>,
    bytes: u64,
    came: BTreeSet<FileKey>,
}

/// A file on its way.
struct Coming {
    key: FileKey,
    kept: Kept,
    /// What was kept here before.
    own: Option<Kept>,
    /// How long it was.
    before: u64,
    /// How much is here.
    reached: Reached,
    content: Option<OpenFile>,
    /// Whether something of it came.
    has_grown: bool,
    waiting: BTreeMap<Sequence, Held>,
}

impl Files {
    /// Asks for all files of slots, up to a checkpoint of each.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn ask_all(
        &self,
        aggregation: u32,
        checkpoints: BTreeMap<Slot, u64>,
    ) -> Result<Asked, FilesError> {
        let mut known = BTreeMap::new();
        for (&slot, &checkpoint) in &checkpoints {
            for (key, kept) in self.of_slot(aggregation, slot)? {
                known.insert(key, self.known(&key, Some(&kept), checkpoint));
            }
        }
        Ok(Asked { aggregation, checkpoints, known, only_known: false })
    }

    /// Asks for some files, up to a checkpoint of each slot.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn ask_some(
        &self,
        aggregation: u32,
        checkpoints: BTreeMap<Slot, u64>,
        files: impl IntoIterator<Item = FileKey>,
    ) -> Result<Asked, FilesError> {
        let mut known = BTreeMap::new();
        for key in files {
            let checkpoint = checkpoints.get(&key.slot()).copied().unwrap_or(0);
            known.insert(key, self.known(&key, self.kept(&key)?.as_ref(), checkpoint));
        }
        Ok(Asked { aggregation, checkpoints, known, only_known: true })
    }

    /// What is here of a file, as far as it is all on disk.
    fn known(&self, key: &FileKey, kept: Option<&Kept>, checkpoint: u64) -> Known {
        let Some(kept) = kept else { return Known::default() };
        let (reached, id) = (kept.as_of(checkpoint).reached, &kept.id);
        let path = self.path(key.aggregation, id, key.session);
        let index = self.index_path(key.aggregation, id, key.session);
        let has_bytes = || Parts::find(&path).and_then(|parts| parts.reach(reached.length));
        let expected = index_length(reached.next);
        let has_chunks = || fs::metadata(index).is_ok_and(|found| found.len() >= expected);
        if has_bytes().unwrap_or(false) && (expected == 0 || has_chunks()) {
            Known { reached, waiting: kept.waiting() }
        } else {
            Known::default()
        }
    }

    /// Takes what was asked for from another owner, of slots of which it may be kept.
    pub fn receive<M: MayKeep>(&self, asked: &Asked, may_keep: M) -> Incoming<M> {
        let (files, came) = (self.clone(), BTreeSet::new());
        let known = asked.known.iter().map(|(&key, known)| (key, known.reached)).collect();
        Incoming { files, may_keep, known, coming: None, whole: Vec::new(), bytes: 0, came }
    }
}

impl<M: MayKeep> Incoming<M> {
    /// Takes what comes next.
    ///
    /// # Errors
    /// When it cannot be written, is not what the owner says that it is, or is not to be kept
    /// here any more.
    pub fn take(&mut self, part: FilePart) -> Result<(), FilesError> {
        if let FilePart::Begin { key, kept, continues } = part {
            self.end()?;
            if self.bytes > SETTLED_AFTER {
                self.settle()?;
            }
            let own = self.files.kept(&key)?;
            let reached = self.known.get(&key).filter(|_| continues).copied().unwrap_or_default();
            self.came.insert(key);
            self.coming = Some(Coming {
                key,
                kept: *kept,
                own,
                before: reached.length,
                reached,
                content: None,
                has_grown: false,
                waiting: BTreeMap::new(),
            });
            return Ok(());
        }
        let Some(coming) = &mut self.coming else {
            return Err(FilesError::Foreign("something of no file".to_owned()));
        };
        let folded = self.files.turn();
        let slot = coming.key.slot();
        if folded.contains(slot) || !(self.may_keep)(slot) {
            return Err(FilesError::Moved { slot });
        }
        self.bytes += coming.take(&self.files, part)?;
        Ok(())
    }

    /// Makes durable what came. Returns the files that did.
    ///
    /// # Errors
    /// As [`Incoming::take`].
    pub fn finish(mut self) -> Result<BTreeSet<FileKey>, FilesError> {
        self.end()?;
        self.settle()?;
        Ok(self.came)
    }

    /// The file that comes is here.
    fn end(&mut self) -> Result<(), FilesError> {
        let Some(mut coming) = self.coming.take() else { return Ok(()) };
        let Coming { key, ref kept, reached, .. } = coming;
        if reached != kept.now.reached {
            let path = self.files.path(key.aggregation, &kept.id, key.session);
            return Err(FilesError::Foreign(format!(
                "less or else than all of {}",
                path.display()
            )));
        }
        if let Some(content) = &mut coming.content {
            let folded = self.files.turn();
            if folded.contains(key.slot()) || !(self.may_keep)(key.slot()) {
                return Err(FilesError::Moved { slot: key.slot() });
            }
            content.cut_off(reached.length)?;
        }
        // Only so many files are open as come at the same time.
        coming.content = None;
        if coming.has_grown || coming.is_news() {
            self.whole.push(coming);
        }
        Ok(())
    }

    /// Makes files durable, and then how far they are here.
    fn settle(&mut self) -> Result<(), FilesError> {
        self.bytes = 0;
        let whole = std::mem::take(&mut self.whole);
        if whole.is_empty() {
            return Ok(());
        }
        let grown = whole.iter().filter(|coming| coming.has_grown);
        let grown = grown.map(|Coming { key, kept, before, .. }| Grown {
            key: *key,
            id: &kept.id,
            before: *before,
        });
        self.files.sync(&grown.collect::<Vec<_>>())?;
        let folded = self.files.turn();
        let mut batch = self.files.store.batch();
        for Coming { key, kept, waiting, .. } in whole.iter().filter(|coming| coming.is_news()) {
            let slot = key.slot();
            if folded.contains(slot) || !(self.may_keep)(slot) {
                return Err(FilesError::Moved { slot });
            }
            for (&seq, held) in waiting {
                batch.put(Table::Files, &key.waiting(seq), &row_of(held))?;
            }
            let own = self.files.kept(key)?;
            let known = own.map(|own| own.waiting()).unwrap_or_default();
            for &seq in known.difference(&kept.waiting()) {
                batch.delete(Table::Files, &key.waiting(seq))?;
            }
            batch.put_json(Table::Files, &key.row(), kept)?;
        }
        Ok(self.files.store.commit(batch)?)
    }
}

impl Coming {
    /// Whether less was kept here: a newer checkpoint may be that none has completed yet, and
    /// then it has this one before it.
    fn is_news(&self) -> bool {
        let has = |own: &Kept| own.as_of(self.kept.now.checkpoint) == self.kept.now;
        !self.own.as_ref().is_some_and(has)
    }

    /// Writes what comes, and returns how many bytes that are.
    fn take(&mut self, files: &Files, part: FilePart) -> Result<u64, FilesError> {
        // A file that waits for its first chunk is there, and empty.
        if self.content.is_none() {
            self.content =
                Some(files.open(&self.key, &self.kept.id, self.reached, self.reached)?);
            self.has_grown = true;
        }
        match (part, &mut self.content) {
            (FilePart::Fingerprints(bytes), Some(content)) => {
                let chunks: Vec<_> = fingerprints(&bytes).collect();
                content.add_to_index(self.reached.next, &chunks)?;
                self.reached = self.reached.behind(chunks);
                Ok(bytes.len() as u64)
            }
            (FilePart::Gone(begin), Some(content)) => {
                content.file.restart(begin)?;
                self.reached.length = begin;
                Ok(0)
            }
            (FilePart::Bytes(bytes), Some(content)) => {
                content.file.write_at(self.reached.length, &bytes)?;
                self.reached.length += bytes.len() as u64;
                Ok(bytes.len() as u64)
            }
            (FilePart::Waiting(seq, held), _) => {
                let bytes = held.payload.len() as u64;
                self.waiting.insert(seq, held);
                Ok(bytes)
            }
            // The file is open by now.
            _ => Ok(0),
        }
    }
}
