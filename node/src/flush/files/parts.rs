//! Where the bytes of a rebuilt file are on disk.
//!
//! A file begins as `ID.SESSION`. If it is to have parts, it goes on in the folder `ID.SESSION~`, in
//! files that are called after the place of their first byte, in 15 digits or more. Full parts
//! may be compressed, and the first ones may be gone. So names say what there is, whatever was
//! wanted when.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use zeekstd::{DecodeOptions, Decoder};

use super::{FilesError, system};
use crate::store::folder;

/// What is read of a file at once.
pub(super) const PIECE_BYTES: u64 = 256 << 10;
const COMPRESSED: &str = ".zst";
const UNFINISHED: &str = ".new";
/// Digits with which names sort as the places do, up to a petabyte.
const DIGITS: usize = 15;

/// One part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The place of its first byte in the file.
    pub(super) from: u64,
    pub(super) path: PathBuf,
    pub(super) is_compressed: bool,
}

/// The parts of a file that there are, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    all: Vec<Part>,
    /// What is not needed: of a part that is there as it was, too, or half written.
    rest: Vec<PathBuf>,
}

impl Parts {
    /// Those of the file that begins at a path.
    pub(super) fn find(path: &Path) -> Result<Parts, FilesError> {
        let mut parts = Parts::default();
        // By place, first as it is: while one follows on the other, both say the same.
        let mut found = BTreeMap::new();
        if path.try_exists().map_err(system("find", path))? {
            found.insert((0, false), path.to_owned());
        }
        let folder = folder_of(path);
        match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(system("list", &folder)(error)),
            Ok(entries) => {
                for entry in entries {
                    let entry = entry.map_err(system("list", &folder))?;
                    match entry.file_name().to_str().and_then(of_name) {
                        Some(part) => drop(found.insert(part, entry.path())),
                        None => parts.rest.push(entry.path()),
                    }
                }
            }
        }
        for ((from, is_compressed), path) in found {
            if parts.all.last().is_some_and(|last| last.from == from) {
                parts.rest.push(path);
            } else {
                parts.all.push(Part { from, path, is_compressed });
            }
        }
        Ok(parts)
    }

    /// The place of the first byte that is there.
    pub(super) fn begin(&self) -> u64 {
        self.all.first().map_or(0, |first| first.from)
    }

    /// The place behind the last byte that is there.
    pub(super) fn end(&self) -> Result<u64, FilesError> {
        self.all.last().map_or(Ok(0), |last| Ok(last.from + length(&last.path)?))
    }

    /// Whether all is there that was before a place, or all of that is gone.
    pub(super) fn reach(&self, place: u64) -> Result<bool, FilesError> {
        let Some(last) = place.checked_sub(1) else { return Ok(true) };
        match self.at(last) {
            // Nothing is compressed that is not whole.
            Some(part) if self.all[part].is_compressed => Ok(true),
            Some(part) => Ok(self.all[part].from + length(&self.all[part].path)? >= place),
            None => Ok(self.begin() == place),
        }
    }

    /// All of them, each with the place behind its last byte; `None` for the last one.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Part, Option<u64>)> {
        let ends = self.all.iter().skip(1).map(|next| Some(next.from)).chain([None]);
        self.all.iter().zip(ends)
    }

    /// The number of the part with the byte at a place.
    fn at(&self, place: u64) -> Option<usize> {
        self.all.partition_point(|part| part.from <= place).checked_sub(1)
    }

    /// Removes all of them.
    pub(super) fn remove(path: &Path) -> Result<(), FilesError> {
        let Parts { all, rest } = Parts::find(path)?;
        for path in all.into_iter().map(|part| part.path).chain(rest) {
            remove(&path)?;
        }
        let folder = folder_of(path);
        match fs::remove_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(system("remove", &folder)(error))
            }
            _ => Ok(()),
        }
    }
}

/// A file that is written, part by part.
pub(super) struct Writing {
    path: PathBuf,
    parts: Parts,
    /// Bytes after which a part is full, if the file is to have parts.
    part_bytes: Option<u64>,
    /// The part that was written last, and the place of its first byte.
    written: Option<(u64, File)>,
}

impl Writing {
    /// Opens a file that is to have `length` bytes, and maybe more, or makes it.
    pub(super) fn open(
        path: PathBuf,
        length: u64,
        part_bytes: Option<u64>,
    ) -> Result<Writing, FilesError> {
        let mut parts = Parts::find(&path)?;
        for path in parts.rest.drain(..) {
            remove(&path)?;
        }
        // Where no checkpoint has anything, a death may have left any of the parts.
        if length == 0 && parts.begin() > 0 {
            for Part { path, .. } in parts.all.drain(..) {
                remove(&path)?;
            }
        }
        if !parts.reach(length)? {
            let found = parts.end()?;
            return Err(FilesError::Short { path, found, expected: length });
        }
        let mut file = Writing { path, parts, part_bytes, written: None };
        if file.parts.all.is_empty() {
            file.begin_part(0)?;
        }
        file.unpack_behind(length)?;
        Ok(file)
    }

