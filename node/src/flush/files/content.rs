//! One rebuilt file and its index.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::{FileKey, FilesError, system, waiting_chunk};
use crate::aggregation::log_files::session::Content;
use crate::event::chunk::Sequence;
use crate::failpoint::is_to_fail;
use crate::store::Store;

const FINGERPRINT_BYTES: u64 = 16;

/// A file that chunks are written to, with its index.
pub struct OpenFile {
    path: PathBuf,
    file: File,
    index_path: PathBuf,
    index: File,
    waiting: Waiting,
}

/// The chunks of a file that wait in the database.
pub(super) struct Waiting {
    pub(super) key: FileKey,
    pub(super) store: Arc<Store>,
}

impl OpenFile {
    pub(super) fn open(
        path: PathBuf,
        index_path: PathBuf,
        length: u64,
        next: Sequence,
        waiting: Waiting,
    ) -> Result<OpenFile, FilesError> {
        let file = open_at(&path, length)?;
        let index = open_at(&index_path, index_length(next))?;
        Ok(OpenFile { path, file, index_path, index, waiting })
    }

    /// Writes the fingerprints of chunks from one on, which a checkpoint has.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn add_to_index(&self, from: Sequence, chunks: &[u128]) -> Result<(), FilesError> {
        let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.to_be_bytes()).collect();
        let written = self.index.write_all_at(&bytes, at(from));
        written.map_err(system("write", &self.index_path))
    }

    /// Cuts off what lies behind the newest chunk: another life wrote it, and it was lost since.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn cut_off(&self, length: u64) -> Result<(), FilesError> {
        let found = self.file.metadata().map_err(system("measure", &self.path))?.len();
        match found > length {
            true => self.file.set_len(length).map_err(system("cut", &self.path)),
            false => Ok(()),
        }
    }
}

impl OpenFile {
    /// Writes bytes at a place in the file.
    pub(super) fn write_at(&self, at: u64, bytes: &[u8]) -> Result<(), FilesError> {
        self.file.write_all_at(bytes, at).map_err(system("write", &self.path))
    }

    /// The file from one place to another.
    pub(super) fn bytes(&self, from: u64, to: u64) -> Result<Bytes, FilesError> {
        read(&self.file, from, to - from).map_err(system("read", &self.path))
    }

    /// The fingerprints of chunks from one to another, by their numbers, 16 bytes each.
    pub(super) fn fingerprints(&self, from: u64, to: u64) -> Result<Bytes, FilesError> {
        let (at, bytes) = ((from - 1) * FINGERPRINT_BYTES, (to - from) * FINGERPRINT_BYTES);
        read(&self.index, at, bytes).map_err(system("read", &self.index_path))
    }
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile").field("path", &self.path).finish_non_exhaustive()
    }
}

fn read(file: &File, at: u64, bytes: u64) -> io::Result<Bytes> {
    let mut read = vec![0; bytes as usize];
    file.read_exact_at(&mut read, at)?;
    Ok(read.into())
}

impl Content for OpenFile {
    type Error = FilesError;

    fn write(&mut self, at: u64, payload: &[u8]) -> Result<(), FilesError> {
        if is_to_fail("planted-file-trusts-disk") {
            let length = self.file.metadata().map_err(system("measure", &self.path))?.len();
            if length >= at + payload.len() as u64 {
                return Ok(());
            }
        }
        // Nothing is cut off here: what lies behind may be what a checkpoint has, and is about to
        // be written again.
        self.write_at(at, payload)
    }

    fn read(&mut self, at: u64, bytes: u64) -> Result<Bytes, FilesError> {
        self.bytes(at, at + bytes)
    }

    fn recorded(&mut self, seq: Sequence) -> Result<Bytes, FilesError> {
        let Waiting { key, store } = &self.waiting;
        Ok(waiting_chunk(store, key, seq)?.payload)
    }

    fn fingerprint(&mut self, seq: Sequence) -> Result<u128, FilesError> {
        let mut bytes = [0; FINGERPRINT_BYTES as usize];
        let read = self.index.read_exact_at(&mut bytes, at(seq));
        read.map_err(system("read", &self.index_path))?;
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

/// Opens a file that has `length` bytes or more, or makes it.
fn open_at(path: &Path, length: u64) -> Result<File, FilesError> {
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).open(path);
    let file = file.map_err(system("open", path))?;
    let found = file.metadata().map_err(system("measure", path))?.len();
    if found < length {
        return Err(FilesError::Short { path: path.to_owned(), found, expected: length });
    }
    Ok(file)
}
