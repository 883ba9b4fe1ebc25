//! What an aggregation wants of its files in the long run: what is old is removed from them, and
//! parts that are full are compressed. Each owner does that for itself, and only with what no one
//! ever writes again: what a completed checkpoint has.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use zeekstd::{EncodeOptions, FrameSizePolicy};

use super::parts::{Part, Parts, make_folder, part_path, remove, sync_folder, unfinished};
use super::{FileKey, Files, FilesError, Kept, Version, system};
use crate::aggregation::definition::{Compression, LogFiles};
use crate::checkpoint::facts::Slot;
use crate::event::time::{SECOND, UnixNanos};

/// What is compressed as one: a reader unpacks so much to find a byte.
const FRAME_BYTES: u32 = 1 << 20;

/// What is to be done with the files of an aggregation.
pub struct Tidy<'a> {
    /// What the aggregation wants.
    pub wanted: &'a LogFiles,
    /// The time now ..
    pub now: UnixNanos,
    /// .. and since when things may have become old, or full, of which nobody has taken note yet.
    pub since: UnixNanos,
    /// Whether to go on: to compress takes long.
    pub goes_on: &'a dyn Fn() -> bool,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    /// Bytes of files that were removed.
    pub removed: u64,
    /// Bytes of files that were compressed.
    pub compressed: u64,
}

impl Files {
    /// Tidies the files of a slot, of which checkpoints up to a number were completed.
    ///
    /// # Errors
    /// When the database cannot be read, or the system refuses.
    pub fn tidy(
        &self,
        aggregation: u32,
        (slot, checkpoint): (Slot, u64),
        tidy: &Tidy<'_>,
    ) -> Result<Tidied, FilesError> {
        let mut tidied = Tidied::default();
        for (key, kept) in self.of_slot(aggregation, slot)? {
            let complete = kept.as_of(checkpoint);
            if !tidy.is_due(&complete) || !(tidy.goes_on)() {
                continue;
            }
            let length = complete.reached.length;
            let path = self.path(aggregation, &kept.id, key.session);
            tidied.removed += if tidy.is_over(&kept, &complete) {
                self.remove_all(&key, &path, length)?
            } else {
                self.remove_old(&key, &path, length, tidy)?
            };
            tidied.compressed += self.compress(&key, &path, length, tidy)?;
        }
        Ok(tidied)
    }

    /// Removes all that there is of a file of so many bytes, unless it is longer by now: it goes
    /// on behind them.
    fn remove_all(&self, key: &FileKey, path: &Path, length: u64) -> Result<u64, FilesError> {
        let (_turn, openings) = (self.turn(), self.openings());
        let parts = Parts::find(path)?;
        if parts.begin() >= length || openings.has(key) || self.is_shown(key) {
            return Ok(0);
        }
        let end = part_path(path, length, false);
        make_folder(&end)?;
        File::create(&end).map_err(system("make", &end))?;
        sync_folder(&end)?;
        let old = parts.iter().filter(|(part, _)| part.path != end);
        for (Part { path, .. }, _) in old {
            remove(path)?;
        }
        Ok(length - parts.begin())
    }

    /// Removes the first parts of a file, as long as they are full and old.
    fn remove_old(
        &self,
        key: &FileKey,
        path: &Path,
        length: u64,
        tidy: &Tidy<'_>,
    ) -> Result<u64, FilesError> {
        if tidy.wanted.retention.is_none() {
            return Ok(0);
        }
        let (folded, openings) = (self.turn(), self.openings());
        // Where the slot is folded, nobody writes what a checkpoint has.
        if openings.has(key) && !folded.contains(key.slot()) {
            return Ok(0);
        }
        let mut removed = 0;
        for (Part { from, path, .. }, end) in Parts::find(path)?.iter() {
            let Some(end) = end.filter(|end| *end <= length) else { break };
            if !tidy.is_old(written(path)?) {
                break;
            }
            remove(path)?;
            removed += end - from;
        }
        Ok(removed)
    }

