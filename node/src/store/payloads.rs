//! Large values of the journal: in files, each written once, and not again when a memtable is
//! flushed or compacted. A row says where each stands.

pub(super) mod files; // in a folder

use crate::failpoint::is_to_fail;
use crate::store::{Reason, Store, StoreError};

/// A file of payloads. Those of a segment are numbered by the first entry that may be in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PayloadFile {
    /// The segment of the journal.
    pub segment: u64,
    /// The first entry that may be in it.
    pub first: u64,
}

/// Where a payload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// In which file.
    pub file: PayloadFile,
    /// Behind how many bytes.
    pub offset: u64,
}

/// What is worth a write and a sync of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadLimits {
    /// A value of so many bytes ..
    pub value: usize,
    /// .. if all such values of a commit have so many together.
    pub together: usize,
}

/// Where a store keeps payloads. Its methods mean what those of [`Store`] do.
pub(super) trait Payloads {
    fn limits(&self) -> PayloadLimits;
    /// With `sync` the payloads are durable, and the file's name is.
    fn append(
        &self,
        segment: u64,
        index: u64,
        payloads: &[&[u8]],
        sync: bool,
    ) -> Result<Vec<Place>, Reason>;
    fn read(&self, place: Place, length: usize) -> Result<Option<Vec<u8>>, Reason>;
    fn files(&self) -> Result<Vec<PayloadFile>, Reason>;
    fn cut(&self, end: Place) -> Result<(), Reason>;
    fn remove(&self, file: PayloadFile) -> Result<(), Reason>;
}

impl Store {
    /// Makes payloads of a segment's entries durable, behind those that are there, the first
    /// of them that of the entry at `index`: one write, one sync. Only who is told by a commit
    /// where each stands knows of it. Nobody else may add to the same segment meanwhile.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn append_payloads(
        &self,
        segment: u64,
        index: u64,
        payloads: &[&[u8]],
    ) -> Result<Vec<Place>, StoreError> {
        // A planted bug, as that of a commit.
        let sync = !is_to_fail("planted-payload-unsynced");
        self.write(|| {
            if is_to_fail("payload-write-fails") {
                return Err("a test says so".to_owned());
            }
            self.backend.payloads().append(segment, index, payloads, sync)
        })
    }

    /// What should be a payload.
    pub fn payload_limits(&self) -> PayloadLimits {
        self.backend.payloads().limits()
    }

    /// A payload of so many bytes, or `None` if its file does not have it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn payload(&self, place: Place, length: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let read = self.backend.payloads().read(place, length);
        read.map_err(|reason| self.read_error(reason))
    }

    /// The files of payloads, in order.
    ///
    /// # Errors
    /// When the disk is gone.
    pub fn payload_files(&self) -> Result<Vec<PayloadFile>, StoreError> {
        self.backend.payloads().files().map_err(|reason| self.read_error(reason))
    }

    /// Cuts off what a file has behind a place; it may come back in a power cut.
    ///
    /// # Errors
    /// When the file cannot be cut.
    pub fn cut_payloads(&self, end: Place) -> Result<(), StoreError> {
        self.backend.payloads().cut(end).map_err(|reason| self.write_error(reason))
    }

    /// Removes a file with all that is in it; it may come back in a power cut.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove_payloads(&self, file: PayloadFile) -> Result<(), StoreError> {
        self.backend.payloads().remove(file).map_err(|reason| self.write_error(reason))
    }
}
