//! Streams that are slow, break, or end.

use std::convert::Infallible;

use futures::{Stream, StreamExt as _};
use http_body_util::Full;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use sheaf_proto::peer;
use tokio::io::copy_bidirectional;
use tokio::sync::watch;

use super::*;

/// Streams of endless large batches that nobody reads: more than would fill a connection
/// without room for each.
const UNREAD: usize = 20;
/// Batches of the largest size that fill a stream's window.
const WINDOW_BATCHES: usize = STREAM_WINDOW as usize / CHUNK_BYTES_MAX;

fn batch(index: u64, bytes: usize) -> Batch {
    let part = Part { index, stamp: UnixNanos(index), entry: vec![1; bytes].into() };
    Batch { next: index + 1, parts: vec![part] }
}

/// A node that gives out these batches to whoever follows from an index on.
fn followed<S>(batches: impl Fn(u64) -> S + Send + Sync + 'static) -> Node
where
    S: Stream<Item = Result<Batch, Declined>> + Send + 'static,
{
    let follow = Arc::new(move |from| Ok(batches(from).boxed()));
    Node::start(Script { follow, ..Script::member() })
}

/// A node with an entry after the other, for ever, and how many of them it has given out.
fn endless() -> (Node, watch::Receiver<usize>) {
    let (given, count) = watch::channel(0);
    let node = followed(move |from| {
        let given = given.clone();
        stream::iter(from..).map(move |index| {
            given.send_modify(|given| *given += 1);
            Ok(batch(index, CHUNK_BYTES_MAX))
        })
    });
    (node, count)
}

/// Follows a segment from its begin on.
async fn follow(member: &Member, address: &str) -> Followed {
    member.other(ASKED, address).follow(1, 0, SlotSet::default(), DEADLINE).await.unwrap()
}

async fn next(followed: &mut Followed) -> Option<Result<Batch, PeerError>> {
    timeout(DEADLINE, followed.next()).await.expect("it comes or ends")
}

async fn reached(count: &mut watch::Receiver<usize>, wanted: usize) {
    let waited = timeout(DEADLINE, count.wait_for(|count| *count >= wanted)).await;
    waited.expect("so many are given out").unwrap();
}

async fn call(member: &Member, address: &str) {
    let answer =
        member.other(ASKED, address).raft(Rpc::Vote, Bytes::from_static(b"a"), DEADLINE).await;
    assert_eq!(answer, Ok(Bytes::from_static(b"A")));
}

#[tokio::test]
async fn a_follower_that_was_cut_off_goes_on_where_it_was() {
    let node = followed(|from| {
        let gone = Err(Declined::NotNow("the node is stopping".to_owned()));
        stream::iter((from..from.min(3) + 2).map(|index| Ok(batch(index, 1))).chain([gone]))
    });
    let (member, mut indexes, mut from) = (member(), Vec::new(), 0);
    while from < 5 {
        let slots = SlotSet::default();
        let followed =
            member.other(ASKED, &node.address).follow(1, from, slots, DEADLINE).await.unwrap();
        let batches: Vec<_> = followed.collect().await;
        let (last, batches) = batches.split_last().unwrap();
        assert_eq!(trouble(last.clone()), "the node is stopping");
        for batch in batches.iter().flatten() {
            indexes.extend(batch.parts.iter().map(|part| part.index));
            from = batch.next;
        }
    }
    assert_eq!(indexes, [0, 1, 2, 3, 4]);
    assert_eq!(node.heard().len(), 3);
}

#[tokio::test]
async fn a_live_entry_arrives_while_the_stream_goes_on() {
    let node = followed(|from| stream::iter([Ok(batch(from, 1))]).chain(stream::pending()));
    let member = member();
    let mut followed = follow(&member, &node.address).await;
    assert_eq!(next(&mut followed).await, Some(Ok(batch(0, 1))));
    assert_eq!(timeout(SHORT, followed.next()).await.ok(), None);
    call(&member, &node.address).await;
}

#[tokio::test]
async fn an_entry_out_of_order_ends_the_stream() {
    let node = followed(|_| stream::iter([1, 1].map(|index| Ok(batch(index, 1)))));
    let mut followed = follow(&member(), &node.address).await;
    assert_eq!(next(&mut followed).await, Some(Ok(batch(1, 1))));
    let error = next(&mut followed).await.unwrap().unwrap_err();
    assert!(matches!(error, PeerError::Malformed(_)), "{error}");
    assert_eq!(next(&mut followed).await, None);
}

#[tokio::test]
async fn an_entry_that_is_larger_than_other_messages_arrives() {
    let node = followed(|from| stream::iter([Ok(batch(from, MESSAGE_BYTES_MAX + 1))]));
    let mut followed = follow(&member(), &node.address).await;
    let batch = next(&mut followed).await.unwrap().unwrap();
    assert_eq!(batch.parts[0].entry.len(), MESSAGE_BYTES_MAX + 1);
    assert_eq!(next(&mut followed).await, None);
}

#[tokio::test]
async fn a_node_gives_out_no_more_than_its_follower_takes() {
    let (node, mut given) = endless();
    let member = member();
    let mut followed = follow(&member, &node.address).await;
    reached(&mut given, WINDOW_BATCHES).await;
    call(&member, &node.address).await;
    assert!(*given.borrow() < 3 * WINDOW_BATCHES, "{given:?}");
    for index in 0..5 * WINDOW_BATCHES as u64 {
        assert_eq!(next(&mut followed).await.unwrap().unwrap().next, index + 1);
    }
    assert!(*given.borrow() < 8 * WINDOW_BATCHES, "{given:?}");
}

#[tokio::test]
async fn streams_that_nobody_reads_hold_up_neither_a_call_nor_another_stream() {
    let (node, mut given) = endless();
    let member = member();
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        unread.push(follow(&member, &node.address).await);
    }
    reached(&mut given, UNREAD * WINDOW_BATCHES).await;
    call(&member, &node.address).await;
    let mut read = follow(&member, &node.address).await;
    for index in 0..2 * WINDOW_BATCHES as u64 {
        assert_eq!(next(&mut read).await.unwrap().unwrap().next, index + 1);
    }
}

