//! Entries on disk: one file, to which one batch after the other is appended and synced, and which
//! is replaced as a whole when it has grown too long.
//!
//! The file begins with [`MAGIC`]. A batch is a header of twelve bytes (the body's length, the
//! body's CRC-32, and the CRC-32 of these eight bytes; all little-endian) and a body
//! (`format.rs`), which has the batch's number in the file, from 1.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use super::format;
use crate::tail::session::Entry;

const MAGIC: &[u8; 8] = b"SHFTAIL1";
const HEADER_BYTES: usize = 12;
/// What a disk writes at once, at least.
const SECTOR_BYTES: usize = 512;
/// So many zeros in a row within a batch do not happen by chance.
const ZEROS_MIN: usize = 24;

/// The file `log` of a state folder.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    length: u64,
    batches: u64,
}

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// It cannot be read or written.
    #[error("open {}", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It has something else, or was made by a later version.
    #[error("{} is no state that this version of sheaf tail can read", .0.display())]
    Foreign(PathBuf),
    /// What was once synced is there no more.
    #[error(
        "{} is damaged at byte {at}: {reason}; what was sent is known from it alone, so nothing \
         goes on by itself. Restore it, or start with another folder, which sends all files again",
        path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where.
        at: usize,
        /// What is wrong.
        reason: &'static str,
    },
}

/// What stands at some place of the log.
enum Found<'a> {
    Batch {
        body: &'a [u8],
        end: usize,
    },
    /// Something that was being written when the machine or the agent died.
    Torn,
    Damage(&'static str),
}

impl Log {
    /// Opens the log of a folder, or begins one, and reads its entries. What a crash cut off at its
    /// end is removed.
    pub(crate) fn open(folder: &Path) -> Result<(Log, Vec<Entry>), LogError> {
        let path = folder.join("log");
        let unusable = |source| LogError::Unusable { path: path.clone(), source };
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok((Log::create(&path, []).map_err(unusable)?, Vec::new()));
            }
            read => read.map_err(unusable)?,
        };
        let Contents { entries, end, batches } = read(&path, &bytes)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(unusable)?;
        if end < bytes.len() {
            file.set_len(end as u64).and_then(|()| file.sync_all()).map_err(unusable)?;
        }
        Ok((Log { path, file, length: end as u64, batches }, entries))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How long it is, in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Appends a batch and makes it durable. After an error the log has to be replaced.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let batch = frame(self.batches + 1, entries);
        self.file.write_all(&batch)?;
        self.file.sync_data()?;
        self.length += batch.len() as u64;
        self.batches += 1;
        Ok(())
    }

    /// Puts a log with these entries alone in its place.
    pub(crate) fn replace(&mut self, entries: impl IntoIterator<Item = Entry>) -> io::Result<()> {
        *self = Log::create(&self.path, entries)?;
        Ok(())
    }

    /// Either the whole new log is there after a crash or what was there before.
    fn create(path: &Path, entries: impl IntoIterator<Item = Entry>) -> io::Result<Log> {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let bytes = [&MAGIC[..], &frame(1, &entries)].concat();
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(Log { path: path.to_owned(), file, length: bytes.len() as u64, batches: 1 })
    }
}

struct Contents {
    entries: Vec<Entry>,
    /// Where what is readable ends.
    end: usize,
    batches: u64,
}

fn read(path: &Path, bytes: &[u8]) -> Result<Contents, LogError> {
    let damaged = |at, reason| LogError::Damaged { path: path.to_owned(), at, reason };
    if !bytes.starts_with(MAGIC) {
        return Err(LogError::Foreign(path.to_owned()));
    }
    let mut contents = Contents { entries: Vec::new(), end: MAGIC.len(), batches: 0 };
    while contents.end < bytes.len() {
        let at = contents.end;
        let (body, end) = match find(bytes, at) {
            Found::Batch { body, end } => (body, end),
            // The first batch was renamed into its place as a whole.
            Found::Torn if contents.batches > 0 => break,
            Found::Torn => return Err(damaged(at, "its beginning is cut off")),
            Found::Damage(reason) => return Err(damaged(at, reason)),
        };
        let (number, entries) =
            format::decode(body).ok_or_else(|| damaged(at, "its entries cannot be read"))?;
        if number != contents.batches + 1 {
            return Err(damaged(at, "a batch of entries is missing"));
        }
        contents.entries.extend(entries);
        (contents.end, contents.batches) = (end, number);
    }
    Ok(contents)
}

