//! How much there is of rebuilt files, and how much more there may be.

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use super::{Files, FilesError, system};

/// Bytes of rebuilt files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// That there are on disk.
    pub taken: u64,
    /// That may come on top.
    pub left: u64,
}

/// Tells how many bytes the disk has left for files.
pub type Left = Arc<dyn Fn() -> io::Result<u64> + Send + Sync>;

impl Files {
    /// Has `left` asked how much more there may be: without it, any number of bytes.
    pub fn with_left(self, left: Left) -> Files {
        Files { left, ..self }
    }

    /// How much there is, and how much more there may be. Looks at every file.
    ///
    /// # Errors
    /// When the disk does not tell.
    pub fn room(&self) -> Result<Room, FilesError> {
        let taken = taken(&self.root).map_err(system("look at the files in", &self.root))?;
        let left = (self.left)().map_err(system("read the free space of", &self.root))?;
        Ok(Room { taken, left })
    }
}

/// What is below a folder. What goes away meanwhile takes nothing.
fn taken(root: &Path) -> io::Result<u64> {
    let (mut bytes, mut folders) = (0, vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        let Some(entries) = unless_gone(fs::read_dir(&folder))? else { continue };
        for entry in entries {
            let entry = entry?;
            match unless_gone(entry.metadata())? {
                Some(found) if found.is_dir() => folders.push(entry.path()),
                found => bytes += found.map_or(0, |found| found.len()),
            }
        }
    }
    Ok(bytes)
}

fn unless_gone<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Disk, Store};

    #[test]
    fn all_files_take_room_and_what_is_left_is_asked_for() {
        let root = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        let files = Files::new(root.path().join("files"), store);
        assert_eq!(files.room().unwrap(), Room { taken: 0, left: u64::MAX });
        for (name, bytes) in [("a", 3), ("b/c", 40), ("b/d/e", 500)] {
            let path = root.path().join("files").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![0; bytes]).unwrap();
        }
        let files = files.with_left(Arc::new(|| Ok(7)));
        assert_eq!(files.room().unwrap(), Room { taken: 543, left: 7 });
        let files = files.with_left(Arc::new(|| Err(io::Error::other("it is gone"))));
        let error = files.room().unwrap_err().to_string();
        assert!(error.contains("read the free space of"), "{error}");
    }
}
