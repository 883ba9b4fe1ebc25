use std::collections::BTreeMap;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::task::{JoinHandle, yield_now};

use super::*;
use crate::cluster::example::mesh::{Lender, Mesh};
use crate::cluster::peers::{
    Asked, Batches, CarriedParts, Chunks, Declined, FileParts, FilePiece, Holdings, Kept, Listed,
    Room, Told, Wanted,
};
use crate::event::slots::SlotSet;
use crate::event::time::{Clock, UnixNanos};
use crate::flush::example::{Cluster, at, framed};
use crate::flush::gaps::Gaps;
use crate::flush::requests::Decided;
use crate::journal::copies::Copies as Taken;
use crate::journal::{Events, Extent, Position, Replay};
use crate::store::{Disk, Store};

/// A node that takes copies, and nothing else.
struct Taker {
    copies: Taken,
}

impl Taker {
    fn new() -> Arc<Taker> {
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        Arc::new(Taker { copies: Taken::open(store).unwrap() })
    }

    fn has(&self, segment: SegmentId) -> Option<u64> {
        let stamped = self.copies.stamped(segment, UnixNanos(u64::MAX))?;
        Some(stamped.before.entries)
    }
}

fn nothing<T>() -> Result<T, Declined> {
    Err(Declined::NotNow("there is nothing".to_owned()))
}

fn taken<T>(done: Result<T, impl std::fmt::Display>) -> Result<T, Declined> {
    done.map_err(|error| Declined::Never(error.to_string()))
}

impl Holdings for Arc<Taker> {
    fn stamped(
        &self,
        _: UnixNanos,
        _: UnixNanos,
    ) -> BoxFuture<'_, Result<BTreeMap<SegmentId, Stamped>, Declined>> {
        async { nothing() }.boxed()
    }

    fn follow(&self, _: SegmentId, _: u64, _: SlotSet) -> Result<Batches, Declined> {
        nothing()
    }

    fn begin_copy(&self, segment: SegmentId) -> Result<(), Declined> {
        taken(self.copies.begin(segment))
    }

    fn copy(
        &self,
        segment: SegmentId,
        first: u64,
        frames: Vec<Bytes>,
    ) -> BoxFuture<'_, Result<u64, Declined>> {
        async move { taken(self.copies.append(segment, first, &frames)) }.boxed()
    }

    fn fence(&self, segment: SegmentId) -> BoxFuture<'_, Result<Option<Stamped>, Declined>> {
        async move { taken(self.copies.fence(segment)) }.boxed()
    }

    fn tables(&self, _: u32, _: UnixNanos) -> Result<Vec<Listed>, Declined> {
        nothing()
    }

    fn results(&self, _: u32, _: UnixNanos, _: u64, _: SlotSet) -> Result<Chunks, Declined> {
        nothing()
    }

    fn keep(&self, _: NodeId, _: Kept, _: Chunks) -> BoxFuture<'_, Result<(), Declined>> {
        async { nothing() }.boxed()
    }

    fn carried(&self, _: SlotSet) -> Result<CarriedParts, Declined> {
        nothing()
    }

    fn files(&self, _: Asked) -> Result<FileParts, Declined> {
        nothing()
    }

    fn list(&self, _: Wanted) -> BoxFuture<'_, Result<Told, Declined>> {
        async { nothing() }.boxed()
    }

    fn read(&self, _: FilePiece) -> Result<Chunks, Declined> {
        nothing()
    }

    fn decided(&self) -> Arc<Decided> {
        Arc::default()
    }

    fn gaps(&self) -> Arc<Gaps> {
        Arc::default()
    }

    fn room(&self) -> BoxFuture<'_, Result<Room, Declined>> {
        std::future::ready(Ok(Room::default())).boxed()
    }

    fn live(&self, _: u32) -> BoxFuture<'_, Result<Bytes, Declined>> {
        async { nothing() }.boxed()
    }
}

/// Node 1, which keeps a segment open.
struct Setting {
    cluster: Arc<Cluster>,
    mesh: Arc<Mesh>,
    journal: Journal,
    opening: JoinHandle<Result<(), OpenError>>,
}

impl Setting {
    /// Of so many nodes, with so many copies of what each accepts.
    fn of(nodes: u64, copies: u8) -> Setting {
        let (cluster, mesh) = (Cluster::of(nodes), Arc::new(Mesh::default()));
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        let clock = Clock::new(|| at(5));
        let (journal, writer) = Journal::new(store, &Replay::default(), clock, Box::new(|_| ()));
        tokio::spawn(writer.run_as_task());
        let opener = Opener {
            node: NodeId(1),
            copies: copies.try_into().unwrap(),
            consensus: Arc::clone(&cluster) as _,
            members: mesh.member(),
            journal: journal.clone(),
        };
        Setting { cluster, mesh, journal, opening: tokio::spawn(opener.run()) }
    }

