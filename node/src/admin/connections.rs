//! Bounds on the admin and the control port: how many clients, and how slow they may be.

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use futures::stream::{self, BoxStream, StreamExt as _};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::cluster::reading::READERS_MAX;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Requests that one connection may have in flight over HTTP/2.
const STREAMS_MAX: u32 = 32;
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// After this long without a frame an HTTP/2 client is asked whether it is still there ..
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// .. and this long it has to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Without a free file descriptor `accept` fails at once, and again.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at a time; more wait to be accepted.
    pub(super) connections: usize,
    /// The time for a request's headers; an idle connection is closed after it too.
    pub(super) headers_within: Duration,
    /// The age at which a connection is closed, even if its client reads nothing.
    pub(super) age: Duration,
    /// How much longer than that a connection stays over which somebody follows.
    pub(super) follow_for: Duration,
    /// The time for what is under way when a connection is to be closed.
    pub(super) finish_within: Duration,
}

impl Limits {
    /// For scrapers, probes and people. Readers of files leave half of it to the others.
    pub(super) const ADMIN: Limits = Limits {
        connections: 64,
        headers_within: Duration::from_secs(10),
        age: Duration::from_secs(60),
        follow_for: Duration::from_secs(3600),
        finish_within: Duration::from_secs(1),
    };
}

const _: () = assert!(2 * READERS_MAX <= Limits::ADMIN.connections);

/// Answers until `shutdown` is done, and what is under way then.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: impl Future,
) {
    let port = Port { router, limits, stop: CancellationToken::new(), tasks: TaskTracker::new() };
    tokio::select! {
        () = port.accept(&listener) => {}
        _ = shutdown => {}
    }
    drop(listener);
    port.stop.cancel();
    port.tasks.close();
    port.tasks.wait().await;
}

struct Port {
    router: Router,
    limits: Limits,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Port {
    async fn accept(&self, listener: &TcpListener) {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection =
                        connection(stream, self.router.clone(), self.limits, self.stop.clone());
                    self.tasks.spawn(async move {
                        if let Err(error) = connection.await {
                            debug!(%error, "connection to an admin port");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(%error, "accept on an admin port");
                    sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
    }
}

/// Serves one client until it leaves, is too slow or too old, or the port closes.
async fn connection(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    // Before its first byte nothing else has a clock.
    if !matches!(timeout(limits.headers_within, stream.peek(&mut [0])).await, Ok(Ok(1))) {
        return Ok(());
    }
    let followers = Followers::default();
    let service = TowerToHyperService::new(router.layer(Extension(followers.clone())));
    let builder = builder(&limits);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => {}
        () = sleep(limits.age) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => {}
        () = followers.gone() => {}
        () = sleep(limits.follow_for) => {}
    }
    followers.over.cancel();
    timeout(limits.finish_within, connection).await.unwrap_or(Ok(()))
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new()) // without one, hyper's timeout does nothing
        .header_read_timeout(limits.headers_within);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// The streams of a connection that go on until somebody ends them. Every request finds
/// those of its connection among its extensions.
#[derive(Clone, Default)]
pub(super) struct Followers {
    over: CancellationToken,
    open: TaskTracker,
}

impl Followers {
    /// The items until they end or the connection is to, which this error says.
    pub(super) fn follow<T: Send + 'static, E: Send + 'static>(
        &self,
        items: BoxStream<'static, Result<T, E>>,
        end: impl FnOnce() -> E + Send + 'static,
    ) -> BoxStream<'static, Result<T, E>> {
        let (over, open) = (self.over.clone().cancelled_owned(), self.open.token());
        let end = stream::once(async move { Err(end()) });
        let items = items.take_until(over).chain(end).map(move |item| {
            let _counted = &open;
            item
        });
        items.boxed()
    }

    /// Waits until there are none any more.
    async fn gone(&self) {
        self.open.close();
        self.open.wait().await;
    }
}

#[cfg(test)]
mod tests;
