//! A stretch of a file's bytes, as a sender cut it.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sheaf_proto::names::CHUNK_ID_BYTES_MAX;

/// What names a file, and where it comes from: not empty, and at most
/// [`CHUNK_ID_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamId(String);

/// A chunk of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Names the file.
    pub id: StreamId,
    /// Which file of that name: a later one has a larger number.
    pub session: u64,
    /// Its place among the session's chunks.
    pub seq: Sequence,
    /// What follows on the chunk before; may be empty.
    pub payload: Bytes,
}

/// A chunk's place among those of its session: 1, 2, 3 and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "u64")]
pub struct Sequence(u64);

/// Why a chunk can never be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChunk {
    /// Nobody could tell which file it belongs to.
    #[error("the chunk's id is empty: it has to name the file")]
    NoId,
    /// The id is too long.
    #[error("the chunk's id has {0} bytes: at most {CHUNK_ID_BYTES_MAX} are taken")]
    IdTooLong(usize),
    /// Chunks are counted from 1.
    #[error("the chunk's seq is {0}: the chunks of a session are counted from 1")]
    Sequence(i64),
}

impl StreamId {
    /// Refuses what is no id.
    ///
    /// # Errors
    /// When it is empty, or too long.
    pub fn check(id: &str) -> Result<(), InvalidChunk> {
        match id.len() {
            0 => Err(InvalidChunk::NoId),
            1..=CHUNK_ID_BYTES_MAX => Ok(()),
            bytes => Err(InvalidChunk::IdTooLong(bytes)),
        }
    }

    /// What has passed [`StreamId::check`].
    pub(super) fn checked(id: &str) -> StreamId {
        StreamId(id.to_owned())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for StreamId {
    type Error = InvalidChunk;

    fn try_from(id: String) -> Result<Self, InvalidChunk> {
        StreamId::check(&id).map(|()| StreamId(id))
    }
}

impl From<StreamId> for String {
    fn from(id: StreamId) -> String {
        id.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Sequence {
    /// The session's first chunk.
    pub const FIRST: Sequence = Sequence(1);

    /// Its number, from 1.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The place behind it.
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

impl From<Sequence> for u64 {
    fn from(seq: Sequence) -> u64 {
        seq.0
    }
}

impl TryFrom<i64> for Sequence {
    type Error = InvalidChunk;

    fn try_from(seq: i64) -> Result<Self, InvalidChunk> {
        match u64::try_from(seq) {
            Ok(number @ 1..) => Ok(Sequence(number)),
            _ => Err(InvalidChunk::Sequence(seq)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_neither_empty_nor_too_long() {
        assert_eq!(StreamId::try_from(String::new()), Err(InvalidChunk::NoId));
        let (longest, too_long) = ("ä".repeat(512), "a".repeat(1025));
        assert_eq!(StreamId::try_from(longest.clone()).unwrap().as_str(), longest);
        assert_eq!(StreamId::try_from(too_long), Err(InvalidChunk::IdTooLong(1025)));
    }

    #[test]
    fn chunks_are_counted_from_one() {
        for (seq, number) in [(1, 1), (i64::MAX, u64::MAX >> 1)] {
            assert_eq!(Sequence::try_from(seq).unwrap().number(), number);
        }
        for seq in [0, -1, i64::MIN] {
            assert_eq!(Sequence::try_from(seq), Err(InvalidChunk::Sequence(seq)));
        }
    }
}