    /// A node takes copies from now on, until the second is dropped.
    fn take(&self, number: u8) -> (Arc<Taker>, Lender) {
        let taker = Taker::new();
        let lender = self.mesh.lend(number, Arc::new(Arc::clone(&taker)));
        (taker, lender)
    }

    async fn append(&self) -> Result<Position, AppendError> {
        self.journal.append(framed(0, &[(7, 1)]), Events::of_records(1), Box::new(())).await
    }

    /// Appends until it is acknowledged.
    async fn accept(&self) -> Position {
        loop {
            match self.append().await {
                Ok(position) => return position,
                Err(error) => assert_eq!(error, AppendError::NoSegment),
            }
        }
    }

    /// The nodes that have a segment, and its end.
    fn known(&self, segment: SegmentId) -> (Vec<u64>, Option<u64>) {
        let facts = self.cluster.now();
        let segment = &facts.segments()[&segment];
        let nodes = segment.nodes().map(|node| node.0).collect();
        (nodes, segment.end().map(|end| end.entries))
    }
}

fn position(segment: SegmentId, index: u64) -> Position {
    Position { segment, index }
}

#[tokio::test(start_paused = true)]
async fn a_node_without_copies_goes_on_in_another_segment_when_one_is_sealed() {
    let it = Setting::of(2, 1);
    it.cluster.cut(3, &[]);
    assert_eq!(it.append().await, Ok(position(1, 0)));
    it.cluster.apply(Command::BeginSeal { segment: 1, ceiling: at(9) });
    while it.journal.segment() == 1 {
        yield_now().await;
    }
    assert_eq!(it.append().await, Ok(position(2, 0)));
    assert_eq!((it.known(1), it.known(2)), ((vec![1], Some(1)), (vec![1], None)));
}

