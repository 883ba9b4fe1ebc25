use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, RETRY_AFTER,
};
use http::{Method, Request, StatusCode};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message as _;
use serde_json::{Value, json};
use sheaf_node::intake::admission::Closed;
use sheaf_node::source::Limits;
use sheaf_proto::names::REQUEST_ID_HEADER;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic_types::RpcStatusExt as _;

use crate::bodies::{UNDECODABLE, gzip, json_logs, logs};
use crate::node::{BUDGET_BYTES, Node, REQUEST_BYTES_MAX};
use crate::sender::{Answer, Connection};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

fn post(content_type: &str) -> http::request::Builder {
    Request::post("http://node/v1/logs").header(CONTENT_TYPE, content_type).header(HOST, "node")
}

fn gzip_post(content_type: &str) -> http::request::Builder {
    post(content_type).header(CONTENT_ENCODING, "gzip")
}

async fn call(node: &Node, head: http::request::Builder, body: impl Into<Bytes>) -> Answer {
    Connection::http1(node.http).await.call(head, &[body.into()]).await
}

fn json_body(answer: &Answer) -> Value {
    assert_eq!(answer.header(CONTENT_TYPE), JSON);
    serde_json::from_slice(&answer.body).unwrap()
}

fn protobuf_status(answer: &Answer) -> tonic_types::Status {
    assert_eq!(answer.header(CONTENT_TYPE), PROTOBUF);
    tonic_types::Status::decode(answer.body.clone()).unwrap()
}

