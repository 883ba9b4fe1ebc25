//! What is carried of open windows, with the files that it is in: what a node keeps for itself,
//! and what it keeps for slots that others lead.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::aggregation::distinct_logs::{Carried, FoldError, MemoryLimit, OpenWindow, SlotRecords};
use crate::checkpoint::carries::{Carries, Carry};
use crate::checkpoint::facts::Slot;
use crate::event::slots::SlotSet;
use crate::event::time::{UnixNanos, Window};
use crate::flush::FlushError;
use crate::store::{StoreError, folder};

/// A file goes from node to node in chunks of this many bytes.
const CHUNK_BYTES: usize = 256 << 10;
/// What reading a file to check it may take; nothing is folded into it.
const CHECK_MEMORY: MemoryLimit = MemoryLimit(1 << 20);

/// What a node carries; cheap to clone.
#[derive(Clone)]
pub struct CarriedWindows {
    /// Which windows, up to where, and of which slots.
    pub carries: Carries,
    /// The folder that their files are in.
    pub scratch: PathBuf,
}

impl CarriedWindows {
    /// What is carried of slots that are folded together.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn of(&self, slots: &SlotSet) -> Result<Vec<Carry>, StoreError> {
        Ok(self.carries.all()?.iter().filter_map(|carry| carry.of(slots)).collect())
    }

    /// Makes durable what a fold of this node carries, in place of what it carried before.
    ///
    /// # Errors
    /// When the database fails.
    pub fn record(&self, carries: &[Carry]) -> Result<(), FlushError> {
        if carries.is_empty() {
            return Ok(());
        }
        self.remove_unused(&self.carries.record(carries)?)
    }

    /// The bytes of a carry's file, chunk by chunk.
    ///
    /// # Errors
    /// When there is no such file, also while it is read.
    pub fn send(
        &self,
        carry: &Carry,
    ) -> Result<impl Iterator<Item = Result<Vec<u8>, FoldError>> + Send + use<>, FlushError> {
        let path = self.scratch.join(carried(carry)?.file());
        let mut file = File::open(&path).map_err(error("open", &path))?;
        Ok(std::iter::from_fn(move || {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            let read = (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk);
            match read.map_err(error("read", &path)) {
                Ok(0) => None,
                Ok(_) => Some(Ok(chunk)),
                Err(error) => Some(Err(error)),
            }
        }))
    }

    /// Begins a file for what is carried elsewhere.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn receive(&self) -> Result<Incoming, FoldError> {
        fs::create_dir_all(&self.scratch).map_err(error("create", &self.scratch))?;
        let path = self.scratch.join(format!("copy-{:016x}", fastrand::u64(..)));
        let file = File::create_new(&path).map_err(error("create", &path))?;
        Ok(Incoming { file, path, is_kept: false })
    }

    /// Makes durable what was carried elsewhere, once all of its file has come, for those of
    /// its slots that [`Carries::lacking`] names.
    ///
    /// # Errors
    /// When the file is not what was carried, or cannot be kept.
    pub fn keep(
        &self,
        carry: Carry,
        incoming: Incoming,
        is_enough: impl Fn(&Carry, Slot) -> bool,
    ) -> Result<(), FlushError> {
        let name = incoming.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let carry = in_file(carry, name)?;
        OpenWindow::resume(CHECK_MEMORY, &self.scratch, carried(&carry)?)?;
        incoming.keep()?;
        let mut replaced = self.carries.record_lacking(&carry, is_enough)?;
        replaced.push(carry);
        self.remove_unused(&replaced)
    }

    /// Forgets what is carried of a window of these slots: it was flushed.
    ///
    /// # Errors
    /// When the database fails.
    pub fn forget(
        &self,
        aggregation: u32,
        window: Window,
        slots: &SlotSet,
    ) -> Result<(), FlushError> {
        self.remove_unused(&self.carries.forget(aggregation, window, slots)?)
    }

    /// Keeps of each carry these of its slots only.
    ///
    /// # Errors
    /// When the database fails.
    pub fn retain(&self, stay: impl Fn(&Carry) -> SlotSet) -> Result<(), FlushError> {
        self.remove_unused(&self.carries.retain(stay)?)
    }

    /// What is carried.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn all(&self) -> Result<Arc<[Carry]>, StoreError> {
        self.carries.all()
    }

    /// Removes the files of carries that nothing is in any more.
    fn remove_unused(&self, changed: &[Carry]) -> Result<(), FlushError> {
        if changed.is_empty() {
            return Ok(());
        }
        let files = |carries: &[Carry]| -> Result<BTreeSet<String>, FlushError> {
            carries.iter().map(|carry| Ok(carried(carry)?.file().to_owned())).collect()
        };
        for file in files(changed)?.difference(&files(&self.carries.all()?)?) {
            // What is left is removed at the next start.
            let _ = fs::remove_file(self.scratch.join(file));
        }
        Ok(())
    }
}

/// What a carry says of a window's state.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    /// What the aggregation itself keeps of it.
    pub(super) state: Carried,
    /// The records in it that were stamped since the newest cut, by second; earlier versions say
    /// nothing of them.
    #[serde(default)]
    pub(super) recent: Vec<(UnixNanos, SlotRecords)>,
}

impl Kept {
    /// What a carry says.
    ///
    /// # Errors
    /// When it is not what this version writes.
    pub(super) fn of(carry: &Carry) -> Result<Kept, FlushError> {
        Kept::deserialize(&carry.state).map_err(FlushError::Carry)
    }

