//! A node's journal over several lives, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use tokio::task::JoinHandle;

use crate::event::time::{Clock, SECOND, UnixNanos};
use crate::journal::copies::Copies;
use crate::journal::replay::replay;
use crate::journal::{
    Events, FRAME_BYTES, Journal, JournalError, Mirror, Opening, Position, Replay, Stamped, frame,
};
use crate::store::{Disk, Store};

/// A life of a node, all of whose stamps are of one second.
pub(super) struct Life {
    pub(super) journal: Journal,
    pub(super) store: Arc<Store>,
    writing: JoinHandle<Result<(), JournalError>>,
}

pub(super) fn at(second: u64) -> UnixNanos {
    UnixNanos(second * SECOND)
}

pub(super) fn replayed(disk: &Disk) -> Replay {
    let store = Store::in_memory(disk).unwrap();
    replay(&store, |_| Ok::<_, JournalError>(())).unwrap()
}

impl Life {
    pub(super) async fn begin(disk: &Disk, segment: u64, second: u64) -> Life {
        let replay = replayed(disk);
        let store = Arc::new(Store::in_memory(disk).unwrap());
        let clock = Clock::new(move || at(second));
        let (journal, writer) = Journal::new(Arc::clone(&store), &replay, clock, Box::new(|_| ()));
        let life = Life { journal, store, writing: tokio::spawn(writer.run_as_task()) };
        life.open(segment, second + 1, Vec::new()).await;
        life
    }

    /// Goes on in another segment, in which nothing is stamped at a second or later.
    pub(super) async fn open(&self, segment: u64, lease: u64, mirrors: Vec<Arc<dyn Mirror>>) {
        let (floor, lease) = (at(1), at(lease));
        self.journal.open(Opening { segment, floor, lease, mirrors }).await.unwrap();
    }

    /// Appends entries of one record, of so many bytes each.
    pub(super) async fn append(&self, entries: usize, bytes: usize) -> Vec<Position> {
        let mut entry = vec![0; FRAME_BYTES + bytes];
        frame::checksum_content(&mut entry);
        let append = |_| self.journal.append(entry.clone(), Events::of_records(1), Box::new(()));
        let appended = join_all((0..entries).map(append)).await;
        appended.into_iter().collect::<Result<_, _>>().unwrap()
    }

    /// Gives back all but what is needed.
    pub(super) fn trim(&self, needed: &[(u64, u64)], cut: UnixNanos) -> Result<(), JournalError> {
        let copies = Copies::open(Arc::clone(&self.store))?;
        self.journal.trim(&copies, &needed.iter().copied().collect(), cut)
    }

    /// What of each segment is stamped before a second; no lease comes with the question.
    pub(super) async fn stamped(&self, second: u64) -> BTreeMap<u64, Stamped> {
        self.journal.stamped(at(second), UnixNanos(0)).await.unwrap()
    }

    pub(super) async fn end(self) {
        self.journal.close();
        self.writing.await.unwrap().unwrap();
    }
}
