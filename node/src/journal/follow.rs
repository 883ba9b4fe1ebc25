//! A segment's entries in their order, as they become durable.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::blocking;
use crate::event::time::UnixNanos;
use crate::journal::replay;
use crate::journal::tail::{End, Tail};
use crate::journal::{JournalError, Position};
use crate::store::Store;

/// A durable entry at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Its number within the segment.
    pub index: u64,
    /// When it was stamped.
    pub stamp: UnixNanos,
    /// The packed entry.
    pub entry: Bytes,
}

/// Reads a segment of this node's journal from an entry on: from memory while it keeps up,
/// otherwise from the database.
pub struct Follower {
    store: Arc<Store>,
    segment: u64,
    next: u64,
    until: Until,
}

/// Where a segment ends.
enum Until {
    /// It has its final length.
    Sealed(u64),
    /// It grows.
    Open(Arc<Tail>, watch::Receiver<End>),
}

impl Follower {
    pub(super) fn of_sealed(store: Arc<Store>, from: Position, end: u64) -> Follower {
        let Position { segment, index } = from;
        Follower { store, segment, next: index, until: Until::Sealed(end) }
    }

    pub(super) fn of_open(store: Arc<Store>, tail: Arc<Tail>, index: u64) -> Follower {
        let segment = tail.segment();
        let end = tail.end();
        Follower { store, segment, next: index, until: Until::Open(tail, end) }
    }

    /// The next entries, about `bytes` of them and at least one; waits until there are any.
    /// Empty at the end of the segment, and when the journal was closed.
    ///
    /// # Errors
    /// When an entry is damaged or missing.
    pub async fn next(&mut self, bytes: usize) -> Result<Vec<Followed>, JournalError> {
        let end = match &mut self.until {
            Until::Sealed(end) => *end,
            Until::Open(tail, changes) => {
                let next = self.next;
                // The tail itself keeps the sender.
                let end = changes.wait_for(|end| end.entries > next || end.closed).await;
                let end = end.map_or(next, |end| end.entries);
                match tail.read(next, bytes) {
                    Some(read) if !read.is_empty() || end == next => return self.pass(read),
                    _ => end,
                }
            }
        };
        if self.next >= end {
            return Ok(Vec::new());
        }
        let (store, from) = (Arc::clone(&self.store), self.position());
        let read = blocking::run(move || replay::read(&store, from, end, bytes)).await?;
        self.pass(read?)
    }

    /// The number of the next entry.
    pub fn position(&self) -> Position {
        Position { segment: self.segment, index: self.next }
    }

    fn pass(&mut self, read: Vec<Followed>) -> Result<Vec<Followed>, JournalError> {
        if let Some(last) = read.last() {
            self.next = last.index + 1;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
