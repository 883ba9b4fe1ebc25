//! One rebuilt file and its index.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::parts::{Parts, Pieces, Writing};
use super::turns::Opened;
use super::{FileKey, FilesError, system, waiting_chunk};
use crate::aggregation::log_files::session::Content;
use crate::event::chunk::Sequence;
use crate::failpoint::is_to_fail;
use crate::store::Store;

const FINGERPRINT_BYTES: u64 = 16;

/// A file that chunks are written to, with its index.
pub struct OpenFile {
    pub(super) path: PathBuf,
    pub(super) file: Writing,
    pub(super) index: Index,
    pub(super) waiting: Waiting,
    pub(super) _opened: Opened,
}

/// The fingerprints of a file's chunks, in their order.
pub(super) struct Index {
    path: PathBuf,
    file: File,
}

/// The chunks of a file that wait in the database.
pub(super) struct Waiting {
    pub(super) key: FileKey,
    pub(super) store: Arc<Store>,
}

impl OpenFile {
    /// Writes the fingerprints of chunks from one on, which a checkpoint has.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn add_to_index(&self, from: Sequence, chunks: &[u128]) -> Result<(), FilesError> {
        let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.to_be_bytes()).collect();
        let written = self.index.file.write_all_at(&bytes, at(from));
        written.map_err(system("write", &self.index.path))
    }

    /// Cuts off what lies behind the newest chunk: another life wrote it, and it was lost since.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn cut_off(&mut self, length: u64) -> Result<(), FilesError> {
        self.file.cut_off(length)
    }
}

impl Index {
    /// Opens an index that has all chunks before one, or makes it.
    pub(super) fn open(path: PathBuf, next: Sequence) -> Result<Index, FilesError> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(system("open", &path))?;
        let found = file.metadata().map_err(system("measure", &path))?.len();
        let expected = index_length(next);
        match found < expected {
            true => Err(FilesError::Short { path, found, expected }),
            false => Ok(Index { path, file }),
        }
    }

    /// The fingerprints of chunks from one to another, by their numbers, 16 bytes each.
    pub(super) fn fingerprints(&self, from: u64, to: u64) -> Result<Bytes, FilesError> {
        let mut bytes = vec![0; ((to - from) * FINGERPRINT_BYTES) as usize];
        let read = self.file.read_exact_at(&mut bytes, (from - 1) * FINGERPRINT_BYTES);
        read.map_err(system("read", &self.path))?;
        Ok(bytes.into())
    }
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Content for OpenFile {
    type Error = FilesError;

    fn write(&mut self, at: u64, payload: &[u8]) -> Result<(), FilesError> {
        if is_to_fail("planted-file-trusts-disk")
            && Parts::find(&self.path)?.end()? >= at + payload.len() as u64
        {
            return Ok(());
        }
        // Nothing is cut off here: what lies behind may be what a checkpoint has, and is about to
        // be written again.
        self.file.write_at(at, payload)
    }

    fn read(&mut self, at: u64, bytes: u64) -> Result<Bytes, FilesError> {
        let pieces = Pieces::open(self.path.clone(), at..at + bytes)?;
        Ok(pieces.collect::<Result<Vec<_>, _>>()?.concat().into())
    }

    fn recorded(&mut self, seq: Sequence) -> Result<Bytes, FilesError> {
        let Waiting { key, store } = &self.waiting;
        Ok(waiting_chunk(store, key, seq)?.payload)
    }

    fn fingerprint(&mut self, seq: Sequence) -> Result<u128, FilesError> {
        let mut bytes = [0; FINGERPRINT_BYTES as usize];
        let read = self.index.file.read_exact_at(&mut bytes, at(seq));
        read.map_err(system("read", &self.index.path))?;
        Ok(u128::from_be_bytes(bytes))
    }
}

/// Bytes of the index of all chunks before one.
pub(super) fn index_length(next: Sequence) -> u64 {
    at(next)
}

/// Where a chunk stands in the index.
fn at(seq: Sequence) -> u64 {
    (seq.number() - 1) * FINGERPRINT_BYTES
}
