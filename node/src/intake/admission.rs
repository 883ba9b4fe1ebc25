//! One budget in bytes for every request that the node holds at once.
//!
//! A source charges the budget *before* it buffers, so that memory stays within
//! it whatever the senders do. Room goes first to requests that are already
//! half here, because finishing them is what makes room again, then to new
//! ones, each in order of arrival.

mod drain; // how fast it empties
mod usage; // how full it was

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::event::chunk::{Sequence, StreamId};
use drain::DrainRate;
use usage::Usage;

/// How long a sender waits for room before it is told to come back.
pub const ADMIT_WAIT: Duration = Duration::from_secs(1);
/// The least that a sender is told to stay away.
pub const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
/// The most that a sender is told to stay away.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// A sender whose file lacks a chunk is told to stay away for so long: the chunk has to come first.
const GAP_WAIT: Duration = Duration::from_secs(5);
/// A delay is stretched by a random factor below this, so that senders refused together do not return together.
const JITTER: u32 = 2;
const _: () = assert!(RETRY_AFTER_MIN.as_secs() * JITTER as u64 <= RETRY_AFTER_MAX.as_secs());

/// Why the node takes no requests at all for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// It has not read back its journal yet.
    Starting,
    /// It is about to stop: nothing reopens this.
    Draining,
    /// Its cluster drains it: nothing reopens this.
    Leaving,
    /// Its cluster has drained it, or has given it up: nothing reopens this.
    Gone,
    /// Its disk is down to the reserve.
    DiskFull,
    /// Its store failed and is being reopened.
    StoreTrouble,
    /// It hears of no leader, so that nobody allows it to stamp.
    Leaderless,
    /// A node that had copies of its journal is lost, and another one has yet to take its place.
    LacksCopies,
    /// No aggregation rebuilds files, so nobody would keep a chunk.
    CollectsNoFiles,
    /// No aggregation counts log records, so nobody would.
    CountsNoRecords,
}

impl Closed {
    /// A request that is half here may still finish: what stands in the way is not the disk.
    fn lets_started_requests_finish(self) -> bool {
        matches!(self, Closed::Starting | Closed::Draining | Closed::Leaving)
    }

    fn is_final(self) -> bool {
        matches!(self, Closed::Draining | Closed::Leaving | Closed::Gone)
    }

    fn usually_lasts(self) -> Duration {
        match self {
            Closed::Starting
            | Closed::Draining
            | Closed::Leaving
            | Closed::Gone
            | Closed::Leaderless
            | Closed::LacksCopies => RETRY_AFTER_MIN,
            Closed::StoreTrouble => Duration::from_secs(5),
            Closed::DiskFull | Closed::CollectsNoFiles | Closed::CountsNoRecords => {
                RETRY_AFTER_MAX / JITTER
            }
        }
    }
}

/// Why a request was refused; the same request may succeed later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// No room in the budget within [`ADMIT_WAIT`].
    Full,
    /// The node takes no requests for now.
    Closed(Closed),
    /// A file lacks a chunk, and so much came behind it that no more is taken.
    Gap {
        /// What the file is called.
        id: StreamId,
        /// Which file of that name.
        session: u64,
        /// The chunk that it lacks.
        next: Sequence,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Gap { id, session, next } => {
                let next = next.number();
                return write!(
                    f,
                    "the file {id} of session {session} lacks chunk {next}, and too much waits \
                     already: send that chunk first"
                );
            }
            Why::Full => "the node is busy",
            Why::Closed(Closed::Starting) => "the node is starting",
            Why::Closed(Closed::Draining) => "the node is shutting down",
            Why::Closed(Closed::Leaving) => "the node is being drained, and leaves its cluster",
            Why::Closed(Closed::Gone) => {
                "the node belongs to its cluster no more; it can be stopped"
            }
            Why::Closed(Closed::DiskFull) => "the node's disk is full",
            Why::Closed(Closed::Leaderless) => "the node hears of no leader",
            Why::Closed(Closed::LacksCopies) => {
                "the node looks for others that take copies of its journal"
            }
            Why::Closed(Closed::CollectsNoFiles) => {
                "no aggregation of the type LogFiles is set up, so chunks are not taken"
            }
            Why::Closed(Closed::CountsNoRecords) => {
                "no aggregation counts log records, so they are not taken"
            }
            Why::Closed(Closed::StoreTrouble) => "the node's store is recovering from a failure",
        })
    }
}

/// The request was not taken, and nothing of it was kept: send it again after the delay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Busy {
    /// When to come back; already jittered, between [`RETRY_AFTER_MIN`] and [`RETRY_AFTER_MAX`].
    pub retry_after: Duration,
    /// What stood in the way.
    pub why: Why,
}

