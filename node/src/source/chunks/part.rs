//! A `LogPart`, from protobuf.

use bytes::Bytes;
use simdutf8::basic::from_utf8;

use crate::event::chunk::{Chunk, InvalidChunk, Sequence, StreamId};
use crate::intake::wire::{Fields, Undecodable};

const LOG_PART: &str = "LogPart";

/// Why bytes are no chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// They are no `LogPart`.
    #[error(
        "no LogPart: {0}; send a protobuf message {{string id = 1; fixed64 session = 2; \
         int64 seq = 3; bytes payload = 4}}"
    )]
    Undecodable(#[from] Undecodable),
    /// A string in protobuf is UTF-8.
    #[error("no LogPart: the id is not UTF-8; write what is not as % and two hexadecimal digits")]
    NotUtf8,
    /// They are a `LogPart` that can never be taken.
    #[error(transparent)]
    Invalid(#[from] InvalidChunk),
}

/// Reads a chunk out of a message; its payload is a slice of that.
///
/// Of a field that is there several times the last one counts, one that is not there is zero or
/// empty, and one that is not known is skipped.
///
/// # Errors
/// When the message is no `LogPart`, or can never be taken.
pub fn decode(message: &Bytes) -> Result<Chunk, Unusable> {
    let (mut id, mut session, mut seq, mut payload) = ("", 0, 0, &b""[..]);
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => id = from_utf8(field.delimited(LOG_PART)?).map_err(|_| Unusable::NotUtf8)?,
            2 => session = field.fixed64(LOG_PART)?,
            // A negative one comes as its two's complement, in ten bytes.
            3 => seq = field.varint(LOG_PART)?.cast_signed(),
            4 => payload = field.delimited(LOG_PART)?,
            _ => {}
        }
    }
    // Before it is copied: it may be as long as the message.
    StreamId::check(id)?;
    Ok(Chunk {
        id: StreamId::try_from(id.to_owned())?,
        session,
        seq: Sequence::try_from(seq)?,
        payload: message.slice_ref(payload),
    })
}

#[cfg(test)]
mod tests;
