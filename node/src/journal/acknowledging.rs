//! Entries that were written here, until they are durable on all copies of the segment:
//! then those who follow the journal see them, and their senders may forget them.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::event::time::UnixNanos;
use crate::failpoint::{is_to_fail, may_die};
use crate::journal::queue::Append;
use crate::journal::segments::Segments;
use crate::journal::tail::{Durable, Tail};
use crate::journal::watermark;
use crate::journal::{AppendError, Events, Hold, Position, Stamped};
use crate::store::{Store, StoreError};

/// An entry that was written.
pub(super) struct Written {
    pub(super) stamp: UnixNanos,
    pub(super) events: Events,
    pub(super) frame: Bytes,
    pub(super) hold: Hold,
    pub(super) sender: oneshot::Sender<Result<Position, AppendError>>,
}

impl From<Written> for Append {
    /// To be written again, elsewhere.
    fn from(written: Written) -> Append {
        let Written { events, frame, hold, sender, .. } = written;
        Append { frame: frame.into(), events, hold, durable: sender }
    }
}

/// Who wants to know how much is stamped before a time.
pub(super) struct Asked {
    pub(super) time: UnixNanos,
    pub(super) answer: oneshot::Sender<BTreeMap<u64, Stamped>>,
}

/// The entries of the open segment that are not acknowledged.
pub(super) struct Acknowledging {
    store: Arc<Store>,
    segments: Arc<Segments>,
    tail: Arc<Tail>,
    waiting: Mutex<Waiting>,
}

struct Waiting {
    /// How many entries are durable: here, and on each other copy.
    durable: Vec<u64>,
    /// How many are acknowledged.
    acknowledged: u64,
    written: VecDeque<Written>,
    /// Questions that wait for all entries before one.
    asked: VecDeque<(u64, Asked)>,
}

impl Acknowledging {
    /// Of a segment that was just opened, of which there are so many other copies.
    pub(super) fn new(
        store: Arc<Store>,
        segments: Arc<Segments>,
        tail: Arc<Tail>,
        copies: usize,
    ) -> Acknowledging {
        let durable = vec![0; 1 + copies];
        let (written, asked) = (VecDeque::new(), VecDeque::new());
        let waiting = Mutex::new(Waiting { durable, acknowledged: 0, written, asked });
        Acknowledging { store, segments, tail, waiting }
    }

    pub(super) fn segment(&self) -> u64 {
        self.tail.segment()
    }

    pub(super) fn tail(&self) -> &Arc<Tail> {
        &self.tail
    }

    /// More entries are durable here.
    ///
    /// # Errors
    /// When it cannot be noted that something is acknowledged.
    pub(super) fn written(&self, written: Vec<Written>) -> Result<(), StoreError> {
        let mut waiting = self.lock();
        if let Some(here) = waiting.durable.first_mut() {
            *here += written.len() as u64;
        }
        waiting.written.extend(written);
        self.settle(&mut waiting)
    }

    /// The first so many entries are durable on one of the other copies.
    ///
    /// # Errors
    /// As [`Acknowledging::written`].
    pub(super) fn copied(&self, copy: usize, entries: u64) -> Result<(), StoreError> {
        let mut waiting = self.lock();
        if let Some(durable) = waiting.durable.get_mut(1 + copy) {
            *durable = entries.max(*durable);
        }
        self.settle(&mut waiting)
    }

    /// Answers when all entries before `index` are acknowledged: what is stamped before a
    /// cut's time and is not in it yet would be in none.
    pub(super) fn answer_after(&self, index: u64, asked: Asked) {
        let mut waiting = self.lock();
        if waiting.acknowledged >= index {
            self.answer(asked);
        } else {
            waiting.asked.push_back((index, asked));
        }
    }

    /// The segment ends here, as the cluster says: what is before is acknowledged, and the
    /// rest returned. Nothing more is acknowledged if it is not known where that is.
    ///
    /// # Errors
    /// As [`Acknowledging::written`].
    pub(super) fn end(&self, end: Option<u64>) -> Result<Vec<Written>, StoreError> {
        let mut waiting = self.lock();
        waiting.durable = vec![end.unwrap_or(waiting.acknowledged)];
        self.settle(&mut waiting)?;
        for (_, asked) in mem::take(&mut waiting.asked) {
            self.answer(asked);
        }
        Ok(mem::take(&mut waiting.written).into())
    }

    /// Nothing more is acknowledged. Who waits sees a channel close.
    pub(super) fn give_up(&self) {
        let mut waiting = self.lock();
        waiting.durable = vec![0];
        let dropped = (mem::take(&mut waiting.written), mem::take(&mut waiting.asked));
        drop(waiting);
        drop(dropped);
    }

    fn settle(&self, waiting: &mut Waiting) -> Result<(), StoreError> {
        let mut everywhere = waiting.durable.iter().copied().min().unwrap_or(0);
        if is_to_fail("planted-acknowledge-uncopied") {
            everywhere = waiting.durable.first().copied().unwrap_or(0);
        }
        let count = everywhere.saturating_sub(waiting.acknowledged);
        let count = waiting.written.len().min(count as usize);
        if count == 0 {
            return Ok(());
        }
        let first = waiting.acknowledged;
        waiting.acknowledged += count as u64;
        let position = Position { segment: self.segment(), index: first };
        let last = Position { index: waiting.acknowledged - 1, ..position };
        watermark::advance(&self.store, last)?;
        may_die("journal-before-acknowledge");
        self.acknowledge(position, waiting.written.drain(..count));
        while waiting.asked.front().is_some_and(|(index, _)| *index <= waiting.acknowledged) {
            if let Some((_, asked)) = waiting.asked.pop_front() {
                self.answer(asked);
            }
        }
        Ok(())
    }

