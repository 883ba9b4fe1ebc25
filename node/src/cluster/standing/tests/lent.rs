//! Journals and results, lent and taken back.

use std::collections::BTreeMap;
use std::sync::Weak;

use futures::stream::{self, StreamExt as _};
use tokio::time::timeout;

use super::*;
use crate::cluster::peers::{Batch, CarriedPart, FilePart, FilePiece, Told, Wanted};
use crate::flush::gaps::Gaps;
use crate::flush::requests::Decided;

/// Nothing here takes this long.
const DEADLINE: Duration = Duration::from_secs(60);

fn batch(next: u64) -> Batch {
    Batch { next, parts: Vec::new() }
}

/// An engine. What it gives out holds it, as a journal's stream holds the database.
struct Engine {
    own: Weak<Engine>,
}

impl Engine {
    fn start() -> Arc<Engine> {
        Arc::new_cyclic(|own| Engine { own: own.clone() })
    }

    fn held<T: Send + 'static>(
        &self,
        items: impl stream::Stream<Item = T> + Send + 'static,
    ) -> stream::BoxStream<'static, T> {
        let held = self.own.upgrade();
        items.inspect(move |_| assert!(held.is_some())).boxed()
    }
}

impl Holdings for Engine {
    /// Never answered.
    fn stamped(
        &self,
        _: UnixNanos,
        _: UnixNanos,
    ) -> BoxFuture<'_, Result<BTreeMap<SegmentId, Stamped>, Declined>> {
        std::future::pending().boxed()
    }

    /// Segment 0 has two batches, 1 endless ones, 2 waits for more, and 3 fails.
    fn follow(&self, segment: SegmentId, from: u64, _: SlotSet) -> Result<Batches, Declined> {
        let batches = stream::iter([Ok(batch(from + 1)), Ok(batch(from + 2))]);
        match segment {
            0 => Ok(self.held(batches)),
            1 => Ok(self.held(stream::iter(from..).map(|next| Ok(batch(next))))),
            2 => Ok(self.held(batches.chain(stream::pending()))),
            3 => Ok(self.held(stream::once(async { panic!("the journal is broken") }))),
            _ => Err(Declined::Never(format!("there is no segment {segment}"))),
        }
    }

    fn begin_copy(&self, segment: SegmentId) -> Result<(), Declined> {
        Err(Declined::Never(format!("segment {segment} is sealed")))
    }

    fn copy(
        &self,
        _: SegmentId,
        first: u64,
        frames: Vec<Bytes>,
    ) -> BoxFuture<'_, Result<u64, Declined>> {
        async move { Ok(first + frames.len() as u64) }.boxed()
    }

    fn fence(&self, _: SegmentId) -> BoxFuture<'_, Result<Option<Stamped>, Declined>> {
        async { Ok(None) }.boxed()
    }

    fn tables(&self, aggregation: u32, _: UnixNanos) -> Result<Vec<Listed>, Declined> {
        let slots = SlotSet::default();
        Ok(vec![Listed {
            table: u64::from(aggregation),
            slots,
            summary: None,
            records: BTreeMap::new(),
        }])
    }

    fn results(&self, _: u32, _: UnixNanos, _: u64, _: SlotSet) -> Result<Chunks, Declined> {
        Ok(self.held(stream::iter([Ok(Bytes::from_static(b"table"))])))
    }

    fn decided(&self) -> Arc<Decided> {
        Arc::new(Decided::at_cut(5))
    }

    fn keep(&self, _: NodeId, _: Kept, _: Chunks) -> BoxFuture<'_, Result<(), Declined>> {
        std::future::ready(Ok(())).boxed()
    }

    fn carried(&self, _: SlotSet) -> Result<CarriedParts, Declined> {
        Ok(self.held(stream::iter([Ok(CarriedPart::Chunk(Bytes::from_static(b"file")))])))
    }

    fn files(&self, _: Asked) -> Result<FileParts, Declined> {
        Ok(self.held(stream::iter([Ok(FilePart::Bytes(Bytes::from_static(b"bytes")))])))
    }

    fn list(&self, _: Wanted) -> BoxFuture<'_, Result<Told, Declined>> {
        std::future::ready(Ok(Told::default())).boxed()
    }

    fn read(&self, _: FilePiece) -> Result<Chunks, Declined> {
        Ok(self.held(stream::iter([Ok(Bytes::from_static(b"bytes"))])))
    }

    fn gaps(&self) -> Arc<Gaps> {
        Arc::default()
    }

    fn room(&self) -> BoxFuture<'_, Result<Room, Declined>> {
        std::future::ready(Ok(Room::default())).boxed()
    }

    fn live(&self, limit: u32) -> BoxFuture<'_, Result<Bytes, Declined>> {
        async move { Ok(limit.to_string().into()) }.boxed()
    }
}

