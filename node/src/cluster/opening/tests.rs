use futures::future::join_all;

use super::*;
use crate::event::time::Clock;
use crate::flush::example::{Cluster, Lost, at, framed};
use crate::journal::replay::replay;
use crate::journal::{Journal, JournalError};
use crate::store::{Disk, Store};

/// Node 1 with its disk.
struct Node {
    cluster: Arc<Cluster>,
    disk: Disk,
}

impl Node {
    fn new() -> Node {
        Node { cluster: Cluster::of(2), disk: Disk::default() }
    }

    fn store(&self) -> Arc<Store> {
        Arc::new(Store::in_memory(&self.disk).unwrap())
    }

    fn replay(&self) -> Replay {
        replay(&self.store(), |_| Ok::<_, JournalError>(())).unwrap()
    }

    async fn open(&self) -> Result<Option<Opening>, Disagreement> {
        open(&*self.cluster, NodeId(1), &self.replay()).await
    }

    /// Opens a segment and appends so many entries at a second; then the node ends.
    async fn live(&self, entries: usize, second: u64) -> Opening {
        let opening = self.open().await.unwrap().unwrap();
        let (replay, store) = (self.replay(), self.store());
        let clock = Clock::new(move || at(second));
        let (journal, writer) =
            Journal::open(store, &replay, Some(opening), clock, Box::new(|_| ())).unwrap();
        let writing = tokio::spawn(writer.run_as_task());
        let append = |_| journal.append(framed(0, &[(7, 1)]), 1, Box::new(()));
        join_all((0..entries).map(append)).await;
        journal.close();
        writing.await.unwrap().unwrap();
        opening
    }

    /// What the facts say of a segment: its end, and when it ends.
    fn end(&self, segment: SegmentId) -> Option<(u64, UnixNanos)> {
        let facts = self.cluster.now();
        let segment = &facts.segments()[&segment];
        segment.end().map(|end| (end.entries, segment.ceiling))
    }
}

#[tokio::test]
async fn the_first_life_of_a_node_opens_its_first_segment_from_the_latest_cut_on() {
    let node = Node::new();
    node.cluster.cut(5, &[]);
    let opening = Opening { segment: 1, floor: at(5), lease: at(15) };
    assert_eq!(node.open().await.unwrap(), Some(opening));
    let facts = node.cluster.now();
    assert_eq!((facts.segments()[&1].writer, facts.segments().len()), (NodeId(1), 1));
}

#[tokio::test]
async fn a_segment_is_sealed_behind_its_last_entry() {
    let node = Node::new();
    let first = node.live(3, 5).await;
    let next = node.open().await.unwrap().unwrap();
    assert_eq!((first.segment, next.segment), (1, 2));
    assert_eq!(node.end(1), Some((3, UnixNanos(at(5).0 + 1))));
    assert_eq!(node.end(2), None);
    let facts = node.cluster.now();
    assert_eq!(facts.segments()[&1].nodes().collect::<Vec<_>>(), [NodeId(1)]);
}

#[tokio::test]
async fn a_segment_without_entries_is_sealed_at_its_beginning() {
    let node = Node::new();
    node.cluster.open(2);
    node.live(0, 5).await;
    node.cluster.cut(9, &[]);
    node.open().await.unwrap();
    assert_eq!(node.cluster.now().segments().keys().copied().collect::<Vec<_>>(), [1, 3]);
    assert_eq!(node.end(1), None, "another node's segment is its own affair");
}

#[tokio::test]
async fn a_segment_that_was_trimmed_is_sealed_at_the_same_end() {
    let node = Node::new();
    node.live(3, 5).await;
    let replayed = node.replay();
    let opening = Some(Opening { segment: 9, floor: at(5), lease: at(15) });
    let clock = Clock::new(|| at(5));
    let journal = Journal::open(node.store(), &replayed, opening, clock, Box::new(|_| ()));
    journal.unwrap().0.trim(&[(1, 2)].into(), at(1)).unwrap();
    assert_eq!(node.replay().entries, 1);
    node.open().await.unwrap();
    assert_eq!(node.end(1), Some((3, UnixNanos(at(5).0 + 1))));
}

#[tokio::test]
async fn sealing_that_was_broken_off_is_finished_whatever_was_cut_since() {
    for (command, lost) in [(1, Lost::Answer), (2, Lost::Command), (2, Lost::Answer)] {
        let node = Node::new();
        node.live(3, 5).await;
        let proposed = node.cluster.proposed().len();
        node.cluster.end_at(proposed + command, lost);
        node.open().await.unwrap_err();
        node.cluster.go_on();
        node.cluster.cut(9, &[]);
        node.cluster.cut(10, &[]);
        assert_eq!(node.open().await.unwrap().unwrap().segment, 2);
        assert_eq!(node.end(1), Some((3, UnixNanos(at(5).0 + 1))));
    }
}

#[tokio::test]
async fn a_segment_that_was_opened_without_the_node_hearing_of_it_stays_empty() {
    let node = Node::new();
    node.cluster.end_at(1, Lost::Answer);
    node.open().await.unwrap_err();
    node.cluster.go_on();
    assert_eq!(node.open().await.unwrap().unwrap().segment, 2);

    let is_open = |command: &Command| matches!(command, Command::OpenSegment { .. });
    let node = Node::new();
    let first = Command::OpenSegment { writer: NodeId(1), copies: vec![NodeId(1)] };
    node.cluster.before(is_open, first);
    assert_eq!(node.open().await.unwrap().unwrap().segment, 2);
}

#[tokio::test]
async fn a_node_that_is_leaving_opens_nothing() {
    let node = Node::new();
    node.cluster.place("0-255", 2);
    let drain = Command::Drain { node: NodeId(1) };
    node.cluster.apply(drain.clone());
    assert_eq!(node.open().await.unwrap(), None);

    let is_open = |command: &Command| matches!(command, Command::OpenSegment { .. });
    let node = Node::new();
    node.cluster.place("0-255", 2);
    node.cluster.before(is_open, drain);
    assert_eq!(node.open().await.unwrap(), None, "the facts say so only by now");
    assert!(node.cluster.now().segments().is_empty());
}
