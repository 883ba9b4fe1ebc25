//! The journal's writer: stamps, writes, syncs, acknowledges.
//!
//! Group commit: what is queued when a sync begins goes into one write. A lone
//! sender is synced at once; under load syncs are kept apart, so that a fast disk is not
//! worn by tiny groups.

use std::sync::Arc;
use std::time::Instant;

use crate::event::time::{Clock, SECOND, UnixNanos};
use crate::failpoint::{is_to_fail, may_die};
use crate::journal::frame::{self, Header};
use crate::journal::queue::{Append, GROUP_BYTES_ENOUGH, Pace, Question, Queue, Work};
use crate::journal::replay::{JournalError, Replay};
use crate::journal::segments::Segments;
use crate::journal::tail::{Durable, Tail};
use crate::journal::watermark;
use crate::journal::{AppendError, CommitFigures, Extent, Observer, Opening, Position};
use crate::store::{Store, Table, keys};

/// Entries in a group at most.
const GROUP_ENTRIES_MAX: usize = 4096;
/// Bytes in a group at most, but for one entry that is larger alone.
const GROUP_BYTES_MAX: usize = 8 << 20;
const _: () = assert!(GROUP_BYTES_ENOUGH <= GROUP_BYTES_MAX);

/// Commits what is appended; run by a thread of its own, or a task.
pub struct Writer {
    queue: Arc<Queue>,
    tail: Arc<Tail>,
    store: Arc<Store>,
    clock: Clock,
    observer: Observer,
    next: Position,
    last_stamp: UnixNanos,
    /// What is stamped before this may be appended.
    lease: UnixNanos,
    records: u64,
    segments: Arc<Segments>,
}

impl Writer {
    pub(super) fn new(
        store: Arc<Store>,
        segments: Arc<Segments>,
        tail: Arc<Tail>,
        replay: &Replay,
        opening: Opening,
        clock: Clock,
        observer: Observer,
    ) -> Writer {
        let Opening { segment, floor, lease } = opening;
        Writer {
            queue: Arc::default(),
            tail,
            store,
            clock,
            observer,
            next: Position { segment, index: 0 },
            last_stamp: replay.last_stamp.max(floor),
            lease,
            records: replay.records,
            segments,
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
        while done.is_ok()
            && let Some(work) = self.queue.next(pace)
        {
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
        while done.is_ok()
            && let Some(work) = self.queue.next_as_task(pace).await
        {
            pace = Pace::begin(work.appends.len());
            done = self.work(work);
        }
        self.end();
        done
    }

    fn end(&self) {
        self.queue.give_up();
        self.tail.close();
    }

    /// Nothing is in flight here: all that was stamped is durable.
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
        if !is_to_fail("planted-stamps-below-cut") {
            self.last_stamp = self.last_stamp.max(time);
        }
        self.lease = self.lease.max(lease);
        // Whoever asked may have gone.
        let _ = answer.send(self.segments.stamped(time));
    }

    fn commit(&mut self, mut group: Vec<Append>) -> Result<(), JournalError> {
        let began = Instant::now();
        let mut now = self.clock.now();
        if is_to_fail("planted-stamp-ahead") {
            now.0 += 4 * SECOND;
        }
        let stamp = self.last_stamp.max(now);
        if stamp >= self.lease && !is_to_fail("planted-stamp-without-lease") {
            for Append { durable, .. } in group {
                // A sender that went away does not need to know.
                let _ = durable.send(Err(AppendError::NoLease));
            }
            return Ok(());
        }
        let mut position = self.next;
        let mut records = self.records;
        let mut bytes = 0;
        let mut batch = self.store.batch();
        for append in &mut group {
            let header = Header { stamp, records_before: records, records: append.records };
            frame::seal(&mut append.frame, position, header);
            let key = keys::entry(position.segment, position.index);
            batch.put(Table::Journal, &key, &append.frame)?;
            position.index += 1;
            records += append.records;
            bytes += append.frame.len();
        }
        self.store.commit(batch)?;
        let last = Position { index: position.index - 1, ..position };
        watermark::advance(&self.store, last)?;
        may_die("journal-before-acknowledge");
        (self.observer)(CommitFigures { entries: group.len(), bytes, took: began.elapsed() });
        let appended = Extent { entries: group.len() as u64, records: records - self.records };
        self.segments.append(position.segment, stamp, appended);
        self.acknowledge(stamp, group, records);
        (self.next, self.last_stamp, self.records) = (position, stamp, records);
        Ok(())
    }

    fn acknowledge(&self, stamp: UnixNanos, appends: Vec<Append>, records: u64) {
        let first = self.next;
        let mut entries = Vec::with_capacity(appends.len());
        let mut senders = Vec::with_capacity(appends.len());
        for Append { frame, hold, durable, .. } in appends {
            entries.push(Durable { frame: frame.into(), hold });
            senders.push(durable);
        }
        // Shown first, so that whoever asks after its acknowledgement is told of it.
        self.tail.push(stamp, entries, records);
        for (index, durable) in (first.index..).zip(senders) {
            // A sender that went away does not need to know.
            let _ = durable.send(Ok(Position { index, ..first }));
        }
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
