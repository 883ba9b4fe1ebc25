use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST,
    RETRY_AFTER,
};
use http::{Method, Request, StatusCode};
use sheaf_node::intake::admission::Closed;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::node::{BUDGET_BYTES, Node, REQUEST_BYTES_MAX};
use crate::parts::{Part, UNDECODABLE, part};
use crate::sender::{Answer, Connection};

fn request(method: Method, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("http://node{path}")).header(HOST, "node")
}

fn post() -> http::request::Builder {
    request(Method::POST, "/data")
}

async fn call(node: &Node, head: http::request::Builder, body: impl Into<Bytes>) -> Answer {
    Connection::http1(node.address).await.call(head, &[body.into()]).await
}

/// The status and the text of an answer.
fn said(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), std::str::from_utf8(&answer.body).unwrap())
}

/// Sends these bytes piece by piece, and returns the answer's body when it is complete.
async fn answer_to(address: SocketAddr, request: &[u8], piece: usize) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for bytes in request.chunks(piece) {
        stream.write_all(bytes).await.unwrap();
    }
    let mut answer = Vec::new();
    loop {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "closed before the end");
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() == length.unwrap().parse::<usize>().unwrap() {
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            return body.to_owned();
        }
    }
}

/// What Python's `http.client` and curl sent when they were told to, byte for byte.
const RECORDED: &[(&[u8], &str)] = &[
    (b"GET / HTTP/1.1\r\nHost: 127.0.0.1:18080\r\nAccept-Encoding: identity\r\n\r\n", "Log Server Is Alive"),
    (
        b"POST /data HTTP/1.1\r\nHost: 127.0.0.1:18080\r\nAccept-Encoding: identity\r\nContent-Length: 27\r\n\
          Content-Type: application/application/octet-stream\r\n\r\n\
          \n\x08log1.log\x11\x87\xfc\xbe\xaa\x9a\x01\0\0\x18\x01\"\x041\n2\n",
        "Throttle: 0",
    ),
    (
        b"POST /data HTTP/1.1\r\nHost: 127.0.0.1:18080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\
          Content-Length: 21\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n\
          \n\x08log1.log\x11\x87\xfc\xbe\xaa\x9a\x01\0\0\x18\x02",
        "Throttle: 0",
    ),
    (b"GET /count HTTP/1.1\r\nHost: 127.0.0.1:18080\r\nAccept-Encoding: identity\r\n\r\n", "Count=2"),
    (
        b"GET /throttle?seconds=9 HTTP/1.1\r\nHost: 127.0.0.1:18080\r\nAccept-Encoding: identity\r\n\r\n",
        "Log server throttle = 9",
    ),
    (
        b"POST /data HTTP/1.1\r\nAccept-Encoding: identity\r\nContent-Type: application/x-www-form-urlencoded\r\n\
          Content-Length: 27\r\nHost: 127.0.0.1:18080\r\nUser-Agent: Python-urllib/3.11\r\nConnection: close\r\n\r\n\
          \n\x08log1.log\x11\x87\xfc\xbe\xaa\x9a\x01\0\0\x18\x01\"\x041\n2\n",
        "Throttle: 9",
    ),
    (
        b"GET /throttle?seconds=-1 HTTP/1.1\r\nHost: 127.0.0.1:18080\r\nAccept-Encoding: identity\r\n\r\n",
        "Log server throttle = 9",
    ),
];

#[tokio::test]
async fn what_old_senders_sent_is_answered_to_the_byte_wherever_it_is_cut() {
    for piece in [1, 7, 65_536] {
        let node = Node::start().await;
        for (request, answer) in RECORDED {
            assert_eq!(answer_to(node.address, request, piece).await, *answer);
        }
        let session = 1_763_801_234_567;
        let [first, second] = [(1, "1\n2\n"), (2, "")].map(|(seq, payload)| Part {
            id: "log1.log",
            session,
            seq,
            payload: payload.into(),
        });
        assert_eq!(node.taken(), [first.clone(), second, first]);
        node.budget_is_free().await;
    }
}

#[tokio::test]
async fn a_chunk_may_come_as_any_content_type_over_either_http() {
    let node = Node::start().await;
    let types = [
        "application/x-protobuf",
        "application/application/octet-stream",
        "application/grpc",
        "x",
        "",
    ];
    let mut sent = Vec::new();
    for mut connection in
        [Connection::http1(node.address).await, Connection::http2(node.address).await]
    {
        for head in types.map(|kind| post().header(CONTENT_TYPE, kind)).into_iter().chain([post()])
        {
            let chunk = part(1 + sent.len() as i64, "x");
            let answer = connection.call(head, &[chunk.encode()]).await;
            assert_eq!(said(&answer), (200, "Throttle: 0"));
            assert_eq!(answer.header(CONTENT_TYPE), "text/plain; charset=utf-8");
            sent.push(chunk);
        }
    }
    assert_eq!(node.taken(), sent);
}