fn not_now<T>(answer: Result<T, Declined>) -> String {
    match answer {
        Err(Declined::NotNow(reason)) => reason,
        Err(Declined::Never(reason)) => panic!("never: {reason}"),
        Ok(_) => panic!("it was answered"),
    }
}

fn follow(standing: &Standing, segment: SegmentId) -> Batches {
    standing.follow(segment, 5, SlotSet::default()).unwrap()
}

#[tokio::test]
async fn a_node_without_an_engine_is_starting() {
    let standing = Standing::default();
    let (start, slots) = (UnixNanos(0), SlotSet::default());
    assert_eq!(not_now(standing.stamped(start, start).await), "the node is starting");
    assert_eq!(not_now(standing.follow(0, 0, slots)), "the node is starting");
    assert_eq!(not_now(standing.tables(0, start)), "the node is starting");
    assert_eq!(not_now(standing.results(0, start, 0, slots)), "the node is starting");
    assert_eq!(not_now(standing.decided()), "the node is starting");
    assert_eq!(not_now(standing.live(1).await), "the node is starting");
}

#[tokio::test]
async fn others_get_what_the_engine_has() {
    let standing = Standing::default();
    standing.attach(Engine::start());
    let batches: Vec<_> = follow(&standing, 0).collect().await;
    assert_eq!(batches, [Ok(batch(6)), Ok(batch(7))]);
    let chunks = standing.results(0, UnixNanos(0), 0, SlotSet::default()).unwrap();
    assert_eq!(chunks.collect::<Vec<_>>().await, [Ok(Bytes::from_static(b"table"))]);
    assert_eq!(standing.tables(7, UnixNanos(0)).unwrap()[0].table, 7);
    assert_eq!(standing.decided().unwrap().cut, 5);
    assert_eq!(standing.live(7).await, Ok(Bytes::from_static(b"7")));
    let error = standing.follow(9, 0, SlotSet::default()).err();
    assert_eq!(error, Some(Declined::Never("there is no segment 9".to_owned())));
}

#[tokio::test]
async fn an_engine_that_is_taken_back_is_held_by_nobody_whoever_reads() {
    let standing = Arc::new(Standing::default());
    let engine = Engine::start();
    standing.attach(Arc::clone(&engine) as _);
    let mut read = follow(&standing, 2);
    assert_eq!(read.next().await, Some(Ok(batch(6))));
    let (mut waiting, unread) = (follow(&standing, 2), follow(&standing, 1));
    for _ in 0..2 {
        waiting.next().await.unwrap().unwrap();
    }
    let asking = tokio::spawn({
        let standing = Arc::clone(&standing);
        async move { standing.stamped(UnixNanos(0), UnixNanos(0)).await }
    });
    while Arc::strong_count(&engine) < 9 {
        tokio::task::yield_now().await;
    }

    timeout(DEADLINE, standing.detach()).await.expect("it ends");
    assert_eq!(Arc::strong_count(&engine), 1);
    assert_eq!(not_now(asking.await.unwrap()), "the node is stopping");
    for broken in [read, waiting, unread] {
        let items: Vec<_> = broken.collect().await;
        let (last, before) = items.split_last().unwrap();
        assert_eq!(not_now(last.clone()), "the node is stopping");
        assert!(before.len() <= 1 && before.iter().all(Result::is_ok), "{before:?}");
    }
    assert_eq!(not_now(standing.live(1).await), "the node is starting");
    standing.attach(engine);
    assert_eq!(standing.live(1).await, Ok(Bytes::from_static(b"1")));
}

#[tokio::test]
async fn a_stream_that_fails_is_not_at_its_end() {
    let standing = Standing::default();
    standing.attach(Engine::start());
    let mut broken = follow(&standing, 3);
    assert_eq!(not_now(broken.next().await.unwrap()), "the node is stopping");
    timeout(DEADLINE, standing.detach()).await.expect("it ends");
}

#[tokio::test]
async fn a_stream_that_nobody_wants_any_more_lets_go_of_the_engine() {
    let standing = Standing::default();
    let engine = Engine::start();
    standing.attach(Arc::clone(&engine) as _);
    drop([follow(&standing, 1), follow(&standing, 2)]);
    while Arc::strong_count(&engine) > 2 {
        tokio::task::yield_now().await;
    }
}
