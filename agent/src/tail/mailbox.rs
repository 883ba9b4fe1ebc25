//! What the thread that follows the files hears from the others: answers, and that it is to stop.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::event::{EventfdFlags, eventfd};

use super::session::Key;

/// What a node said to a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) key: Key,
    pub(crate) seq: u64,
    /// What it took of the memory for chunks under way.
    pub(crate) weight: usize,
    pub(crate) verdict: Verdict,
}

/// What became of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is durable.
    Taken,
    /// It can never be taken, for this reason.
    Refused(String),
    /// The node does not take it as it is, for this reason.
    NotTaken(String),
    /// It was not sent, since one before it in its session is not taken.
    PutOff,
}

/// A handle on the mailbox; all clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Mailbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    answers: Mutex<Vec<Answer>>,
    stop: AtomicBool,
    /// Readable when there is something new.
    bell: OwnedFd,
}

impl Mailbox {
    /// An empty one.
    ///
    /// # Errors
    /// If the process has too many open files.
    pub(crate) fn new() -> io::Result<Mailbox> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Mailbox(Arc::new(Shared {
            answers: Mutex::default(),
            stop: AtomicBool::default(),
            bell,
        })))
    }

    /// Puts answers in.
    pub(crate) fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.0.answers.lock().unwrap_or_else(PoisonError::into_inner).extend(answers);
        self.ring();
    }

    /// Takes the answers out.
    pub(crate) fn answers(&self) -> Vec<Answer> {
        std::mem::take(&mut *self.0.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks the follower to end.
    pub(crate) fn stop(&self) {
        self.0.stop.store(true, Ordering::Release);
        self.ring();
    }

    /// Whether the follower is to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.0.stop.load(Ordering::Acquire)
    }

    /// Readable when there is something new since [`Mailbox::quiet`].
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.0.bell.as_fd()
    }

    /// From now on only what is new makes the bell readable.
    pub(crate) fn quiet(&self) {
        // It fails when the bell was not rung.
        let _ = rustix::io::read(&self.0.bell, &mut [0; 8]);
    }

    fn ring(&self) {
        // It fails when the bell was rung very often: the follower will come.
        let _ = rustix::io::write(&self.0.bell, &1_u64.to_ne_bytes());
    }
}
