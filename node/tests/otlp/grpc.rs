use bytes::Bytes;
use http::Request;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, TE};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message as _;
use sheaf_node::intake::admission::{Closed, RETRY_AFTER_MAX, RETRY_AFTER_MIN};
use sheaf_node::source::Limits;
use sheaf_proto::names::{OTLP_GRPC_LOGS_PATH, OTLP_GRPC_LOGS_SERVICE, REQUEST_ID_HEADER};
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::bodies::{UNDECODABLE, gzip, logs, message};
use crate::node::{BUDGET_BYTES, Node, REQUEST_BYTES_MAX};
use crate::sender::{Answer, Body, Connection};

pub(crate) fn head(path: &str) -> http::request::Builder {
    Request::post(format!("http://node{path}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
}

pub(crate) fn export() -> http::request::Builder {
    head(OTLP_GRPC_LOGS_PATH)
}

fn gzip_export() -> http::request::Builder {
    export().header("grpc-encoding", "gzip")
}

/// Sends these frames, as the whole body of one call.
async fn call(node: &Node, head: http::request::Builder, frames: &[Bytes]) -> Answer {
    Connection::http2(node.grpc).await.call(head, frames).await
}

/// The status of a call that was refused, in headers alone.
pub(crate) fn status(answer: &Answer) -> Status {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header(CONTENT_TYPE), "application/grpc");
    assert!(answer.body.is_empty() && answer.trailers.is_empty(), "{answer:?}");
    Status::from_header_map(&answer.headers).expect("a status")
}

/// The response of a call that was taken.
pub(crate) fn response(answer: &Answer) -> ExportLogsServiceResponse {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header(CONTENT_TYPE), "application/grpc");
    assert!(!answer.headers.contains_key("grpc-status"), "{answer:?}");
    assert_eq!(grpc_status(&answer.trailers), "0", "{answer:?}");
    let (prefix, message) = answer.body.split_at(5);
    assert_eq!(prefix[0], 0);
    assert_eq!(u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize, message.len());
    ExportLogsServiceResponse::decode(message).unwrap()
}

fn grpc_status(trailers: &HeaderMap) -> &str {
    trailers
        .get(HeaderName::from_static("grpc-status"))
        .map(|value| value.to_str().unwrap())
        .unwrap_or_default()
}

async fn refused(node: &Node, head: http::request::Builder, frames: &[Bytes]) -> Status {
    let status = status(&call(node, head, frames).await);
    assert_eq!(node.taken(), Vec::<Bytes>::new());
    node.budget_is_free().await;
    status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_answered_by_an_empty_response_with_its_status_in_trailers() {
    let node = Node::start().await;
    let answer = call(&node, export(), &[message(0, &logs(10))]).await;
    assert_eq!(response(&answer), ExportLogsServiceResponse::default());
    assert_eq!(node.taken(), [logs(10)]);
    node.budget_is_free().await;
}

#[tokio::test]
async fn a_request_may_have_an_id_in_its_metadata_and_a_malformed_one_is_refused_for_good() {
    const ID: &str = "0123456789abcdef0123456789abcdef/18";
    let node = Node::start().await;
    let named = |id: &str| export().header(REQUEST_ID_HEADER, id);
    let message = message(0, &logs(1));
    response(&call(&node, named(ID), std::slice::from_ref(&message)).await);
    assert_eq!(node.ids(), [Some(ID.to_owned())]);
    let status = status(&call(&node, named("18"), &[message]).await);
    assert_eq!((status.code(), node.unusable()), (Code::InvalidArgument, 1));
    assert!(status.message().starts_with("sheaf-request-id: "), "{}", status.message());
    node.budget_is_free().await;
}

#[tokio::test]
async fn an_empty_request_succeeds() {
    let node = Node::start().await;
    let answer = call(&node, export(), &[message(0, b"")]).await;
    assert_eq!(response(&answer), ExportLogsServiceResponse::default());
    assert_eq!(node.taken(), [Bytes::new()]);
}

#[tokio::test]
async fn what_was_rejected_is_told_as_partial_success() {
    let node = Node::start().await;
    node.answer(3, "three were bad");
    let answer = call(&node, export(), &[message(0, &logs(10))]).await;
    let partial = response(&answer).partial_success.unwrap();
    assert_eq!(
        (partial.rejected_log_records, partial.error_message.as_str()),
        (3, "three were bad")
    );
}

#[tokio::test]
async fn frames_make_no_difference_wherever_they_are_cut() {
    let node = Node::start().await;
    let mut connection = Connection::http2(node.grpc).await;
    let whole = message(0, &logs(50_000));
    let mut expected = Vec::new();
    for size in [1, 3, 5, 7, 1000, 16_384, 50_000] {
        // One byte at a time would take long for all of it.
        let (small, large) = whole.split_at(whole.len().min(size * 100));
        let frames: Vec<Bytes> =
            small.chunks(size).chain(large.chunks(16_384)).map(Bytes::copy_from_slice).collect();
        response(&connection.call(export(), &frames).await);
        expected.push(logs(50_000));
    }
    assert_eq!(node.taken(), expected);
    node.budget_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_the_largest_size_is_taken_and_one_byte_more_is_refused_for_good() {
    let node = Node::start().await;
    let overhead = logs(REQUEST_BYTES_MAX).len() - REQUEST_BYTES_MAX;
    let largest = logs(REQUEST_BYTES_MAX - overhead);
    assert_eq!(largest.len(), REQUEST_BYTES_MAX);
    response(&call(&node, export(), &[message(0, &largest)]).await);
    response(&call(&node, gzip_export(), &[message(1, &gzip(&largest))]).await);
    assert_eq!(node.taken(), [largest.clone(), largest]);

    let larger = logs(REQUEST_BYTES_MAX - overhead + 1);
    for (head, body) in
        [(export(), message(0, &larger)), (gzip_export(), message(1, &gzip(&larger)))]
    {
        let status = status(&call(&node, head, &[body]).await);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.get_details_retry_info().is_none(), "a sender would send it again");
    }
    node.budget_is_free().await;
}

#[tokio::test]
async fn a_request_that_promises_too_much_is_refused_before_it_is_sent() {
    let node = Node::start().await;
    let mut connection = Connection::http2(node.grpc).await;
    let (mut body, answer) = connection.begin(export()).await;
    body.send(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff])).await;
    assert_eq!(status(&answer.await.unwrap()).code(), Code::ResourceExhausted);
    assert_eq!(node.admission().used(), 0);
}

