//! Rebuilt files as another owner of their slots reads them.
//!
//! It says how far it has each file, by the digest of the chunks before: if it has the same,
//! what follows is sent, and else the file from its first byte. So nobody goes on from bytes
//! that are not the file's.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;

use bytes::Bytes;

use super::parts::{PIECE_BYTES, Parts, Pieces};
use super::{FileKey, Files, FilesError, Kept};
use crate::aggregation::log_files::session::{Held, Reached};
use crate::checkpoint::facts::Slot;
use crate::event::chunk::Sequence;

/// Fingerprints that are read at once.
const PIECE_CHUNKS: u64 = PIECE_BYTES / 16;

/// Which files somebody asks for, and what there is of them already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The aggregation's number.
    pub aggregation: u32,
    /// The number of each slot's checkpoint up to which its files are asked for.
    pub checkpoints: BTreeMap<Slot, u64>,
    /// What there is already.
    pub known: BTreeMap<FileKey, Known>,
    /// Whether only those files are asked for of which something is known, and not all.
    pub only_known: bool,
}

/// What somebody has of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// How far it reaches.
    pub reached: Reached,
    /// Which chunks wait behind a gap.
    pub waiting: BTreeSet<Sequence>,
}

/// The next of what was asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum FilePart {
    /// The next file begins.
    Begin {
        /// Which one.
        key: FileKey,
        /// What checkpoints say of it.
        kept: Box<Kept>,
        /// Whether what follows goes on behind what is known, and not at the first byte.
        continues: bool,
    },
    /// The next fingerprints of its chunks, 16 bytes each.
    Fingerprints(Bytes),
    /// What comes next of its bytes begins at this place: those before were removed because of
    /// their age.
    Gone(u64),
    /// Its next bytes.
    Bytes(Bytes),
    /// A chunk that waits behind a gap.
    Waiting(Sequence, Held),
}

type Lent = Box<dyn Iterator<Item = Result<FilePart, FilesError>> + Send>;

impl Files {
    /// What is asked for, file by file; read as it is taken.
    ///
    /// # Errors
    /// When the database cannot be read, or there is no file of which something is known.
    pub fn lend(&self, asked: Asked) -> Result<Lent, FilesError> {
        let mut found = Vec::new();
        if asked.only_known {
            for &key in asked.known.keys() {
                let missing = || self.store.missing("a file that another owner asks for");
                found.push((key, self.kept(&key)?.ok_or_else(missing)?));
            }
        } else {
            for &slot in asked.checkpoints.keys() {
                found.extend(self.of_slot(asked.aggregation, slot)?);
            }
        }
        let files = self.clone();
        let lent = found.into_iter().filter_map(move |(key, kept)| {
            let kept = kept.up_to(*asked.checkpoints.get(&key.slot())?)?;
            let known = asked.known.get(&key).cloned().unwrap_or_default();
            let failed = |error| -> Lent { Box::new(iter::once(Err(error))) };
            Some(files.parts(key, kept, known).unwrap_or_else(failed))
        });
        Ok(Box::new(lent.flatten()))
    }

    fn parts(&self, key: FileKey, kept: Kept, known: Known) -> Result<Lent, FilesError> {
        let now = kept.now.reached;
        let continues = self.goes_on(&key, &kept, &known.reached)?;
        let Known { reached: from, waiting: has } =
            if continues { known } else { Known::default() };
        let mut waiting = Vec::new();
        for version in iter::once(&kept.now).chain(&kept.before) {
            for (seq, held) in self.waiting(&key, version)? {
                if !has.contains(&seq) {
                    waiting.push(Ok(FilePart::Waiting(seq, held)));
                }
            }
        }
        let mut content: Lent = Box::new(iter::empty());
        if from.next < now.next {
            let index = self.index(&key, &kept.id, now)?;
            let chunks = pieces(from.next.number(), now.next.number(), PIECE_CHUNKS);
            let chunks = chunks.map(move |(from, to)| index.fingerprints(from, to));
            let chunks = chunks.map(|read| read.map(FilePart::Fingerprints));
            let path = self.path(key.aggregation, &kept.id, key.session);
            let begin = Parts::find(&path)?.begin().min(now.length);
            let gone = (begin > from.length).then_some(Ok(FilePart::Gone(begin)));
            let left = from.length.max(begin)..now.length;
            let bytes = Pieces::open(path, left)?.map(|read| read.map(FilePart::Bytes));
            content = Box::new(chunks.chain(gone).chain(bytes));
        }
        let begin = FilePart::Begin { key, kept: Box::new(kept), continues };
        Ok(Box::new(iter::once(Ok(begin)).chain(content).chain(waiting)))
    }

    /// Whether a file begins with what somebody has of it.
    fn goes_on(&self, key: &FileKey, kept: &Kept, known: &Reached) -> Result<bool, FilesError> {
        let now = kept.now.reached;
        let before = kept.before.as_ref().map(|before| before.reached);
        if [Some(now), before, Some(Reached::default())].contains(&Some(*known)) {
            return Ok(true);
        }
        if known.next > now.next || known.length > now.length {
            return Ok(false);
        }
        let index = self.index(key, &kept.id, now)?;
        let mut reached = Reached::default();
        for (from, to) in pieces(1, known.next.number(), PIECE_CHUNKS) {
            reached = reached.behind(fingerprints(&index.fingerprints(from, to)?));
        }
        Ok(reached.digest == known.digest)
    }
}

impl Kept {
    /// The same, without what a checkpoint has that is newer; `None` if there is nothing else.
    fn up_to(self, checkpoint: u64) -> Option<Kept> {
        if self.now.checkpoint <= checkpoint {
            return Some(self);
        }
        let now = self.before.filter(|before| before.checkpoint <= checkpoint)?;
        Some(Kept { id: self.id, now, before: None })
    }
}

/// The fingerprints in bytes of an index.
pub(super) fn fingerprints(bytes: &[u8]) -> impl Iterator<Item = u128> {
    let (chunks, _) = bytes.as_chunks::<16>();
    chunks.iter().map(|chunk| u128::from_be_bytes(*chunk))
}

/// From and to of each piece.
fn pieces(from: u64, to: u64, length: u64) -> impl Iterator<Item = (u64, u64)> + Send {
    let starts = iter::successors(Some(from), move |from| from.checked_add(length));
    starts.take_while(move |from| *from < to).map(move |from| (from, to.min(from + length)))
}
