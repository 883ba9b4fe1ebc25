//! A node's journal over several lives, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use tokio::task::JoinHandle;

use crate::event::time::{Clock, SECOND, UnixNanos};
use crate::journal::replay::replay;
use crate::journal::{
    FRAME_BYTES, Journal, JournalError, Opening, Position, Replay, Stamped, frame,
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
    pub(super) fn begin(disk: &Disk, segment: u64, second: u64) -> Life {
        let replay = replayed(disk);
        let store = Arc::new(Store::in_memory(disk).unwrap());
        let opening = Some(Opening { segment, floor: at(1), lease: at(second + 1) });
        let clock = Clock::new(move || at(second));
        let opened = Journal::open(Arc::clone(&store), &replay, opening, clock, Box::new(|_| ()));
        let (journal, writer) = opened.unwrap();
        Life { journal, store, writing: tokio::spawn(writer.run_as_task()) }
    }

    /// Appends entries of one record, of so many bytes each.
    pub(super) async fn append(&self, entries: usize, bytes: usize) -> Vec<Position> {
        let mut entry = vec![0; FRAME_BYTES + bytes];
        frame::checksum_content(&mut entry);
        let append = |_| self.journal.append(entry.clone(), 1, Box::new(()));
        let appended = join_all((0..entries).map(append)).await;
        appended.into_iter().collect::<Result<_, _>>().unwrap()
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
