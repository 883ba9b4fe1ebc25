//! Power cuts: after a death, everything is taken away that was never synced.
//!
//! A preloaded library (`tests/power/synced.c`) notes what is synced. What is left
//! after a cut is then: of each folder, the names that it had when the folder was
//! synced last; of each file behind them, the bytes that were there when the file was
//! synced last, and a random part of those that came later.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The library, and where it notes what is synced.
pub(crate) struct Power {
    library: PathBuf,
    notes: PathBuf,
}

impl Power {
    /// Compiles the library into `folder`, which is on the disk of what is watched.
    pub(crate) fn new(folder: &Path) -> Power {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power/synced.c");
        let library = folder.join("synced.so");
        let compile = |compiler| {
            let mut command = Command::new(compiler);
            command.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]);
            command.arg(&library).arg(&source).args(["-ldl", "-lpthread"]).output()
        };
        let compiled = compile("cc").or_else(|_| compile("clang"));
        let compiled = compiled.expect("a C compiler, cc or clang");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        Power { library, notes: folder.join("notes") }
    }

    /// Watches a life on `folder` from now on, by these variables: all that is there
    /// already is durable.
    pub(crate) fn watch(&self, folder: &Path) -> [(&'static str, String); 3] {
        if self.notes.exists() {
            fs::remove_dir_all(&self.notes).unwrap();
        }
        for part in ["folders", "files"] {
            fs::create_dir_all(self.notes.join(part)).unwrap();
        }
        fs::create_dir_all(folder).unwrap();
        let mut lengths = String::new();
        self.take_down(folder, &mut lengths);
        fs::write(self.notes.join("lengths"), lengths).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        [
            ("LD_PRELOAD", text(&self.library)),
            ("SYNCED_FOLDER", text(&folder.canonicalize().unwrap())),
            ("SYNCED_NOTES", text(&self.notes)),
        ]
    }

    fn take_down(&self, folder: &Path, lengths: &mut String) {
        let noted = self.noted(inode(folder));
        fs::create_dir(&noted).unwrap();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let (name, inode) = (noted.join(path.file_name().unwrap()), inode(&path));
            if path.is_dir() {
                symlink(inode.to_string(), name).unwrap();
                self.take_down(&path, lengths);
            } else {
                fs::hard_link(&path, name).unwrap();
                fs::hard_link(&path, self.notes.join("files").join(inode.to_string())).unwrap();
                *lengths += &format!("{inode} {}\n", path.metadata().unwrap().len());
            }
        }
    }

    /// Leaves of `folder` what was synced.
    pub(crate) fn cut(&self, folder: &Path, rng: &mut fastrand::Rng) {
        let lengths = fs::read_to_string(self.notes.join("lengths")).unwrap();
        let mut synced = HashMap::new();
        for line in lengths.lines() {
            let (inode, length) = line.split_once(' ').unwrap();
            synced.insert(inode.parse().unwrap(), length.parse().unwrap());
        }
        let noted = self.noted(inode(folder));
        let left = folder.with_extension("left");
        self.leave(&noted, &left, &synced, rng);
        fs::remove_dir_all(folder).unwrap();
        fs::rename(left, folder).unwrap();
    }

    fn leave(
        &self,
        noted: &Path,
        left: &Path,
        synced: &HashMap<u64, u64>,
        rng: &mut fastrand::Rng,
    ) {
        fs::create_dir(left).unwrap();
        // A folder that was never synced has no names.
        let Ok(names) = fs::read_dir(noted) else { return };
        for entry in names {
            let from = entry.unwrap().path();
            let to = left.join(from.file_name().unwrap());
            if let Ok(subfolder) = fs::read_link(&from) {
                self.leave(&noted.with_file_name(subfolder), &to, synced, rng);
                continue;
            }
            let length = from.metadata().unwrap().len();
            let durable = synced.get(&inode(&from)).copied().unwrap_or(0).min(length);
            // Half the time the disk has written nothing on its own.
            let luck = if rng.bool() { rng.u64(..=length - durable) } else { 0 };
            fs::rename(&from, &to).unwrap();
            fs::File::options().write(true).open(&to).unwrap().set_len(durable + luck).unwrap();
        }
    }

    fn noted(&self, folder: u64) -> PathBuf {
        self.notes.join("folders").join(folder.to_string())
    }
}

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}
