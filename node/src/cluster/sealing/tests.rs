use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::ready;
use futures::poll;
use tokio::sync::watch;

use super::*;
use crate::checkpoint::facts::command::Applied;
use crate::event::time::Clock;
use crate::flush::example::{self, Cluster, at, extent, framed};
use crate::journal::copies::Copies;
use crate::journal::replay::replay;
use crate::journal::{Events, Journal, JournalError, Mirror, Opening};
use crate::store::{Disk, Store};

/// The copies that are reached.
#[derive(Default)]
struct Others(BTreeMap<u64, Stamped>);

impl AskCopies for Others {
    fn fence<'a>(
        &'a self,
        node: NodeId,
        address: &'a str,
        _: SegmentId,
    ) -> BoxFuture<'a, Option<Stamped>> {
        assert_eq!(address, format!("node-{node}:9465"));
        ready(self.0.get(&node.0).copied()).boxed()
    }
}

/// The way to a copy on which nothing becomes durable.
struct Lost;

impl Mirror for Lost {
    fn write(&self, _: u64, _: Vec<Bytes>) {}
}

/// A node that hears what the cluster did only when it proposes something itself.
struct Behind {
    known: watch::Sender<Arc<Facts>>,
    cluster: Arc<Cluster>,
}

impl Consensus for Behind {
    fn facts(&self) -> watch::Receiver<Arc<Facts>> {
        self.known.subscribe()
    }

    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Applied, Disagreement>> {
        let proposed = self.cluster.propose(command);
        proposed.inspect(|_| drop(self.known.send_replace(self.cluster.now()))).boxed()
    }
}

/// Node 1 with its disk.
struct Node {
    cluster: Arc<Cluster>,
    disk: Disk,
    others: Others,
}

impl Node {
    fn new() -> Node {
        Node { cluster: Cluster::of(3), disk: Disk::default(), others: Others::default() }
    }

    /// Of which node 2 has a copy with so many entries, the last of this second.
    fn with_copy(self, entries: u64, second: u64) -> Node {
        let stamped = Stamped { before: extent(entries), last: at(second) };
        Node { others: Others([(2, stamped)].into()), ..self }
    }

    fn store(&self) -> Arc<Store> {
        Arc::new(Store::in_memory(&self.disk).unwrap())
    }

    fn replay(&self) -> Replay {
        replay(&self.store(), |_| Ok::<_, JournalError>(())).unwrap()
    }

    async fn seal(&self) -> Result<(), Disagreement> {
        seal_earlier(&*self.cluster, &self.others, NodeId(1), &self.replay()).await
    }

    /// In a segment of which node 2 has a copy, appends so many entries at a second; then
    /// the node ends.
    async fn live(&self, entries: usize, second: u64) -> SegmentId {
        let (writer, copies) = (NodeId(1), vec![NodeId(1), NodeId(2)]);
        let opened = self.cluster.propose(Command::OpenSegment { writer, copies }).await;
        let Ok(Applied::Segment(segment)) = opened else { panic!("{opened:?}") };
        let (replay, store) = (self.replay(), self.store());
        let (journal, writer) =
            Journal::new(store, &replay, Clock::new(move || at(second)), Box::new(|_| ()));
        let writing = tokio::spawn(writer.run_as_task());
        let (floor, lease) = (at(1), at(second + 10));
        let mirrors: Vec<Arc<dyn Mirror>> = vec![Arc::new(Lost)];
        journal.open(Opening { segment, floor, lease, mirrors }).await.unwrap();
        let append = |_| journal.append(framed(0, &[(7, 1)]), Events::of_records(10), Box::new(()));
        let mut appending = join_all((0..entries).map(append));
        assert!(entries == 0 || poll!(&mut appending).is_pending());
        journal.close();
        writing.await.unwrap().unwrap();
        segment
    }

    /// What the facts say of a segment: its end, and when it ends.
    fn end(&self, segment: SegmentId) -> Option<(u64, UnixNanos)> {
        let facts = self.cluster.now();
        let segment = &facts.segments()[&segment];
        segment.end().map(|end| (end.entries, segment.ceiling))
    }

    fn holders(&self, segment: SegmentId) -> Vec<u64> {
        self.cluster.now().segments()[&segment].nodes().map(|node| node.0).collect()
    }
}

fn behind(second: u64) -> UnixNanos {
    UnixNanos(at(second).0 + 1)
}

#[tokio::test]
async fn a_segment_whose_copies_are_not_reached_ends_behind_its_last_entry_here() {
    let node = Node::new();
    assert_eq!(node.live(3, 5).await, 1);
    node.seal().await.unwrap();
    assert_eq!((node.end(1), node.holders(1)), (Some((3, behind(5))), vec![1]));
}

