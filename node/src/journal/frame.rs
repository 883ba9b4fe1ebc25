//! An entry's bytes in the database: a frame, then the packed entry.
//!
//! ```text
//! 0..4   checksum of the bytes 4..52 and of the entry's position (CRC-32)
//! 4..8   checksum of the packed entry (CRC-32)
//! 8..16  stamp, nanoseconds since the epoch
//! 16..24 records in all entries before this one, since the journal began
//! 24..32 records in this entry
//! 32..40 chunks in all entries before this one, since the journal began
//! 40..48 chunks in this entry
//! 48..52 bytes of the packed entry
//! 52..   the packed entry
//! ```
//! All numbers are little-endian. The position is the key and is not repeated, but
//! the checksum covers it, so that an entry cannot stand in another one's place.

use crate::event::time::UnixNanos;
use crate::journal::{Events, Position};

/// The frame's length: what an appender leaves free in front of the packed entry.
pub const FRAME_BYTES: usize = 52;

/// What the frame says of its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// When the entry was committed.
    pub stamp: UnixNanos,
    /// What all entries before this one carry, since the journal began.
    pub before: Events,
    /// What this entry carries.
    pub events: Events,
}

/// Why stored bytes are not the entry that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamagedFrame {
    /// There are fewer bytes, or more, than the frame says.
    #[error("its length is wrong")]
    Length,
    /// The frame's checksum does not match: a byte changed, or it is another entry's.
    #[error("the checksum of its frame is wrong")]
    Frame,
    /// The packed entry's checksum does not match.
    #[error("the checksum of its content is wrong")]
    Content,
    /// The packed entry stands in a payload file, which does not have it.
    #[error("its payload file lacks its content")]
    Payload,
}

/// Fills in the room in front of a packed entry; all but its position and stamp can
/// be done by whoever packs it.
///
/// `frame` is longer than [`FRAME_BYTES`] by the packed entry.
pub fn checksum_content(frame: &mut [u8]) {
    let content = crc32fast::hash(&frame[FRAME_BYTES..]);
    let length = (frame.len() - FRAME_BYTES) as u32;
    frame[4..8].copy_from_slice(&content.to_le_bytes());
    frame[48..52].copy_from_slice(&length.to_le_bytes());
}

/// Completes a frame whose content has its checksum.
pub fn seal(frame: &mut [u8], position: Position, header: Header) {
    let Header { stamp, before, events } = header;
    frame[8..16].copy_from_slice(&stamp.0.to_le_bytes());
    frame[16..24].copy_from_slice(&before.records.to_le_bytes());
    frame[24..32].copy_from_slice(&events.records.to_le_bytes());
    frame[32..40].copy_from_slice(&before.chunks.to_le_bytes());
    frame[40..48].copy_from_slice(&events.chunks.to_le_bytes());
    let checksum = frame_checksum(&frame[4..FRAME_BYTES], position);
    frame[..4].copy_from_slice(&checksum.to_le_bytes());
}

/// Checks a stored entry, and returns what its frame says and the packed entry.
///
/// # Errors
/// When any byte differs from what was written there.
pub fn open(frame: &[u8], position: Position) -> Result<(Header, &[u8]), DamagedFrame> {
    let (header, content, entry) = head(frame, position)?;
    content.check(entry)?;
    Ok((header, entry))
}

/// What a frame says of the packed entry, wherever that stands.
pub(super) struct Content {
    pub(super) bytes: usize,
    checksum: u32,
}

impl Content {
    /// Refuses what is not the packed entry.
    pub(super) fn check(&self, entry: &[u8]) -> Result<(), DamagedFrame> {
        if entry.len() != self.bytes {
            Err(DamagedFrame::Length)
        } else if crc32fast::hash(entry) != self.checksum {
            Err(DamagedFrame::Content)
        } else {
            Ok(())
        }
    }
}

/// Checks a frame, and returns what it says and what stands behind it.
pub(super) fn head(
    row: &[u8],
    position: Position,
) -> Result<(Header, Content, &[u8]), DamagedFrame> {
    let (head, rest) = row.split_at_checked(FRAME_BYTES).ok_or(DamagedFrame::Length)?;
    if number32(head, 0) != frame_checksum(&head[4..], position) {
        return Err(DamagedFrame::Frame);
    }
    let content = Content { bytes: number32(head, 48) as usize, checksum: number32(head, 4) };
    let header = Header {
        stamp: UnixNanos(number64(head, 8)),
        before: Events { records: number64(head, 16), chunks: number64(head, 32) },
        events: Events { records: number64(head, 24), chunks: number64(head, 40) },
    };
    Ok((header, content, rest))
}

fn frame_checksum(head: &[u8], position: Position) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(&position.segment.to_le_bytes());
    hasher.update(&position.index.to_le_bytes());
    hasher.finalize()
}

fn number32(head: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&head[at..at + 4]);
    u32::from_le_bytes(bytes)
}

fn number64(head: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&head[at..at + 8]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSITION: Position = Position { segment: 3, index: 5 };
    const HEADER: Header = Header {
        stamp: UnixNanos(0x0102_0304),
        before: Events { records: 10, chunks: 7 },
        events: Events { records: 2, chunks: 1 },
    };

    fn sealed(content: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; FRAME_BYTES];
        frame.extend_from_slice(content);
        checksum_content(&mut frame);
        seal(&mut frame, POSITION, HEADER);
        frame
    }

    #[test]
    fn a_frame_never_changes() {
        let mut expected = vec![0x85, 0x11, 0x4a, 0x0d]; // CRC-32 of "abc" is 352441c2
        expected[..4].copy_from_slice(&sealed(b"abc")[..4]);
        expected.extend([0xc2, 0x41, 0x24, 0x35]);
        expected.extend([4, 3, 2, 1, 0, 0, 0, 0]);
        expected.extend([10, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([2, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([7, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([3, 0, 0, 0]);
        expected.extend(b"abc");
        assert_eq!(sealed(b"abc"), expected);
    }

    #[test]
    fn what_was_sealed_opens() {
        assert_eq!(open(&sealed(b"abc"), POSITION), Ok((HEADER, b"abc".as_slice())));
    }

    #[test]
    fn any_flipped_bit_is_detected() {
        let frame = sealed(b"some content");
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&damaged, POSITION).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn an_entry_in_another_ones_place_is_detected() {
        let elsewhere = Position { index: 6, ..POSITION };
        assert_eq!(open(&sealed(b"abc"), elsewhere), Err(DamagedFrame::Frame));
    }

    #[test]
    fn a_missing_or_an_extra_byte_is_detected() {
        let frame = sealed(b"abc");
        assert_eq!(open(&frame[..frame.len() - 1], POSITION), Err(DamagedFrame::Length));
        assert_eq!(open(&frame[..10], POSITION), Err(DamagedFrame::Length));
    }
}
