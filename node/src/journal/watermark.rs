//! How far this machine has acknowledged: the one thing that the database cannot say.
//!
//! Recovery takes a damaged last record of the write-ahead log for a torn write that
//! nobody was told about. After a crash of the process alone nothing is torn, so the
//! writer notes behind each sync, beside the database, how far it got. The note is
//! not synced: after a power cut it may be older than the journal, which proves
//! nothing, but it is never ahead of it unless something acknowledged is gone.

use crate::journal::Position;
use crate::store::{Store, StoreError};

const NOTE_BYTES: usize = 20;

/// The last entry that is noted as acknowledged, if there is one.
pub(super) fn acknowledged(store: &Store) -> Result<Option<Position>, StoreError> {
    Ok(decode(&store.note()?))
}

/// Notes that the entry at `position` is acknowledged.
pub(super) fn advance(store: &Store, position: Position) -> Result<(), StoreError> {
    store.write_note(&encode(position))
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
fn decode(note: &[u8]) -> Option<Position> {
    let note = note.first_chunk::<NOTE_BYTES>()?;
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
    use crate::store::Disk;

    #[test]
    fn a_note_survives_and_a_torn_one_is_ignored() {
        let disk = Disk::default();
        let store = Store::in_memory(&disk).unwrap();
        let position = Position { segment: 2, index: 77 };
        assert_eq!(acknowledged(&store).unwrap(), None);
        advance(&store, position).unwrap();
        drop(store);
        let store = Store::in_memory(&disk).unwrap();
        assert_eq!(acknowledged(&store).unwrap(), Some(position));
        let mut torn = encode(position);
        torn[7] = 0xff;
        store.write_note(&torn).unwrap();
        assert_eq!(acknowledged(&store).unwrap(), None);
    }
}
