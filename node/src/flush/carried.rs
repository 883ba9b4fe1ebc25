//! What is carried of open windows, with the files that it is in: what a node keeps for itself,
//! and what it keeps for slots that others lead.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::aggregation::distinct_logs::{FoldError, MemoryLimit, OpenWindow};
use crate::checkpoint::carries::{Carries, Carry};
use crate::event::slots::SlotSet;
use crate::event::time::Window;
use crate::flush::FlushError;
use crate::flush::group::{carried, in_file};
use crate::store::StoreError;

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
    /// Takes out what is carried of slots that are folded together from now on. What is in one
    /// file with something else is copied, for each fold writes on in the file that it began
    /// with.
    ///
    /// # Errors
    /// When a file cannot be copied, or the database fails.
    pub fn take(&self, slots: &SlotSet) -> Result<Vec<Carry>, FlushError> {
        let all = self.carries.all()?;
        for (place, carry) in all.iter().enumerate() {
            let Some(own) = carry.of(slots) else { continue };
            let others = all.iter().enumerate().filter(|(other, _)| *other != place);
            if own.slots != carry.slots || is_in_one_file(carry, others.map(|(_, it)| it))? {
                let mut copy = self.receive()?;
                for chunk in self.send(carry)? {
                    copy.write(&chunk?)?;
                }
                self.keep(own, copy)?;
            }
        }
        let now = self.carries.all()?.into_iter();
        Ok(now.filter(|carry| carry.of(slots).is_some()).collect())
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

    /// Makes durable what was carried elsewhere, once all of its file has come.
    ///
    /// # Errors
    /// When the file is not what was carried, or cannot be kept.
    pub fn keep(&self, carry: Carry, incoming: Incoming) -> Result<(), FlushError> {
        let name = incoming.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let carry = in_file(carry, name)?;
        OpenWindow::resume(CHECK_MEMORY, &self.scratch, carried(&carry)?)?;
        incoming.keep()?;
        let before = self.carries.all()?;
        self.carries.record(&[carry])?;
        self.remove_unused(&before)
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
        let before = self.carries.all()?;
        self.carries.forget(aggregation, window, slots)?;
        self.remove_unused(&before)
    }

    /// Keeps of each carry these of its slots only.
    ///
    /// # Errors
    /// When the database fails.
    pub fn retain(&self, stay: impl Fn(&Carry) -> SlotSet) -> Result<(), FlushError> {
        let before = self.carries.all()?;
        if before.is_empty() {
            return Ok(());
        }
        self.carries.retain(stay)?;
        self.remove_unused(&before)
    }

    /// What is carried.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn all(&self) -> Result<Vec<Carry>, StoreError> {
        self.carries.all()
    }

    /// Removes the files of earlier carries that nothing is in any more.
    fn remove_unused(&self, before: &[Carry]) -> Result<(), FlushError> {
        let files = |carries: &[Carry]| -> Result<Vec<String>, FlushError> {
            carries.iter().map(|carry| Ok(carried(carry)?.file().to_owned())).collect()
        };
        let used = files(&self.carries.all()?)?;
        for file in files(before)?.iter().filter(|file| !used.contains(file)) {
            // What is left is removed at the next start.
            let _ = fs::remove_file(self.scratch.join(file));
        }
        Ok(())
    }
}

/// Whether a carry's file has something of others as well.
fn is_in_one_file<'a>(
    carry: &Carry,
    mut others: impl Iterator<Item = &'a Carry>,
) -> Result<bool, FlushError> {
    let own = carried(carry)?;
    others.try_fold(false, |found, other| Ok(found || carried(other)?.file() == own.file()))
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
            Some(folder) => File::open(folder)?.sync_all(),
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
