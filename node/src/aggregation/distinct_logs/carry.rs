//! What outlives the process of an open window: its runs, made durable.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::FoldError;
use super::memory::Sizes;
use super::records::SlotRecords;
use super::spill::CarriedRuns;

/// A window as it was when it was carried. Its runs are in the scratch folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    pub(super) records: SlotRecords,
    pub(super) sizes: Sizes,
    pub(super) runs: CarriedRuns,
}

impl Carried {
    /// The name of its file in the scratch folder.
    pub fn file(&self) -> &str {
        &self.runs.file
    }

    /// The same, in a file of another name.
    pub fn in_file(mut self, file: String) -> Carried {
        self.runs.file = file;
        self
    }
}

/// Removes what earlier lives left in the folder `scratch`, but the files of `carried`.
///
/// # Errors
/// When the folder cannot be read or a file cannot be removed.
pub fn remove_all_but(scratch: &Path, carried: &[Carried]) -> Result<(), FoldError> {
    let error = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| FoldError::Scratch { operation, path, source }
    };
    let entries = match fs::read_dir(scratch) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(error("list", scratch))?,
    };
    for entry in entries {
        let entry = entry.map_err(error("list", scratch))?;
        let name = entry.file_name();
        if !carried.iter().any(|carried| *carried.file() == *name) {
            fs::remove_file(entry.path()).map_err(error("remove", &entry.path()))?;
        }
    }
    Ok(())
}