#[tokio::test]
async fn duplicates_gaps_and_stale_sessions_are_answered_like_any_chunk() {
    let node = Node::start().await;
    let stale = Part { session: 6, ..part(5, "stale") };
    let sent =
        [part(1, "a"), part(1, "a"), part(9, "gap"), stale, part(2, ""), part(i64::MAX, "b")];
    let mut connection = Connection::http1(node.address).await;
    for chunk in &sent {
        assert_eq!(said(&connection.call(post(), &[chunk.encode()]).await), (200, "Throttle: 0"));
    }
    assert_eq!(node.taken(), sent);
    let count = connection.call(request(Method::GET, "/count"), &[]).await;
    assert_eq!(said(&count), (200, "Count=6"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_of_10_mib_is_taken_whole() {
    let node = Node::start().await;
    let bytes: Vec<u8> =
        (0..10 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let chunk = part(1, bytes);
    let body = chunk.encode();
    let pieces: Vec<_> = body.chunks(16_384).map(|piece| body.slice_ref(piece)).collect();
    for mut connection in
        [Connection::http1(node.address).await, Connection::http2(node.address).await]
    {
        assert_eq!(said(&connection.call(post(), &pieces).await), (200, "Throttle: 0"));
    }
    assert_eq!(node.taken(), [chunk.clone(), chunk]);
    node.budget_is_free().await;
}

#[tokio::test]
async fn a_chunk_that_can_never_be_taken_is_refused_with_a_reason_and_disturbs_nobody() {
    let node = Node::start().await;
    let mut connection = Connection::http1(node.address).await;
    let long = Part { id: String::leak("x".repeat(1025)), ..part(1, "") };
    let mut cases = vec![
        (UNDECODABLE.to_vec(), "no LogPart: "),
        (b"\x0a\x01\xff\x18\x01".to_vec(), "no LogPart: the id is not UTF-8"),
        (b"\x0a\x01a\x10\x07\x18\x01".to_vec(), "no LogPart: field 2 of LogPart"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "no LogPart: "),
        (b"{\"id\": \"log1.log\"}".to_vec(), "no LogPart: "),
        (Vec::new(), "the chunk's id is empty"),
        (long.encode().to_vec(), "the chunk's id has 1025 bytes"),
    ];
    for seq in [0, -1, i64::MIN] {
        cases.push((part(seq, "x").encode().to_vec(), "the chunk's seq is "));
    }
    for (count, (body, reason)) in cases.iter().enumerate() {
        let answer = connection.call(post(), &[Bytes::from(body.clone())]).await;
        let (status, text) = said(&answer);
        assert!(status == 400 && text.starts_with(reason), "{text}");
        assert!(text.ends_with('\n') && text.lines().count() == 1, "{text:?}");
        assert_eq!(node.unusable(), count as u64 + 1);
    }
    assert_eq!(said(&connection.call(post(), &[part(1, "x").encode()]).await).0, 200);
    assert_eq!(node.taken(), [part(1, "x")]);
    node.budget_is_free().await;
}

#[tokio::test]
async fn other_methods_paths_and_compressions_are_refused() {
    let node = Node::start().await;
    let body = part(1, "x").encode();
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let answer = call(&node, request(method, "/data"), body.clone()).await;
        assert_eq!((said(&answer).0, answer.header(ALLOW)), (405, "POST"));
    }
    for path in ["/data/", "/Data", "/v1/logs", "//", "/sheaf.v1.Chunks/Recv"] {
        let answer = call(&node, request(Method::POST, path), body.clone()).await;
        let text = "not found: there are /data, /throttle, /count and /\n";
        assert_eq!(said(&answer), (404, text));
    }
    for coding in ["gzip", "br", "identity, gzip"] {
        let answer = call(&node, post().header(CONTENT_ENCODING, coding), body.clone()).await;
        assert_eq!((said(&answer).0, answer.header(ACCEPT_ENCODING)), (415, "identity"));
    }
    assert_eq!(node.count(), 0);
    let answer = call(&node, post().header(CONTENT_ENCODING, "Identity"), body.clone()).await;
    assert_eq!(said(&answer), (200, "Throttle: 0"));
    let answer = call(&node, request(Method::POST, "/data?x=y"), body).await;
    assert_eq!(said(&answer), (200, "Throttle: 0"));
}

#[tokio::test]
async fn a_chunk_that_is_too_large_is_refused_whether_it_says_so_or_not() {
    let node = Node::start().await;
    let most = REQUEST_BYTES_MAX - part(1, "").encode().len() - 3;
    let largest = part(1, vec![0; most]).encode();
    assert_eq!(largest.len(), REQUEST_BYTES_MAX);
    assert_eq!(call(&node, post(), largest).await.status, 200);
    let larger = part(1, vec![0; most + 1]).encode();
    let frames: Vec<_> = larger.chunks(1 << 20).map(|piece| larger.slice_ref(piece)).collect();
    let promising = post().header(CONTENT_LENGTH, larger.len());
    for head in [post(), promising] {
        let answer = Connection::http1(node.address).await.call(head, &frames).await;
        let text = format!("the request is larger than {REQUEST_BYTES_MAX} bytes\n");
        assert_eq!(said(&answer), (413, text.as_str()));
    }
    assert_eq!(node.count(), 1);
    node.budget_is_free().await;
}

#[tokio::test]
async fn the_throttle_is_set_and_read_by_any_method() {
    let node = Node::start().await;
    let mut connection = Connection::http1(node.address).await;
    let methods = [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH];
    for (seconds, method) in methods.into_iter().enumerate() {
        let path = format!("/throttle?seconds={seconds}");
        let text = format!("Log server throttle = {seconds}");
        let set = connection.call(request(method.clone(), &path), &["a body".into()]).await;
        assert_eq!(said(&set), (200, text.as_str()));
        let read = connection.call(request(method, "/throttle?seconds=-1"), &[]).await;
        assert_eq!(said(&read), (200, text.as_str()));
    }
    assert_eq!(
        said(&connection.call(post(), &[part(1, "x").encode()]).await),
        (200, "Throttle: 4")
    );
    for query in ["", "?", "?seconds", "?seconds=", "?seconds=x", "?seconds=3601", "?second=1"] {
        let answer = connection.call(request(Method::GET, &format!("/throttle{query}")), &[]).await;
        let (status, text) = said(&answer);
        assert!(status == 400 && text.starts_with("say ?seconds=N: "), "{text}");
    }
    node.lose_the_leader();
    let answer = connection.call(request(Method::GET, "/throttle?seconds=5"), &[]).await;
    assert_eq!(said(&answer), (503, "the node is busy\n"));
    assert_ne!(answer.header(RETRY_AFTER), "");
    let read = connection.call(request(Method::GET, "/throttle?seconds=-7"), &[]).await;
    assert_eq!(said(&read), (200, "Log server throttle = 4"));
}

#[tokio::test]
async fn a_node_asks_senders_to_wait_while_its_queue_fills() {
    let node = Node::start().await;
    let mut connection = Connection::http1(node.address).await;
    let mut throttle_at = async |percent: usize| {
        let _held = node.admission().admit(BUDGET_BYTES * percent / 100).await.unwrap();
        let answer = connection.call(post(), &[part(1, "x").encode()]).await;
        assert_eq!(answer.status, StatusCode::OK);
        String::from_utf8(answer.body.to_vec()).unwrap()
    };
    assert_eq!(throttle_at(49).await, "Throttle: 0");
    assert_eq!(throttle_at(75).await, "Throttle: 3");
    assert_eq!(throttle_at(99).await, "Throttle: 5");
    assert_eq!(throttle_at(10).await, "Throttle: 0");
}

#[tokio::test]
async fn a_busy_node_says_when_to_come_back_in_the_body_too() {
    let node = Node::start().await;
    let everything = node.admission().admit(BUDGET_BYTES).await.unwrap();
    let answer = call(&node, post(), part(1, "x").encode()).await;
    let seconds: u64 = answer.header(RETRY_AFTER).parse().unwrap();
    assert!((5..=30).contains(&seconds), "at least what a full queue asks for: {seconds}");
    assert_eq!(said(&answer), (503, format!("Throttle: {seconds}").as_str()));
    drop(everything);
    node.take_up_to(1);
    assert_eq!(call(&node, post(), part(2, "x").encode()).await.status, 503);
    assert_eq!(call(&node, post(), part(1, "x").encode()).await.status, 200);
    call(&node, request(Method::GET, "/throttle?seconds=60"), "").await;
    node.admission().close(Closed::Draining);
    let answer = call(&node, post(), part(1, "x").encode()).await;
    assert_eq!((answer.header(RETRY_AFTER), said(&answer)), ("60", (503, "Throttle: 60")));
    assert_eq!(answer.header(CONNECTION), "close", "others take it");
    node.budget_is_free().await;
}

#[tokio::test]
async fn a_sender_is_told_to_come_back_with_what_follows_on_a_chunk_that_the_file_lacks() {
    let node = Node::start().await;
    node.lack(Some(2));
    let answer = call(&node, post(), part(3, "x").encode()).await;
    let seconds: u64 = answer.header(RETRY_AFTER).parse().unwrap();
    assert!((5..=10).contains(&seconds), "{seconds}");
    assert_eq!(said(&answer), (503, format!("Throttle: {seconds}").as_str()));
    for seq in [1, 2] {
        assert_eq!(call(&node, post(), part(seq, "x").encode()).await.status, 200);
    }
    node.lack(None);
    assert_eq!(call(&node, post(), part(3, "x").encode()).await.status, 200);
    assert_eq!(node.taken().len(), 3);
    node.budget_is_free().await;
}

#[tokio::test]
async fn a_sender_that_does_not_listen_while_it_sends_still_gets_the_answer() {
    const MORE_THAN_SOCKETS_HOLD: usize = 15 << 20;
    let node = Node::start().await;
    for (path, status) in [("/nothing", "404 Not Found"), ("/throttle?seconds=1", "200 OK")] {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: node\r\nContent-Length: {MORE_THAN_SOCKETS_HOLD}\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![0; MORE_THAN_SOCKETS_HOLD]).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{text}");
    }
}
