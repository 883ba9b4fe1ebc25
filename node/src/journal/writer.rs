//! The journal's writer: stamps, writes, syncs, acknowledges.
//!
//! Group commit: what is queued when a sync begins goes into one write. A lone
//! sender is synced at once; under load syncs are kept apart, so that a fast disk is not
//! worn by tiny groups.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::event::time::{Clock, UnixNanos};
use crate::journal::acknowledging::{Acknowledging, Asked, Group};
use crate::journal::frame::{self, Header};
use crate::journal::queue::{Append, GROUP_BYTES_ENOUGH, Pace, Question, Queue, Work};
use crate::journal::replay::{JournalError, Replay};
use crate::journal::tail::{Durable, Tail};
use crate::journal::{AppendError, CommitFigures, Extent, Mirror, Observer, Opening, Position};
use crate::store::{Store, Table, keys};

/// Entries in a group at most.
const GROUP_ENTRIES_MAX: usize = 4096;
/// Bytes in a group at most, but for one entry that is larger alone.
const GROUP_BYTES_MAX: usize = 8 << 20;
const _: () = assert!(GROUP_BYTES_ENOUGH <= GROUP_BYTES_MAX);

/// Commits what is appended; run by a thread of its own, or a task.
pub struct Writer {
    queue: Arc<Queue>,
    acknowledging: Arc<Acknowledging>,
    mirrors: Vec<Arc<dyn Mirror>>,
    tail: Arc<Tail>,
    store: Arc<Store>,
    clock: Clock,
    observer: Observer,
    next: Position,
    last_stamp: UnixNanos,
    /// What is stamped before this may be appended.
    lease: UnixNanos,
    records: u64,
}

impl Writer {
    pub(super) fn new(
        store: Arc<Store>,
        acknowledging: Arc<Acknowledging>,
        mirrors: Vec<Arc<dyn Mirror>>,
        tail: Arc<Tail>,
        replay: &Replay,
        opening: &Opening,
        clock: Clock,
        observer: Observer,
    ) -> Writer {
        let Opening { segment, floor, lease, .. } = *opening;
        Writer {
            queue: Arc::default(),
            acknowledging,
            mirrors,
            tail,
            store,
            clock,
            observer,
            next: Position { segment, index: 0 },
            last_stamp: replay.last_stamp.max(floor),
            lease,
            records: replay.records,
        }
    }

    pub(super) fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.queue)
    }

    /// Commits, as a thread, until the journal is closed and everything in it is durable.
    ///
    /// # Errors
    /// When a commit fails: its senders and all later ones are refused.
    pub fn run(mut self) -> Result<(), JournalError> {
        let mut pace = Pace::idle();
        let mut done = Ok(());
        while let (Ok(()), Some(work)) = (&done, self.queue.next(pace)) {
            pace = Pace::begin(work.appends.len());
            done = self.work(work);
        }
        self.end();
        done
    }

    /// As [`Writer::run`], as a task.
    ///
    /// # Errors
    /// As [`Writer::run`].
    pub async fn run_as_task(mut self) -> Result<(), JournalError> {
        let mut pace = Pace::idle();
        let mut done = Ok(());
        while let (Ok(()), Some(work)) = (&done, self.queue.next_as_task(pace).await) {
            pace = Pace::begin(work.appends.len());
            done = self.work(work);
        }
        self.end();
        done
    }

    fn end(&self) {
        self.queue.give_up();
        self.acknowledging.give_up();
        self.tail.close();
    }

    fn work(&mut self, Work { questions, appends }: Work) -> Result<(), JournalError> {
        for question in questions {
            self.answer(question);
        }
        let mut appends = appends.into_iter().peekable();
        while appends.peek().is_some() {
            let group = take_group(&mut appends);
            self.commit(group)?;
        }
        Ok(())
    }

    /// Says how much is stamped before a time; from then on nothing more is.
    fn answer(&mut self, Question { time, lease, answer }: Question) {
        self.last_stamp = self.last_stamp.max(time);
        self.lease = self.lease.max(lease);
        self.acknowledging.answer_after(self.next.index, Asked { time, answer });
    }

    fn commit(&mut self, group: Vec<Append>) -> Result<(), JournalError> {
        let began = Instant::now();
        let stamp = self.last_stamp.max(self.clock.now());
        if stamp >= self.lease {
            for Append { durable, .. } in group {
                // A sender that went away does not need to know.
                let _ = durable.send(Err(AppendError::NoLease));
            }
            return Ok(());
        }
        let first = self.next;
        let (mut position, mut records, mut bytes) = (first, self.records, 0);
        let mut frames = Vec::with_capacity(group.len());
        let (mut holds, mut senders) = (Vec::new(), Vec::new());
        for Append { mut frame, records: own, hold, durable } in group {
            let header = Header { stamp, records_before: records, records: own };
            frame::seal(&mut frame, position, header);
            position.index += 1;
            records += own;
            bytes += frame.len();
            frames.push(Bytes::from(frame));
            holds.push(hold);
            senders.push(durable);
        }
        // The other copies write while this one does.
        self.mirrors.iter().for_each(|mirror| mirror.write(first.index, &frames));
        let mut batch = self.store.batch();
        for (index, frame) in (first.index..).zip(&frames) {
            batch.put(Table::Journal, &keys::entry(first.segment, index), frame)?;
        }
        self.store.commit(batch)?;
        let appended = Extent { entries: frames.len() as u64, records: records - self.records };
        let took = began.elapsed();
        (self.observer)(CommitFigures { entries: frames.len(), bytes, took });
        (self.next, self.last_stamp, self.records) = (position, stamp, records);
        let durable = frames.into_iter().zip(holds).map(|(frame, hold)| Durable { frame, hold });
        let entries = durable.collect();
        let group = Group { first, stamp, appended, records, entries, senders };
        Ok(self.acknowledging.written(group)?)
    }
}

fn take_group(appends: &mut std::iter::Peekable<std::vec::IntoIter<Append>>) -> Vec<Append> {
    let mut group = Vec::with_capacity(appends.len().min(GROUP_ENTRIES_MAX));
    let mut bytes = 0;
    while let Some(append) = appends.next_if(|append| {
        group.is_empty()
            || (group.len() < GROUP_ENTRIES_MAX && bytes + append.frame.len() <= GROUP_BYTES_MAX)
    }) {
        bytes += append.frame.len();
        group.push(append);
    }
    group
}