#[tokio::test]
async fn what_cannot_be_decoded_is_a_bad_request() {
    let node = Node::start().await;
    let status = refused(&node, export(), &[message(0, UNDECODABLE)]).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    let violations = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations[0].description, "a field runs past the end of its message");
}

#[tokio::test]
async fn a_body_that_is_not_one_whole_message_is_a_bad_request() {
    let node = Node::start().await;
    let whole = message(0, &logs(100));
    let twice = [whole.clone(), whole.clone()].concat().into();
    let bodies: [&[Bytes]; 8] = [
        &[],
        &[whole.slice(..4)],
        &[whole.slice(..5)],
        &[whole.slice(..50)],
        &[whole.slice(..50), whole.slice(50..whole.len() - 1)],
        &[whole.clone(), whole.clone()],
        &[twice],
        &[message(2, &logs(100))],
    ];
    for frames in bodies {
        let status = refused(&node, export(), frames).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{frames:?}: {status:?}");
        assert!(status.get_details_bad_request().is_some());
    }
}

#[tokio::test]
async fn every_member_of_a_gzip_message_counts() {
    let node = Node::start().await;
    let compressed = [gzip(&logs(10)), gzip(b""), gzip(&logs(20))].concat();
    response(&call(&node, gzip_export(), &[message(1, &compressed)]).await);
    assert_eq!(node.taken(), [[logs(10), logs(20)].concat()]);
    node.budget_is_free().await;
}

#[tokio::test]
async fn a_message_may_stay_uncompressed_where_gzip_is_announced() {
    let node = Node::start().await;
    response(&call(&node, gzip_export(), &[message(0, &logs(10))]).await);
    assert_eq!(node.taken(), [logs(10)]);
}

