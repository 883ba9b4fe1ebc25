//! The journal's writer, a thread of its own: stamps, writes, syncs, acknowledges.
//!
//! Group commit: what is queued when a sync begins goes into one write. A lone
//! sender is synced at once; under load syncs are kept [`SYNC_PACE`] apart, so that
//! a fast disk is not worn by tiny groups.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::event::time::{Clock, UnixNanos};
use crate::failpoint::may_die;
use crate::journal::frame::{self, Header};
use crate::journal::replay::{JournalError, Replay};
use crate::journal::segments::Segments;
use crate::journal::tail::{Durable, Tail};
use crate::journal::watermark;
use crate::journal::{
    AppendError, CommitFigures, Extent, Hold, Observer, Opening, Position, Stamped,
};
use crate::store::{Store, Table, keys};

/// How far apart syncs begin under load.
const SYNC_PACE: Duration = Duration::from_millis(2);
/// A group is written without waiting further at this size.
const GROUP_BYTES_ENOUGH: usize = 1 << 20;
/// Entries in a group at most.
const GROUP_ENTRIES_MAX: usize = 4096;
/// Bytes in a group at most, but for one entry that is larger alone.
const GROUP_BYTES_MAX: usize = 8 << 20;
const _: () = assert!(GROUP_BYTES_ENOUGH <= GROUP_BYTES_MAX);

/// An entry that waits for the writer.
struct Append {
    frame: Vec<u8>,
    records: u64,
    hold: Hold,
    durable: oneshot::Sender<Position>,
}

/// Somebody who wants to know how much is stamped before a time.
struct Question {
    time: UnixNanos,
    answer: oneshot::Sender<BTreeMap<u64, Stamped>>,
}

/// What waits for the writer.
#[derive(Default)]
struct Waiting {
    appends: Vec<Append>,
    bytes: usize,
    questions: Vec<Question>,
    closed: bool,
}

/// What waits in front of the writer. It is bounded by the admission budget, which
/// every entry's hold is a part of.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Queue {
    pub(super) fn append(
        &self,
        frame: Vec<u8>,
        records: u64,
        hold: Hold,
    ) -> Result<oneshot::Receiver<Position>, AppendError> {
        let (durable, acknowledged) = oneshot::channel();
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(AppendError::Closed);
        }
        waiting.bytes += frame.len();
        waiting.appends.push(Append { frame, records, hold, durable });
        drop(waiting);
        self.changed.notify_one();
        Ok(acknowledged)
    }

    pub(super) fn stamped(
        &self,
        time: UnixNanos,
    ) -> Result<oneshot::Receiver<BTreeMap<u64, Stamped>>, AppendError> {
        let (answer, stamped) = oneshot::channel();
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(AppendError::Closed);
        }
        waiting.questions.push(Question { time, answer });
        drop(waiting);
        self.changed.notify_one();
        Ok(stamped)
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Whoever panicked held it for a push or a flag: what is there is whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to do; under load, waits on until `not_before`.
    /// `None` when the queue is closed and empty.
    fn next(&self, loaded: bool, not_before: Instant) -> Option<(Vec<Question>, Vec<Append>)> {
        let mut waiting = self.lock();
        while waiting.appends.is_empty() && waiting.questions.is_empty() {
            if waiting.closed {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        while (loaded || waiting.appends.len() > 1)
            && waiting.bytes < GROUP_BYTES_ENOUGH
            && waiting.questions.is_empty()
            && !waiting.closed
        {
            let Some(left) = not_before.checked_duration_since(Instant::now()) else { break };
            let waited = self.changed.wait_timeout(waiting, left);
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.bytes = 0;
        Some((mem::take(&mut waiting.questions), mem::take(&mut waiting.appends)))
    }
}

/// Commits what is appended; run by a thread of its own.
pub struct Writer {
    queue: Arc<Queue>,
    tail: Arc<Tail>,
    store: Arc<Store>,
    clock: Clock,
    observer: Observer,
    next: Position,
    last_stamp: UnixNanos,
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
        let Opening { segment, floor } = opening;
        Writer {
            queue: Arc::default(),
            tail,
            store,
            clock,
            observer,
            next: Position { segment, index: 0 },
            last_stamp: replay.last_stamp.max(floor),
            records: replay.records,
            segments,
        }
    }

    pub(super) fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.queue)
    }

    /// Commits until the journal is closed and everything in it is durable.
    ///
    /// # Errors
    /// When a commit fails: its senders and all later ones are refused.
    pub fn run(mut self) -> Result<(), JournalError> {
        let result = self.commit_all();
        // Whatever still waits is refused: its sender sees its channel close.
        let mut waiting = self.queue.lock();
        waiting.closed = true;
        waiting.appends.clear();
        waiting.questions.clear();
        drop(waiting);
        self.tail.close();
        result
    }

    fn commit_all(&mut self) -> Result<(), JournalError> {
        let mut began = Instant::now();
        let mut loaded = false;
        while let Some((questions, appends)) = self.queue.next(loaded, began + SYNC_PACE) {
            // Nothing is in flight here: all that was stamped is durable.
            for question in questions {
                self.answer(question);
            }
            loaded = appends.len() > 1;
            began = Instant::now();
            let mut appends = appends.into_iter().peekable();
            while appends.peek().is_some() {
                let group = take_group(&mut appends);
                self.commit(group)?;
            }
        }
        Ok(())
    }

    /// Says how much is stamped before a time; from then on nothing more is.
    fn answer(&mut self, Question { time, answer }: Question) {
        self.last_stamp = self.last_stamp.max(time);
        // Whoever asked may have gone.
        let _ = answer.send(self.segments.stamped(time));
    }

    fn commit(&mut self, mut group: Vec<Append>) -> Result<(), JournalError> {
        let began = Instant::now();
        let stamp = self.last_stamp.max(self.clock.now());
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
            let _ = durable.send(Position { index, ..first });
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