    /// Writes bytes at a place.
    pub(super) fn write_at(&mut self, mut at: u64, mut bytes: &[u8]) -> Result<(), FilesError> {
        while !bytes.is_empty() {
            let (part, end) = self.part_for(at)?;
            let room = usize::try_from(end - at).unwrap_or(usize::MAX);
            let (fits, rest) = bytes.split_at(bytes.len().min(room));
            let Part { from, ref path, .. } = self.parts.all[part];
            let file = match self.written.take() {
                Some((open, file)) if open == from => file,
                _ => File::options().write(true).open(path).map_err(system("open", path))?,
            };
            file.write_all_at(fits, at - from).map_err(system("write", path))?;
            self.written = Some((from, file));
            (at, bytes) = (at + fits.len() as u64, rest);
        }
        Ok(())
    }

    /// The part that a byte is to be written to, and the place where that ends.
    fn part_for(&mut self, place: u64) -> Result<(usize, u64), FilesError> {
        let gone = || FilesError::Gone { path: self.path.clone(), begin: self.parts.begin() };
        let part = self.parts.at(place).ok_or_else(gone)?;
        if let Some(next) = self.parts.all.get(part + 1) {
            return Ok((part, next.from));
        }
        let end = |from: u64| self.part_bytes.map_or(u64::MAX, |bytes| from.saturating_add(bytes));
        let full = end(self.parts.all[part].from);
        if place < full {
            return Ok((part, full));
        }
        let end = end(place);
        self.begin_part(place)?;
        Ok((part + 1, end))
    }

    /// Begins another part.
    fn begin_part(&mut self, from: u64) -> Result<(), FilesError> {
        let path = part_path(&self.path, from, false);
        make_folder(&path)?;
        let file = File::create(&path).map_err(system("make", &path))?;
        self.written = Some((from, file));
        self.parts.all.push(Part { from, path, is_compressed: false });
        Ok(())
    }

    /// Begins the file anew, with nothing before a place.
    pub(super) fn restart(&mut self, at: u64) -> Result<(), FilesError> {
        self.written = None;
        for Part { path, .. } in std::mem::take(&mut self.parts.all) {
            remove(&path)?;
        }
        self.begin_part(at)
    }

    /// Cuts off what lies behind a place.
    pub(super) fn cut_off(&mut self, length: u64) -> Result<(), FilesError> {
        while self.parts.all.len() > 1
            && let Some(last) = self.parts.all.pop_if(|last| last.from > length)
        {
            self.written.take_if(|(from, _)| *from == last.from);
            remove(&last.path)?;
        }
        let Some(Part { from, path, .. }) = self.parts.all.last() else { return Ok(()) };
        if self.parts.end()? > length {
            let file = File::options().write(true).open(path);
            let cut = file.and_then(|file| file.set_len(length.saturating_sub(*from)));
            cut.map_err(system("cut", path))?;
        }
        Ok(())
    }

    /// Compressed parts with bytes behind a place become as they were: these are about to be
    /// written again.
    fn unpack_behind(&mut self, place: u64) -> Result<(), FilesError> {
        let ends: Vec<_> = self.parts.iter().map(|(_, end)| end.unwrap_or(u64::MAX)).collect();
        for (part, end) in self.parts.all.iter_mut().zip(ends) {
            if part.is_compressed && end > place {
                let plain = part_path(&self.path, part.from, false);
                let unfinished = unfinished(&self.path, part.from);
                let unpack = || {
                    let mut from =
                        Decoder::new(File::open(&part.path)?).map_err(io::Error::other)?;
                    let mut to = File::create(&unfinished)?;
                    io::copy(&mut from, &mut to)?;
                    to.sync_all()?;
                    fs::rename(&unfinished, &plain)
                };
                unpack().map_err(system("unpack", &part.path))?;
                sync_folder(&plain)?;
                remove(&part.path)?;
                (part.path, part.is_compressed) = (plain, false);
            }
        }
        Ok(())
    }
}

/// A part of a file, read as it is taken.
pub struct Pieces {
    path: PathBuf,
    left: Range<u64>,
    open: Option<Source>,
}

/// What is read at the moment.
struct Source {
    path: PathBuf,
    /// The place behind its last byte.
    end: u64,
    bytes: Box<dyn Read + Send>,
}

