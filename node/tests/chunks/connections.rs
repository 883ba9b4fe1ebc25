use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{CONTENT_LENGTH, HOST};
use sheaf_node::source::Limits;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::node::{BUDGET_BYTES, Node, REQUEST_BYTES_MAX};
use crate::parts::{message, part};
use crate::sender::Connection;
use crate::stream::Stream;
use crate::waiting::{PATIENCE, until};

const SHORT: Duration = Duration::from_millis(100);

fn post() -> http::request::Builder {
    Request::post("http://node/data").header(HOST, "node")
}

#[tokio::test]
async fn a_body_that_pauses_or_is_cut_off_takes_nothing_from_the_others() {
    let limits = Limits { frame_wait: SHORT, ..Node::limits() };
    let node = Node::start_with(limits).await;
    let chunk = part(1, vec![1; 1000]).encode();
    let (mut body, answer) = Connection::http1(node.address).await.begin(post()).await;
    body.send(chunk.slice(..500)).await;
    assert_eq!(answer.await.unwrap().status, 408);
    let promising = post().header(CONTENT_LENGTH, chunk.len());
    let (mut body, _) = Connection::http1(node.address).await.begin(promising).await;
    body.send(chunk.slice(..500)).await;
    body.break_off().await;
    let answer = Connection::http1(node.address).await.call(post(), &[chunk]).await;
    assert_eq!((answer.status.as_u16(), node.count()), (200, 1));
    node.budget_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_that_promise_much_and_send_nothing_take_nothing_from_the_others() {
    const LIARS: usize = 100;
    let node = Node::start().await;
    let mut liars = Vec::new();
    for _ in 0..LIARS {
        let mut stream = Stream::open(&node).await;
        let promise = message(0, &vec![0; REQUEST_BYTES_MAX]);
        stream.chunks.send(promise.slice(..5)).await;
        let mut http = Connection::http1(node.address).await;
        let begun = http.begin(post().header(CONTENT_LENGTH, REQUEST_BYTES_MAX)).await;
        liars.push((stream, http, begun));
    }
    assert!(node.admission().used() <= BUDGET_BYTES / 100, "{}", node.admission().used());
    let honest = part(1, vec![0; REQUEST_BYTES_MAX / 2]).encode();
    let answer = Connection::http1(node.address).await.call(post(), &[honest]).await;
    assert_eq!((answer.status.as_u16(), node.admission().refused()), (200, 0));
}

#[tokio::test]
async fn an_old_stream_ends_after_what_is_in_flight_and_may_go_on_at_once() {
    let node = Node::start_with(Limits { connection_age: SHORT, ..Node::limits() }).await;
    node.hold();
    let mut stream = Stream::open(&node).await;
    stream
        .chunks
        .send(Bytes::from([part(1, "a").message(), part(2, "b").message()].concat()))
        .await;
    stream.chunks.send(part(3, "cut off").message().slice(..9)).await;
    until("two are on their way", || node.count() == 2).await;
    tokio::time::sleep(2 * SHORT).await;
    node.release();
    let mut answered = 0;
    let status = loop {
        match stream.receipt().await {
            Ok(receipt) => answered = receipt.answered,
            Err(status) => break status,
        }
    };
    assert_eq!((answered, status.code()), (2, Code::Unavailable));
    let retry = status.get_details_retry_info().unwrap().retry_delay;
    assert_eq!(retry, Some(Duration::ZERO));
    timeout(PATIENCE, stream.connection.ended).await.unwrap().unwrap().unwrap();
    node.budget_is_free().await;
}

#[tokio::test]
async fn at_shutdown_what_is_in_flight_finishes_and_idle_streams_end() {
    let mut node = Node::start().await;
    node.hold();
    let mut idle = Stream::open(&node).await;
    let mut busy = Stream::open(&node).await;
    busy.chunks.send(part(1, "x").message()).await;
    let mut http = Connection::http1(node.address).await;
    let (mut body, answer) = http.begin(post()).await;
    body.send(part(2, "x").encode()).await;
    drop(body);
    until("both are in flight", || node.count() == 2).await;
    node.begin_shutdown();
    while TcpStream::connect(node.address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(idle.status().await.code(), Code::Unavailable);
    node.release();
    assert_eq!(answer.await.unwrap().status, 200);
    assert_eq!(busy.receipt().await.unwrap().answered, 1);
    assert_eq!(busy.status().await.code(), Code::Unavailable);
    node.ended().await;
}

#[tokio::test]
async fn a_stream_that_does_not_finish_in_time_does_not_keep_the_node_from_ending() {
    let mut node = Node::start_with(Limits { drain: SHORT, ..Node::limits() }).await;
    node.hold();
    let mut stream = Stream::open(&node).await;
    stream.chunks.send(part(1, "x").message()).await;
    until("it is in flight", || node.count() == 1).await;
    node.begin_shutdown();
    node.ended().await;
    node.budget_is_free().await;
}
