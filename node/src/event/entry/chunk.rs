//! The section of an aggregation of the type `LogFiles`: one chunk of a file.
//!
//! ```text
//! 0      kind: 3
//! 1      zero
//! 2..4   bytes of the id, from 1
//! 4..8   zero
//! 8..24  the id's hash, whose slot the chunk belongs to
//! 24..40 the payload's fingerprint
//! 40..48 the session
//! 48..56 the sequence number, from 1
//! then the id, in UTF-8, and the payload
//! ```
//! All numbers are little-endian. The payload ends with the section.

use crate::event::chunk::{Chunk, Sequence, StreamId};
use crate::event::entry::{EntryWriter, MalformedEntry};
use crate::event::fingerprint::{FingerprintKey, slot_of};

pub(super) const CHUNK: u8 = 3;
const HEAD_BYTES: usize = 56;

impl EntryWriter {
    /// Adds a section of a chunk, hashed under the cluster's key.
    ///
    /// # Panics
    /// When the section would be 4 GiB or larger.
    pub fn chunk(&mut self, aggregation: u32, chunk: &Chunk, key: FingerprintKey) {
        let id = chunk.id.as_str();
        self.chunk_section(
            aggregation,
            &ChunkSection {
                hash: key.string(id.as_bytes()),
                fingerprint: key.string(&chunk.payload),
                session: chunk.session,
                seq: chunk.seq,
                id,
                payload: &chunk.payload,
            },
        );
    }

    /// Adds a section that another entry has.
    ///
    /// # Panics
    /// As [`EntryWriter::chunk`].
    pub fn chunk_section(&mut self, aggregation: u32, chunk: &ChunkSection<'_>) {
        let ChunkSection { hash, fingerprint, session, seq, id, payload } = *chunk;
        let section = self.section(aggregation, HEAD_BYTES + id.len() + payload.len());
        let (head, rest) = section.split_at_mut(HEAD_BYTES);
        head[0] = CHUNK;
        head[2..4].copy_from_slice(&(id.len() as u16).to_le_bytes());
        head[8..24].copy_from_slice(&hash.to_le_bytes());
        head[24..40].copy_from_slice(&fingerprint.to_le_bytes());
        head[40..48].copy_from_slice(&session.to_le_bytes());
        head[48..56].copy_from_slice(&seq.number().to_le_bytes());
        rest[..id.len()].copy_from_slice(id.as_bytes());
        rest[id.len()..].copy_from_slice(payload);
    }
}

/// A chunk of a file, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSection<'a> {
    /// The hash of the id, under the cluster's key.
    pub hash: u128,
    /// Tells the payload from all others, under the cluster's key.
    pub fingerprint: u128,
    /// Which file of that name.
    pub session: u64,
    /// Its place among the session's chunks.
    pub seq: Sequence,
    /// Names the file.
    pub id: &'a str,
    /// What follows on the chunk before.
    pub payload: &'a [u8],
}

impl<'a> ChunkSection<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, MalformedEntry> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(MalformedEntry::CutOff)?;
        if head[1] != 0 || head[4..8] != [0; 4] {
            return Err(MalformedEntry::Section("padding"));
        }
        let id_bytes = usize::from(u16::from_le_bytes([head[2], head[3]]));
        let (id, payload) = rest.split_at_checked(id_bytes).ok_or(MalformedEntry::CutOff)?;
        let id = str::from_utf8(id).map_err(|_| MalformedEntry::Section("id"))?;
        StreamId::check(id).map_err(|_| MalformedEntry::Section("id"))?;
        let seq = i64::from_le_bytes(array(head, 48));
        let seq = Sequence::try_from(seq).map_err(|_| MalformedEntry::Section("sequence"))?;
        Ok(ChunkSection {
            hash: u128::from_le_bytes(array(head, 8)),
            fingerprint: u128::from_le_bytes(array(head, 24)),
            session: u64::from_le_bytes(array(head, 40)),
            seq,
            id,
            payload,
        })
    }

    /// What names the file.
    pub fn stream_id(&self) -> StreamId {
        StreamId::checked(self.id)
    }

    /// The slot that the file belongs to.
    pub fn slot(&self) -> u8 {
        slot_of(self.hash)
    }
}

fn array<const N: usize>(head: &[u8; HEAD_BYTES], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&head[at..at + N]);
    array
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::event::entry::{Entry, Section};

    const KEY: FingerprintKey = FingerprintKey([7; 16]);

    fn chunk(id: &str, payload: &'static [u8]) -> Chunk {
        Chunk {
            id: id.to_owned().try_into().unwrap(),
            session: 0x1112_1314,
            seq: 0x0102_i64.try_into().unwrap(),
            payload: Bytes::from_static(payload),
        }
    }

    fn entry(chunk: &Chunk) -> Vec<u8> {
        let mut writer = EntryWriter::new(None);
        writer.chunk(5, chunk, KEY);
        writer.finish(0)
    }

    fn read(entry: &[u8]) -> Result<ChunkSection<'_>, MalformedEntry> {
        let entry = Entry::parse(entry)?;
        match entry.sections().next() {
            Some(Ok((5, Section::LogFiles(chunk)))) => Ok(chunk),
            Some(Err(error)) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_chunk_is_read_as_it_was_written() {
        let chunk = chunk("host/größe", b"one\ntwo\0");
        let entry = entry(&chunk);
        let read = read(&entry).unwrap();
        assert_eq!((read.id, read.payload), ("host/größe", &b"one\ntwo\0"[..]));
        assert_eq!((read.session, read.seq), (chunk.session, chunk.seq));
        assert_eq!(read.hash, KEY.string("host/größe".as_bytes()));
        assert_eq!(read.fingerprint, KEY.string(b"one\ntwo\0"));
        assert_eq!(read.slot(), (read.hash >> 120) as u8);
    }

    #[test]
    fn the_bytes_of_a_chunk_are_fixed() {
        let entry = entry(&chunk("a", b"xyz"));
        let head = [1, 0, 1, 0, 0, 0, 0, 0, 5, 0, 0, 0, 60, 0, 0, 0, 3, 0, 1, 0, 0, 0, 0, 0];
        assert_eq!(entry[..24], head);
        assert_eq!(entry[24..40], KEY.string(b"a").to_le_bytes());
        assert_eq!(entry[40..56], KEY.string(b"xyz").to_le_bytes());
        let rest = b"\x14\x13\x12\x11\0\0\0\0\x02\x01\0\0\0\0\0\0axyz";
        assert_eq!(entry[56..], *rest);
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        let whole = entry(&chunk("ab", b""));
        assert_eq!(read(&whole).unwrap().payload, b"");
        let spoilt = |at: usize, byte: u8| {
            let mut entry = whole.clone();
            entry[at] = byte;
            read(&entry).unwrap_err()
        };
        assert_eq!(spoilt(17, 1), MalformedEntry::Section("padding"));
        assert_eq!(spoilt(23, 1), MalformedEntry::Section("padding"));
        assert_eq!(spoilt(18, 0), MalformedEntry::Section("id"));
        assert_eq!(spoilt(18, 3), MalformedEntry::CutOff);
        assert_eq!(spoilt(72, 0xff), MalformedEntry::Section("id"));
        assert_eq!(spoilt(71, 0x80), MalformedEntry::Section("sequence"));
    }
}
