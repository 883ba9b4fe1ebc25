use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, TE};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use prost::Message as _;
use sheaf_node::intake::admission::{Closed, RETRY_AFTER_MAX, RETRY_AFTER_MIN};
use sheaf_node::source::Limits;
use sheaf_proto::chunks::Receipt;
use sheaf_proto::names::CHUNK_GRPC_PATH;
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::node::{Node, REQUEST_BYTES_MAX};
use crate::parts::{Part, UNDECODABLE, message, part};
use crate::sender::{Body, Connection};
use crate::waiting::{PATIENCE, until};

const SHORT: Duration = Duration::from_millis(100);

pub(crate) fn send() -> http::request::Builder {
    Request::post(format!("http://node{CHUNK_GRPC_PATH}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
}

/// A stream of chunks to a node.
pub(crate) struct Stream {
    pub(crate) chunks: Body,
    receipts: Receipts,
    pub(crate) connection: Connection,
}

/// What a node answers.
pub(crate) struct Receipts {
    body: Incoming,
    rest: BytesMut,
    trailers: HeaderMap,
}

impl Stream {
    pub(crate) async fn open(node: &Node) -> Stream {
        let mut connection = Connection::http2(node.address).await;
        let (chunks, answer) = connection.exchange(send()).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/grpc");
        let body = answer.into_body();
        let receipts = Receipts { body, rest: BytesMut::new(), trailers: HeaderMap::new() };
        Stream { chunks, receipts, connection }
    }

    /// The next receipt, or how the stream ended.
    pub(crate) async fn receipt(&mut self) -> Result<Receipt, Status> {
        self.receipts.next().await
    }

    /// How the stream ends, without another receipt.
    pub(crate) async fn status(&mut self) -> Status {
        match self.receipt().await {
            Err(status) => status,
            Ok(receipt) => panic!("{} chunks were answered", receipt.answered),
        }
    }

    /// Sends no more, and waits for the end: what was answered by then, the refused ones by
    /// number, how many receipts said so, and how it ended.
    pub(crate) async fn end(self) -> End {
        drop(self.chunks);
        self.receipts.end().await
    }
}

/// How a stream ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) answered: u64,
    pub(crate) refused: Vec<u64>,
    pub(crate) receipts: usize,
    pub(crate) status: Status,
}

impl Receipts {
    async fn next(&mut self) -> Result<Receipt, Status> {
        loop {
            if let Some((prefix, rest)) = self.rest.split_first_chunk::<5>() {
                let [flag, length @ ..] = *prefix;
                let length = u32::from_be_bytes(length) as usize;
                assert_eq!(flag, 0);
                if rest.len() >= length {
                    self.rest.advance(5);
                    return Ok(Receipt::decode(self.rest.split_to(length)).unwrap());
                }
            }
            match timeout(PATIENCE, self.body.frame()).await.expect("a receipt in time") {
                Some(Ok(frame)) if frame.is_data() => {
                    self.rest.extend_from_slice(&frame.into_data().unwrap());
                }
                Some(Ok(frame)) => self.trailers = frame.into_trailers().unwrap(),
                Some(Err(error)) => panic!("{error}"),
                None => {
                    assert!(self.rest.is_empty(), "half a receipt");
                    return Err(Status::from_header_map(&self.trailers).expect("a status"));
                }
            }
        }
    }

    async fn end(mut self) -> End {
        let (mut answered, mut refused, mut receipts) = (0, Vec::new(), 0);
        loop {
            match self.next().await {
                Ok(receipt) => {
                    assert!(receipt.answered > answered, "a receipt says something new");
                    answered = receipt.answered;
                    refused.extend(receipt.refused.iter().map(|refused| refused.number));
                    receipts += 1;
                }
                Err(status) => return End { answered, refused, receipts, status },
            }
        }
    }
}

/// The first so many chunks of a file.
fn chunks(count: i64) -> Vec<Part> {
    (1..=count).map(|seq| part(seq, format!("line {seq}\n"))).collect()
}

fn messages(parts: &[Part]) -> Bytes {
    parts.iter().map(Part::message).collect::<Vec<_>>().concat().into()
}

/// What a node says to these bytes, as the whole of a stream.
async fn answer_to(node: &Node, bytes: impl Into<Bytes>) -> End {
    let mut stream = Stream::open(node).await;
    stream.chunks.try_send(bytes).await;
    stream.end().await
}

/// A stream that was ended by the node, which is to be come back to after so long.
fn come_back(status: &Status) -> Duration {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    status.get_details_retry_info().unwrap().retry_delay.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_are_answered_in_order_once_they_are_durable() {
    let node = Node::start().await;
    node.hold();
    let mut stream = Stream::open(&node).await;
    let sent = chunks(3);
    stream.chunks.send(messages(&sent)).await;
    until("all are on their way", || node.count() == 3).await;
    assert!(timeout(SHORT, stream.receipt()).await.is_err(), "nothing is durable");
    node.release();
    let mut answered = 0;
    while answered < 3 {
        let receipt = stream.receipt().await.unwrap();
        assert_eq!((receipt.throttle_seconds, receipt.refused.len()), (0, 0));
        answered = receipt.answered;
    }
    stream.chunks.send(part(4, "").message()).await;
    assert_eq!(stream.receipt().await.unwrap().answered, 4);
    let end = stream.end().await;
    assert_eq!((end.answered, end.status.code()), (0, Code::Ok), "nothing is told twice");
    assert_eq!(node.taken(), [sent, vec![part(4, "")]].concat());
    node.budget_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_chunks_of_a_stream_are_on_their_way_together() {
    const MANY: i64 = 10_000;
    let node = Node::start().await;
    node.hold();
    let mut stream = Stream::open(&node).await;
    let sent = chunks(MANY);
    for some in sent.chunks(100) {
        stream.chunks.send(messages(some)).await;
    }
    until("all are on their way", || node.count() == MANY as usize).await;
    assert!(node.admission().used() > 512 * MANY as usize, "what they take is charged");
    node.release();
    let end = stream.end().await;
    assert_eq!((end.answered, end.status.code()), (MANY as u64, Code::Ok));
    assert!(end.receipts < MANY as usize / 10, "{} receipts", end.receipts);
    assert_eq!(node.taken(), sent);
    node.budget_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_cut_leaves_nothing_behind_and_goes_on_over_another_one() {
    let node = Node::start().await;
    node.hold();
    let mut stream = Stream::open(&node).await;
    let sent = chunks(5000);
    stream.chunks.send(messages(&sent)).await;
    stream.chunks.send(part(5001, "cut off").message().slice(..20)).await;
    until("all are on their way", || node.count() == 5000).await;
    drop(stream);
    node.budget_is_free().await;
    node.release();
    let end = answer_to(&node, messages(&chunks(5001))).await;
    assert_eq!((end.answered, end.status.code()), (5001, Code::Ok));
    assert_eq!(node.count(), 10_001);
    node.budget_is_free().await;
}

#[tokio::test]
async fn messages_are_read_wherever_they_are_cut() {
    let node = Node::start().await;
    let sent = [part(1, "a"), part(2, ""), part(3, vec![3; 40_000]), part(4, "d")];
    let whole = messages(&sent);
    let mut expected = Vec::new();
    for size in [1, 4, 5, 6, 1000, 16_384, 65_536] {
        // One byte at a time would take long for all of it.
        let (small, large) = whole.split_at(whole.len().min(size * 100));
        let mut stream = Stream::open(&node).await;
        for frame in small.chunks(size).chain(large.chunks(16_384)) {
            stream.chunks.send(Bytes::copy_from_slice(frame)).await;
        }
        let end = stream.end().await;
        assert_eq!((end.answered, end.status.code()), (4, Code::Ok));
        expected.extend(sent.clone());
    }
    assert_eq!(node.taken(), expected);
    node.budget_is_free().await;
}

#[tokio::test]
async fn a_chunk_that_can_never_be_taken_is_named_and_the_stream_goes_on() {
    let node = Node::start().await;
    let nameless = Part { id: "", ..part(1, "x") };
    let sent = [part(1, "a"), part(0, "b"), nameless, part(2, "c"), part(-1, "d"), part(3, "e")];
    let end = answer_to(&node, messages(&sent)).await;
    assert_eq!((end.answered, end.status.code()), (6, Code::Ok));
    assert_eq!((end.refused, node.unusable()), (vec![2, 3, 5], 3));
    assert_eq!(node.taken(), [part(1, "a"), part(2, "c"), part(3, "e")]);
    let mut stream = Stream::open(&node).await;
    stream.chunks.send(part(0, "x").message()).await;
    let refused = stream.receipt().await.unwrap().refused;
    assert_eq!((refused[0].number, refused.len()), (1, 1));
    assert!(refused[0].reason.starts_with("the chunk's seq is 0"), "{}", refused[0].reason);
    node.budget_is_free().await;
}

#[tokio::test]
async fn what_is_no_chunk_ends_the_stream_after_all_before_it_was_answered() {
    let node = Node::start().await;
    let before = messages(&chunks(3));
    let cases: [(Bytes, &str); 6] = [
        (message(0, UNDECODABLE), "no LogPart: "),
        (message(0, b"\x0a\x01\xff\x18\x01"), "no LogPart: the id is not UTF-8"),
        (message(2, b""), "the message begins with 2"),
        (message(1, b"?"), "the message is compressed"),
        (part(4, "x").message().slice(..3), "the message ends within its prefix"),
        (part(4, "x").message().slice(..9), "the request ends after 4 of "),
    ];
    for (count, (bytes, reason)) in cases.into_iter().enumerate() {
        let end = answer_to(&node, [before.clone(), bytes].concat()).await;
        assert_eq!((end.answered, end.status.code()), (3, Code::InvalidArgument));
        assert!(end.status.message().starts_with(reason), "{}", end.status.message());
        assert!(end.status.get_details_retry_info().is_none(), "it would be sent again");
        assert_eq!(node.unusable(), 2.min(count as u64 + 1));
    }
    let larger = message(0, &vec![0; REQUEST_BYTES_MAX + 1]);
    let end = answer_to(&node, [before, larger.slice(..100)].concat()).await;
    assert_eq!((end.answered, end.status.code()), (3, Code::ResourceExhausted));
    node.budget_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_where_the_node_is_busy_and_what_came_before_is_answered() {
    let node = Node::start().await;
    node.hold();
    node.take_up_to(99);
    let mut stream = Stream::open(&node).await;
    stream.chunks.send(messages(&chunks(200))).await;
    // Those from the 100th on are refused before any other is durable.
    until("the first are on their way", || node.count() >= 99).await;
    assert!(timeout(SHORT, stream.receipt()).await.is_err(), "nothing is durable");
    node.release();
    let end = stream.end().await;
    assert_eq!(end.answered, 99);
    assert!((RETRY_AFTER_MIN..=RETRY_AFTER_MAX).contains(&come_back(&end.status)));
    node.budget_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_where_a_file_lacks_a_chunk_and_says_which() {
    let node = Node::start().await;
    node.lack(Some(2));
    let end = answer_to(&node, messages(&chunks(5))).await;
    assert_eq!(end.answered, 2);
    assert!((RETRY_AFTER_MIN..=RETRY_AFTER_MAX).contains(&come_back(&end.status)));
    let lacks = "the file log1.log of session 7 lacks chunk 2, and too much waits already";
    assert!(end.status.message().starts_with(lacks), "{}", end.status.message());
    node.lack(None);
    let end = answer_to(&node, messages(&chunks(5))).await;
    assert_eq!((end.answered, end.status.code()), (5, Code::Ok));
    node.budget_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_finds_no_room_within_a_second_is_told_when_to_come_back() {
    let node = Node::start().await;
    let mut stream = Stream::open(&node).await;
    stream.chunks.send(messages(&chunks(3))).await;
    assert_eq!(stream.receipt().await.unwrap().throttle_seconds, 0);
    node.budget_is_free().await;
    let everything = node.admission().capacity();
    let everything = node.admission().admit(everything).await.unwrap();
    stream.chunks.send(part(4, "x").message()).await;
    let end = stream.end().await;
    assert!(come_back(&end.status) >= RETRY_AFTER_MIN);
    drop(everything);
    let end = answer_to(&node, messages(&chunks(4))).await;
    assert_eq!((end.answered, end.status.code()), (4, Code::Ok));
    node.budget_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_sender_is_held_up_before_it_fills_the_queue() {
    const LARGE: usize = 1 << 20;
    const AHEAD: usize = 8 << 20;
    let node = Node::start().await;
    node.hold();
    let mut stream = Stream::open(&node).await;
    let mut sending = Box::pin(async {
        for seq in 1..=40 {
            stream.chunks.send(part(seq, vec![0; LARGE]).message()).await;
        }
    });
    let sent = timeout(10 * SHORT, &mut sending).await;
    assert!(sent.is_err(), "it is held up");
    assert!(node.count() >= 5, "it is read ahead: {}", node.count());
    assert!(node.admission().used() <= AHEAD + LARGE, "{}", node.admission().used());
    node.release();
    sending.await;
    let end = stream.end().await;
    assert_eq!((end.answered, end.status.code()), (40, Code::Ok));
    node.budget_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_larger_than_what_is_read_ahead_goes_alone() {
    let node = Node::start().await;
    let sent = [part(1, "a"), part(2, vec![2; 10 << 20]), part(3, "c")];
    let mut stream = Stream::open(&node).await;
    stream.chunks.send(messages(&sent)).await;
    let end = stream.end().await;
    assert_eq!((end.answered, end.status.code()), (3, Code::Ok));
    assert_eq!(node.taken(), sent);
    node.budget_is_free().await;
}

#[tokio::test]
async fn a_stream_may_rest_between_chunks_and_not_within_one() {
    let limits = Limits { frame_wait: SHORT, body_wait: SHORT, ..Node::limits() };
    let node = Node::start_with(limits).await;
    let mut stream = Stream::open(&node).await;
    for seq in 1..=3 {
        stream.chunks.send(part(seq, "x").message()).await;
        assert_eq!(stream.receipt().await.unwrap().answered, seq as u64);
        tokio::time::sleep(3 * SHORT).await;
    }
    let cut = part(4, "x").message();
    for kept in [3, 7, cut.len() - 1] {
        let mut stream = Stream::open(&node).await;
        stream.chunks.send(part(1, "x").message()).await;
        stream.chunks.send(cut.slice(..kept)).await;
        assert_eq!(stream.receipt().await.unwrap().answered, 1);
        let status = stream.status().await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{kept}");
    }
    stream.chunks.send(part(4, "x").message()).await;
    assert_eq!(stream.receipt().await.unwrap().answered, 4);
    node.budget_is_free().await;
}

#[tokio::test]
async fn a_receipt_asks_to_wait_as_long_as_the_cluster_does() {
    let node = Node::start().await;
    let throttle = Request::get("http://node/throttle?seconds=17").header(HOST, "node");
    Connection::http1(node.address).await.call(throttle, &[]).await;
    let mut stream = Stream::open(&node).await;
    stream.chunks.send(part(1, "x").message()).await;
    assert_eq!(stream.receipt().await.unwrap().throttle_seconds, 17);
}

#[tokio::test]
async fn a_node_that_takes_no_more_ends_its_streams() {
    let node = Node::start().await;
    let mut stream = Stream::open(&node).await;
    stream.chunks.send(part(1, "x").message()).await;
    assert_eq!(stream.receipt().await.unwrap().answered, 1);
    node.admission().close(Closed::Leaving);
    let status = stream.status().await;
    assert!(come_back(&status) >= RETRY_AFTER_MIN);
    assert!(status.message().contains("is being drained"), "{}", status.message());
    timeout(PATIENCE, stream.connection.ended).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn compression_is_not_implemented_and_whoever_speaks_no_grpc_is_told_by_http() {
    let node = Node::start().await;
    let mut connection = Connection::http2(node.address).await;
    let chunk = part(1, "x").message();
    for encoding in ["gzip", "zstd"] {
        let head = send().header("grpc-encoding", encoding);
        let answer = connection.call(head, std::slice::from_ref(&chunk)).await;
        let status = Status::from_header_map(&answer.headers).unwrap();
        assert_eq!((answer.status.as_u16(), status.code()), (200, Code::Unimplemented));
        assert_eq!(answer.header(HeaderName::from_static("grpc-accept-encoding")), "identity");
    }
    let path = format!("http://node{CHUNK_GRPC_PATH}");
    let plain = Request::post(&path).header(CONTENT_TYPE, "application/x-protobuf");
    assert_eq!(connection.call(plain, std::slice::from_ref(&chunk)).await.status, 415);
    let get = Request::builder().method(Method::GET).uri(&path);
    assert_eq!(connection.call(get, &[]).await.status, 405);
    let other = Request::post("http://node/sheaf.v1.Chunks/Receive")
        .header(CONTENT_TYPE, "application/grpc");
    assert_eq!(connection.call(other, std::slice::from_ref(&chunk)).await.status, 404);
    let old = send().header(HOST, "node");
    let answer = Connection::http1(node.address).await.call(old, &[chunk]).await;
    assert_eq!((answer.status.as_u16(), node.count()), (505, 0));
    node.budget_is_free().await;
}
