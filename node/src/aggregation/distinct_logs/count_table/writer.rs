//! Rows into chunks.

use std::mem;

use super::row::CountRow;
use super::{CHUNK_BYTES_MAX, VERSION};
use crate::aggregation::distinct_logs::FoldError;

/// Packs rows into chunks.
#[derive(Default)]
pub(super) struct ChunkWriter {
    /// The chunk that is being filled; empty before its first row.
    chunk: Vec<u8>,
}

impl ChunkWriter {
    /// Adds a row. If it does not fit into the chunk, that is returned, and the row begins
    /// another.
    pub(super) fn push(&mut self, row: &CountRow<'_>) -> Option<Vec<u8>> {
        let start = self.chunk.len();
        if start == 0 {
            self.chunk.push(VERSION);
        }
        row.write(&mut self.chunk);
        if start == 0 || self.chunk.len() <= CHUNK_BYTES_MAX {
            return None;
        }
        let mut next = vec![VERSION];
        next.extend_from_slice(&self.chunk[start..]);
        self.chunk.truncate(start);
        Some(mem::replace(&mut self.chunk, next))
    }

    /// The chunk that is not full, unless it has no row.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let chunk = mem::take(&mut self.chunk);
        (!chunk.is_empty()).then_some(chunk)
    }
}

/// Takes the rows of a window that is being closed, in the order of their hashes.
pub(in super::super) trait TakeRows {
    /// What closing fails with.
    type Error: From<FoldError>;

    fn take(&mut self, row: &CountRow<'_>) -> Result<(), Self::Error>;

    /// All rows were taken.
    fn finish(self) -> Result<(), Self::Error>;
}

/// For a window whose table nobody needs.
pub(in super::super) struct NoTable;

impl TakeRows for NoTable {
    type Error = FoldError;

    fn take(&mut self, _row: &CountRow<'_>) -> Result<(), FoldError> {
        Ok(())
    }

    fn finish(self) -> Result<(), FoldError> {
        Ok(())
    }
}

/// Hands the table out as chunks.
pub(in super::super) struct Chunks<F> {
    writer: ChunkWriter,
    hand_out: F,
}

impl<F> Chunks<F> {
    /// Calls `hand_out` with each chunk.
    pub(in super::super) fn to(hand_out: F) -> Self {
        Chunks { writer: ChunkWriter::default(), hand_out }
    }
}

impl<F, E> TakeRows for Chunks<F>
where
    F: FnMut(Vec<u8>) -> Result<(), E>,
    E: From<FoldError>,
{
    type Error = E;

    fn take(&mut self, row: &CountRow<'_>) -> Result<(), E> {
        self.writer.push(row).map_or(Ok(()), &mut self.hand_out)
    }

    fn finish(mut self) -> Result<(), E> {
        self.writer.take().map_or(Ok(()), self.hand_out)
    }
}