#[tokio::test]
async fn a_corrupt_or_unannounced_compression_is_a_bad_request() {
    let node = Node::start().await;
    let compressed = gzip(&logs(1000));
    let cut = compressed.slice(..compressed.len() - 1);
    for (head, body) in [
        (gzip_export(), cut),
        (gzip_export(), logs(10)),
        (gzip_export(), [compressed.clone(), Bytes::from_static(b"tail")].concat().into()),
        (export(), compressed.clone()),
        (export().header("grpc-encoding", "identity"), compressed),
    ] {
        assert_eq!(refused(&node, head, &[message(1, &body)]).await.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn an_unknown_compression_is_refused_with_the_ones_that_are_known() {
    let node = Node::start().await;
    let answer = call(&node, export().header("grpc-encoding", "zstd"), &[message(1, b"?")]).await;
    assert_eq!(status(&answer).code(), Code::Unimplemented);
    assert_eq!(answer.header(HeaderName::from_static("grpc-accept-encoding")), "identity,gzip");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bomb_is_refused_before_it_has_gone_off() {
    let node = Node::start().await;
    let bomb = gzip(&vec![0; 64 << 20]);
    assert!(bomb.len() < REQUEST_BYTES_MAX);
    let status = refused(&node, gzip_export(), &[message(1, &bomb)]).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_details_retry_info().is_none());
}

#[tokio::test]
async fn a_busy_node_says_when_to_come_back() {
    let node = Node::start().await;
    let everything = node.admission().admit(BUDGET_BYTES).await.unwrap();
    let status = status(&call(&node, export(), &[message(0, &logs(10))]).await);
    assert_eq!(status.code(), Code::Unavailable);
    let delay = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!((RETRY_AFTER_MIN..=RETRY_AFTER_MAX).contains(&delay), "{delay:?}");
    drop(everything);
    response(&call(&node, export(), &[message(0, &logs(10))]).await);
}

#[tokio::test]
async fn a_closed_node_says_why_and_when_to_come_back() {
    let node = Node::start().await;
    for why in [Closed::Starting, Closed::StoreTrouble, Closed::DiskFull, Closed::Draining] {
        node.admission().close(why);
        let status = refused(&node, export(), &[message(0, &logs(10))]).await;
        assert_eq!(status.code(), Code::Unavailable, "{why:?}");
        let delay = status.get_details_retry_info().unwrap().retry_delay.unwrap();
        assert!((RETRY_AFTER_MIN..=RETRY_AFTER_MAX).contains(&delay), "{why:?}: {delay:?}");
        node.admission().reopen();
    }
}

#[tokio::test]
async fn other_methods_and_services_are_not_implemented() {
    let node = Node::start().await;
    for path in [&format!("/{OTLP_GRPC_LOGS_SERVICE}/Import"), "/other.Service/Export"] {
        let answer = call(&node, head(path), &[message(0, &logs(10))]).await;
        assert_eq!(
            Status::from_header_map(&answer.headers).unwrap().code(),
            Code::Unimplemented,
            "{path}"
        );
    }
    assert!(node.taken().is_empty());
}

#[tokio::test]
async fn who_does_not_speak_grpc_is_told_so_by_http() {
    let node = Node::start().await;
    for content_type in ["application/json", "application/grpc-web", "application/grpc+json"] {
        let head = Request::post(format!("http://node{OTLP_GRPC_LOGS_PATH}"))
            .header(CONTENT_TYPE, content_type);
        assert_eq!(call(&node, head, &[message(0, b"")]).await.status, 415, "{content_type}");
    }
    let get = Request::get(format!("http://node{OTLP_GRPC_LOGS_PATH}"))
        .header(CONTENT_TYPE, "application/grpc");
    let answer = call(&node, get, &[]).await;
    assert_eq!((answer.status.as_u16(), answer.header(http::header::ALLOW)), (405, "POST"));
    let proto = Request::post(format!("http://node{OTLP_GRPC_LOGS_PATH}"))
        .header(CONTENT_TYPE, "application/grpc+proto");
    response(&call(&node, proto, &[message(0, b"")]).await);
}

#[tokio::test]
async fn a_sender_that_pauses_too_long_is_given_up_and_may_try_again() {
    let limits = Limits { frame_wait: Duration::from_millis(50), ..Node::limits() };
    let node = Node::start_with(limits).await;
    let whole = message(0, &logs(100_000));
    for sent in [0, 3, 5, 50_000] {
        let mut connection = Connection::http2(node.grpc).await;
        let (mut body, answer) = connection.begin(export()).await;
        send(&mut body, &whole.slice(..sent)).await;
        assert_eq!(
            status(&answer.await.unwrap()).code(),
            Code::DeadlineExceeded,
            "after {sent} bytes"
        );
        node.budget_is_free().await;
        drop(body);
    }
}

#[tokio::test]
async fn a_sender_that_dribbles_is_given_up_at_the_deadline() {
    let limits = Limits { body_wait: Duration::from_millis(200), ..Node::limits() };
    let node = Node::start_with(limits).await;
    let mut connection = Connection::http2(node.grpc).await;
    let (mut body, answer) = connection.begin(export()).await;
    let whole = message(0, &logs(100_000));
    let dribble = async {
        for byte in 0.. {
            body.send(whole.slice(byte..=byte)).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let answer =
        tokio::select! { answer = answer => answer.unwrap(), () = dribble => unreachable!() };
    assert_eq!(status(&answer).code(), Code::DeadlineExceeded);
    node.budget_is_free().await;
}

#[tokio::test]
async fn a_sender_that_goes_away_leaves_nothing_behind() {
    let node = Node::start().await;
    let mut connection = Connection::http2(node.grpc).await;
    let (mut body, answer) = connection.begin(export()).await;
    body.send(message(0, &logs(100_000)).slice(..50_000)).await;
    crate::waiting::until("some of it is charged", || node.admission().used() > 0).await;
    body.break_off().await;
    node.budget_is_free().await;
    assert!(answer.await.is_err());
    response(&connection.call(export(), &[message(0, &logs(10))]).await);
}

#[tokio::test]
async fn refused_requests_do_not_use_up_the_connection() {
    let node = Node::start().await;
    let mut connection = Connection::http2(node.grpc).await;
    node.admission().close(Closed::StoreTrouble);
    let frames: Vec<Bytes> =
        message(0, &logs(500_000)).chunks(16_384).map(Bytes::copy_from_slice).collect();
    for _ in 0..40 {
        assert_eq!(status(&connection.call(export(), &frames).await).code(), Code::Unavailable);
    }
    node.admission().reopen();
    response(&connection.call(export(), &frames).await);
}

async fn send(body: &mut Body, bytes: &Bytes) {
    if !bytes.is_empty() {
        body.send(bytes.clone()).await;
    }
}
