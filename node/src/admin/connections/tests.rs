use std::net::SocketAddr;

use axum::routing::get;
use sheaf_proto::service;
use sheaf_proto::service::FollowWindowsRequest;
use sheaf_proto::service::statistics_client::StatisticsClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::Endpoint;

use super::*;
use crate::admin::example::{Fake, file};
use crate::admin::{grpc, router};

/// Longer than any test waits, unless it fails.
const NEVER: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_millis(50);
const PATIENT: Limits = Limits {
    connections: 8,
    headers_within: NEVER,
    age: NEVER,
    follow_for: NEVER,
    finish_within: NEVER,
};
const HELLO: &[u8] = b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n";

/// A running port, and what stops it.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Running {
    async fn start(router: Router, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve(listener, router, limits, stopped));
        Running { address, stop, serving }
    }

    async fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }
}

fn hello() -> Router {
    Router::new().route("/hello", get(async || "hello"))
}

/// A path whose answer waits for the second notification after it gives the first.
fn waiting(begun: &Arc<Notify>, go_on: &Arc<Notify>) -> Router {
    let (begun, go_on) = (Arc::clone(begun), Arc::clone(go_on));
    let answer = async move || {
        begun.notify_one();
        go_on.notified().await;
        "hello"
    };
    Router::new().route("/hello", get(answer))
}

/// What comes until the port closes the connection.
async fn read_to_end(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = timeout(NEVER / 2, stream.read_to_end(&mut bytes)).await;
    read.expect("the connection stays open").unwrap();
    String::from_utf8(bytes).unwrap()
}

async fn read_hello(stream: &mut TcpStream) {
    let mut seen = Vec::new();
    while !seen.ends_with(b"hello") {
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "{seen:?}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_headers_is_cut_off() {
    let port = Running::start(hello(), Limits { headers_within: SOON, ..PATIENT }).await;
    let client = port.send(b"GET /hello HTTP/1.1\r\nhost:").await;
    assert!(!read_to_end(client).await.contains("hello"));
}

#[tokio::test]
async fn a_client_that_says_nothing_is_cut_off_before_and_after_an_answer() {
    let port = Running::start(hello(), Limits { headers_within: SOON, ..PATIENT }).await;
    assert_eq!(read_to_end(port.send(b"").await).await, "");
    assert!(read_to_end(port.send(HELLO).await).await.ends_with("hello"));
}

#[tokio::test]
async fn a_client_beyond_the_bound_is_served_when_another_leaves() {
    let port = Running::start(hello(), Limits { connections: 1, ..PATIENT }).await;
    let mut first = port.send(HELLO).await;
    read_hello(&mut first).await;
    let mut second = port.send(HELLO).await;
    let early = timeout(SOON, second.read_u8()).await;
    assert!(early.is_err(), "served beside the first");
    drop(first);
    read_hello(&mut second).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_gives_its_place_back() {
    let large = Router::new().route("/hello", get(async || "x".repeat(64 << 20)));
    let limits = Limits { connections: 1, age: SOON, finish_within: SOON, ..PATIENT };
    let port = Running::start(large, limits).await;
    let _stuck = port.send(HELLO).await;
    let mut next = port.send(HELLO).await;
    let served = timeout(NEVER / 2, next.read_u8()).await;
    assert_eq!(served.expect("the place is never given back").unwrap(), b'H');
}

#[tokio::test]
async fn an_answer_under_way_is_finished_when_the_port_closes() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let port = Running::start(waiting(&begun, &go_on), PATIENT).await;
    let client = port.send(HELLO).await;
    begun.notified().await;
    port.stop.send(()).unwrap();
    while TcpStream::connect(port.address).await.is_ok() {}
    tokio::task::yield_now().await; // the connection learns that the port is closed
    go_on.notify_one();
    assert!(read_to_end(client).await.ends_with("hello"));
    port.serving.await.unwrap();
}

#[tokio::test]
async fn the_port_closes_even_if_an_answer_never_comes() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let limits = Limits { finish_within: SOON, ..PATIENT };
    let port = Running::start(waiting(&begun, &go_on), limits).await;
    let _client = port.send(HELLO).await;
    begun.notified().await;
    port.stop.send(()).unwrap();
    timeout(NEVER / 2, port.serving).await.expect("the port stays open").unwrap();
}

/// A port over which somebody follows windows, of which none comes.
async fn followed(limits: Limits) -> (Running, tonic::Streaming<service::Window>) {
    let router = grpc::serve(Router::new(), Arc::new(Fake::default()));
    let port = Running::start(router, limits).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", port.address)).unwrap();
    let mut client = StatisticsClient::new(endpoint.connect().await.unwrap());
    let windows = client.follow_windows(FollowWindowsRequest::default()).await.unwrap();
    (port, windows.into_inner())
}

/// Waits until the stream ends, and says with what.
async fn end(mut windows: tonic::Streaming<service::Window>) -> Code {
    let ended = timeout(NEVER / 2, windows.message()).await.expect("the stream goes on");
    ended.err().unwrap().code()
}

#[tokio::test]
async fn who_follows_is_told_when_the_port_closes() {
    let (port, windows) = followed(PATIENT).await;
    port.stop.send(()).unwrap();
    assert_eq!(end(windows).await, Code::Unavailable);
    timeout(NEVER / 2, port.serving).await.expect("the port stays open").unwrap();
}

#[tokio::test]
async fn who_follows_keeps_an_old_connection_for_a_while_and_is_told_when_that_is_over() {
    let limits = Limits { age: SOON, finish_within: SOON, ..PATIENT };
    let (_port, mut windows) = followed(limits).await;
    let early = timeout(4 * SOON, windows.message()).await;
    assert!(early.is_err(), "ended with the connection's age");
    let (_port, windows) = followed(Limits { follow_for: SOON, ..limits }).await;
    assert_eq!(end(windows).await, Code::Unavailable);
}

#[tokio::test]
async fn who_reads_a_file_keeps_an_old_connection_until_it_has_all() {
    let (gate, files) = (Arc::new(Notify::new()), vec![file("a", 7)]);
    let node = Fake { files, content: "0123456789", gate: Some(gate.clone()), ..Fake::default() };
    let limits = Limits { age: SOON, finish_within: SOON, ..PATIENT };
    let port = Running::start(router(Arc::new(node)), limits).await;
    let client = port.send(b"GET /v1/files/a/7 HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut reading = tokio::spawn(read_to_end(client));
    let early = timeout(4 * SOON, &mut reading).await;
    assert!(early.is_err(), "cut off with the connection's age");
    gate.notify_one();
    assert!(reading.await.unwrap().ends_with("0123456789"));
}

#[tokio::test]
async fn an_old_connection_is_closed_once_nobody_follows_any_more() {
    let limits = Limits { connections: 1, age: SOON, ..PATIENT };
    let (port, windows) = followed(limits).await;
    drop(windows);
    let mut next = port.send(HELLO).await;
    let served = timeout(NEVER / 2, next.read_u8()).await;
    assert_eq!(served.expect("the place is never given back").unwrap(), b'H');
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_preface_is_cut_off() {
    for begun in ["P", "PRI * HTTP/2.0\r\n"] {
        let limits = Limits { headers_within: SOON, age: SOON, finish_within: SOON, ..PATIENT };
        let port = Running::start(hello(), limits).await;
        read_to_end(port.send(begun.as_bytes()).await).await;
    }
}
