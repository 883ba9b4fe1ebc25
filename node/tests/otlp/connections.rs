use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sheaf_node::intake::admission::Closed;
use sheaf_node::source::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;

use crate::bodies::{logs, message};
use crate::grpc::{export, response, status};
use crate::node::{BUDGET_BYTES, Node, REQUEST_BYTES_MAX};
use crate::sender::Connection;
use crate::waiting::{PATIENCE, until};

const SHORT: Duration = Duration::from_millis(100);

fn post() -> http::request::Builder {
    Request::post("http://node/v1/logs")
        .header(CONTENT_TYPE, "application/x-protobuf")
        .header(HOST, "node")
}

/// Each connection takes two files, one for either end.
fn allow_many_files() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

/// Connects, sends these bytes and no more, and waits until the node closes.
async fn is_closed_after(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let closed = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "{:?} was not answered by closing", String::from_utf8_lossy(bytes));
}

#[tokio::test]
async fn a_connection_that_does_not_open_in_time_is_closed() {
    let node = Node::start_with(Limits { head_wait: SHORT, ..Node::limits() }).await;
    for bytes in ["", "P", "PRI * HTTP/2.0\r\n"] {
        is_closed_after(node.grpc, bytes.as_bytes()).await;
    }
    for bytes in ["", "P", "PRI * HTTP/2.0\r\n", "POST /v1/logs HTTP/1.1\r\nHost: no"] {
        is_closed_after(node.http, bytes.as_bytes()).await;
    }
}

