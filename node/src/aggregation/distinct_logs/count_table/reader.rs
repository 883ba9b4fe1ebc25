//! Chunks into rows, each checked as it is read.

use bytes::Bytes;

use super::row::{self, CountRow, Read};
use super::{MalformedTable, VERSION};
use crate::event::slots::SlotSet;

/// Reads those rows of a table of which a counted slot has records, and of them the
/// counted slots.
pub(super) struct RowReader<I> {
    chunks: I,
    counted: SlotSet,
    /// What follows the current row in its chunk.
    rest: Bytes,
    /// Of the current row; 0, which is no value's, before the first.
    hash: u128,
    canonical: Bytes,
    slots: Vec<(u8, u64)>,
}

impl<I> RowReader<I> {
    pub(super) fn new(chunks: I, counted: SlotSet) -> Self {
        let (rest, canonical) = (Bytes::new(), Bytes::new());
        RowReader { chunks, counted, rest, hash: 0, canonical, slots: Vec::new() }
    }

    /// The row that [`RowReader::advance`] came to.
    pub(super) fn row(&self) -> CountRow<'_> {
        CountRow { hash: self.hash, canonical: &self.canonical, slots: &self.slots }
    }

    fn read_row(&mut self) -> Result<(), MalformedTable> {
        let Read { hash, canonical, rest } = row::read(&self.rest, &mut self.slots)?;
        if hash <= self.hash {
            return Err(MalformedTable::Order);
        }
        self.hash = hash;
        self.canonical = self.rest.slice_ref(canonical);
        self.rest = self.rest.slice_ref(rest);
        self.slots.retain(|(slot, _)| self.counted.contains(*slot));
        Ok(())
    }
}

impl<I, B, E> RowReader<I>
where
    I: Iterator<Item = Result<B, E>>,
    B: Into<Bytes>,
    E: From<MalformedTable>,
{
    /// Comes to the next row and returns its hash, or `None` at the end of the table.
    pub(super) fn advance(&mut self) -> Result<Option<u128>, E> {
        loop {
            if self.rest.is_empty() && !self.next_chunk()? {
                return Ok(None);
            }
            self.read_row()?;
            if !self.slots.is_empty() {
                return Ok(Some(self.hash));
            }
        }
    }

    fn next_chunk(&mut self) -> Result<bool, E> {
        let Some(chunk) = self.chunks.next() else { return Ok(false) };
        let chunk: Bytes = chunk?.into();
        match chunk.first() {
            Some(&VERSION) => self.rest = chunk.slice(1..),
            Some(&other) => return Err(MalformedTable::Version(other).into()),
            None => return Err(MalformedTable::CutOff.into()),
        }
        Ok(true)
    }
}
