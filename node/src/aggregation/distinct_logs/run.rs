//! Runs: parts of a window on disk, sorted, to be merged when it closes.
//!
//! ```text
//! for each value, in the order of their hashes:
//!   0..16  the value's hash
//!   16..24 records that were counted without a key
//!   24..28 number of keys, N
//!   28..32 bytes of the value, B
//!   B      the value in its canonical encoding
//!   N x 16 its keys in ascending order
//! ```
//! All numbers are little-endian. In this order one pass over all runs gives exact
//! counts per value, however many values there are, and the sums of all slots.
//!
//! A window's runs stand one after the other in one file. It is scratch, for what it
//! holds can be folded again, and removed with its window, unless the window was
//! carried: then the file is durable and stays. Every block has a checksum, kept apart
//! from it, for a byte that changed on the disk must not change a count.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::FoldError;
use super::table::Tables;
use super::values::RankedValues;

const BLOCK_BYTES: usize = 64 << 10;
const HEAD_BYTES: usize = 32;

/// The file of a window's runs.
pub(super) struct Scratch {
    file: File,
    path: PathBuf,
    kept: AtomicBool,
}

impl Scratch {
    /// Makes a file in `folder`, which is made if need be.
    pub(super) fn create(folder: &Path) -> Result<Self, FoldError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let error = |path: &Path| {
            let path = path.to_owned();
            move |source| FoldError::Scratch { operation: "create", path, source }
        };
        fs::create_dir_all(folder).map_err(error(folder))?;
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        loop {
            // A carried window's file, from an earlier life, may have the number.
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("window-{number}"));
            match options.open(&path) {
                Ok(file) => return Ok(Scratch { file, path, kept: AtomicBool::new(false) }),
                Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(error(&path)(source)),
            }
        }
    }

    /// Opens the file of a carried window.
    pub(super) fn reopen(path: PathBuf) -> Result<Self, FoldError> {
        let file = File::options().read(true).write(true).open(&path);
        let file = file.map_err(|source| FoldError::Scratch {
            operation: "open",
            path: path.clone(),
            source,
        })?;
        Ok(Scratch { file, path, kept: AtomicBool::new(true) })
    }

    /// Makes the file durable; it stays when the window is dropped.
    pub(super) fn keep(&self) -> Result<(), FoldError> {
        // By its name, for it may have been removed.
        let file = File::open(&self.path).and_then(|file| file.sync_all());
        let synced = file.and_then(|()| File::open(self.folder())?.sync_all());
        synced.map_err(self.error("sync"))?;
        self.kept.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Copies so many bytes of another file to the beginning of this one.
    pub(super) fn copy(&self, from: &Scratch, length: u64) -> Result<(), FoldError> {
        let copied = io::copy(&mut (&from.file).take(length), &mut &self.file);
        match copied.map_err(self.error("copy to"))? == length {
            true => Ok(()),
            false => Err(from.damaged()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that it is in.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    fn error(&self, operation: &'static str) -> impl FnOnce(io::Error) -> FoldError + '_ {
        move |source| FoldError::Scratch { operation, path: self.path.clone(), source }
    }

    fn damaged(&self) -> FoldError {
        FoldError::Damaged { path: self.path.clone() }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed) {
            // What is left is removed at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A sorted part of a window, within its scratch file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    start: u64,
    length: u64,
    checksums: Vec<u32>,
}

impl Run {
    /// Reads the whole run, and checks that it is what was written.
    pub(super) fn verify(&self, scratch: &Scratch) -> Result<(), FoldError> {
        let mut reader = RunReader::new(scratch, self);
        while reader.read < self.length {
            reader.read_block()?;
        }
        Ok(())
    }

    /// Where the next run begins.
    pub(super) fn end(&self) -> u64 {
        self.start + self.length
    }
}

/// Writes values, and the keys that were counted for them, to a run that begins at `start`.
pub(super) fn write_run(
    values: &RankedValues,
    keys: Tables,
    scratch: &Scratch,
    start: u64,
) -> Result<Run, FoldError> {
    let keys = values.group(keys.into_sorted(), |row| row.key);
    let mut writer = RunWriter::new(scratch, start);
    write_values(values, &keys, &mut writer)?;
    writer.finish()
}

fn write_values(
    values: &RankedValues,
    mut keys: &[u128],
    writer: &mut RunWriter<'_>,
) -> Result<(), FoldError> {
    for (hash, value) in values.iter() {
        let mut head = [0; HEAD_BYTES];
        head[..16].copy_from_slice(&hash.to_le_bytes());
        head[16..24].copy_from_slice(&value.plain.to_le_bytes());
        head[24..28].copy_from_slice(&value.keys.to_le_bytes());
        head[28..].copy_from_slice(&(value.canonical.len() as u32).to_le_bytes());
        writer.write(&head)?;
        writer.write(value.canonical)?;
        let (own, rest) = keys.split_at(value.keys as usize);
        keys = rest;
        for key in own {
            writer.write(&key.to_le_bytes())?;
        }
    }
    debug_assert!(keys.is_empty(), "each key belongs to a value");
    Ok(())
}

struct RunWriter<'a> {
    scratch: &'a Scratch,
    run: Run,
    block: Vec<u8>,
}

impl<'a> RunWriter<'a> {
    fn new(scratch: &'a Scratch, start: u64) -> Self {
        let run = Run { start, length: 0, checksums: Vec::new() };
        RunWriter { scratch, run, block: Vec::with_capacity(BLOCK_BYTES) }
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), FoldError> {
        while self.block.len() + bytes.len() >= BLOCK_BYTES {
            let (now, later) = bytes.split_at(BLOCK_BYTES - self.block.len());
            self.block.extend_from_slice(now);
            self.write_block()?;
            bytes = later;
        }
        self.block.extend_from_slice(bytes);
        Ok(())
    }

    fn write_block(&mut self) -> Result<(), FoldError> {
        let written = self.scratch.file.write_all_at(&self.block, self.run.end());
        written.map_err(self.scratch.error("write"))?;
        self.run.length += self.block.len() as u64;
        self.run.checksums.push(crc32fast::hash(&self.block));
        self.block.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Run, FoldError> {
        if !self.block.is_empty() {
            self.write_block()?;
        }
        Ok(self.run)
    }
}

/// What a run says of one value, before its bytes and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) hash: u128,
    pub(super) plain: u64,
    pub(super) keys: u32,
    pub(super) length: u32,
}

/// Reads a run from its beginning to its end.
pub(super) struct RunReader<'a> {
    scratch: &'a Scratch,
    run: &'a Run,
    read: u64,
    block: Vec<u8>,
    at: usize,
}

impl<'a> RunReader<'a> {
    pub(super) fn new(scratch: &'a Scratch, run: &'a Run) -> Self {
        RunReader { scratch, run, read: 0, block: Vec::new(), at: 0 }
    }

    /// The next value, or `None` at the end of the run. The value's bytes and keys
    /// must have been read or skipped before.
    pub(super) fn head(&mut self) -> Result<Option<Head>, FoldError> {
        if self.left() == 0 {
            return Ok(None);
        }
        let head: [u8; HEAD_BYTES] = self.array()?;
        let (mut hash, mut plain, mut keys, mut length) = ([0; 16], [0; 8], [0; 4], [0; 4]);
        hash.copy_from_slice(&head[..16]);
        plain.copy_from_slice(&head[16..24]);
        keys.copy_from_slice(&head[24..28]);
        length.copy_from_slice(&head[28..]);
        Ok(Some(Head {
            hash: u128::from_le_bytes(hash),
            plain: u64::from_le_bytes(plain),
            keys: u32::from_le_bytes(keys),
            length: u32::from_le_bytes(length),
        }))
    }

    /// Reads a value's bytes into `out`, which is emptied first.
    pub(super) fn value(&mut self, length: u32, out: &mut Vec<u8>) -> Result<(), FoldError> {
        out.clear();
        self.pieces(length, |piece| out.extend_from_slice(piece))
    }

    /// Passes over a value's bytes.
    pub(super) fn skip_value(&mut self, length: u32) -> Result<(), FoldError> {
        self.pieces(length, |_| ())
    }

    /// The next key of the value.
    #[inline]
    pub(super) fn key(&mut self) -> Result<u128, FoldError> {
        self.array().map(u128::from_le_bytes)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], FoldError> {
        if let Some(array) = self.block.get(self.at..).and_then(|rest| rest.first_chunk()) {
            self.at += N;
            return Ok(*array);
        }
        let (mut array, mut filled) = ([0; N], 0);
        self.pieces(N as u32, |piece| {
            array[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
        })?;
        Ok(array)
    }

    fn pieces(&mut self, length: u32, mut take: impl FnMut(&[u8])) -> Result<(), FoldError> {
        let mut length = length as usize;
        if length as u64 > self.left() {
            return Err(self.scratch.damaged());
        }
        while length > 0 {
            if self.at == self.block.len() {
                self.read_block()?;
            }
            let piece = length.min(self.block.len() - self.at);
            take(&self.block[self.at..self.at + piece]);
            self.at += piece;
            length -= piece;
        }
        Ok(())
    }

    fn left(&self) -> u64 {
        self.run.length - self.read + (self.block.len() - self.at) as u64
    }

    fn read_block(&mut self) -> Result<(), FoldError> {
        let number = (self.read / BLOCK_BYTES as u64) as usize;
        let length = (self.run.length - self.read).min(BLOCK_BYTES as u64) as usize;
        self.block.resize(length, 0);
        let read = self.scratch.file.read_exact_at(&mut self.block, self.run.start + self.read);
        read.map_err(self.scratch.error("read"))?;
        if self.run.checksums.get(number) != Some(&crc32fast::hash(&self.block)) {
            return Err(self.scratch.damaged());
        }
        self.read += length as u64;
        self.at = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregation::distinct_logs::values::Values;

    /// A run of three values, of which the second is longer than a block.
    fn run(scratch: &Scratch, start: u64) -> Run {
        let (mut values, mut keys) = (Values::new(0), Tables::new(0));
        for (hash, canonical) in [(3, vec![3; 10]), (1, vec![1; 20]), (2, vec![2; BLOCK_BYTES])] {
            let id = values.intern(hash, &canonical);
            for key in 1..=hash * 1000 {
                assert_eq!(keys.insert((hash << 120) + key, id), None);
                values.add_key(id);
            }
        }
        write_run(&values.into_ranked(), keys, scratch, start).unwrap()
    }

    /// A value's hash, its bytes, and its keys.
    type Read = (u128, Vec<u8>, Vec<u128>);

    fn read(scratch: &Scratch, run: &Run) -> Result<Vec<Read>, FoldError> {
        let mut reader = RunReader::new(scratch, run);
        let mut all = Vec::new();
        while let Some(head) = reader.head()? {
            let mut canonical = Vec::new();
            reader.value(head.length, &mut canonical)?;
            let keys = (0..head.keys).map(|_| reader.key()).collect::<Result<_, _>>()?;
            all.push((head.hash, canonical, keys));
        }
        Ok(all)
    }

    #[test]
    fn runs_are_read_as_they_were_written_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = Scratch::create(folder.path()).unwrap();
        let first = run(&scratch, 0);
        let second = run(&scratch, first.end());
        for run in [&first, &second] {
            let read = read(&scratch, run).unwrap();
            let lengths = read.iter().map(|(hash, value, keys)| (*hash, value.len(), keys.len()));
            let expected = [(1, 20, 1000), (2, BLOCK_BYTES, 2000), (3, 10, 3000)];
            assert_eq!(lengths.collect::<Vec<_>>(), expected);
            assert!(read.iter().all(|(_, _, keys)| keys.is_sorted()));
        }
    }

    #[test]
    fn a_flipped_bit_in_any_block_is_detected() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = Scratch::create(folder.path()).unwrap();
        let run = run(&scratch, 0);
        for at in (0..run.length).step_by(BLOCK_BYTES / 2) {
            let mut byte = [0];
            scratch.file.read_exact_at(&mut byte, at).unwrap();
            scratch.file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            let damaged = read(&scratch, &run);
            assert!(matches!(damaged, Err(FoldError::Damaged { .. })), "byte {at}");
            scratch.file.write_all_at(&byte, at).unwrap();
        }
        assert!(read(&scratch, &run).is_ok());
    }

    #[test]
    fn a_run_that_was_cut_off_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = Scratch::create(folder.path()).unwrap();
        let run = run(&scratch, 0);
        scratch.file.set_len(run.length - 1).unwrap();
        assert!(matches!(read(&scratch, &run), Err(FoldError::Scratch { operation: "read", .. })));
    }
}
