//! Nodes that fold and flush, as tasks on a clock that runs ahead whenever everybody waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, ready};
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use super::{Appended, Cluster, alone, at};
use crate::aggregation::distinct_logs::MemoryLimit;
use crate::checkpoint::carries::Carries;
use crate::checkpoint::facts::SegmentId;
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::event::time::Clock;
use crate::flush::carried::CarriedWindows;
use crate::flush::delivery::{Delivery, Flush};
use crate::flush::feed::{Feed, Followed, Told};
use crate::flush::files::Files;
use crate::flush::folding::{Commands, Folder, Folding, Parts};
use crate::flush::group::OpenFigures;
use crate::flush::requests::Decided;
use crate::flush::results::Results;
use crate::flush::sharing::{Others, Sharing};
use crate::flush::{FlushError, FlushSettings};
use crate::journal::copies::Copies;
use crate::journal::{Journal, JournalError, Position, Replay};
use crate::store::{Disk, Store};

/// Entries in a batch at most.
const BATCH: usize = 2;

/// Returns when everybody waits: the clock runs ahead only then.
pub(crate) async fn everybody_waits() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// What all nodes have appended, and who follows it.
#[derive(Default)]
pub(crate) struct Source {
    pub(crate) appended: watch::Sender<Appended>,
    followed: Mutex<Vec<(SegmentId, u64, SlotSet)>>,
    open: Arc<Mutex<BTreeMap<SegmentId, usize>>>,
    folded: Mutex<BTreeMap<SegmentId, u64>>,
    broken: watch::Sender<bool>,
    /// What other nodes have decided.
    pub(crate) told: Mutex<Vec<Decided>>,
}

/// One who follows a segment.
struct Reader(SegmentId, Arc<Mutex<BTreeMap<SegmentId, usize>>>);

impl Drop for Reader {
    fn drop(&mut self) {
        *self.1.lock().unwrap().get_mut(&self.0).unwrap() -= 1;
    }
}

impl Source {
    /// Every stream that was asked for: its segment, its first entry and its slots.
    pub(crate) fn followed(&self) -> Vec<(SegmentId, u64, String)> {
        let followed = self.followed.lock().unwrap();
        followed.iter().map(|(segment, from, slots)| (*segment, *from, slots.to_string())).collect()
    }

    /// How many streams of a segment are read.
    pub(crate) fn readers(&self, segment: SegmentId) -> usize {
        self.open.lock().unwrap().get(&segment).copied().unwrap_or(0)
    }

    /// The entries of a segment before which one are not waited for.
    pub(crate) fn folded(&self, segment: SegmentId) -> Option<u64> {
        self.folded.lock().unwrap().get(&segment).copied()
    }

    /// Every stream fails.
    pub(crate) fn break_off(&self) {
        self.broken.send_replace(true);
    }
}

impl Feed for Source {
    fn follow(&self, from: Position, slots: SlotSet) -> Followed {
        let Position { segment, index } = from;
        // Those who learn the ids alone are not those who fold.
        let reader = (!slots.is_empty()).then(|| {
            self.followed.lock().unwrap().push((segment, index, slots));
            *self.open.lock().unwrap().entry(segment).or_default() += 1;
            Reader(segment, Arc::clone(&self.open))
        });
        let batches = stream::unfold(
            (self.appended.subscribe(), index, reader),
            move |(mut appended, next, reader)| async move {
                let has_more = |all: &Appended| all.batch(segment, next, BATCH, &slots).next > next;
                drop(appended.wait_for(has_more).await.ok()?);
                let batch = appended.borrow().batch(segment, next, BATCH, &slots);
                let next = batch.next;
                Some((Ok(batch), (appended, next, reader)))
            },
        );
        let mut broken = self.broken.subscribe();
        let breaks = stream::once(async move {
            let _ = broken.wait_for(|is_broken| *is_broken).await;
            Err(JournalError::Interrupted(crate::blocking::Interrupted))
        });
        let batches: BoxStream<'static, _> = batches.boxed();
        stream::select(batches, breaks).boxed()
    }

    fn folded(&self, segment: SegmentId, index: u64) {
        self.folded.lock().unwrap().insert(segment, index);
    }

    fn decided(&self) -> BoxFuture<'static, Told> {
        let (decided, is_all) = (self.told.lock().unwrap().clone(), true);
        ready(Told { decided, is_all }).boxed()
    }
}

/// A node with its disk; clones are the same one.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) id: u64,
    cluster: Arc<Cluster>,
    source: Arc<Source>,
    pub(crate) store: Arc<Store>,
    pub(crate) scratch: Arc<tempfile::TempDir>,
    carries: Carries,
    rebuilt: Files,
    /// How large was what is open, at the newest cut.
    pub(crate) open: Arc<Mutex<OpenFigures>>,
    _rebuilt: Arc<tempfile::TempDir>,
    journal_bytes_max: u64,
}