    /// As a carry says it.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub(super) fn written(self) -> Result<Value, FlushError> {
        serde_json::to_value(self).map_err(FlushError::Carry)
    }
}

/// What the aggregation itself keeps of a carried window.
pub(super) fn carried(carry: &Carry) -> Result<Carried, FlushError> {
    Ok(Kept::of(carry)?.state)
}

/// The same carry, with its state in a file of another name.
fn in_file(carry: Carry, file: String) -> Result<Carry, FlushError> {
    let Kept { state, recent } = Kept::of(&carry)?;
    let state = Kept { state: state.in_file(file), recent }.written()?;
    Ok(Carry { state, ..carry })
}

/// A file that is on its way here; removed unless it is kept.
pub struct Incoming {
    file: File,
    path: PathBuf,
    is_kept: bool,
}

impl Incoming {
    /// Appends the next chunk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), FoldError> {
        self.file.write_all(chunk).map_err(error("write", &self.path))
    }

    fn keep(mut self) -> Result<(), FoldError> {
        let synced = self.file.sync_all().and_then(|()| match self.path.parent() {
            Some(folder) => folder::sync(folder),
            None => Ok(()),
        });
        synced.map_err(error("sync", &self.path))?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.is_kept {
            // What is left is removed at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FoldError + use<> {
    let path = path.to_owned();
    move |source| FoldError::Scratch { operation, path, source }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::event::time::UnixNanos;
    use crate::store::{Disk, Store};

    const WINDOW: Window = Window { start: UnixNanos(0), end: UnixNanos(10) };

    fn windows(scratch: &TempDir) -> CarriedWindows {
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        let (carries, scratch) = (Carries::new(store), scratch.path().to_owned());
        CarriedWindows { carries, scratch }
    }

    /// Carries a window of these slots, of which there is nothing.
    fn carry(windows: &CarriedWindows, of: &str) -> Carry {
        let state = OpenWindow::new(CHECK_MEMORY, &windows.scratch, None).carry().unwrap();
        let state = json!({ "state": state, "recent": [] });
        let (slots, next) = (of.parse().unwrap(), BTreeMap::new());
        let carry = Carry { aggregation: 1, window: WINDOW, slots, next, state };
        windows.carries.record(std::slice::from_ref(&carry)).unwrap();
        carry
    }

    fn files(windows: &CarriedWindows) -> usize {
        fs::read_dir(&windows.scratch).unwrap().count()
    }

    fn found(windows: &CarriedWindows) -> Vec<(String, String)> {
        let all = windows.all().unwrap();
        let found = all
            .iter()
            .map(|carry| (carry.slots.to_string(), carried(carry).unwrap().file().to_owned()));
        found.collect()
    }

    #[test]
    fn what_was_carried_elsewhere_is_kept_in_a_file_of_this_node() {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [from, to] = folders.each_ref().map(windows);
        let (sent, own) = (carry(&from, "0-9"), carry(&to, "10-19"));
        let mut file = to.receive().unwrap();
        from.send(&sent).unwrap().for_each(|chunk| file.write(&chunk.unwrap()).unwrap());
        to.keep(sent.of(&"3-5".parse().unwrap()).unwrap(), file, |_, _| false).unwrap();
        let found = found(&to);
        assert_eq!(found[0].0, "3-5");
        assert_ne!(found[0].1, found[1].1);
        assert_eq!(to.all().unwrap()[1], own);
        let kept = carried(&to.all().unwrap()[0]).unwrap();
        OpenWindow::resume(CHECK_MEMORY, &to.scratch, kept).unwrap();
    }

    #[test]
    fn what_does_not_come_as_it_was_is_not_kept() {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [from, to] = folders.each_ref().map(windows);
        let mut sent = carry(&from, "0-9");
        let state = sent.state["state"]["runs"]["runs"].as_array_mut().unwrap();
        state.push(json!({ "start": 0, "length": 9, "checksums": [1] }));
        let mut file = to.receive().unwrap();
        file.write(b"not this.").unwrap();
        to.keep(sent, file, |_, _| false).unwrap_err();
        assert_eq!((files(&to), found(&to).len()), (0, 0));
        drop(to.receive().unwrap());
        assert_eq!(files(&to), 0);
    }

    #[test]
    fn a_file_stays_while_something_is_carried_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let windows = windows(&folder);
        let whole = carry(&windows, "0-9");
        let some = "0-4".parse().unwrap();
        assert_eq!(windows.of(&some).unwrap(), [whole.of(&some).unwrap()]);
        windows.record(&[]).unwrap();
        assert_eq!((found(&windows).len(), files(&windows)), (1, 1));
        // Part of it is carried again.
        let again = OpenWindow::new(CHECK_MEMORY, &windows.scratch, None).carry().unwrap();
        let again = in_file(whole.of(&some).unwrap(), again.file().to_owned()).unwrap();
        windows.record(std::slice::from_ref(&again)).unwrap();
        assert_eq!((found(&windows).len(), files(&windows)), (2, 2));
        windows.forget(1, WINDOW, &"0-7".parse().unwrap()).unwrap();
        let left = carried(&whole).unwrap().file().to_owned();
        assert_eq!((found(&windows), files(&windows)), (vec![("8-9".to_owned(), left)], 1));
        windows.retain(|_| SlotSet::default()).unwrap();
        assert_eq!(files(&windows), 0);
    }
}
