//! What the system tells of changes in folders (inotify). It only makes things faster: whoever
//! uses it looks at all files now and then anyway.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ffi::OsStr,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};

const BUFFER_BYTES: usize = 64 << 10;

/// Watched folders.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Nothing, where the system gives none.
    inotify: Option<OwnedFd>,
    numbers: HashMap<PathBuf, i32>,
    folders: HashMap<i32, PathBuf>,
    buffer: Vec<MaybeUninit<u8>>,
}

/// What changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Files that were written to.
    pub(crate) written: HashSet<PathBuf>,
    /// Whether files came, went, or were renamed; or nobody knows what happened.
    pub(crate) names: bool,
}

impl Watch {
    /// Nothing is watched yet. The error says why nothing ever will be.
    pub(crate) fn new() -> (Watch, Option<Errno>) {
        let (inotify, error) = match inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
            Ok(inotify) => (Some(inotify), None),
            Err(error) => (None, Some(error)),
        };
        let buffer = vec![MaybeUninit::uninit(); BUFFER_BYTES];
        (Watch { inotify, numbers: HashMap::new(), folders: HashMap::new(), buffer }, error)
    }

    /// Readable when something changed.
    pub(crate) fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Watches these folders and no others. Returns those that are new, and why one could not be
    /// watched, if there is such a one.
    pub(crate) fn keep(&mut self, wanted: &BTreeSet<PathBuf>) -> (bool, Option<(PathBuf, Errno)>) {
        let Some(inotify) = &self.inotify else { return (false, None) };
        let (mut is_new, mut failed) = (false, None);
        for folder in wanted {
            if self.numbers.contains_key(folder) {
                continue;
            }
            match inotify::add_watch(inotify, folder, events()) {
                Ok(number) => {
                    is_new = true;
                    self.numbers.insert(folder.clone(), number);
                    self.folders.insert(number, folder.clone());
                }
                Err(Errno::NOENT) => {}
                Err(error) => failed = Some((folder.clone(), error)),
            }
        }
        let unwanted: Vec<PathBuf> =
            self.numbers.keys().filter(|folder| !wanted.contains(*folder)).cloned().collect();
        for folder in unwanted {
            self.drop_folder(&folder);
        }
        (is_new, failed)
    }

    /// What changed since the last call.
    pub(crate) fn changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        let mut moved = Vec::new();
        let Some(inotify) = &self.inotify else { return changes };
        let mut reader = Reader::new(inotify, &mut self.buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(_) => break,
            };
            let (number, flags) = (event.wd(), event.events());
            if flags == ReadFlags::MODIFY {
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                if let Some((folder, name)) = self.folders.get(&number).zip(name) {
                    changes.written.insert(folder.join(name));
                }
                continue;
            }
            changes.names = true;
            if flags.contains(ReadFlags::IGNORED) {
                if let Some(folder) = self.folders.remove(&number) {
                    self.numbers.remove(&folder);
                }
            } else if flags.contains(ReadFlags::MOVE_SELF) {
                moved.extend(self.folders.get(&number).cloned());
            }
        }
        for folder in moved {
            self.drop_folder(&folder);
        }
        changes
    }

    fn drop_folder(&mut self, folder: &Path) {
        if let Some((number, inotify)) = self.numbers.remove(folder).zip(self.inotify.as_ref()) {
            self.folders.remove(&number);
            // It fails when the folder is gone.
            let _ = inotify::remove_watch(inotify, number);
        }
    }
}

fn events() -> WatchFlags {
    WatchFlags::MODIFY
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn watching(folder: &Path) -> Watch {
        let (mut watch, error) = Watch::new();
        assert_eq!(error, None);
        assert!(watch.keep(&BTreeSet::from([folder.to_owned()])).0);
        watch
    }

    #[test]
    fn what_is_written_and_what_is_renamed_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "one").unwrap();
        let mut watch = watching(folder.path());
        assert_eq!(watch.changes(), Changes::default());
        fs::write(&path, "two").unwrap();
        let written = HashSet::from([path.clone()]);
        assert_eq!(watch.changes(), Changes { written, names: false });
        fs::rename(&path, folder.path().join("log.1")).unwrap();
        assert_eq!(watch.changes(), Changes { written: HashSet::new(), names: true });
    }

    #[test]
    fn a_folder_that_comes_back_is_watched_again() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("logs");
        fs::create_dir(&folder).unwrap();
        let mut watch = watching(&folder);
        fs::remove_dir(&folder).unwrap();
        assert!(watch.changes().names);
        fs::create_dir(&folder).unwrap();
        assert!(watch.keep(&BTreeSet::from([folder.clone()])).0);
        fs::rename(&folder, parent.path().join("old")).unwrap();
        assert!(watch.changes().names);
        fs::create_dir(&folder).unwrap();
        assert!(watch.keep(&BTreeSet::from([folder.clone()])).0);
        fs::write(folder.join("log"), "").unwrap();
        assert!(watch.changes().names);
    }

    #[test]
    fn folders_that_are_wanted_no_more_are_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = watching(folder.path());
        watch.keep(&BTreeSet::new());
        watch.changes();
        fs::write(folder.path().join("log"), "").unwrap();
        assert_eq!(watch.changes(), Changes::default());
    }
}
