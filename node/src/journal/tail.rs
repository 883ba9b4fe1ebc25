//! The newest entries of the open segment, in memory: those who follow the journal read
//! them here while they keep up, and what admitted them is held until they are folded.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::event::time::UnixNanos;
use crate::journal::follow::Followed;
use crate::journal::{Events, FRAME_BYTES, Hold};

/// Folded entries are kept for others up to this size.
const KEPT_BYTES: usize = 8 << 20;

/// A durable entry.
pub(super) struct Durable {
    pub(super) stamp: UnixNanos,
    pub(super) events: Events,
    /// The frame and the packed entry behind it.
    pub(super) frame: Bytes,
    /// What the entry holds until it is folded.
    pub(super) hold: Hold,
}

/// The open segment's newest entries.
pub(super) struct Tail {
    segment: u64,
    ring: Mutex<Ring>,
    end: watch::Sender<End>,
}

/// How far the open segment has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// The number of its durable entries.
    pub(super) entries: u64,
    /// What all entries carry, since the journal began.
    pub(super) events: Events,
    /// Whether nothing follows.
    pub(super) closed: bool,
}

#[derive(Default)]
struct Ring {
    /// The number of the first entry that is kept.
    first: u64,
    kept: VecDeque<(UnixNanos, Bytes)>,
    bytes: usize,
    /// The number of the first entry that was not folded.
    folded: u64,
    /// The number of the entry with the first hold.
    first_held: u64,
    holds: VecDeque<Hold>,
}

impl Tail {
    /// Of a segment that has just been opened, behind entries that carry `before`.
    pub(super) fn new(segment: u64, before: Events) -> Tail {
        let end = End { events: before, ..End::default() };
        Tail { segment, ring: Mutex::default(), end: watch::Sender::new(end) }
    }

    pub(super) fn segment(&self) -> u64 {
        self.segment
    }

    /// How far the segment has got, and word of each change.
    pub(super) fn end(&self) -> watch::Receiver<End> {
        self.end.subscribe()
    }

    /// Adds durable entries.
    pub(super) fn push(&self, entries: Vec<Durable>) {
        let count = entries.len() as u64;
        let mut added = Events::default();
        let mut ring = self.lock();
        for Durable { stamp, events, frame, hold } in entries {
            added += events;
            ring.bytes += frame.len();
            ring.kept.push_back((stamp, frame));
            ring.holds.push_back(hold);
        }
        let released = ring.release();
        drop(ring);
        drop(released);
        self.end.send_modify(|end| {
            end.entries += count;
            end.events += added;
        });
    }

    /// Nothing follows, as the journal goes on in another segment.
    pub(super) fn seal(&self) {
        self.end.send_modify(|end| end.closed = true);
    }

    /// Nothing follows, and nobody folds any more.
    pub(super) fn close(&self) {
        self.seal();
        // Whoever waits for room would wait for ever.
        self.lock().holds.clear();
    }

    /// Whether nothing follows, and all was folded.
    pub(super) fn is_over(&self) -> bool {
        let End { entries, closed, .. } = *self.end.borrow();
        closed && self.lock().folded >= entries
    }

    /// Releases what the entries before `index` hold, also those that are yet to come:
    /// they were folded, or are not to be.
    pub(super) fn folded(&self, index: u64) {
        let mut ring = self.lock();
        ring.folded = index;
        let released = ring.release();
        // Whoever waits for room is woken without the lock.
        drop(ring);
        drop(released);
    }

    /// Entries from `index` on, about `bytes` of them and at least one; `None` if they are
    /// not in memory any more.
    pub(super) fn read(&self, index: u64, bytes: usize) -> Option<Vec<Followed>> {
        let ring = self.lock();
        let skipped = usize::try_from(index.checked_sub(ring.first)?).ok()?;
        let mut read = Vec::new();
        let mut taken = 0;
        for (index, (stamp, frame)) in (index..).zip(ring.kept.iter().skip(skipped)) {
            taken += frame.len();
            if taken > bytes && !read.is_empty() {
                break;
            }
            read.push(Followed { index, stamp: *stamp, entry: frame.slice(FRAME_BYTES..) });
        }
        Some(read)
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // Whoever panicked held it for pushes and pops: what is there is whole.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// What entries hold that were folded; of these, the oldest are dropped.
    fn release(&mut self) -> Vec<Hold> {
        let folded = self.folded.saturating_sub(self.first_held).min(self.holds.len() as u64);
        self.first_held += folded;
        let released = self.holds.drain(..folded as usize).collect();
        self.evict();
        released
    }

    /// Drops the oldest entries that were folded, but for a few that others may still read.
    fn evict(&mut self) {
        while self.bytes > KEPT_BYTES
            && self.first < self.first_held
            && let Some((_, frame)) = self.kept.pop_front()
        {
            self.bytes -= frame.len();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const EVENTS: Events = Events { records: 10, chunks: 2 };

    fn push(tail: &Tail, count: usize, bytes: usize, hold: &Arc<()>) {
        let frame = Bytes::from(vec![0; bytes]);
        let durable = || {
            let (frame, hold) = (frame.clone(), Box::new(Arc::clone(hold)));
            Durable { stamp: UnixNanos(1), events: EVENTS, frame, hold }
        };
        tail.push((0..count).map(|_| durable()).collect());
    }

    #[test]
    fn what_is_not_folded_is_kept_and_held_whatever_its_size() {
        let (tail, hold) = (Tail::new(1, Events::default()), Arc::new(()));
        push(&tail, 3, KEPT_BYTES, &hold);
        assert_eq!(Arc::strong_count(&hold), 4);
        assert_eq!(tail.read(0, 1).unwrap().len(), 1);
        tail.folded(2);
        assert_eq!(Arc::strong_count(&hold), 2);
        assert!(tail.read(1, 1).is_none(), "it was dropped");
        assert_eq!(tail.read(2, 1).unwrap()[0].index, 2);
    }

    #[test]
    fn readers_get_what_fits_and_nothing_at_the_end() {
        let (tail, hold) = (Tail::new(1, Events::default()), Arc::new(()));
        push(&tail, 10, 100, &hold);
        let indices = |read: Vec<Followed>| read.iter().map(|e| e.index).collect::<Vec<_>>();
        assert_eq!(indices(tail.read(4, 250).unwrap()), [4, 5]);
        assert_eq!(indices(tail.read(10, 250).unwrap()), [0; 0]);
    }

    #[test]
    fn nothing_is_held_where_nobody_folds() {
        let (tail, hold) = (Tail::new(1, Events::default()), Arc::new(()));
        tail.folded(u64::MAX);
        push(&tail, 2, 100, &hold);
        assert_eq!(Arc::strong_count(&hold), 1);
    }

    #[test]
    fn a_closed_tail_holds_nothing() {
        let (tail, hold) = (Tail::new(1, Events::default()), Arc::new(()));
        push(&tail, 2, 100, &hold);
        tail.close();
        assert_eq!(Arc::strong_count(&hold), 1);
        assert!(tail.end().borrow().closed);
    }
    #[test]
    fn a_sealed_tail_is_over_when_all_of_it_is_folded() {
        let (tail, hold) = (Tail::new(1, Events::default()), Arc::new(()));
        push(&tail, 2, 100, &hold);
        tail.folded(2);
        assert!(!tail.is_over(), "more may come");
        push(&tail, 1, 100, &hold);
        tail.seal();
        assert!(!tail.is_over());
        tail.folded(3);
        assert!(tail.is_over());
        let End { entries, events, .. } = *tail.end().borrow();
        assert_eq!((entries, events), (3, Events { records: 30, chunks: 6 }));
    }
}