    /// Compresses the parts of a file that are full.
    fn compress(
        &self,
        key: &FileKey,
        path: &Path,
        length: u64,
        tidy: &Tidy<'_>,
    ) -> Result<u64, FilesError> {
        if tidy.wanted.compression == Compression::None {
            return Ok(0);
        }
        let mut compressed = 0;
        for (part, end) in Parts::find(path)?.iter() {
            let Some(end) = end.filter(|end| *end <= length) else { break };
            if part.is_compressed || !self.begin_to_compress(key) {
                continue;
            }
            let unfinished = unfinished(path, part.from);
            let made = compressed_to(&unfinished, part, end, tidy.goes_on);
            if made? && self.replace(part, &part_path(path, part.from, true), &unfinished)? {
                compressed += end - part.from;
            } else {
                remove(&unfinished)?;
            }
        }
        Ok(compressed)
    }

    /// Whether nobody writes what a checkpoint has of a file; whoever begins to is noticed.
    fn begin_to_compress(&self, key: &FileKey) -> bool {
        let (folded, mut openings) = (self.turn(), self.openings());
        let is_written = openings.has(key) && !folded.contains(key.slot());
        if !is_written {
            openings.compress(*key);
        }
        !is_written
    }

    /// Puts what was compressed in the place of a part, unless the file was opened meanwhile.
    fn replace(&self, part: &Part, to: &Path, unfinished: &Path) -> Result<bool, FilesError> {
        let (_turn, mut openings) = (self.turn(), self.openings());
        if openings.was_opened() {
            return Ok(false);
        }
        fs::rename(unfinished, to).map_err(system("make", to))?;
        sync_folder(to)?;
        remove(&part.path)?;
        Ok(true)
    }
}

impl Tidy<'_> {
    /// Whether there may be something to do with a file that nobody has done yet.
    fn is_due(&self, complete: &Version) -> bool {
        let is_new = |time: UnixNanos| time >= self.since;
        let expires = complete.grown.and_then(|grown| self.expires(grown));
        complete.grown.is_some_and(is_new)
            || expires.is_some_and(|time| is_new(time) && time <= self.now)
            || self.wanted.part.is_some_and(|part| part.bytes() < complete.reached.length)
    }

    /// Whether nothing was added to a file for so long that all of it is old.
    fn is_over(&self, kept: &Kept, complete: &Version) -> bool {
        kept.now == *complete && complete.grown.is_some_and(|grown| self.is_old(grown))
    }

    fn is_old(&self, written: UnixNanos) -> bool {
        self.expires(written).is_some_and(|time| time <= self.now)
    }

    fn expires(&self, written: UnixNanos) -> Option<UnixNanos> {
        let seconds = u64::from(self.wanted.retention?.seconds());
        Some(UnixNanos(written.0.saturating_add(seconds.saturating_mul(SECOND))))
    }
}

/// Compresses a part into a file that is durable; `false` if that was not to go on.
pub(super) fn compressed_to(
    to: &Path,
    part: &Part,
    end: u64,
    goes_on: &dyn Fn() -> bool,
) -> Result<bool, FilesError> {
    make_folder(to)?;
    let compress = || {
        let (mut from, mut file) = (File::open(&part.path)?, File::create(to)?);
        let options = EncodeOptions::new().checksum_flag(true);
        let options = options.frame_size_policy(FrameSizePolicy::Uncompressed(FRAME_BYTES));
        let mut encoder = options.into_encoder(&mut file).map_err(io::Error::other)?;
        let (mut piece, mut left) = (vec![0; FRAME_BYTES as usize], end - part.from);
        while left > 0 {
            if !goes_on() {
                return Ok(false);
            }
            let bytes = left.min(u64::from(FRAME_BYTES));
            let piece = &mut piece[..bytes as usize];
            from.read_exact(piece)?;
            encoder.write_all(piece)?;
            left -= bytes;
        }
        encoder.finish().map_err(io::Error::other)?;
        // Its age is what counts.
        file.set_modified(from.metadata()?.modified()?)?;
        file.sync_all()?;
        Ok(true)
    };
    compress().map_err(system("compress", &part.path))
}

/// When a file was written last.
fn written(path: &Path) -> Result<UnixNanos, FilesError> {
    let modified = fs::metadata(path).and_then(|found| found.modified());
    let modified: SystemTime = modified.map_err(system("measure", path))?;
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(UnixNanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)))
}