fn find(bytes: &[u8], at: usize) -> Found<'_> {
    let rest = &bytes[at..];
    let Some((header, rest)) = rest.split_at_checked(HEADER_BYTES) else {
        return Found::Torn;
    };
    let word = |index: usize| {
        header[index..index + 4].iter().rev().fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
    };
    if crc32fast::hash(&header[..8]) != word(8) {
        let is_torn = header.iter().all(|byte| *byte == 0) || lacks_a_sector(header, at);
        return if is_torn { Found::Torn } else { Found::Damage("a length cannot be right") };
    }
    let Some(body) = rest.get(..word(0) as usize) else {
        return Found::Torn;
    };
    let end = at + HEADER_BYTES + body.len();
    if crc32fast::hash(body) == word(4) {
        return Found::Batch { body, end };
    }
    // The next batch is begun only when this one is durable.
    let is_last = end == bytes.len();
    if is_last && lacks_a_sector(body, at + HEADER_BYTES) {
        return Found::Torn;
    }
    Found::Damage("its checksum does not fit")
}

/// Whether a part of it never got to the disk, and reads as zeros.
fn lacks_a_sector(bytes: &[u8], at: usize) -> bool {
    let (first, rest) = bytes.split_at(bytes.len().min(SECTOR_BYTES - at % SECTOR_BYTES));
    std::iter::once(first)
        .chain(rest.chunks(SECTOR_BYTES))
        .any(|part| part.len() >= ZEROS_MIN && part.iter().all(|byte| *byte == 0))
}

fn frame(number: u64, entries: &[Entry]) -> Vec<u8> {
    let body = format::encode(number, entries);
    let length = (body.len() as u32).to_le_bytes();
    let header = [length, crc32fast::hash(&body).to_le_bytes()].concat();
    let check = crc32fast::hash(&header).to_le_bytes();
    [&header[..], &check, &body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::session::tests::{cut, session};

    /// A log of three batches of one entry each, and where each ends.
    fn three() -> (tempfile::TempDir, PathBuf, [usize; 3]) {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, entries) = Log::open(folder.path()).unwrap();
        assert_eq!(entries, []);
        let entries = [Entry::Known(session(1, "a", 5)), cut(1, 1), cut(1, 2)];
        let ends = entries.map(|entry| {
            log.append(&[entry]).unwrap();
            log.length() as usize
        });
        (folder, log.path.clone(), ends)
    }

    fn reopened(path: &Path) -> Result<usize, String> {
        let opened = Log::open(path.parent().unwrap());
        opened.map(|(_, entries)| entries.len()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_torn_end_is_cut_off_wherever_it_is_torn() {
        let (_folder, path, ends) = three();
        let whole = fs::read(&path).unwrap();
        for length in ends[1]..ends[2] {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(reopened(&path), Ok(2), "{length}");
            assert_eq!(fs::metadata(&path).unwrap().len(), ends[1] as u64);
        }
        fs::write(&path, [&whole[..ends[1]], &vec![0; 700]].concat()).unwrap();
        assert_eq!(reopened(&path), Ok(2));
        let (mut log, _) = Log::open(path.parent().unwrap()).unwrap();
        log.append(&[cut(1, 2)]).unwrap();
        assert_eq!(reopened(&path), Ok(3));
    }

    #[test]
    fn a_sector_that_never_got_to_the_disk_is_a_torn_end() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(folder.path()).unwrap();
        log.append(&[Entry::Known(session(1, "a", 5))]).unwrap();
        log.append(&(1..100).map(|seq| cut(1, seq)).collect::<Vec<_>>()).unwrap();
        let mut bytes = fs::read(&log.path).unwrap();
        assert!(bytes.len() > 3 * SECTOR_BYTES);
        bytes[2 * SECTOR_BYTES..3 * SECTOR_BYTES].fill(0);
        fs::write(&log.path, bytes).unwrap();
        assert_eq!(reopened(&log.path), Ok(1));
    }

    #[test]
    fn a_flipped_byte_is_refused_wherever_it_is() {
        let (_folder, path, _) = three();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            let error = reopened(&path).unwrap_err();
            assert!(error.contains("is damaged at byte") || at < MAGIC.len(), "{at}: {error}");
            assert_eq!(fs::read(&path).unwrap(), bytes, "it is left as it was");
        }
    }

    #[test]
    fn a_missing_batch_is_refused() {
        let (_folder, path, ends) = three();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..ends[0]], &whole[ends[1]..]].concat()).unwrap();
        assert!(reopened(&path).unwrap_err().contains("a batch of entries is missing"));
    }

    #[test]
    fn a_replaced_log_has_what_it_was_given() {
        let (_folder, path, _) = three();
        let (mut log, entries) = Log::open(path.parent().unwrap()).unwrap();
        log.replace(entries[..1].to_vec()).unwrap();
        log.append(&entries[1..2]).unwrap();
        assert_eq!(reopened(&path), Ok(2));
    }
}