impl Pieces {
    /// These bytes of the file that begins at a path, which are to be there.
    pub(super) fn open(path: PathBuf, bytes: Range<u64>) -> Result<Pieces, FilesError> {
        let open = (!bytes.is_empty()).then(|| Source::open(&path, bytes.start)).transpose()?;
        Ok(Pieces { path, left: bytes, open })
    }

    fn read(&mut self) -> Result<Bytes, FilesError> {
        let at = self.left.start;
        let source = match &mut self.open {
            Some(source) if source.end > at => source,
            open => open.insert(Source::open(&self.path, at)?),
        };
        let bytes = self.left.end.min(source.end).saturating_sub(at).min(PIECE_BYTES);
        let mut piece = vec![0; bytes as usize];
        let read = match bytes {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => source.bytes.read_exact(&mut piece),
        };
        read.map_err(system("read", &source.path))?;
        self.left.start += bytes;
        Ok(piece.into())
    }
}

impl Iterator for Pieces {
    type Item = Result<Bytes, FilesError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            // Nothing comes after an error.
            self.left.start = self.left.end;
        }
        Some(read)
    }
}

impl Source {
    /// The part with the byte at a place.
    fn open(path: &Path, at: u64) -> Result<Source, FilesError> {
        // What was found may have been compressed meanwhile.
        Source::open_once(path, at).or_else(|_| Source::open_once(path, at))
    }

    fn open_once(path: &Path, at: u64) -> Result<Source, FilesError> {
        let parts = Parts::find(path)?;
        let gone = || FilesError::Gone { path: path.to_owned(), begin: parts.begin() };
        let none = || system("open", path)(io::ErrorKind::NotFound.into());
        let found = parts.at(at).ok_or_else(|| if parts.all.is_empty() { none() } else { gone() });
        let (part, end) = (&parts.all[found?], parts.all.iter().find(|part| part.from > at));
        let path = part.path.clone();
        let mut file = File::open(&path).map_err(system("open", &path))?;
        let skipped = at - part.from;
        let end = match end {
            Some(next) => next.from,
            None => part.from + file.metadata().map_err(system("measure", &path))?.len(),
        };
        let bytes: Box<dyn Read + Send> = if part.is_compressed {
            let decoder = DecodeOptions::new(file).offset(skipped).into_decoder();
            Box::new(decoder.map_err(|error| system("read", &path)(io::Error::other(error)))?)
        } else {
            file.seek(SeekFrom::Start(skipped)).map_err(system("read", &path))?;
            Box::new(file)
        };
        Ok(Source { path, end, bytes })
    }
}

/// Where the parts of a file are that follow on its first one, or are compressed.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    let mut folder = path.as_os_str().to_owned();
    folder.push("~");
    folder.into()
}

/// Where a part of a file is.
pub(super) fn part_path(path: &Path, from: u64, is_compressed: bool) -> PathBuf {
    match (from, is_compressed) {
        (0, false) => path.to_owned(),
        (_, false) => folder_of(path).join(format!("{from:0DIGITS$}")),
        (_, true) => folder_of(path).join(format!("{from:0DIGITS$}{COMPRESSED}")),
    }
}

/// Where a part is made that is to replace another one.
pub(super) fn unfinished(path: &Path, from: u64) -> PathBuf {
    folder_of(path).join(format!("{from:0DIGITS$}{UNFINISHED}"))
}

/// The place of its first byte, and whether it is compressed.
fn of_name(name: &str) -> Option<(u64, bool)> {
    let (digits, is_compressed) =
        name.strip_suffix(COMPRESSED).map_or((name, false), |digits| (digits, true));
    let is_place = digits.len() >= DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    Some((digits.parse().ok().filter(|_| is_place)?, is_compressed))
}

/// Makes the folder that a file is to be in.
pub(super) fn make_folder(of: &Path) -> Result<(), FilesError> {
    let Some(folder) = of.parent() else { return Ok(()) };
    folder::create(folder).map_err(system("make", folder))
}

/// Makes a file's name durable.
pub(super) fn sync_folder(of: &Path) -> Result<(), FilesError> {
    let Some(folder) = of.parent() else { return Ok(()) };
    folder::sync(folder).map_err(system("sync", folder))
}

pub(super) fn remove(path: &Path) -> Result<(), FilesError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(system("remove", path)(error)),
        _ => Ok(()),
    }
}

fn length(path: &Path) -> Result<u64, FilesError> {
    Ok(fs::metadata(path).map_err(system("measure", path))?.len())
}

#[cfg(test)]
mod tests;
