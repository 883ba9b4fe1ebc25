//! The journal's writer: stamps, writes, syncs, acknowledges.
//!
//! Group commit: what is queued when a sync begins goes into one write. A lone
//! sender is synced at once; under load syncs are kept apart, so that a fast disk is not
//! worn by tiny groups.

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use futures::executor::block_on;

use crate::event::time::{Clock, SECOND, UnixNanos};
use crate::failpoint::is_to_fail;
use crate::journal::acknowledging::{Acknowledging, Asked, Written};
use crate::journal::frame::{self, Header};
use crate::journal::queue::{Append, Change, GROUP_BYTES_ENOUGH, Pace, Question, Work};
use crate::journal::replay::{self, JournalError, Replay};
use crate::journal::rows;
use crate::journal::tail::Tail;
use crate::journal::{
    AppendError, CommitFigures, Events, Extent, Journal, Mirror, Observer, Opening, Position,
    Stamped,
};

/// Entries in a group at most.
const GROUP_ENTRIES_MAX: usize = 4096;
/// Bytes in a group at most, but for one entry that is larger alone.
const GROUP_BYTES_MAX: usize = 8 << 20;
const _: () = assert!(GROUP_BYTES_ENOUGH <= GROUP_BYTES_MAX);

/// Commits what is appended; run by a thread of its own, or a task.
pub struct Writer {
    journal: Journal,
    clock: Clock,
    observer: Observer,
    open: Option<Open>,
    /// Whether nothing is stamped, though there may be an open segment.
    is_suspended: bool,
    /// What is appended meanwhile.
    waiting: Vec<Append>,
    last_stamp: UnixNanos,
    /// What is stamped before this may be appended.
    lease: UnixNanos,
    /// What all entries carry that were written, since the journal began.
    events: Events,
}

/// The segment that is written.
struct Open {
    next: Position,
    /// What all entries before it carry.
    before: Events,
    /// The stamp of its last entry; 0 if there is none.
    last: UnixNanos,
    acknowledging: Arc<Acknowledging>,
    mirrors: Vec<Arc<dyn Mirror>>,
}

impl Writer {
    pub(super) fn new(
        journal: Journal,
        replay: &Replay,
        clock: Clock,
        observer: Observer,
    ) -> Writer {
        Writer {
            journal,
            clock,
            observer,
            open: None,
            is_suspended: true,
            waiting: Vec::new(),
            last_stamp: replay.last_stamp,
            lease: UnixNanos(0),
            events: replay.events,
        }
    }

    /// Commits, as a thread, until the journal is closed and everything in it is durable.
    ///
    /// # Errors
    /// When a commit fails: its senders and all later ones are refused.
    pub fn run(mut self) -> Result<(), JournalError> {
        let mut pace = Pace::idle();
        let mut done = Ok(());
        while done.is_ok()
            && let Some(work) = self.journal.queue.next(pace)
        {
            pace = Pace::begin(work.appends.len());
            done = block_on(self.work(work));
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
            && let Some(work) = self.journal.queue.next_as_task(pace).await
        {
            pace = Pace::begin(work.appends.len());
            done = self.work(work).await;
        }
        self.end();
        done
    }

    fn end(&self) {
        self.journal.queue.give_up();
        if let Some(open) = &self.open {
            open.acknowledging.give_up();
        }
        self.journal.shown.close();
    }

    async fn work(
        &mut self,
        Work { changes, questions, appends }: Work,
    ) -> Result<(), JournalError> {
        for change in changes {
            self.change(change).await?;
        }
        for question in questions {
            self.answer(question);
        }
        if self.is_suspended {
            self.waiting.extend(appends);
            return Ok(());
        }
        self.commit_all(appends).await
    }

    /// Whoever wanted a change may have gone.
    async fn change(&mut self, change: Change) -> Result<(), JournalError> {
        match change {
            Change::Suspend { answer } => {
                self.is_suspended = true;
                let written = self.open.as_ref().map(|open| Stamped {
                    before: Extent::new(open.next.index, self.events.beyond(open.before)),
                    last: open.last,
                });
                let _ = answer.send(written.unwrap_or_default());
            }
            Change::Seal { end, answer } => {
                self.seal(end).await?;
                let _ = answer.send(());
            }
            Change::Open { opening, answer } => {
                self.open(opening).await?;
                let _ = answer.send(());
                let waiting = mem::take(&mut self.waiting);
                self.commit_all(waiting).await?;
            }
            Change::Refuse if self.is_suspended => {
                refuse(mem::take(&mut self.waiting), AppendError::NoSegment);
            }
            Change::Refuse => {}
        }
        Ok(())
    }

    async fn seal(&mut self, end: Option<u64>) -> Result<(), JournalError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let rest = open.acknowledging.end(end)?;
        let index = open.next.index - rest.len() as u64;
        let here = Position { index, ..open.next };
        self.journal.store.ready().await;
        replay::seal_segment(&self.journal.store, here, open.before)?;
        self.journal.shown.seal();
        for written in &rest {
            self.events = self.events.beyond(written.events);
        }
        let rest: Vec<_> = rest.into_iter().map(Append::from).collect();
        if end.is_none() {
            // Appended again it might count twice.
            refuse(rest, AppendError::Unknown);
            return Ok(());
        }
        self.waiting.splice(..0, rest);
        Ok(())
    }

