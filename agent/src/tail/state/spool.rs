//! Bytes of files that may go away before a node has them: one file for each session.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::tail::session::Key;

/// The folder `spool`.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    /// How long each file is.
    lengths: BTreeMap<Key, u64>,
    /// What was appended since the last sync.
    unsynced: BTreeMap<Key, File>,
    /// Whether a file is new since then.
    is_new: bool,
}

impl Spool {
    /// Opens it, and removes what belongs to no session that is `known`.
    pub(crate) fn open(state: &Path, known: impl Fn(Key) -> bool) -> io::Result<Spool> {
        let folder = state.join("spool");
        fs::create_dir_all(&folder)?;
        let mut lengths = BTreeMap::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let Some(key) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if known(key) {
                lengths.insert(key, entry.metadata()?.len());
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Spool { folder, lengths, unsynced: BTreeMap::new(), is_new: false })
    }

    /// Appends, and says where that is. It is durable after the next [`Spool::sync`].
    pub(crate) fn append(&mut self, key: Key, bytes: &[u8]) -> io::Result<u64> {
        if !self.unsynced.contains_key(&key) {
            let path = self.path(key);
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            self.unsynced.insert(key, file);
        }
        self.is_new |= !self.lengths.contains_key(&key);
        let length = self.lengths.entry(key).or_default();
        let at = *length;
        if let Some(file) = self.unsynced.get(&key) {
            file.write_all_at(bytes, at)?;
        }
        *length += bytes.len() as u64;
        Ok(at)
    }

    /// Makes durable what was appended.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        for file in self.unsynced.values() {
            file.sync_data()?;
        }
        if self.is_new {
            File::open(&self.folder)?.sync_all()?;
        }
        self.is_new = false;
        self.unsynced.clear();
        Ok(())
    }

    /// Fills the buffer with what stands there.
    pub(crate) fn read(&self, key: Key, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        File::open(self.path(key))?.read_exact_at(buffer, at)
    }

    /// Removes the file of a session, if it has one.
    pub(crate) fn remove(&mut self, key: Key) -> io::Result<()> {
        self.unsynced.remove(&key);
        if self.lengths.remove(&key).is_none() {
            return Ok(());
        }
        match fs::remove_file(self.path(key)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// How many bytes it has.
    pub(crate) fn bytes(&self) -> u64 {
        self.lengths.values().sum()
    }

    fn path(&self, key: Key) -> PathBuf {
        self.folder.join(key.to_string())
    }
}