fn taken_as(answer: &Answer, content_type: &str) {
    assert_eq!(
        (answer.status, answer.header(CONTENT_TYPE)),
        (StatusCode::OK, content_type),
        "{answer:?}"
    );
    match content_type {
        JSON => assert_eq!(json_body(answer), json!({})),
        _ => assert!(answer.body.is_empty(), "an ExportLogsServiceResponse with nothing to say"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protobuf_and_json_mean_the_same_over_http_1_and_2() {
    let node = Node::start().await;
    for mut connection in [Connection::http1(node.http).await, Connection::http2(node.http).await] {
        taken_as(&connection.call(post(PROTOBUF), &[logs(10)]).await, PROTOBUF);
        taken_as(&connection.call(post(JSON), &[json_logs(10)]).await, JSON);
        taken_as(&connection.call(gzip_post(PROTOBUF), &[gzip(&logs(10))]).await, PROTOBUF);
        taken_as(&connection.call(gzip_post(JSON), &[gzip(&json_logs(10))]).await, JSON);
    }
    assert_eq!(node.taken(), vec![logs(10); 8]);
    node.budget_is_free().await;
}

#[tokio::test]
async fn parameters_and_case_of_a_content_type_do_not_matter() {
    let node = Node::start().await;
    taken_as(&call(&node, post("application/json; charset=utf-8"), json_logs(1)).await, JSON);
    taken_as(&call(&node, post("Application/JSON ;charset=UTF-8"), json_logs(1)).await, JSON);
    taken_as(&call(&node, post("application/x-protobuf;charset=utf-8"), logs(1)).await, PROTOBUF);
}

#[tokio::test]
async fn a_request_may_have_an_id_and_a_malformed_one_is_a_bad_request() {
    const ID: &str = "0123456789abcdef0123456789abcdef/18";
    let node = Node::start().await;
    taken_as(&call(&node, post(PROTOBUF).header(REQUEST_ID_HEADER, ID), logs(1)).await, PROTOBUF);
    taken_as(&call(&node, post(JSON), json_logs(1)).await, JSON);
    assert_eq!(node.ids(), [Some(ID.to_owned()), None]);
    for malformed in ["", "18", "0123456789abcdef0123456789abcdef/0"] {
        let head = post(JSON).header(REQUEST_ID_HEADER, malformed);
        let answer = call(&node, head, json_logs(1)).await;
        assert_eq!(
            (answer.status, &json_body(&answer)["code"]),
            (400.try_into().unwrap(), &json!(3))
        );
        let message = json_body(&answer)["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("sheaf-request-id: a request id is SESSION/SEQ"), "{message}");
    }
    let twice = post(JSON).header(REQUEST_ID_HEADER, ID).header(REQUEST_ID_HEADER, ID);
    assert_eq!(call(&node, twice, json_logs(1)).await.status, 400);
    assert_eq!((node.taken().len(), node.unusable()), (2, 4));
    node.budget_is_free().await;
}

#[tokio::test]
async fn an_empty_request_succeeds() {
    let node = Node::start().await;
    taken_as(&call(&node, post(PROTOBUF), "").await, PROTOBUF);
    taken_as(&call(&node, post(PROTOBUF).header(CONTENT_LENGTH, "0"), "").await, PROTOBUF);
    taken_as(&call(&node, post(JSON), "{}").await, JSON);
    taken_as(&call(&node, post(PROTOBUF).header(CONTENT_ENCODING, "identity"), "").await, PROTOBUF);
    assert_eq!(node.taken(), vec![Bytes::new(); 4]);
}

#[tokio::test]
async fn what_was_rejected_is_told_in_the_format_of_the_request() {
    let node = Node::start().await;
    node.answer(3, "three were bad");
    let answer = call(&node, post(JSON), json_logs(1)).await;
    let expected =
        json!({"partialSuccess": {"rejectedLogRecords": "3", "errorMessage": "three were bad"}});
    assert_eq!((answer.status, json_body(&answer)), (StatusCode::OK, expected));
    let answer = call(&node, post(PROTOBUF), logs(1)).await;
    let partial = ExportLogsServiceResponse::decode(answer.body).unwrap().partial_success.unwrap();
    assert_eq!(
        (partial.rejected_log_records, partial.error_message.as_str()),
        (3, "three were bad")
    );
}

#[tokio::test]
async fn json_of_unknown_keys_alone_succeeds_with_a_message() {
    let node = Node::start().await;
    let answer = call(&node, post(JSON), r#"{"resourceSpans":[]}"#).await;
    assert_eq!(answer.status, StatusCode::OK);
    let partial = &json_body(&answer)["partialSuccess"];
    assert_eq!(partial["rejectedLogRecords"], "0");
    assert!(partial["errorMessage"].as_str().unwrap().contains("no key that OTLP knows"));
    taken_as(&call(&node, post(JSON), r#"{"resourceLogs":[],"more":1}"#).await, JSON);
}

#[tokio::test]
async fn what_cannot_be_decoded_is_a_bad_request_in_the_format_of_the_request() {
    let node = Node::start().await;
    for head in [post(PROTOBUF), gzip_post(PROTOBUF)] {
        let answer = call(&node, head, UNDECODABLE).await;
        assert_eq!(answer.status, 400);
        let status = protobuf_status(&answer);
        assert_eq!(status.code, tonic::Code::InvalidArgument as i32);
        assert_eq!(
            status.get_details_bad_request().unwrap().field_violations[0].description,
            status.message
        );
    }
    for body in ["", "{", "[]", "{\"resourceLogs\":1}", "{} {}", "\u{1F600}"] {
        let answer = call(&node, post(JSON), body).await;
        assert_eq!(answer.status, 400, "{body}");
        let status = json_body(&answer);
        assert_eq!(status["code"], 3);
        assert_eq!(status["details"][0]["@type"], "type.googleapis.com/google.rpc.BadRequest");
        assert_eq!(status["details"][0]["fieldViolations"][0]["description"], status["message"]);
    }
    assert!(node.taken().is_empty());
    node.budget_is_free().await;
}

#[tokio::test]
async fn every_member_of_a_gzip_body_counts() {
    let node = Node::start().await;
    let body = [gzip(&logs(10)), gzip(&logs(20))].concat();
    taken_as(&call(&node, gzip_post(PROTOBUF), body).await, PROTOBUF);
    assert_eq!(node.taken(), [[logs(10), logs(20)].concat()]);
}

#[tokio::test]
async fn other_media_types_and_compressions_are_unsupported() {
    let node = Node::start().await;
    let none = Request::post("http://node/v1/logs").header(HOST, "node");
    for head in [none, post("text/plain"), post("application/x-protobuffer"), post("")] {
        let answer = call(&node, head, logs(1)).await;
        assert_eq!((answer.status.as_u16(), json_body(&answer)["code"].as_i64()), (415, Some(3)));
    }
    for coding in ["zstd", "deflate", "br", "gzip, gzip"] {
        let answer = call(&node, post(PROTOBUF).header(CONTENT_ENCODING, coding), logs(1)).await;
        assert_eq!(answer.status, 415, "{coding}");
        assert_eq!(answer.header(http::header::ACCEPT_ENCODING), "gzip, identity");
        assert!(protobuf_status(&answer).message.contains(coding));
    }
    assert!(node.taken().is_empty());
}

#[tokio::test]
async fn other_methods_are_not_allowed_and_other_paths_not_found() {
    let node = Node::start().await;
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let answer = call(&node, post(PROTOBUF).method(method.clone()), "").await;
        assert_eq!((answer.status.as_u16(), answer.header(ALLOW)), (405, "POST"), "{method}");
    }
    for path in ["/", "/v1/traces", "/v1/logs/", "/v2/logs"] {
        let answer = call(&node, post(PROTOBUF).uri(format!("http://node{path}")), logs(1)).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(protobuf_status(&answer).code, tonic::Code::NotFound as i32);
    }
    assert!(node.taken().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_for_good_in_every_disguise() {
    let node = Node::start().await;
    let large = logs(REQUEST_BYTES_MAX);
    let promised = post(PROTOBUF).header(CONTENT_LENGTH, large.len());
    let bodies = [
        (promised, large.clone()),
        (post(PROTOBUF), large.clone()),
        (gzip_post(PROTOBUF), gzip(&large)),
        (gzip_post(PROTOBUF), gzip(&vec![0; 64 << 20])),
        (gzip_post(JSON), gzip(&json_logs(REQUEST_BYTES_MAX))),
    ];
    for (head, body) in bodies {
        let answer = call(&node, head, body).await;
        assert_eq!((answer.status.as_u16(), answer.header(RETRY_AFTER)), (413, ""));
    }
    assert!(node.taken().is_empty());
    node.budget_is_free().await;
}

#[tokio::test]
async fn a_body_that_promises_too_much_is_refused_before_it_is_sent() {
    let node = Node::start().await;
    let mut connection = Connection::http1(node.http).await;
    let promised =
        post(JSON).header(CONTENT_LENGTH, REQUEST_BYTES_MAX + 1).header(EXPECT, "100-continue");
    let (_body, answer) = connection.begin(promised).await;
    let answer = answer.await.unwrap();
    assert_eq!((answer.status.as_u16(), json_body(&answer)["code"].as_i64()), (413, Some(8)));
}

#[tokio::test]
async fn a_sender_that_asks_first_is_told_to_continue() {
    let node = Node::start().await;
    let mut stream = TcpStream::connect(node.http).await.unwrap();
    let head = format!(
        "POST /v1/logs HTTP/1.1\r\nHost: node\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {}\r\n\
         Expect: 100-continue\r\nConnection: close\r\n\r\n",
        logs(10).len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 25];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&logs(10)).await.unwrap();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[25..]).starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn a_sender_that_does_not_listen_while_it_sends_still_gets_the_answer() {
    const MORE_THAN_SOCKETS_HOLD: usize = 32 << 20;
    let limits = Limits { request_bytes_max: MORE_THAN_SOCKETS_HOLD, ..Node::limits() };
    let node = Node::start_with(limits).await;
    let mut stream = TcpStream::connect(node.http).await.unwrap();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nHost: node\r\nContent-Length: {MORE_THAN_SOCKETS_HOLD}\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![0; MORE_THAN_SOCKETS_HOLD]).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 404 Not Found\r\n"));
}

#[tokio::test]
async fn a_busy_node_says_when_to_come_back_in_whole_seconds() {
    let node = Node::start().await;
    let everything = node.admission().admit(BUDGET_BYTES).await.unwrap();
    let answer = call(&node, post(JSON), json_logs(10)).await;
    let seconds: u64 = answer.header(RETRY_AFTER).parse().unwrap();
    assert_eq!(answer.status, 503);
    assert!((1..=30).contains(&seconds), "{seconds}");
    let status = json_body(&answer);
    assert_eq!(
        (status["code"].as_i64(), status["message"].as_str()),
        (Some(14), Some("the node is busy"))
    );
    assert_eq!(status["details"][0]["@type"], "type.googleapis.com/google.rpc.RetryInfo");
    assert!(status["details"][0]["retryDelay"].as_str().unwrap().ends_with('s'));
    drop(everything);
    taken_as(&call(&node, post(JSON), json_logs(10)).await, JSON);
}

#[tokio::test]
async fn senders_that_are_refused_together_come_back_apart() {
    let node = Node::start().await;
    node.admission().close(Closed::DiskFull);
    let mut delays = Vec::new();
    for _ in 0..16 {
        let answer = call(&node, post(PROTOBUF), logs(10)).await;
        assert_eq!(answer.status, 503);
        assert_eq!(protobuf_status(&answer).message, "the node's disk is full");
        delays.push(answer.header(RETRY_AFTER).parse::<u64>().unwrap());
    }
    assert!(delays.iter().all(|delay| (1..=30).contains(delay)), "{delays:?}");
    assert!(delays.iter().any(|delay| *delay != delays[0]), "{delays:?}");
}

#[tokio::test]
async fn a_sender_that_pauses_too_long_is_given_up() {
    let limits = Limits { frame_wait: Duration::from_millis(50), ..Node::limits() };
    let node = Node::start_with(limits).await;
    for head in [post(PROTOBUF), post(PROTOBUF).header(CONTENT_LENGTH, 1000)] {
        let mut connection = Connection::http1(node.http).await;
        let (mut body, answer) = connection.begin(head).await;
        body.send(logs(900).slice(..500)).await;
        assert_eq!(answer.await.unwrap().status, 408);
        node.budget_is_free().await;
        drop(body);
    }
    assert!(node.taken().is_empty());
}

#[tokio::test]
async fn a_request_after_a_refused_one_is_served_on_the_same_connection() {
    let node = Node::start().await;
    let mut connection = Connection::http1(node.http).await;
    for _ in 0..10 {
        let chunks: Vec<Bytes> = logs(500_000).chunks(16_384).map(Bytes::copy_from_slice).collect();
        assert_eq!(connection.call(post("text/plain"), &chunks).await.status, 415);
        taken_as(&connection.call(post(PROTOBUF), &chunks).await, PROTOBUF);
    }
    assert_eq!(node.taken(), vec![logs(500_000); 10]);
}