    async fn open(&mut self, opening: Opening) -> Result<(), JournalError> {
        let Opening { segment, floor, lease, mirrors } = opening;
        let (journal, before) = (&self.journal, self.events);
        let store = Arc::clone(&journal.store);
        store.ready().await;
        replay::open_segment(&store, segment, before, &journal.segments.ends())?;
        journal.segments.open(segment, before);
        let tail = Arc::new(Tail::new(segment, before));
        let segments = Arc::clone(&journal.segments);
        let acknowledging = Acknowledging::new(store, segments, tail, mirrors.len());
        let acknowledging = Arc::new(acknowledging);
        journal.shown.show(Arc::clone(&acknowledging));
        let (next, last) = (Position { segment, index: 0 }, UnixNanos(0));
        self.open = Some(Open { next, before, last, acknowledging, mirrors });
        self.last_stamp = self.last_stamp.max(floor);
        self.lease = self.lease.max(lease);
        self.is_suspended = false;
        Ok(())
    }

    /// Says how much is stamped before a time; from then on nothing more is.
    fn answer(&mut self, Question { time, lease, answer }: Question) {
        if !is_to_fail("planted-stamps-below-cut") {
            self.last_stamp = self.last_stamp.max(time);
        }
        self.lease = self.lease.max(lease);
        match &self.open {
            Some(open) => {
                open.acknowledging.answer_after(open.next.index, Asked { time, answer });
            }
            // Whoever asked may have gone.
            None => drop(answer.send(self.journal.segments.stamped(time))),
        }
    }

    async fn commit_all(&mut self, appends: Vec<Append>) -> Result<(), JournalError> {
        let mut appends = appends.into_iter().peekable();
        while appends.peek().is_some() {
            let group = take_group(&mut appends);
            self.commit(group).await?;
        }
        Ok(())
    }

    async fn commit(&mut self, group: Vec<Append>) -> Result<(), JournalError> {
        let began = Instant::now();
        let mut now = self.clock.now();
        if is_to_fail("planted-stamp-ahead") {
            now.0 += 4 * SECOND;
        }
        let stamp = self.last_stamp.max(now);
        let Some(open) = &mut self.open else {
            refuse(group, AppendError::NoSegment);
            return Ok(());
        };
        if stamp >= self.lease && !is_to_fail("planted-stamp-without-lease") {
            refuse(group, AppendError::NoLease);
            return Ok(());
        }
        let first = open.next;
        let (mut position, mut before, mut bytes) = (first, self.events, 0);
        let mut written = Vec::with_capacity(group.len());
        for Append { mut frame, events, hold, durable: sender } in group {
            let header = Header { stamp, before, events };
            frame::seal(&mut frame, position, header);
            position.index += 1;
            before += events;
            bytes += frame.len();
            written.push(Written { stamp, events, frame: frame.into(), hold, sender });
        }
        // The other copies write while this one does.
        let frames: Vec<_> = written.iter().map(|entry| entry.frame.clone()).collect();
        for mirror in &open.mirrors {
            mirror.write(first.index, frames.clone());
        }
        self.journal.store.ready().await;
        let mut batch = self.journal.store.batch();
        rows::put(&self.journal.store, &mut batch, first, &frames)?;
        drop(frames);
        self.journal.store.commit(batch)?;
        (self.observer)(CommitFigures { entries: written.len(), bytes, took: began.elapsed() });
        (open.next, open.last) = (position, stamp);
        (self.last_stamp, self.events) = (stamp, before);
        Ok(open.acknowledging.written(written)?)
    }
}

fn refuse(appends: Vec<Append>, why: AppendError) {
    for Append { durable, .. } in appends {
        // A sender that went away does not need to know.
        let _ = durable.send(Err(why));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;
    use tokio::time::timeout;

    use crate::journal::example::{Life, replayed};
    use crate::store::Disk;

    #[tokio::test(start_paused = true)]
    async fn nothing_is_acknowledged_before_a_slow_disk_has_it() {
        fastrand::seed(1);
        let disk = Disk::default();
        let life = Life::begin(&disk, 1, 3).await;
        life.append(2, 10).await;
        disk.delay_writes(Some(Duration::from_secs(100)));
        assert!(timeout(Duration::from_secs(1), life.append(1, 10)).await.is_err());
        assert_eq!(life.stamped(9).now_or_never(), None, "what was asked later waits");
        disk.crash();
        assert_eq!(replayed(&disk).entries, 2);
    }
}