/// The node's budget; clones share it.
#[derive(Clone)]
pub struct Admission(Arc<Shared>);

struct Shared {
    capacity: usize,
    refused: AtomicU64,
    over: CancellationToken,
    state: Mutex<State>,
}

struct State {
    used: usize,
    waiting: usize,
    growing: VecDeque<Waiter>,
    arriving: VecDeque<Waiter>,
    /// The last of the reasons that are final.
    over: Option<Closed>,
    trouble: Option<Closed>,
    drain: DrainRate,
    usage: Usage,
}

#[derive(Clone, Copy, PartialEq)]
enum Line {
    Growing,
    Arriving,
}

struct Waiter {
    bytes: usize,
    tell: oneshot::Sender<Result<(), Closed>>,
}

impl Admission {
    /// A budget of `capacity` bytes. It must hold the largest request together with
    /// what it becomes on its way in, or that request can never be taken.
    pub fn new(capacity: usize) -> Self {
        let state = State {
            used: 0,
            waiting: 0,
            growing: VecDeque::new(),
            arriving: VecDeque::new(),
            over: None,
            trouble: None,
            drain: DrainRate::new(capacity),
            usage: Usage::new(),
        };
        Admission(Arc::new(Shared {
            capacity,
            refused: AtomicU64::new(0),
            over: CancellationToken::new(),
            state: Mutex::new(state),
        }))
    }

    /// Charges `bytes` for a new request. Waits at most [`ADMIT_WAIT`] for
    /// room, and not at all while the node is closed.
    pub async fn admit(&self, bytes: usize) -> Result<Permit, Busy> {
        self.charge(bytes, Line::Arriving).await?;
        Ok(Permit { admission: self.clone(), bytes })
    }

    /// Takes no new requests from now on, and answers those that wait. The
    /// latest reason counts, except that some are final.
    pub fn close(&self, why: Closed) {
        let mut state = self.lock();
        if why.is_final() {
            state.over = Some(why);
            self.0.over.cancel();
        } else {
            state.trouble = Some(why);
        }
        state.turn_away();
    }

    /// Takes requests again, unless a reason is final.
    pub fn reopen(&self) {
        self.lock().trouble = None;
    }

    /// Why no requests are taken at the moment, if none are.
    pub fn closed(&self) -> Option<Closed> {
        let state = self.lock();
        state.over.or(state.trouble)
    }

    /// Cancelled once no requests are taken for a reason that is final.
    pub fn over(&self) -> CancellationToken {
        self.0.over.clone()
    }

    /// Bytes charged now: the depth of the queue.
    pub fn used(&self) -> usize {
        self.lock().used
    }

    /// Bytes that senders are waiting to be charged.
    pub fn waiting(&self) -> usize {
        self.lock().waiting
    }

    /// The whole budget, in bytes.
    pub fn capacity(&self) -> usize {
        self.0.capacity
    }

    /// The mean use of the budget over the last 60 whole seconds, from 0 to 100. A second in
    /// which a request was refused for lack of room counts as full.
    pub fn used_percent(&self) -> f64 {
        let mut state = self.lock();
        state.observe(self.0.capacity);
        state.usage.percent()
    }

    /// How many requests were refused since the start.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    async fn charge(&self, bytes: usize, line: Line) -> Result<(), Busy> {
        let mut place = match self.take_or_queue(bytes, line) {
            Ok(None) => return Ok(()),
            Ok(Some(place)) => place,
            Err(closed) => return Err(self.refuse(Why::Closed(closed))),
        };
        match tokio::time::timeout(ADMIT_WAIT, &mut place.turn).await {
            Ok(Ok(answer)) => {
                place.left = true;
                answer.map_err(|closed| self.refuse(Why::Closed(closed)))
            }
            // The other half stays in the queue for as long as nothing was told, so this is the timeout.
            Ok(Err(_)) | Err(_) => {
                drop(place);
                Err(self.refuse(Why::Full))
            }
        }
    }

    /// `None` if the bytes were charged at once.
    fn take_or_queue(&self, bytes: usize, line: Line) -> Result<Option<Place<'_>>, Closed> {
        let mut state = self.lock();
        if let Some(closed) = state.closed_to(line) {
            return Err(closed);
        }
        let first =
            state.growing.is_empty() && (line == Line::Growing || state.arriving.is_empty());
        if first && bytes <= self.0.capacity.saturating_sub(state.used) {
            state.charge(bytes, self.0.capacity);
            return Ok(None);
        }
        let (tell, turn) = oneshot::channel();
        state.waiting += bytes;
        state.line(line).push_back(Waiter { bytes, tell });
        Ok(Some(Place { admission: self, bytes, turn, left: false }))
    }

    /// The answer for a request that cannot be taken for this reason.
    pub fn refuse(&self, why: Why) -> Busy {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        let delay = match &why {
            Why::Closed(closed) => closed.usually_lasts(),
            Why::Gap { .. } => GAP_WAIT,
            Why::Full => {
                let mut state = self.lock();
                state.observe(self.0.capacity);
                state.usage.overflow();
                state.drain.time_for(state.used + state.waiting)
            }
        };
        let delay = delay.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX / JITTER);
        let stretch = 1.0 + fastrand::f64() * f64::from(JITTER - 1);
        Busy { retry_after: delay.mul_f64(stretch), why }
    }

    fn give_back(&self, bytes: usize) {
        let mut state = self.lock();
        state.drain.drained(bytes);
        state.discharge(bytes, self.0.capacity);
        state.serve(self.0.capacity);
    }

    /// Nothing in here panics half-way through a change, so a poisoned lock still guards a sound state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("used", &self.used())
            .field("capacity", &self.0.capacity)
            .finish()
    }
}

