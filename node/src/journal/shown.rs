//! The segments of this node that are read from memory: the open one, and those before it
//! that were not folded yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::journal::Events;
use crate::journal::acknowledging::Acknowledging;
use crate::journal::tail::Tail;

pub(super) struct Shown(Mutex<Segments>);

struct Segments {
    open: Option<Arc<Acknowledging>>,
    tails: BTreeMap<u64, Arc<Tail>>,
    /// The number of the last one.
    last: u64,
    /// What all entries before the last one carry.
    events: Events,
}

impl Shown {
    /// None, in a journal whose entries carry `events`.
    pub(super) fn new(events: Events) -> Shown {
        Shown(Mutex::new(Segments { open: None, tails: BTreeMap::new(), last: 0, events }))
    }

    /// From now on this segment is open.
    pub(super) fn show(&self, open: Arc<Acknowledging>) {
        let mut segments = self.lock();
        segments.events = events(&segments);
        segments.last = open.segment();
        segments.tails.insert(open.segment(), Arc::clone(open.tail()));
        segments.open = Some(open);
    }

    /// Nothing follows in the open segment.
    pub(super) fn seal(&self) {
        let mut segments = self.lock();
        segments.events = events(&segments);
        let Some(open) = segments.open.take() else { return };
        drop(segments);
        open.tail().seal();
        self.forget_folded(open.segment());
    }

    /// Nothing follows, in any segment.
    pub(super) fn close(&self) {
        let segments = self.lock();
        segments.tails.values().for_each(|tail| tail.close());
    }

    pub(super) fn open(&self) -> Option<Arc<Acknowledging>> {
        self.lock().open.clone()
    }

    pub(super) fn tail(&self, segment: u64) -> Option<Arc<Tail>> {
        self.lock().tails.get(&segment).cloned()
    }

    /// The number of the last segment; 0 if there was none.
    pub(super) fn segment(&self) -> u64 {
        self.lock().last
    }

    /// What all acknowledged entries carry, since the journal began.
    pub(super) fn events(&self) -> Events {
        events(&self.lock())
    }

    pub(super) fn folded(&self, segment: u64, index: u64) {
        if let Some(tail) = self.tail(segment) {
            tail.folded(index);
            self.forget_folded(segment);
        }
    }

    /// What was folded of a sealed segment is read from the database, if ever again.
    fn forget_folded(&self, segment: u64) {
        let mut segments = self.lock();
        if segments.tails.get(&segment).is_some_and(|tail| tail.is_over()) {
            segments.tails.remove(&segment);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Segments> {
        // Whoever panicked held it for one change: what is there is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn events(segments: &Segments) -> Events {
    let last = segments.open.as_ref().map(|open| open.tail().end().borrow().events);
    last.unwrap_or(segments.events)
}