#[tokio::test(start_paused = true)]
async fn a_segment_whose_opening_was_not_heard_of_is_sealed_once_it_is() {
    let it = Setting::of(2, 1);
    let is_open = |command: &Command| matches!(command, Command::OpenSegment { .. });
    let (writer, copies) = (NodeId(1), vec![NodeId(1)]);
    it.cluster.before(is_open, Command::OpenSegment { writer, copies });
    // The leader takes the node for silent.
    it.cluster.before(is_open, Command::BeginSeal { segment: 1, ceiling: at(9) });
    it.cluster.cut(3, &[]);
    assert_eq!(it.append().await, Ok(position(2, 0)));
    let facts = it.cluster.now();
    assert_eq!((facts.end_of(1), facts.end_of(2)), (Some(Extent::default()), None));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_before_all_copies_have_it() {
    let it = Setting::of(3, 2);
    assert_eq!(it.append().await, Err(AppendError::NoSegment), "nobody takes a copy");
    let (taker, _lender) = it.take(2);
    let first = it.accept().await;
    assert_eq!(taker.has(first.segment), Some(1));
    assert_eq!(it.known(first.segment), (vec![1, 2], None));
}

#[tokio::test(start_paused = true)]
async fn when_a_copy_is_lost_another_node_has_the_next_segment() {
    let it = Setting::of(3, 2);
    let (_, lost) = it.take(2);
    let first = it.accept().await;
    let (taker, _lender) = it.take(3);
    drop(lost);
    it.mesh.close(2);
    while it.journal.segment() == first.segment {
        sleep(AGAIN_AFTER).await;
    }
    let next = it.accept().await;
    assert_eq!(it.known(next.segment), (vec![1, 3], None));
    assert!(taker.has(next.segment) > Some(next.index));
    let (nodes, end) = it.known(first.segment);
    assert_eq!((nodes, end > Some(first.index)), (vec![1], true));
}

/// A copy that never says that something is durable.
#[derive(Default)]
struct Stuck {
    written: watch::Sender<u64>,
}

impl Mirror for Stuck {
    fn write(&self, first: u64, frames: Vec<Bytes>) {
        self.written.send_replace(first + frames.len() as u64);
    }
}

/// A journal whose segment is suspended, with two entries that its copy does not have.
async fn suspended() -> (Journal, [JoinHandle<Result<Position, AppendError>>; 2]) {
    let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
    let clock = Clock::new(|| at(5));
    let (journal, writer) = Journal::new(store, &Replay::default(), clock, Box::new(|_| ()));
    tokio::spawn(writer.run_as_task());
    let stuck = Arc::new(Stuck::default());
    open(&journal, 1, vec![Arc::clone(&stuck) as _]).await;
    let appending = [append(&journal), append(&journal)];
    stuck.written.subscribe().wait_for(|written| *written == 2).await.unwrap();
    let written = journal.suspend().await.unwrap();
    assert_eq!(written.before, Extent::new(2, Events::of_records(2)));
    (journal, appending)
}

async fn open(journal: &Journal, segment: u64, mirrors: Vec<Arc<dyn Mirror>>) {
    let (floor, lease) = (at(1), at(9));
    journal.open(Opening { segment, floor, lease, mirrors }).await.unwrap();
}

fn append(journal: &Journal) -> JoinHandle<Result<Position, AppendError>> {
    let journal = journal.clone();
    tokio::spawn(async move {
        journal.append(framed(0, &[(7, 1)]), Events::of_records(1), Box::new(())).await
    })
}

#[tokio::test(start_paused = true)]
async fn what_the_copies_lack_is_acknowledged_in_the_next_segment() {
    let (journal, [first, second]) = suspended().await;
    let third = append(&journal);
    journal.seal(Some(1)).await.unwrap();
    assert_eq!(first.await.unwrap(), Ok(position(1, 0)));
    assert_eq!(journal.events().records, 1);
    open(&journal, 2, Vec::new()).await;
    assert_eq!(second.await.unwrap(), Ok(position(2, 0)));
    assert_eq!(third.await.unwrap(), Ok(position(2, 1)));
    assert_eq!(journal.events().records, 3);
}

#[tokio::test(start_paused = true)]
async fn what_may_lie_behind_an_unknown_end_is_neither_acknowledged_nor_appended_again() {
    let (journal, [first, second]) = suspended().await;
    let third = append(&journal);
    journal.seal(None).await.unwrap();
    assert_eq!(first.await.unwrap(), Err(AppendError::Unknown));
    assert_eq!(second.await.unwrap(), Err(AppendError::Unknown));
    open(&journal, 2, Vec::new()).await;
    assert_eq!(third.await.unwrap(), Ok(position(2, 0)));
    assert_eq!(journal.events().records, 1);
}

#[tokio::test(start_paused = true)]
async fn a_segment_with_too_few_copies_is_followed_by_one_with_more() {
    let it = Setting::of(1, 2);
    assert_eq!(it.append().await, Ok(position(1, 0)), "there is nobody else");
    let (_taker, _lender) = it.take(2);
    it.cluster.apply(crate::cluster::example::join(2));
    it.cluster.apply(Command::Activate { node: NodeId(2) });
    while it.journal.segment() == 1 {
        sleep(MORE_EVERY / 4).await;
    }
    assert_eq!(it.known(it.accept().await.segment), (vec![1, 2], None));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_to_leave_seals_its_journal_and_refuses_what_comes() {
    let it = Setting::of(2, 1);
    it.cluster.place("0-255", 2);
    it.accept().await;
    it.cluster.apply(Command::Drain { node: NodeId(1) });
    assert_eq!(it.append().await, Err(AppendError::NoSegment));
    assert_eq!(it.known(1), (vec![1], Some(1)));
    assert_eq!(it.append().await, Err(AppendError::NoSegment));
    assert!(!it.opening.is_finished());
}

#[test]
fn copies_go_to_other_zones_first_and_to_those_who_have_the_fewest() {
    let cluster = Cluster::of(4);
    let ready = |nodes: &[u64]| nodes.iter().map(|node| NodeId(*node)).collect();
    let chosen = |writer, wanted, nodes: &[u64], avoided: &[u64]| {
        let (ready, avoided) = (ready(nodes), ready(avoided));
        let chosen = choose(&cluster.now(), NodeId(writer), wanted, &ready, &avoided);
        chosen.into_iter().map(|node| node.0).collect::<Vec<_>>()
    };
    assert_eq!(chosen(1, 1, &[2, 3, 4], &[]), [2]);
    assert_eq!(chosen(3, 1, &[1, 2, 4], &[]), [4]);
    assert_eq!(chosen(1, 2, &[2, 3, 4], &[2]), [3, 4]);
    assert_eq!(chosen(1, 1, &[2], &[2]), [2], "there is no other");
    assert_eq!(chosen(1, 2, &[3], &[]), [3]);
    let (writer, copies) = (NodeId(2), vec![NodeId(2), NodeId(3)]);
    cluster.apply(Command::OpenSegment { writer, copies });
    assert_eq!(chosen(1, 1, &[2, 3, 4], &[]), [4]);
}
