//! Where the bytes of files go: stdout, or a file.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::remote::GetError;
use crate::output;

/// Takes bytes.
pub(super) enum Sink {
    /// Everybody sees them.
    Stdout,
    /// They are kept.
    Disk {
        /// Where.
        path: PathBuf,
        /// What is written to its end.
        file: File,
    },
}

impl Sink {
    /// Stdout, or a file that is not there yet, or is gone on with, or is replaced.
    ///
    /// # Errors
    /// If the file is there, or cannot be opened.
    pub(super) fn open(
        path: Option<&Path>,
        resumes: bool,
        replaces: bool,
    ) -> Result<Sink, GetError> {
        let Some(path) = path else { return Ok(Sink::Stdout) };
        let mut options = File::options();
        options.read(true).write(true);
        match (resumes, replaces) {
            (true, _) => options.create(true),
            (false, true) => options.create(true).truncate(true),
            (false, false) => options.create_new(true),
        };
        let path = path.to_owned();
        match options.open(&path) {
            Ok(file) => Ok(Sink::Disk { path, file }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let reason = "it is there already: --resume goes on behind what it has, --force \
                              replaces it";
                Err(GetError::Kept { path, reason: reason.to_owned() })
            }
            Err(source) => Err(GetError::File { operation: "open", path, source }),
        }
    }

    fn with_file<T>(
        &mut self,
        operation: &'static str,
        act: impl FnOnce(&mut File) -> io::Result<T>,
        otherwise: T,
    ) -> Result<T, GetError> {
        match self {
            Sink::Stdout => Ok(otherwise),
            Sink::Disk { path, file } => {
                act(file).map_err(|source| GetError::File { operation, path: path.clone(), source })
            }
        }
    }

    /// How many bytes are there already.
    ///
    /// # Errors
    /// If the system does not say.
    pub(super) fn length(&mut self) -> Result<u64, GetError> {
        self.with_file("measure", |file| file.seek(SeekFrom::End(0)), 0)
    }

    /// The last so many of them.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn last(&mut self, bytes: u64) -> Result<Vec<u8>, GetError> {
        let read = |file: &mut File| {
            let from = file.seek(SeekFrom::End(0))?.saturating_sub(bytes);
            file.seek(SeekFrom::Start(from))?;
            let mut last = Vec::new();
            file.read_to_end(&mut last)?;
            Ok(last)
        };
        self.with_file("read", read, Vec::new())
    }

    /// Why this is not gone on with.
    pub(super) fn foreign(&self, reason: &str) -> GetError {
        let path = match self {
            Sink::Stdout => PathBuf::from("stdout"),
            Sink::Disk { path, .. } => path.clone(),
        };
        GetError::Kept { path, reason: reason.to_owned() }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// If stdout is closed, or the disk is full.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), GetError> {
        match self {
            Sink::Stdout => output::bytes(bytes).map_err(GetError::Print),
            Sink::Disk { .. } => self.with_file("write", |file| file.write_all(bytes), ()),
        }
    }

    /// Makes durable what was taken.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(super) fn finish(&mut self) -> Result<(), GetError> {
        self.with_file("sync", |file| file.sync_all(), ())
    }
}
