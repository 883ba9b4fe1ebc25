//! What the agent has to find again after a restart, in a folder of its own: what it knows of each
//! file, which chunks are on their way, and the bytes of files that may go away.

mod format; // entries as bytes
mod log; // entries on disk, one batch after the other
mod spool; // bytes of files that may go away

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use self::{
    log::{Log, LogError},
    spool::Spool,
};
use super::session::{Cut, Entry, Key, OutOfPlace, Session, Sessions};

/// The log of entries is written anew when it has this much more than is known ..
const LOG_BYTES_MIN: u64 = 1 << 20;
/// .. at about so many bytes for each session.
const SESSION_BYTES: u64 = 512;

/// What is known, in memory and on disk.
#[derive(Debug)]
pub(crate) struct State {
    sessions: Sessions,
    log: Log,
    spool: Spool,
    /// Entries that are not on disk yet.
    pending: Vec<Entry>,
    /// Whether the log may end in something unreadable, since a write failed.
    doubtful: bool,
    /// Held as long as the state is open.
    _lock: File,
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// The folder is not there and cannot be made, or cannot be read.
    #[error("open the state folder {}", folder.display())]
    Folder {
        /// Which one.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another agent uses it.
    #[error("the state folder {} is in use by another sheaf tail", .0.display())]
    InUse(PathBuf),
    /// What the folder holds is damaged.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Its entries contradict each other.
    #[error("{} is damaged", path.display())]
    Contradiction {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        source: OutOfPlace,
    },
}

impl State {
    /// Opens the folder, and makes it if there is none. A batch at the end that a crash cut off is
    /// dropped: nothing of it was sent.
    ///
    /// # Errors
    /// If it is in use, cannot be read, or is damaged.
    pub(crate) fn open(folder: &Path) -> Result<State, StateError> {
        let fail = |source| StateError::Folder { folder: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(fail)?;
        let lock = File::create(folder.join("lock")).map_err(fail)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StateError::InUse(folder.to_owned()));
            }
            done => done.map_err(|error| fail(error.into()))?,
        }
        let (log, entries) = Log::open(folder)?;
        let mut sessions = Sessions::default();
        for entry in entries {
            sessions.apply(entry).map_err(|source| {
                let path = log.path().to_owned();
                StateError::Contradiction { path, source }
            })?;
        }
        let spool = Spool::open(folder, |key| sessions.get(key).is_some()).map_err(fail)?;
        Ok(State { sessions, log, spool, pending: Vec::new(), doubtful: false, _lock: lock })
    }

    /// What is known.
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// One session.
    pub(crate) fn get(&self, key: Key) -> Option<&Session> {
        self.sessions.get(key)
    }

    /// Takes an entry in; it is durable after the next [`State::commit`].
    ///
    /// # Errors
    /// If it cannot follow on what is known: a mistake of this program.
    pub(crate) fn record(&mut self, entry: Entry) -> Result<(), OutOfPlace> {
        self.sessions.apply(entry.clone())?;
        self.pending.push(entry);
        Ok(())
    }

    /// How many entries are not durable yet.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Makes durable what was recorded and spooled. After an error it may be tried again.
    ///
    /// # Errors
    /// If the disk is full or in trouble.
    pub(crate) fn commit(&mut self) -> io::Result<()> {
        self.spool.sync()?;
        if self.pending.is_empty() {
            return Ok(());
        }
        let live = self.sessions.len() as u64 * SESSION_BYTES;
        if self.doubtful || self.log.length() > LOG_BYTES_MIN + 2 * live {
            self.log.replace(self.sessions.snapshot())?;
        } else if let Err(error) = self.log.append(&self.pending) {
            // Whether the bytes got to the disk nobody knows: a new log takes the place of this one.
            self.doubtful = true;
            return Err(error);
        }
        self.doubtful = false;
        self.pending.clear();
        Ok(())
    }

    /// How many bytes are in the spool.
    pub(crate) fn spooled_bytes(&self) -> u64 {
        self.spool.bytes()
    }

    /// Appends to the spool of a session, and says where that is.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn spool(&mut self, key: Key, bytes: &[u8]) -> io::Result<u64> {
        self.spool.append(key, bytes)
    }

    /// What the spool has of a chunk.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn unspool(
        &self,
        key: Key,
        cut: &Cut,
        at: u64,
        buffer: &mut [u8],
    ) -> io::Result<()> {
        debug_assert_eq!(buffer.len(), cut.length as usize);
        self.spool.read(key, at, buffer)
    }

    /// Gives the spool of a session up, whose chunks are all answered.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub(crate) fn clear_spool(&mut self, key: Key) -> io::Result<()> {
        self.spool.remove(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::session::tests::{cut, session};

    #[test]
    fn what_was_committed_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path()).unwrap();
        for entry in [Entry::Known(session(1, "a", 5)), cut(1, 1), cut(1, 2)] {
            state.record(entry).unwrap();
        }
        assert_eq!(state.spool(1, b"one").unwrap(), 0);
        assert_eq!(state.spool(1, b"two").unwrap(), 3);
        state.record(Entry::Spooled { key: 1, seq: 2, at: 3 }).unwrap();
        state.commit().unwrap();
        let before = state.get(1).cloned();
        state.record(Entry::Forgotten { key: 1 }).unwrap();
        drop(state);
        let state = State::open(folder.path()).unwrap();
        assert_eq!(state.get(1).cloned(), before);
        let mut bytes = [0; 3];
        state.spool.read(1, 3, &mut bytes).unwrap();
        assert_eq!(&bytes, b"two");
        assert_eq!(state.spooled_bytes(), 6);
    }

    #[test]
    fn a_second_agent_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = State::open(folder.path()).unwrap();
        let error = State::open(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with(" is in use by another sheaf tail"), "{error}");
        drop(first);
        State::open(folder.path()).unwrap();
    }

    #[test]
    fn the_log_does_not_grow_with_what_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path()).unwrap();
        state.record(Entry::Known(session(1, "a", 5))).unwrap();
        for seq in 1..=40_000 {
            state.record(cut(1, seq)).unwrap();
            state.record(Entry::Answered { key: 1, seq }).unwrap();
            if seq % 100 == 0 {
                state.commit().unwrap();
            }
        }
        assert!(state.log.length() < 2 * LOG_BYTES_MIN, "{}", state.log.length());
        drop(state);
        assert_eq!(State::open(folder.path()).unwrap().get(1).unwrap().seq, 40_000);
    }

    #[test]
    fn the_spool_of_a_forgotten_session_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path()).unwrap();
        state.record(Entry::Known(session(1, "a", 5))).unwrap();
        state.spool(1, b"one").unwrap();
        state.commit().unwrap();
        state.record(Entry::Forgotten { key: 1 }).unwrap();
        state.commit().unwrap();
        drop(state);
        assert_eq!(State::open(folder.path()).unwrap().spooled_bytes(), 0);
    }
}
