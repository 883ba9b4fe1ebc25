//! What waits in front of the writer, and when it is due.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::event::time::UnixNanos;
use crate::journal::{AppendError, Events, Hold, Opening, Position, Stamped};

/// How far apart syncs begin under load.
const SYNC_PACE: Duration = Duration::from_millis(2);
/// A group is written without waiting further at this size.
pub(super) const GROUP_BYTES_ENOUGH: usize = 1 << 20;

/// Where an appender hears what became of its entry.
pub(super) type Acknowledged = oneshot::Receiver<Result<Position, AppendError>>;

/// An entry that waits for the writer.
pub(super) struct Append {
    pub(super) frame: Vec<u8>,
    pub(super) events: Events,
    pub(super) hold: Hold,
    pub(super) durable: oneshot::Sender<Result<Position, AppendError>>,
}

/// Somebody who wants to know how much is stamped before a time, and brings a lease.
pub(super) struct Question {
    pub(super) time: UnixNanos,
    pub(super) lease: UnixNanos,
    pub(super) answer: oneshot::Sender<BTreeMap<u64, Stamped>>,
}

/// A change of segments.
pub(super) enum Change {
    /// Nothing more is stamped in the open segment, and its length told.
    Suspend { answer: oneshot::Sender<Stamped> },
    /// The suspended segment ends here, if that is known.
    Seal { end: Option<u64>, answer: oneshot::Sender<()> },
    /// Another segment follows.
    Open { opening: Opening, answer: oneshot::Sender<()> },
    /// What waits while no segment is open is refused.
    Refuse,
}

/// What the writer does next.
#[derive(Default)]
pub(super) struct Work {
    /// Are made first, in this order.
    pub(super) changes: Vec<Change>,
    /// Is answered then.
    pub(super) questions: Vec<Question>,
    /// Is committed then.
    pub(super) appends: Vec<Append>,
}

/// On what it depends when the next group is due.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// When the last group began.
    began: Instant,
    /// Whether it was more than one entry.
    loaded: bool,
}

impl Pace {
    /// Before the first group.
    pub(super) fn idle() -> Pace {
        Pace { began: Instant::now(), loaded: false }
    }

    /// A group of so many entries begins.
    pub(super) fn begin(entries: usize) -> Pace {
        Pace { began: Instant::now(), loaded: entries > 1 }
    }
}

/// When the writer has to look again.
enum Due {
    Now(Work),
    At(Instant),
    WhenChanged,
    /// The queue is closed and empty.
    Never,
}

#[derive(Default)]
struct Waiting {
    work: Work,
    bytes: usize,
    closed: bool,
}

impl Waiting {
    fn due(&mut self, pace: Pace) -> Due {
        let Work { changes, questions, appends } = &self.work;
        if appends.is_empty() && questions.is_empty() && changes.is_empty() {
            return if self.closed { Due::Never } else { Due::WhenChanged };
        }
        let may_wait = (pace.loaded || appends.len() > 1)
            && self.bytes < GROUP_BYTES_ENOUGH
            && questions.is_empty()
            && changes.is_empty()
            && !self.closed;
        let not_before = pace.began + SYNC_PACE;
        if may_wait && Instant::now() < not_before {
            return Due::At(not_before);
        }
        self.bytes = 0;
        Due::Now(mem::take(&mut self.work))
    }
}

/// What waits in front of the writer. It is bounded by the admission budget, which every
/// entry's hold is a part of.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// For a writer that is a thread ..
    changed: Condvar,
    /// .. and for one that is a task.
    notify: Notify,
}

impl Queue {
    pub(super) fn append(
        &self,
        frame: Vec<u8>,
        events: Events,
        hold: Hold,
    ) -> Result<Acknowledged, AppendError> {
        let (durable, acknowledged) = oneshot::channel();
        self.push(|waiting| {
            waiting.bytes += frame.len();
            waiting.work.appends.push(Append { frame, events, hold, durable });
        })?;
        Ok(acknowledged)
    }

