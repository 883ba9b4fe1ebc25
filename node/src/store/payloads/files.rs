//! Payloads in a folder.
//!
//! The files of a segment are numbered by the first entry that may be in them, and so named:
//! `SEGMENT-FIRST`, both of 16 hexadecimal digits. So what is needed of them follows from their
//! names.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::failpoint::may_die;
use crate::store::payloads::{PayloadFile, PayloadLimits, Payloads, Place};
use crate::store::{Reason, folder};

/// The folder of the files, within the database's.
const FOLDER: &str = "payloads";
/// A second sync costs more than a second writing of less than this, as measured for
/// docs/adr/0018-payload-files.md.
const LIMITS: PayloadLimits = PayloadLimits { value: 4 << 10, together: 1 << 20 };
/// A file that has so much gets nothing more: files go as a whole.
const FILE_BYTES_ENOUGH: u64 = 64 << 20;
/// Digits of each of the two numbers in a name.
const DIGITS: usize = 16;

/// The files in a folder.
pub(in crate::store) struct Files {
    folder: PathBuf,
    files: Mutex<BTreeMap<PayloadFile, Held>>,
}

/// A file that is there.
#[derive(Clone)]
struct Held {
    file: Arc<File>,
    length: u64,
    /// Whether a power cut leaves its name.
    is_named: bool,
}

impl Files {
    /// Those in the folder of a database; there may be none yet.
    pub(in crate::store) fn open(database: &Path) -> io::Result<Files> {
        let folder = database.join(FOLDER);
        folder::create(&folder)?;
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let Some(name) = parse(&entry.file_name().to_string_lossy()) else { continue };
            let file = File::options().read(true).write(true).open(entry.path())?;
            let length = file.metadata()?.len();
            files.insert(name, Held { file: Arc::new(file), length, is_named: true });
        }
        Ok(Files { folder, files: Mutex::new(files) })
    }

    fn append(
        &self,
        segment: u64,
        index: u64,
        payloads: &[&[u8]],
        sync: bool,
    ) -> io::Result<Vec<Place>> {
        let (name, held) = self.last(segment, index)?;
        let mut bytes = Vec::with_capacity(payloads.iter().map(|payload| payload.len()).sum());
        let places = payloads.iter().map(|payload| {
            let offset = held.length + bytes.len() as u64;
            bytes.extend_from_slice(payload);
            Place { file: name, offset }
        });
        let places = places.collect();
        may_die("payload-before-write");
        held.file.write_all_at(&bytes, held.length)?;
        may_die("payload-before-sync");
        if sync {
            held.file.sync_data()?;
            if !held.is_named {
                may_die("payload-before-name");
                folder::sync(&self.folder)?;
            }
        }
        may_die("payload-after-sync");
        let length = held.length + bytes.len() as u64;
        self.lock().insert(name, Held { file: held.file, length, is_named: sync || held.is_named });
        Ok(places)
    }

    /// The file to which the segment's next payloads are added, the first of them of the entry
    /// at `index`.
    fn last(&self, segment: u64, index: u64) -> io::Result<(PayloadFile, Held)> {
        let of_segment = PayloadFile { segment, first: 0 }..=PayloadFile { segment, first: index };
        let last =
            self.lock().range(of_segment).next_back().map(|(&name, held)| (name, held.clone()));
        if let Some((name, held)) = last
            && held.length < FILE_BYTES_ENOUGH
        {
            return Ok((name, held));
        }
        let name = PayloadFile { segment, first: index };
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(true);
        let file = Arc::new(file.open(self.path(name))?);
        Ok((name, Held { file, length: 0, is_named: false }))
    }

    fn read(&self, place: Place, length: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(held) = self.lock().get(&place.file).cloned() else { return Ok(None) };
        let end = place.offset.checked_add(length as u64);
        if end.is_none_or(|end| end > held.length) {
            return Ok(None);
        }
        let mut payload = vec![0; length];
        held.file.read_exact_at(&mut payload, place.offset)?;
        Ok(Some(payload))
    }

    fn cut(&self, end: Place) -> io::Result<()> {
        let mut files = self.lock();
        if let Some(held) = files.get_mut(&end.file)
            && held.length > end.offset
        {
            may_die("payload-before-cut");
            held.file.set_len(end.offset)?;
            held.length = end.offset;
        }
        Ok(())
    }

    fn remove(&self, name: PayloadFile) -> io::Result<()> {
        may_die("payload-before-remove");
        if self.lock().remove(&name).is_some() {
            fs::remove_file(self.path(name))?;
        }
        may_die("payload-after-remove");
        Ok(())
    }

    fn path(&self, name: PayloadFile) -> PathBuf {
        let PayloadFile { segment, first } = name;
        self.folder.join(format!("{segment:016x}-{first:016x}"))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PayloadFile, Held>> {
        // Whoever panicked held it for one change: what is there is whole.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Payloads for Files {
    fn limits(&self) -> PayloadLimits {
        LIMITS
    }

    fn append(
        &self,
        segment: u64,
        index: u64,
        payloads: &[&[u8]],
        sync: bool,
    ) -> Result<Vec<Place>, Reason> {
        Files::append(self, segment, index, payloads, sync).map_err(|error| of_files(&error))
    }

    fn read(&self, place: Place, length: usize) -> Result<Option<Vec<u8>>, Reason> {
        Files::read(self, place, length).map_err(|error| of_files(&error))
    }

    fn files(&self) -> Result<Vec<PayloadFile>, Reason> {
        Ok(self.lock().keys().copied().collect())
    }

    fn cut(&self, end: Place) -> Result<(), Reason> {
        Files::cut(self, end).map_err(|error| of_files(&error))
    }

    fn remove(&self, file: PayloadFile) -> Result<(), Reason> {
        Files::remove(self, file).map_err(|error| of_files(&error))
    }
}

/// What a file's name says, if it is one of these files.
fn parse(name: &str) -> Option<PayloadFile> {
    let (segment, first) = name.split_once('-')?;
    let number = |digits: &str| {
        let is_whole = digits.len() == DIGITS;
        is_whole.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
    };
    Some(PayloadFile { segment: number(segment)?, first: number(first)? })
}

pub(in crate::store) fn of_files(error: &io::Error) -> Reason {
    format!("{FOLDER}: {error}")
}
