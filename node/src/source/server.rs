//! Connections: how many, how long they live, and how they end.
//!
//! tonic's own server loop has no limit on connections, no clock on a connection
//! that never opens, and no jitter on its age; `axum::serve` has none of the three.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, TryFutureExt as _};
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Limits;
use super::socket::{READ_AHEAD_BYTES, Socket};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Builder = auto::Builder<TokioExecutor>;

/// The largest HTTP/2 frame that we ask for: the fewer frames, the less work.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// How much one request may send ahead of our reading.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// How much all requests of a connection together may send ahead of our reading.
const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;
const _: () = assert!(
    FRAME_BYTES_MAX <= STREAM_WINDOW_BYTES && STREAM_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES
);
/// How many requests a connection may have in flight.
const STREAMS_MAX: u32 = 256;
/// HTTP/1.1 reads this far ahead of the body's reader; a request's head must fit.
const HTTP1_BUFFER_BYTES: usize = 256 << 10;
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// Answers are short.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// The most that a connection may hold that is not charged to any budget: the
/// HTTP/2 window, and what was read ahead.
pub const CONNECTION_BYTES_MAX: usize = CONNECTION_WINDOW_BYTES as usize + READ_AHEAD_BYTES;

/// After this long without a frame an HTTP/2 peer is asked whether it is still there ..
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// .. and this long it has to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait when a connection cannot be accepted, for lack of file descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A connection's age is random within this fraction of the limit, both ways.
const AGE_JITTER: f64 = 0.2;

/// Serves connections of `listener` until `shutdown`, and returns when they have ended. Once
/// all is `over`, each ends as an old one does. Each has a `service` of its own, which hears when
/// the connection takes no new requests, so that one that would go on for ever can end.
pub(super) async fn serve<S, B>(
    listener: TcpListener,
    mut builder: Builder,
    service: impl Fn(CancellationToken) -> S + Send,
    limits: Limits,
    over: CancellationToken,
    shutdown: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    configure(&mut builder, &limits);
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let connections = TaskTracker::new();
    let cut_off = CancellationToken::new();
    while let Some(Ok(slot)) = shutdown.run_until_cancelled(slots.clone().acquire_owned()).await {
        let Some(stream) = shutdown.run_until_cancelled(accept(&listener)).await else { break };
        let socket = TokioIo::new(Socket::new(stream, limits.head_wait));
        let ending = CancellationToken::new();
        let (builder, service) = (builder.clone(), service(ending.clone()));
        let (over, shutdown, cut_off) = (over.clone(), shutdown.clone(), cut_off.clone());
        connections.spawn(async move {
            let age = Arc::new(Age::default());
            let connection = builder.serve_connection(socket, Ageing { service, age: age.clone() });
            let old = age.reach(limits.connection_age, over);
            cut_off.run_until_cancelled(live(connection, old, ending, shutdown)).await;
            drop(slot);
        });
    }
    drop(listener);
    connections.close();
    if timeout(limits.drain, connections.wait()).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "requests in flight did not finish in time"
        );
        cut_off.cancel();
        connections.wait().await;
    }
}

fn configure(builder: &mut Builder, limits: &Limits) {
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_wait)
        .max_buf_size(HTTP1_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_frame_size(FRAME_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection broke as it was accepted");
                }
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What becomes of a connection with time.
///
/// HTTP/2 says how far it has read, and its sender sends the rest elsewhere. Over HTTP/1.1 a
/// request may be on its way when an idle connection is closed, and its sender cannot tell
/// whether it was taken; so an old connection ends with its next answer, which says so.
#[derive(Default)]
struct Age {
    is_over: AtomicBool,
    /// Told of each request over HTTP/2.
    speaks_http2: Notify,
}

impl Age {
    /// Waits until the connection is old, and can be told to end at once. A node where all is
    /// `over` makes it old: its sender is to go elsewhere, rather than be refused again and again.
    async fn reach(&self, limit: Duration, over: CancellationToken) {
        let limit = limit.mul_f64(1.0 - AGE_JITTER + 2.0 * AGE_JITTER * fastrand::f64());
        tokio::select! {
            () = sleep(limit) => {}
            () = over.cancelled() => {}
        }
        self.is_over.store(true, Ordering::Relaxed);
        self.speaks_http2.notified().await;
    }
}

/// A service whose answers over HTTP/1.1 close an old connection.
struct Ageing<S> {
    service: S,
    age: Arc<Age>,
}

impl<S, B> Service<Request<Incoming>> for Ageing<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<B>, S::Error>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let is_http2 = request.version() == Version::HTTP_2;
        let answer = self.service.call(request);
        if is_http2 {
            self.age.speaks_http2.notify_one();
            return answer.boxed();
        }
        let age = Arc::clone(&self.age);
        let answer = answer.map_ok(move |mut answer| {
            if age.is_over.load(Ordering::Relaxed) {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            answer
        });
        answer.boxed()
    }
}

/// Serves one connection until it ends by itself, is `old`, or the server
/// shuts down; in the latter two cases requests in flight still finish.
async fn live<S, B>(
    connection: auto::Connection<'_, TokioIo<Socket>, S, TokioExecutor>,
    old: impl Future<Output = ()>,
    ending: CancellationToken,
    shutdown: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { tokio::select! { () = old => {}, () = shutdown.cancelled() => {} } } => {
            ending.cancel();
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
