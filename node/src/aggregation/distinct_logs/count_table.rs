//! Count tables: what a node keeps and sends of a closed window, in full.
//!
//! A table says of each value how many distinct records each slot has of it. Slots are
//! folded apart, so the tables of several nodes add up exactly, and the list of the most
//! frequent values is shortened only after that. A table is a sequence of chunks; each
//! can be read on its own, and none is larger than 256 KiB unless it is a single row.
//!
//! ```text
//! 0      version: 1
//! 1..    one or more rows, in the order of their hashes:
//!   16       the value's hash
//!   varint   bytes of the value, B
//!   B        the value in its canonical encoding
//!   1        slots that have records of it, N, less 1
//!   slots    N up to 32: N numbers of a byte each, in ascending order
//!            N above 32: 32 bytes, one bit for each slot, the lowest bit first
//!   N varint the distinct records of each of these slots, at least 1
//! ```
//! The hash is little-endian, and never 0: that one is kept as 1. A varint has seven bits in each byte, the lowest first, and
//! a high bit in all but the last; only the shortest one is read. So a row has one
//! encoding, and equal tables, cut into chunks by the same rule, equal bytes.

use std::iter;

use bytes::Bytes;

use self::reader::RowReader;
use self::writer::ChunkWriter;
use crate::event::slots::SlotSet;

pub use merge::{MergeError, Merged, Table, TableTotals, merge};
pub(super) use row::CountRow;
pub(super) use writer::{Chunks, NoTable, TakeRows};

mod merge; // tables -> shortened counts
mod reader; // chunks -> rows
mod row; // the bytes of a row
mod writer; // rows -> chunks

/// The only version of chunks so far.
const VERSION: u8 = 1;
const CHUNK_BYTES_MAX: usize = 256 << 10;

/// Why bytes are not a chunk of a count table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedTable {
    /// The chunk ends before something that it announces, or before its first row.
    #[error("the chunk is cut off")]
    CutOff,
    /// Another version of Sheaf wrote the chunk, or nobody did.
    #[error("version {0} of count tables is unknown")]
    Version(u8),
    /// A number does not fit in 64 bits, or is written in more bytes than it needs.
    #[error("a number is too large or too long")]
    Number,
    /// Counts together do not fit in 64 bits.
    #[error("the counts are too large")]
    Overflow,
    /// The hash of a value is not above the one before.
    #[error("values are out of order")]
    Order,
    /// A value's slots are not as they have to be.
    #[error("a value's slots are wrong")]
    Slots,
    /// A slot has no record of a value that it names.
    #[error("a count is zero")]
    Zero,
    /// Another table has other bytes for a value with the same hash.
    #[error("two values have one hash")]
    Value,
}

/// The part of a table that `slots` count of, in chunks of its own. Values of which none
/// of them has a record are not in it. An error ends the iteration.
pub fn restrict<I, B, E>(chunks: I, slots: SlotSet) -> impl Iterator<Item = Result<Vec<u8>, E>>
where
    I: Iterator<Item = Result<B, E>>,
    B: Into<Bytes>,
    E: From<MalformedTable>,
{
    let mut reader = RowReader::new(chunks, slots);
    let mut writer = ChunkWriter::default();
    let mut failed = false;
    iter::from_fn(move || {
        while !failed {
            match reader.advance() {
                Ok(None) => return writer.take().map(Ok),
                Ok(Some(_)) => {
                    if let Some(full) = writer.push(&reader.row()) {
                        return Some(Ok(full));
                    }
                }
                Err(error) => {
                    failed = true;
                    return Some(Err(error));
                }
            }
        }
        None
    })
}

#[cfg(test)]
mod tests;
