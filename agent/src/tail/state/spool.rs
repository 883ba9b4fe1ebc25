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
    unsynced: BTreeMap<Key, Unsynced>,
    /// Whether a file is new since then.
    is_new: bool,
}

/// What is not known to be on disk.
#[derive(Debug)]
struct Unsynced {
    file: File,
    pieces: Vec<Piece>,
    /// Whether a write or a sync failed: the system may take what it could not write for written.
    is_doubtful: bool,
}

#[derive(Debug)]
struct Piece {
    at: u64,
    length: usize,
    checksum: u32,
}

impl Unsynced {
    fn open(path: &Path) -> io::Result<Unsynced> {
        let file = open(path)?;
        Ok(Unsynced { file, pieces: Vec::new(), is_doubtful: false })
    }

    fn append(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)?;
        let checksum = crc32fast::hash(bytes);
        self.pieces.push(Piece { at, length: bytes.len(), checksum });
        Ok(())
    }

    fn sync(&mut self, path: &Path) -> io::Result<()> {
        if self.is_doubtful {
            self.write_again(path)?;
        }
        self.is_doubtful = true;
        self.file.sync_data()?;
        self.is_doubtful = false;
        Ok(())
    }

    /// Writes what memory still has once more, by a descriptor that has seen no error: a sync
    /// that fails is told of once, and the next one does not try again what it could not write.
    fn write_again(&mut self, path: &Path) -> io::Result<()> {
        self.file = open(path)?;
        for piece in &self.pieces {
            let mut bytes = vec![0; piece.length];
            self.file.read_exact_at(&mut bytes, piece.at)?;
            if crc32fast::hash(&bytes) != piece.checksum {
                let text = format!("{} has lost what was written to it", path.display());
                return Err(io::Error::new(ErrorKind::InvalidData, text));
            }
            self.file.write_all_at(&bytes, piece.at)?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)
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
            let unsynced = Unsynced::open(&self.path(key))?;
            self.unsynced.insert(key, unsynced);
        }
        self.is_new |= !self.lengths.contains_key(&key);
        let length = self.lengths.entry(key).or_default();
        let at = *length;
        if let Some(unsynced) = self.unsynced.get_mut(&key) {
            unsynced.append(at, bytes)?;
        }
        *length += bytes.len() as u64;
        Ok(at)
    }

    /// Makes durable what was appended. After an error it may be tried again.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        let path = |key: &Key| self.folder.join(key.to_string());
        for (key, unsynced) in &mut self.unsynced {
            unsynced.sync(&path(key))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn spooled(spool: &Spool, key: Key) -> String {
        fs::read_to_string(spool.path(key)).unwrap()
    }

    /// Its next sync fails.
    fn breaks(spool: &mut Spool, key: Key) {
        spool.unsynced.get_mut(&key).unwrap().file = File::open("/dev/null").unwrap();
        spool.sync().unwrap_err();
    }

    #[test]
    fn after_a_failed_sync_what_was_appended_is_written_anew_by_another_descriptor() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), |_| true).unwrap();
        spool.append(1, b"one").unwrap();
        spool.sync().unwrap();
        spool.append(1, b"two").unwrap();
        breaks(&mut spool, 1);
        spool.sync().unwrap();
        assert_eq!(spooled(&spool, 1), "onetwo");
        assert_eq!(spool.append(1, b"three").unwrap(), 6);
    }

    #[test]
    fn what_memory_has_lost_after_a_failed_sync_is_no_success() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), |_| true).unwrap();
        spool.append(1, b"one").unwrap();
        breaks(&mut spool, 1);
        fs::write(spool.path(1), "\0\0\0").unwrap();
        let error = spool.sync().unwrap_err().to_string();
        assert!(error.ends_with("has lost what was written to it"), "{error}");
        fs::write(spool.path(1), "one").unwrap();
        spool.sync().unwrap();
    }
}