#[tokio::test]
async fn a_segment_ends_where_the_shortest_copy_ends() {
    for (copied, second, end) in [(2, 4, (2, behind(4))), (3, 5, (3, behind(5)))] {
        let node = Node::new().with_copy(copied, second);
        node.live(3, 5).await;
        node.seal().await.unwrap();
        assert_eq!((node.end(1), node.holders(1)), (Some(end), vec![1, 2]));
    }
    // Of what came last, nothing is synced here.
    let node = Node::new().with_copy(4, 5);
    node.live(3, 5).await;
    node.seal().await.unwrap();
    assert_eq!(node.end(1), Some((3, behind(5))));
}

#[tokio::test]
async fn a_segment_that_others_have_sealed_is_cut_off_at_its_end() {
    let node = Node::new();
    node.live(3, 5).await;
    node.cluster.apply(Command::BeginSeal { segment: 1, ceiling: at(9) });
    let (end, holders) = (extent(2), [NodeId(2)].into());
    node.cluster.apply(Command::Seal { segment: 1, end, until: behind(5), holders });
    node.seal().await.unwrap();
    let replayed = node.replay();
    let beyond = beyond_the_end(&node.cluster.now(), &replayed);
    assert_eq!(beyond, [(1, 2)]);
    crate::journal::replay::cut_off(&node.store(), &replayed, 1, 2).unwrap();
    let replayed = node.replay();
    assert_eq!((replayed.entries, replayed.events.records), (2, 20));
    assert_eq!(beyond_the_end(&node.cluster.now(), &replayed), []);
}

#[tokio::test]
async fn a_segment_without_entries_is_sealed_at_its_beginning() {
    let node = Node::new();
    let others = node.cluster.open(2);
    let own = node.live(0, 5).await;
    node.cluster.cut(9, &[]);
    node.seal().await.unwrap();
    assert_eq!(node.end(others), None, "another node's segment is its own affair");
    // Nobody needs it, so it is gone at once.
    assert!(!node.cluster.now().segments().contains_key(&own));
}

#[tokio::test]
async fn where_a_segment_ended_is_known_although_nobody_needs_it() {
    let node = Node::new().with_copy(0, 5);
    let own = node.live(3, 5).await;
    node.cluster.cut(9, &[]);
    let here = Reached { node: NodeId(1), end: extent(3), until: behind(5) };
    let end = seal_own(&*node.cluster, &node.others, own, here).await;
    assert_eq!(end, Ok(Some(0)), "the copy has none of them");
    assert!(!node.cluster.now().segments().contains_key(&own));
    assert_eq!(beyond_the_end(&node.cluster.now(), &node.replay()), [(own, 0)]);
}

#[tokio::test]
async fn a_segment_that_is_gone_when_it_is_to_be_sealed_has_its_end() {
    let node = Node::new();
    let own = node.live(0, 5).await;
    node.cluster.cut(9, &[]);
    let cluster = Arc::clone(&node.cluster);
    let late = Behind { known: watch::Sender::new(cluster.now()), cluster };
    node.seal().await.unwrap();
    let here = Reached { node: NodeId(1), end: extent(3), until: behind(5) };
    assert_eq!(seal_own(&late, &node.others, own, here).await, Ok(Some(0)));
}

#[tokio::test]
async fn a_segment_that_was_trimmed_is_sealed_at_the_same_end() {
    let node = Node::new();
    node.live(3, 5).await;
    let (replayed, store) = (node.replay(), node.store());
    let copies = Copies::open(Arc::clone(&store)).unwrap();
    let clock = Clock::new(|| at(5));
    let (journal, _) = Journal::new(store, &replayed, clock, Box::new(|_| ()));
    journal.trim(&copies, &[(1, 2)].into(), at(1)).unwrap();
    drop((journal, copies));
    assert_eq!(node.replay().entries, 1);
    node.seal().await.unwrap();
    assert_eq!(node.end(1), Some((3, behind(5))));
}

#[tokio::test]
async fn sealing_that_was_broken_off_is_finished_whatever_was_cut_since() {
    for (command, lost) in
        [(1, example::Lost::Answer), (2, example::Lost::Command), (2, example::Lost::Answer)]
    {
        let node = Node::new();
        node.live(3, 5).await;
        let proposed = node.cluster.proposed().len();
        node.cluster.end_at(proposed + command, lost);
        node.seal().await.unwrap_err();
        node.cluster.go_on();
        node.cluster.cut(9, &[]);
        node.cluster.cut(10, &[]);
        node.seal().await.unwrap();
        assert_eq!(node.end(1), Some((3, behind(5))));
    }
}
