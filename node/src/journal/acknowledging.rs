//! Entries that were written here, until they are durable on all copies of the segment:
//! then those who follow the journal see them, and their senders may forget them.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::event::time::UnixNanos;
use crate::failpoint::may_die;
use crate::journal::segments::Segments;
use crate::journal::tail::{Durable, Tail};
use crate::journal::watermark;
use crate::journal::{AppendError, Extent, Position, Stamped};
use crate::store::{Store, StoreError};

/// Entries of one stamp.
pub(super) struct Group {
    /// Where the first of them stands.
    pub(super) first: Position,
    pub(super) stamp: UnixNanos,
    pub(super) appended: Extent,
    /// Records in all entries up to the last of these, since the journal began.
    pub(super) records: u64,
    pub(super) entries: Vec<Durable>,
    pub(super) senders: Vec<oneshot::Sender<Result<Position, AppendError>>>,
}

impl Group {
    /// The number of the entry behind the last one.
    fn end(&self) -> u64 {
        self.first.index + self.appended.entries
    }
}

/// Who wants to know how much is stamped before a time.
pub(super) struct Asked {
    pub(super) time: UnixNanos,
    pub(super) answer: oneshot::Sender<BTreeMap<u64, Stamped>>,
}

/// Entries that were written and are not acknowledged.
pub(super) struct Acknowledging {
    store: Arc<Store>,
    segments: Arc<Segments>,
    tail: Arc<Tail>,
    waiting: Mutex<Waiting>,
}

struct Waiting {
    /// How many entries are durable: here, and on each other copy.
    durable: Vec<u64>,
    groups: VecDeque<Group>,
    /// Questions that wait for all entries before one.
    asked: VecDeque<(u64, Asked)>,
    given_up: bool,
}

impl Waiting {
    fn everywhere(&self) -> u64 {
        self.durable.iter().copied().min().unwrap_or(0)
    }
}

impl Acknowledging {
    /// Of a new segment, of which there are so many other copies.
    pub(super) fn new(
        store: Arc<Store>,
        segments: Arc<Segments>,
        tail: Arc<Tail>,
        copies: usize,
    ) -> Acknowledging {
        let durable = vec![0; 1 + copies];
        let (groups, asked) = (VecDeque::new(), VecDeque::new());
        let waiting = Mutex::new(Waiting { durable, groups, asked, given_up: false });
        Acknowledging { store, segments, tail, waiting }
    }

    /// A group is durable here.
    ///
    /// # Errors
    /// When it cannot be noted that something is acknowledged.
    pub(super) fn written(&self, group: Group) -> Result<(), StoreError> {
        let mut waiting = self.lock();
        if waiting.given_up {
            return Ok(());
        }
        waiting.durable[0] = group.end();
        waiting.groups.push_back(group);
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
        if waiting.everywhere() >= index {
            self.answer(asked);
        } else if !waiting.given_up {
            waiting.asked.push_back((index, asked));
        }
    }

    /// Nothing more is acknowledged. Who waits sees a channel close.
    pub(super) fn give_up(&self) {
        let mut waiting = self.lock();
        waiting.given_up = true;
        let dropped = (mem::take(&mut waiting.groups), mem::take(&mut waiting.asked));
        drop(waiting);
        drop(dropped);
    }

    fn settle(&self, waiting: &mut Waiting) -> Result<(), StoreError> {
        let everywhere = waiting.everywhere();
        let count = waiting.groups.partition_point(|group| group.end() <= everywhere);
        let Some(last) = count.checked_sub(1).and_then(|last| waiting.groups.get(last)) else {
            return Ok(());
        };
        let (segment, index) = (last.first.segment, last.end() - 1);
        watermark::advance(&self.store, Position { segment, index })?;
        may_die("journal-before-acknowledge");
        for group in waiting.groups.drain(..count) {
            self.acknowledge(group);
        }
        while waiting.asked.front().is_some_and(|(index, _)| *index <= everywhere) {
            if let Some((_, asked)) = waiting.asked.pop_front() {
                self.answer(asked);
            }
        }
        Ok(())
    }

    fn acknowledge(&self, group: Group) {
        let Group { first, stamp, appended, records, entries, senders } = group;
        self.segments.append(first.segment, stamp, appended);
        // Shown first, so that whoever asks after its acknowledgement is told of it.
        self.tail.push(stamp, entries, records);
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
    use crate::journal::Replay;
    use crate::store::Disk;

    const AT: UnixNanos = UnixNanos(5 * SECOND);

    fn acknowledging(copies: usize) -> Acknowledging {
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        let segments = Arc::new(Segments::new(&Replay::default(), 1));
        Acknowledging::new(store, segments, Arc::new(Tail::new(1, 0)), copies)
    }

    fn group(index: u64) -> (Group, oneshot::Receiver<Result<Position, AppendError>>) {
        let (sender, acknowledged) = oneshot::channel();
        let entry = Durable { frame: vec![0; 50].into(), hold: Box::new(()) };
        let group = Group {
            first: Position { segment: 1, index },
            stamp: AT,
            appended: Extent { entries: 1, records: 10 },
            records: 10 * (index + 1),
            entries: vec![entry],
            senders: vec![sender],
        };
        (group, acknowledged)
    }

    #[test]
    fn an_entry_is_acknowledged_when_the_last_copy_has_it() {
        let acknowledging = acknowledging(2);
        let (first, mut acknowledged) = group(0);
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
        let ((first, mut one), (second, mut other)) = (group(0), group(1));
        acknowledging.written(first).unwrap();
        assert!(one.try_recv().is_ok() && other.try_recv().is_err());
        acknowledging.written(second).unwrap();
        assert!(other.try_recv().is_ok());
    }

    #[test]
    fn a_cut_waits_for_what_is_stamped_before_it() {
        let acknowledging = acknowledging(1);
        let (answer, mut stamped) = oneshot::channel();
        acknowledging.written(group(0).0).unwrap();
        let time = UnixNanos(AT.0 + SECOND);
        acknowledging.answer_after(1, Asked { time, answer });
        assert!(stamped.try_recv().is_err());
        acknowledging.copied(0, 1).unwrap();
        let before = stamped.try_recv().unwrap()[&1].before;
        assert_eq!(before, Extent { entries: 1, records: 10 });
    }

    #[test]
    fn who_waits_hears_when_it_is_given_up() {
        let acknowledging = acknowledging(1);
        let (first, mut acknowledged) = group(0);
        acknowledging.written(first).unwrap();
        acknowledging.give_up();
        assert_eq!(acknowledged.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        acknowledging.copied(0, 1).unwrap();
        assert_eq!(acknowledging.tail.end().borrow().entries, 0);
    }
}