#[tokio::test]
async fn as_many_streams_as_there_may_be_leave_room_for_calls() {
    let node = followed(|_| stream::pending());
    let member = member();
    let mut open = Vec::new();
    for _ in 0..STREAMS_MAX {
        open.push(follow(&member, &node.address).await);
    }
    call(&member, &node.address).await;
    let one_more = member.other(ASKED, &node.address).follow(1, 0, SlotSet::default(), SHORT).await;
    assert_eq!(one_more.err(), Some(PeerError::Timeout(SHORT)));
    open.pop();
    open.push(follow(&member, &node.address).await);
}

#[tokio::test]
async fn a_stream_that_nobody_wants_any_more_is_dropped_by_its_node() {
    let released = Arc::new(Notify::new());
    let word = Arc::clone(&released);
    let node = followed(move |_| {
        let held = Held(Arc::clone(&word));
        stream::pending().map(move |item: Result<Batch, Declined>| {
            let _ = &held;
            item
        })
    });
    drop(follow(&member(), &node.address).await);
    timeout(DEADLINE, released.notified()).await.expect("it is dropped");
}

/// Tells when it is dropped.
struct Held(Arc<Notify>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn a_stream_breaks_when_its_node_dies_or_stops() {
    for killed in [false, true] {
        let mut node = followed(|from| stream::iter([Ok(batch(from, 1))]).chain(stream::pending()));
        let mut followed = follow(&member(), &node.address).await;
        assert_eq!(next(&mut followed).await, Some(Ok(batch(0, 1))));
        if killed {
            node.kill().await
        } else {
            node.stop().await
        }
        trouble(next(&mut followed).await.unwrap());
        assert_eq!(next(&mut followed).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_a_node_that_freezes_ends_with_an_error() {
    let (peers, mut there) = single_stream();
    let (mut far, served) = duplex(1 << 16);
    let batches = |_| Ok(stream::iter([Ok(batch(0, 1))]).chain(stream::pending()).boxed());
    let answers = Arc::new(Script { follow: Arc::new(batches), ..Script::member() });
    tokio::spawn(serve(stream::iter([Ok(served)]), answers, CancellationToken::new()));
    let freeze = Arc::new(Notify::new());
    let frozen = Arc::clone(&freeze);
    tokio::spawn(async move {
        tokio::select! {
            _ = copy_bidirectional(&mut there, &mut far) => {}
            // Both connections stay open.
            () = frozen.notified() => pending().await,
        }
    });

    let member = Member::new(peers, &identity(2));
    let mut followed = follow(&member, "node-1:9465").await;
    assert_eq!(next(&mut followed).await, Some(Ok(batch(0, 1))));
    let quiet = 10 * (PING_INTERVAL + PING_TIMEOUT);
    assert!(timeout(quiet, followed.next()).await.is_err(), "silence is no death");
    freeze.notify_one();
    let begin = Instant::now();
    trouble(next(&mut followed).await.unwrap());
    assert!(begin.elapsed() <= PING_INTERVAL + PING_TIMEOUT + SHORT, "{:?}", begin.elapsed());
}

/// Hyper takes some ways to break a stream off for its end; what says that all was sent
/// is the status after it.
#[tokio::test(start_paused = true)]
async fn a_stream_without_a_last_word_has_broken_off() {
    let (peers, there) = single_stream();
    let answer = service_fn(async |_request: http::Request<hyper::body::Incoming>| {
        let message = peer::FollowResponse { next: 1, parts: Vec::new() }.encode_to_vec();
        let body = [&[0, 0, 0, 0, message.len() as u8][..], &message].concat();
        let response = http::Response::builder().header("content-type", "application/grpc");
        Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body))).unwrap())
    });
    let serving = http2::Builder::new(TokioExecutor::new());
    tokio::spawn(async move { serving.serve_connection(TokioIo::new(there), answer).await });
    let mut followed = follow(&Member::new(peers, &identity(2)), "node-1:9465").await;
    assert_eq!(next(&mut followed).await, Some(Ok(Batch { next: 1, parts: Vec::new() })));
    trouble(next(&mut followed).await.unwrap());
}
