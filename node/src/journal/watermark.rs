//! How far this machine has acknowledged: the one thing that the database cannot say.
//!
//! Recovery takes a damaged last record of the write-ahead log for a torn write that
//! nobody was told about. After a crash of the process alone nothing is torn, so the
//! writer notes behind each sync, in a file of its own, how far it got. The note is
//! not synced: after a power cut it may be older than the journal, which proves
//! nothing, but it is never ahead of it unless something acknowledged is gone.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::journal::Position;

const FILE_NAME: &str = "ACKNOWLEDGED";
const NOTE_BYTES: usize = 20;

/// The open note.
pub struct Watermark {
    file: File,
}

impl Watermark {
    /// Where the note of the database in `folder` is kept.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join(FILE_NAME)
    }

    /// Opens the note in `folder`, or makes an empty one.
    ///
    /// # Errors
    /// When the file cannot be opened or read.
    pub fn open(folder: &Path) -> io::Result<(Watermark, Option<Position>)> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(Watermark::path(folder))?;
        let mut note = [0; NOTE_BYTES];
        let known = match file.read_exact_at(&mut note, 0) {
            Ok(()) => decode(&note),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(error),
        };
        Ok((Watermark { file }, known))
    }

    /// Notes that the entry at `position` is acknowledged.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn advance(&self, position: Position) -> io::Result<()> {
        self.file.write_all_at(&encode(position), 0)
    }
}

fn encode(position: Position) -> [u8; NOTE_BYTES] {
    let mut note = [0; NOTE_BYTES];
    note[4..12].copy_from_slice(&position.segment.to_le_bytes());
    note[12..].copy_from_slice(&position.index.to_le_bytes());
    let checksum = crc32fast::hash(&note[4..]);
    note[..4].copy_from_slice(&checksum.to_le_bytes());
    note
}

/// A note that was torn by a power cut proves nothing, as an old one does.
fn decode(note: &[u8; NOTE_BYTES]) -> Option<Position> {
    let mut checksum = [0; 4];
    let (mut segment, mut index) = ([0; 8], [0; 8]);
    checksum.copy_from_slice(&note[..4]);
    segment.copy_from_slice(&note[4..12]);
    index.copy_from_slice(&note[12..]);
    (u32::from_le_bytes(checksum) == crc32fast::hash(&note[4..])).then(|| Position {
        segment: u64::from_le_bytes(segment),
        index: u64::from_le_bytes(index),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_survives_and_a_torn_one_is_ignored() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let position = Position { segment: 2, index: 77 };
        let (watermark, known) = Watermark::open(folder.path())?;
        assert_eq!(known, None);
        watermark.advance(position)?;
        assert_eq!(Watermark::open(folder.path())?.1, Some(position));
        watermark.file.write_all_at(&[0xff], 7)?;
        assert_eq!(Watermark::open(folder.path())?.1, None);
        Ok(())
    }
}