    fn acknowledge(&self, first: Position, written: impl Iterator<Item = Written>) {
        let (mut entries, mut senders) = (Vec::new(), Vec::new());
        for Written { stamp, events, frame, hold, sender } in written {
            entries.push(Durable { stamp, events, frame, hold });
            senders.push(sender);
        }
        let stamped = entries.iter().map(|entry: &Durable| (entry.stamp, entry.events));
        self.segments.append(first.segment, stamped);
        // Shown first, so that whoever asks after its acknowledgement is told of it.
        self.tail.push(entries);
        for (index, sender) in (first.index..).zip(senders) {
            // A sender that went away does not need to know.
            let _ = sender.send(Ok(Position { index, ..first }));
        }
    }

    fn answer(&self, Asked { time, answer }: Asked) {
        // Whoever asked may have gone.
        let _ = answer.send(self.segments.stamped(time));
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Whoever panicked held it for pushes and pops: what is there is whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::time::SECOND;
    use crate::journal::{Extent, Replay};
    use crate::store::Disk;

    const AT: UnixNanos = UnixNanos(5 * SECOND);
    const EVENTS: Events = Events { records: 10, chunks: 3 };

    fn acknowledging(copies: usize) -> Acknowledging {
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        let segments = Arc::new(Segments::new(&Replay::default()));
        segments.open(1, Events::default());
        let tail = Arc::new(Tail::new(1, Events::default()));
        Acknowledging::new(store, segments, tail, copies)
    }

    fn entry() -> (Vec<Written>, oneshot::Receiver<Result<Position, AppendError>>) {
        let (sender, acknowledged) = oneshot::channel();
        let (frame, hold) = (vec![0; 50].into(), Box::new(()));
        (vec![Written { stamp: AT, events: EVENTS, frame, hold, sender }], acknowledged)
    }

    #[test]
    fn an_entry_is_acknowledged_when_the_last_copy_has_it() {
        let acknowledging = acknowledging(2);
        let (first, mut acknowledged) = entry();
        acknowledging.written(first).unwrap();
        acknowledging.copied(0, 1).unwrap();
        assert!(acknowledged.try_recv().is_err());
        assert_eq!(acknowledging.tail.end().borrow().entries, 0, "nobody sees it");
        acknowledging.copied(1, 1).unwrap();
        assert_eq!(acknowledged.try_recv(), Ok(Ok(Position { segment: 1, index: 0 })));
        assert_eq!(acknowledging.tail.end().borrow().entries, 1);
    }

    #[test]
    fn a_copy_that_is_faster_than_this_disk_acknowledges_nothing() {
        let acknowledging = acknowledging(1);
        acknowledging.copied(0, 2).unwrap();
        let ((first, mut one), (second, mut other)) = (entry(), entry());
        acknowledging.written(first).unwrap();
        assert!(one.try_recv().is_ok() && other.try_recv().is_err());
        acknowledging.written(second).unwrap();
        assert!(other.try_recv().is_ok());
    }

    #[test]
    fn a_cut_waits_for_what_is_stamped_before_it() {
        let acknowledging = acknowledging(1);
        let (answer, mut stamped) = oneshot::channel();
        acknowledging.written(entry().0).unwrap();
        let time = UnixNanos(AT.0 + SECOND);
        acknowledging.answer_after(1, Asked { time, answer });
        assert!(stamped.try_recv().is_err());
        acknowledging.copied(0, 1).unwrap();
        let before = stamped.try_recv().unwrap()[&1].before;
        assert_eq!(before, Extent::new(1, EVENTS));
    }

    #[test]
    fn who_waits_hears_when_it_is_given_up() {
        let acknowledging = acknowledging(1);
        let (first, mut acknowledged) = entry();
        acknowledging.written(first).unwrap();
        acknowledging.give_up();
        assert_eq!(acknowledged.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        acknowledging.copied(0, 1).unwrap();
        assert_eq!(acknowledging.tail.end().borrow().entries, 0);
    }
    #[test]
    fn at_its_end_what_is_before_is_acknowledged_and_the_rest_comes_back() {
        let acknowledging = acknowledging(1);
        let ((first, mut one), (second, mut other)) = (entry(), entry());
        acknowledging.written(first).unwrap();
        acknowledging.written(second).unwrap();
        let (answer, mut stamped) = oneshot::channel();
        acknowledging.answer_after(2, Asked { time: UnixNanos(AT.0 + SECOND), answer });
        let rest = acknowledging.end(Some(1)).unwrap();
        assert_eq!(one.try_recv(), Ok(Ok(Position { segment: 1, index: 0 })));
        assert_eq!(stamped.try_recv().unwrap()[&1].before, Extent::new(1, EVENTS));
        assert_eq!((rest.len(), other.try_recv()), (1, Err(oneshot::error::TryRecvError::Empty)));
    }
}