impl State {
    fn line(&mut self, line: Line) -> &mut VecDeque<Waiter> {
        match line {
            Line::Growing => &mut self.growing,
            Line::Arriving => &mut self.arriving,
        }
    }

    fn closed_to(&self, line: Line) -> Option<Closed> {
        let closed = self.trouble.or(self.over)?;
        (line == Line::Arriving || !closed.lets_started_requests_finish()).then_some(closed)
    }

    fn charge(&mut self, bytes: usize, capacity: usize) {
        self.observe(capacity);
        self.used += bytes;
    }

    fn discharge(&mut self, bytes: usize, capacity: usize) {
        self.observe(capacity);
        self.used -= bytes;
    }

    /// Accounts for the time up to now; to be called before what is used changes.
    fn observe(&mut self, capacity: usize) {
        let now = Instant::now();
        self.drain.observe(self.used, capacity, now);
        self.usage.observe(self.used, capacity, now);
    }

    /// Hands room to those who wait, for as long as the next in line fits.
    fn serve(&mut self, capacity: usize) {
        loop {
            let line = if self.growing.is_empty() { Line::Arriving } else { Line::Growing };
            let free = capacity.saturating_sub(self.used);
            match self.line(line).front() {
                Some(next) if next.tell.is_closed() || next.bytes <= free => {}
                _ => return,
            }
            let Some(waiter) = self.line(line).pop_front() else { return };
            // One that gave up has settled its own account.
            if !waiter.tell.is_closed() {
                self.waiting -= waiter.bytes;
                self.charge(waiter.bytes, capacity);
                // It cannot give up meanwhile: that takes the lock that we hold.
                let _ = waiter.tell.send(Ok(()));
            }
        }
    }

    /// Answers whoever waits at a closed door.
    fn turn_away(&mut self) {
        for line in [Line::Growing, Line::Arriving] {
            if let Some(closed) = self.closed_to(line) {
                for waiter in std::mem::take(self.line(line)) {
                    if !waiter.tell.is_closed() {
                        self.waiting -= waiter.bytes;
                        let _ = waiter.tell.send(Err(closed));
                    }
                }
            }
        }
    }
}

/// A place in the queue. Dropped before its turn was read (by a timeout, or because the sender went away), it is given up.
struct Place<'a> {
    admission: &'a Admission,
    bytes: usize,
    turn: oneshot::Receiver<Result<(), Closed>>,
    left: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let capacity = self.admission.0.capacity;
        let mut state = self.admission.lock();
        self.turn.close();
        match self.turn.try_recv() {
            Ok(Ok(())) => state.discharge(self.bytes, capacity),
            Ok(Err(_)) => {}
            Err(_) => state.waiting -= self.bytes,
        }
        state.serve(capacity);
    }
}

/// Bytes of the budget, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    admission: Admission,
    bytes: usize,
}

impl Permit {
    /// Charges `more` bytes, before they are buffered. Waits as [`Admission::admit`]
    /// does, but ahead of all new requests, and goes on while the node drains.
    pub async fn grow(&mut self, more: usize) -> Result<(), Busy> {
        self.admission.charge(more, Line::Growing).await?;
        self.bytes += more;
        Ok(())
    }

    /// Gives back all but `bytes`; does nothing if it holds no more than that.
    pub fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        if surplus > 0 {
            self.bytes -= surplus;
            self.admission.give_back(surplus);
        }
    }

    /// Bytes charged.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests;