#[tokio::test]
async fn a_connection_that_opens_with_something_else_is_closed() {
    let node = Node::start().await;
    for address in [node.grpc, node.http] {
        is_closed_after(
            address,
            &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        )
        .await;
    }
    let mut connection = Connection::http2(node.grpc).await;
    response(&connection.call(export(), &[message(0, &logs(1))]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_senders_that_promise_much_and_send_nothing_take_nothing_from_the_others() {
    const LIARS: usize = 500; // of each protocol
    allow_many_files();
    let node = Node::start().await;
    let mut liars = Vec::new();
    for _ in 0..LIARS {
        let mut grpc = Connection::http2(node.grpc).await;
        let (mut body, answer) = grpc.begin(export()).await;
        let promise = u32::try_from(REQUEST_BYTES_MAX).unwrap().to_be_bytes();
        body.send([&[0], &promise[..]].concat()).await;
        let mut http = Connection::http1(node.http).await;
        let (silent, unanswered) =
            http.begin(post().header(CONTENT_LENGTH, REQUEST_BYTES_MAX)).await;
        liars.push((grpc, body, answer, http, silent, unanswered));
    }
    assert!(
        node.admission().used() <= BUDGET_BYTES / 100,
        "{} bytes are charged",
        node.admission().used()
    );

    let honest = message(0, &logs(REQUEST_BYTES_MAX / 2));
    response(&Connection::http2(node.grpc).await.call(export(), &[honest]).await);
    let answer =
        Connection::http1(node.http).await.call(post(), &[logs(REQUEST_BYTES_MAX / 2)]).await;
    assert_eq!(answer.status, 200);
    assert_eq!((node.taken().len(), node.admission().refused()), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_of_more_than_the_budget_are_refused_or_served_but_never_stuck() {
    let node = Node::start().await;
    let body = logs(REQUEST_BYTES_MAX / 2);
    let senders: Vec<_> = (0..50)
        .map(|_| {
            let (address, body) = (node.http, body.clone());
            tokio::spawn(async move {
                let chunks: Vec<Bytes> = body.chunks(8192).map(Bytes::copy_from_slice).collect();
                Connection::http1(address).await.call(post(), &chunks).await.status
            })
        })
        .collect();
    let mut served = 0;
    for sender in senders {
        match sender.await.unwrap().as_u16() {
            200 => served += 1,
            status => assert_eq!(status, 503),
        }
    }
    assert_eq!(node.taken().len(), served);
    assert!(served > 0);
    node.budget_is_free().await;
}

#[tokio::test]
async fn at_shutdown_what_is_in_flight_finishes_and_nothing_new_is_accepted() {
    let mut node = Node::start().await;
    node.hold();
    let mut grpc = Connection::http2(node.grpc).await;
    let mut http = Connection::http1(node.http).await;
    let (mut half, late) = Connection::http2(node.grpc).await.begin(export()).await;
    half.send(message(0, &logs(1000)).slice(..500)).await;
    let (first, second) = tokio::join!(grpc.begin(export()), http.begin(post()));
    let ((mut grpc_body, grpc_answer), (mut http_body, http_answer)) = (first, second);
    grpc_body.send(message(0, &logs(10))).await;
    http_body.send(logs(10)).await;
    drop((grpc_body, http_body));
    until("both are in flight", || node.taken().len() == 2).await;

    node.begin_shutdown();
    for address in [node.grpc, node.http] {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    half.send(message(0, &logs(1000)).slice(500..)).await;
    drop(half);
    node.release();
    response(&grpc_answer.await.unwrap());
    response(&late.await.unwrap());
    assert_eq!(http_answer.await.unwrap().status, 200);
    node.ended().await;
}

#[tokio::test]
async fn what_does_not_finish_in_time_does_not_keep_the_node_from_ending() {
    let limits = Limits {
        drain: SHORT,
        frame_wait: 2 * PATIENCE,
        body_wait: 2 * PATIENCE,
        ..Node::limits()
    };
    let mut node = Node::start_with(limits).await;
    let (mut body, _answer) = Connection::http2(node.grpc).await.begin(export()).await;
    body.send(message(0, &logs(1000)).slice(..500)).await;
    until("it is in flight", || node.admission().used() > 0).await;
    node.begin_shutdown();
    timeout(PATIENCE / 2, node.ended()).await.expect("sooner than the sender gives up");
    node.budget_is_free().await;
}

#[tokio::test]
async fn an_old_connection_is_closed_after_what_is_in_flight() {
    let node = Node::start_with(Limits { connection_age: SHORT, ..Node::limits() }).await;
    node.hold();
    let mut connection = Connection::http2(node.grpc).await;
    let (mut body, answer) = connection.begin(export()).await;
    body.send(message(0, &logs(10))).await;
    drop(body);
    until("it is in flight", || node.taken().len() == 1).await;
    tokio::time::sleep(2 * SHORT).await;
    node.release();
    response(&answer.await.unwrap());
    timeout(PATIENCE, connection.ended).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn over_http1_an_old_connection_is_closed_with_its_next_answer() {
    let node = Node::start_with(Limits { connection_age: SHORT, ..Node::limits() }).await;
    let mut connection = Connection::http1(node.http).await;
    let young = connection.call(post(), &[logs(10)]).await;
    assert_eq!((young.status.as_u16(), young.header(CONNECTION)), (200, ""));
    tokio::time::sleep(2 * SHORT).await;
    assert!(!connection.ended.is_finished(), "a request may be on its way");
    let old = connection.call(post(), &[logs(10)]).await;
    assert_eq!((old.status.as_u16(), old.header(CONNECTION)), (200, "close"));
    timeout(PATIENCE, connection.ended).await.unwrap().unwrap().unwrap();
    assert_eq!(node.taken().len(), 2);
}

#[tokio::test]
async fn over_http2_an_old_connection_takes_what_was_begun_and_nothing_else() {
    let node = Node::start_with(Limits { connection_age: SHORT, ..Node::limits() }).await;
    let mut connection = Connection::http2(node.http).await;
    tokio::time::sleep(2 * SHORT).await;
    assert!(!connection.ended.is_finished(), "nobody knows yet what it speaks");
    let (mut body, answer) = connection.begin(post()).await;
    body.send(logs(10)).await;
    drop(body);
    assert_eq!(answer.await.unwrap().status, 200);
    timeout(PATIENCE, connection.ended).await.unwrap().unwrap().unwrap();
    assert_eq!(node.taken().len(), 1);
}

#[tokio::test]
async fn a_node_that_leaves_its_cluster_ends_its_connections_so_that_senders_go_elsewhere() {
    let node = Node::start().await;
    let mut grpc = Connection::http2(node.grpc).await;
    let mut http = Connection::http1(node.http).await;
    response(&grpc.call(export(), &[message(0, &logs(10))]).await);
    assert_eq!(http.call(post(), &[logs(10)]).await.header(CONNECTION), "");
    node.admission().close(Closed::Leaving);
    timeout(PATIENCE, grpc.ended).await.unwrap().unwrap().unwrap();
    let last = http.call(post(), &[logs(10)]).await;
    assert_eq!((last.status.as_u16(), last.header(CONNECTION)), (503, "close"));
    let mut late = Connection::http2(node.grpc).await;
    let refused = status(&late.call(export(), &[message(0, &logs(10))]).await);
    assert_eq!(refused.code(), Code::Unavailable);
    timeout(PATIENCE, late.ended).await.unwrap().unwrap().unwrap();
    assert_eq!(node.taken().len(), 2);
}

#[tokio::test]
async fn connections_above_the_limit_wait_until_others_end() {
    let node = Node::start_with(Limits { connections_max: 2, ..Node::limits() }).await;
    let mut first = Connection::http2(node.grpc).await;
    let mut second = Connection::http2(node.grpc).await;
    for connection in [&mut first, &mut second] {
        response(&connection.call(export(), &[message(0, &logs(1))]).await);
    }
    let third = tokio::spawn({
        let address = node.grpc;
        async move { Connection::http2(address).await.call(export(), &[message(0, &logs(1))]).await }
    });
    tokio::time::sleep(SHORT).await;
    assert!(!third.is_finished());
    drop(second);
    response(&timeout(PATIENCE, third).await.unwrap().unwrap());
    assert_eq!(node.taken().len(), 3);
}