/// One life of a node.
pub(crate) struct Life {
    pub(crate) folding: Folding,
    folder: AbortOnDropHandle<Result<(), FlushError>>,
    delivery: AbortOnDropHandle<Result<(), FlushError>>,
}

impl Node {
    pub(crate) fn new(
        id: u64,
        cluster: &Arc<Cluster>,
        source: &Arc<Source>,
        journal_bytes_max: u64,
    ) -> Node {
        let (cluster, source) = (Arc::clone(cluster), Arc::clone(source));
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        let [scratch, _rebuilt] = [(); 2].map(|()| Arc::new(tempfile::tempdir().unwrap()));
        let carries = Carries::new(Arc::clone(&store));
        let rebuilt = Files::new(_rebuilt.path().to_owned(), Arc::clone(&store));
        let open = Arc::default();
        Node {
            id,
            cluster,
            source,
            store,
            scratch,
            carries,
            rebuilt,
            open,
            _rebuilt,
            journal_bytes_max,
        }
    }

    /// What folds behind a handle, and what it hands on.
    pub(crate) fn folder(&self, commands: &Commands) -> (Folder, mpsc::UnboundedReceiver<Flush>) {
        let (flushes, to_flush) = mpsc::unbounded_channel();
        let settings = FlushSettings {
            memory: 1 << 20,
            window_memory: MemoryLimit(1 << 20),
            scratch: self.scratch.path().to_owned(),
            journal_bytes_max: self.journal_bytes_max,
        };
        let open = Arc::clone(&self.open);
        let parts = Parts {
            node: NodeId(self.id),
            settings,
            carried: self.carried(),
            files: self.files(),
            consensus: Arc::clone(&self.cluster) as _,
            feed: Arc::clone(&self.source) as _,
            flushes,
            observer: Box::new(move |figures| open.lock().unwrap().clone_from(figures)),
        };
        (Folder::new(parts, commands).unwrap(), to_flush)
    }

    /// What it carries.
    pub(crate) fn carried(&self) -> CarriedWindows {
        CarriedWindows { carries: self.carries.clone(), scratch: self.scratch.path().to_owned() }
    }

    /// What it rebuilds.
    pub(crate) fn files(&self) -> Files {
        self.rebuilt.clone()
    }

    /// A journal that nobody writes.
    pub(crate) fn journal(&self) -> Journal {
        let (store, replay) = (Arc::clone(&self.store), Replay::default());
        Journal::new(store, &replay, Clock::new(|| at(1)), Box::new(|_| ())).0
    }

    /// What hands windows out.
    pub(crate) fn delivery(&self, folding: Folding) -> Delivery {
        Delivery {
            node: NodeId(self.id),
            consensus: Arc::clone(&self.cluster) as _,
            results: Results::new(Arc::clone(&self.store)),
            carried: self.carried(),
            files: self.files(),
            sharing: alone(NodeId(self.id), &self.cluster, self.carried()),
            journal: self.journal(),
            copies: Copies::open(Arc::clone(&self.store)).unwrap(),
            folding,
            values_max: 9,
            observer: Box::new(|_| ()),
        }
    }

    /// Folds only.
    pub(crate) fn fold(&self) -> (Life, mpsc::UnboundedReceiver<Flush>) {
        let (folding, commands): (Folding, Commands) = Folding::new();
        let (folder, to_flush) = self.folder(&commands);
        let folder = AbortOnDropHandle::new(tokio::spawn(folder.run(commands)));
        let delivery = AbortOnDropHandle::new(tokio::spawn(std::future::pending()));
        (Life { folding, folder, delivery }, to_flush)
    }

    /// Folds and flushes.
    pub(crate) fn start(&self) -> Life {
        self.start_with(|alone| alone)
    }

    /// Folds and flushes, with other owners of its slots.
    pub(crate) fn start_among(&self, others: Arc<dyn Others>) -> Life {
        let (node, consensus) = (NodeId(self.id), Arc::clone(&self.cluster) as _);
        let sharing = Sharing::new(node, consensus, others, self.carried());
        self.start_with(|alone| Delivery { sharing, ..alone })
    }

    fn start_with(&self, delivery: impl FnOnce(Delivery) -> Delivery) -> Life {
        let (life, to_flush) = self.fold();
        let delivery = delivery(self.delivery(life.folding.clone())).run(to_flush);
        Life { delivery: AbortOnDropHandle::new(tokio::spawn(delivery)), ..life }
    }
}

impl Life {
    /// Why it has ended, if it has.
    pub(crate) async fn failed(&mut self) -> Option<FlushError> {
        for part in [&mut self.folder, &mut self.delivery] {
            if part.is_finished() {
                return part.await.unwrap().err();
            }
        }
        None
    }

    /// Lets go of the handle, and returns how folding ended.
    pub(crate) async fn end(self) -> Result<(), FlushError> {
        drop((self.folding, self.delivery));
        self.folder.await.unwrap()
    }
}
