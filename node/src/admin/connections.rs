//! Bounds on the admin port: how many clients, and how slow they may be.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

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
    /// The time for what is under way when a connection is to be closed.
    pub(super) finish_within: Duration,
}

impl Limits {
    /// For scrapers, probes and people.
    pub(super) const ADMIN: Limits = Limits {
        connections: 64,
        headers_within: Duration::from_secs(10),
        age: Duration::from_secs(60),
        finish_within: Duration::from_secs(1),
    };
}

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
                            debug!(%error, "connection to the admin port");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(%error, "accept on the admin port");
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
) -> hyper::Result<()> {
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new()) // without one, hyper's timeout does nothing
            .header_read_timeout(limits.headers_within)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => {}
        () = sleep(limits.age) => {}
    }
    connection.as_mut().graceful_shutdown();
    timeout(limits.finish_within, connection).await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests;