    pub(super) fn stamped(
        &self,
        time: UnixNanos,
        lease: UnixNanos,
    ) -> Result<oneshot::Receiver<BTreeMap<u64, Stamped>>, AppendError> {
        let (answer, stamped) = oneshot::channel();
        self.push(|waiting| waiting.work.questions.push(Question { time, lease, answer }))?;
        Ok(stamped)
    }

    pub(super) fn change(&self, change: Change) -> Result<(), AppendError> {
        self.push(|waiting| waiting.work.changes.push(change))
    }

    /// Refuses what comes; what waits is still done.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.tell();
    }

    /// Refuses what comes and what waits: who waits sees a channel close.
    pub(super) fn give_up(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.work = Work::default();
    }

    /// Waits, as a thread, for work; `None` when the queue is closed and empty.
    pub(super) fn next(&self, pace: Pace) -> Option<Work> {
        let mut waiting = self.lock();
        loop {
            waiting = match waiting.due(pace) {
                Due::Now(work) => return Some(work),
                Due::Never => return None,
                Due::WhenChanged => {
                    self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner)
                }
                Due::At(time) => {
                    let left = time.saturating_duration_since(Instant::now());
                    let waited = self.changed.wait_timeout(waiting, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Waits, as a task, for work; `None` when the queue is closed and empty.
    pub(super) async fn next_as_task(&self, pace: Pace) -> Option<Work> {
        loop {
            let due = self.lock().due(pace);
            match due {
                Due::Now(work) => return Some(work),
                Due::Never => return None,
                Due::WhenChanged => self.notify.notified().await,
                // Whether it changed or is time shows in the next round.
                Due::At(time) => drop(timeout_at(time, self.notify.notified()).await),
            }
        }
    }

    fn push(&self, push: impl FnOnce(&mut Waiting)) -> Result<(), AppendError> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(AppendError::Closed);
        }
        push(&mut waiting);
        drop(waiting);
        self.tell();
        Ok(())
    }

    fn tell(&self) {
        self.changed.notify_one();
        self.notify.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Whoever panicked held it for a push or a flag: what is there is whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(queue: &Queue, bytes: usize) -> Acknowledged {
        queue.append(vec![0; bytes], Events::of_records(1), Box::new(())).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_sender_is_served_at_once_and_many_are_paced() {
        let queue = Queue::default();
        let _first = append(&queue, 1);
        let began = Instant::now();
        assert_eq!(queue.next_as_task(Pace::idle()).await.unwrap().appends.len(), 1);
        assert_eq!(began.elapsed(), Duration::ZERO);
        let loaded = Pace::begin(2);
        let _second = append(&queue, 1);
        assert_eq!(queue.next_as_task(loaded).await.unwrap().appends.len(), 1);
        assert!(began.elapsed() >= SYNC_PACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_group_a_question_and_the_end_are_not_paced() {
        let queue = Queue::default();
        let began = Instant::now();
        let _large = append(&queue, GROUP_BYTES_ENOUGH);
        assert_eq!(queue.next_as_task(Pace::begin(2)).await.unwrap().appends.len(), 1);
        let (_small, _asked) =
            (append(&queue, 1), queue.stamped(UnixNanos(1), UnixNanos(2)).unwrap());
        let work = queue.next_as_task(Pace::begin(2)).await.unwrap();
        assert_eq!((work.appends.len(), work.questions.len()), (1, 1));
        let _last = append(&queue, 1);
        queue.close();
        assert_eq!(queue.next_as_task(Pace::begin(2)).await.unwrap().appends.len(), 1);
        assert!(queue.next_as_task(Pace::begin(2)).await.is_none());
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(queue.append(Vec::new(), Events::default(), Box::new(())).is_err());
    }

    #[test]
    fn a_thread_is_woken_by_what_comes_and_ends_with_the_queue() {
        let queue = std::sync::Arc::new(Queue::default());
        let other = std::sync::Arc::clone(&queue);
        let thread = std::thread::spawn(move || {
            let mut done = 0;
            while let Some(work) = other.next(Pace::begin(2)) {
                done += work.appends.len();
            }
            done
        });
        let waiting: Vec<_> = (0..9).map(|_| append(&queue, 1)).collect();
        queue.close();
        assert_eq!(thread.join().unwrap(), 9);
        drop(waiting);
    }
}
