//! Chunks that reach the nodes twice and in another order.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures::channel::mpsc;
use futures::{SinkExt as _, StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use sheaf_proto::chunks::{LogPart, Receipt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use crate::CATCHES_UP;
use crate::http::Connection;
use crate::parts::message;
use crate::process::eventually_within;
use crate::tail::directory::Directory;

/// How long chunks are collected before they are handed on.
const COLLECTS: Duration = Duration::from_millis(30);
/// How many are handed on at a time.
const AT_ONCE: usize = 4;

/// Takes chunks over gRPC, and sends each to any node over HTTP, until the test ends.
pub(crate) struct Shuffler {
    address: SocketAddr,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

struct Shared {
    directory: Directory,
    disordered: AtomicUsize,
    repeated: AtomicUsize,
}

type Receipts = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;

impl Shuffler {
    /// Begins to listen.
    pub(crate) fn start(directory: Directory) -> Shuffler {
        let (disordered, repeated) = (AtomicUsize::default(), AtomicUsize::default());
        let shared = Arc::new(Shared { directory, disordered, repeated });
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let all = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let shared = Arc::clone(&all);
                let take = service_fn(move |request| take(request, Arc::clone(&shared)));
                let serving = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(async move {
                    // Agents are killed.
                    let _ = serving.serve_connection(TokioIo::new(socket), take).await;
                });
            }
        });
        Shuffler { address, shared, _runtime: runtime }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many chunks went before an earlier one of their file, and how many twice.
    pub(crate) fn figures(&self) -> (usize, usize) {
        let of = |figure: &AtomicUsize| figure.load(Ordering::Relaxed);
        (of(&self.shared.disordered), of(&self.shared.repeated))
    }
}

async fn take(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<StreamBody<mpsc::Receiver<Result<Frame<Bytes>, Infallible>>>>, Infallible> {
    let (receipts, answers) = mpsc::channel(16);
    tokio::spawn(shared.hand_on(request.into_body(), receipts));
    let answer = Response::builder().header("content-type", "application/grpc");
    Ok(answer.body(StreamBody::new(answers)).unwrap())
}

impl Shared {
    /// Hands on what comes, and says so once all of a batch is durable.
    async fn hand_on(self: Arc<Shared>, mut body: Incoming, mut receipts: Receipts) {
        let (mut received, mut answered) = (BytesMut::new(), 0);
        while let Some(Ok(frame)) = body.frame().await {
            let collected = Instant::now() + COLLECTS;
            received.extend(frame.into_data());
            while let Ok(Some(Ok(frame))) = timeout_at(collected, body.frame()).await {
                received.extend(frame.into_data());
            }
            let mut parts = Vec::from_iter(std::iter::from_fn(|| next(&mut received)));
            answered += parts.len() as u64;
            self.shuffle(&mut parts);
            let sent = stream::iter(parts).for_each_concurrent(AT_ONCE, |part| self.send(part));
            sent.await;
            let receipt = Receipt { answered, ..Receipt::default() };
            if receipts.send(Ok(Frame::data(message(0, &receipt.encode_to_vec())))).await.is_err() {
                return;
            }
        }
    }

    fn shuffle(&self, parts: &mut [LogPart]) {
        fastrand::shuffle(parts);
        for (at, part) in parts.iter().enumerate() {
            let is_earlier = |later: &LogPart| {
                (&later.id, later.session) == (&part.id, part.session) && later.seq < part.seq
            };
            if parts[at..].iter().any(is_earlier) {
                self.disordered.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Sends a chunk to any node until one has taken it, and now and then once more.
    async fn send(&self, part: LogPart) {
        let body = part.encode_to_vec();
        let (directory, is_repeated) = (self.directory.clone(), fastrand::u8(..4) == 0);
        let send = move || {
            for _ in 0..if is_repeated { 2 } else { 1 } {
                eventually_within(CATCHES_UP, "a node that takes a chunk", || {
                    let mut node = Connection::open(directory.any()?.chunks).ok()?;
                    let answer = node.send("POST", "/data", &body).ok()?;
                    assert!([200, 503].contains(&answer.status), "{answer:?}");
                    (answer.status == 200).then_some(())
                });
            }
        };
        spawn_blocking(send).await.unwrap();
        self.repeated.fetch_add(usize::from(is_repeated), Ordering::Relaxed);
    }
}

/// The next chunk, if all of it has come.
fn next(received: &mut BytesMut) -> Option<LogPart> {
    let end = 5 + received.get(1..5)?.get_u32() as usize;
    if received.len() < end {
        return None;
    }
    Some(LogPart::decode(received.split_to(end).split_off(5)).unwrap())
}
