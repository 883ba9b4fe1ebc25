//! Connections over TLS, and what they may take: anybody in the cluster can open one.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use kube::Client;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::Place;
use super::answering::Answers;
use super::reading::{Credentials, Current, Reader};
use crate::nodes::Network;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// Requests that one connection may have in flight over HTTP/2.
const STREAMS_MAX: u32 = 32;
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// The time for a handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// The time for a request's headers; an idle connection over HTTP/1 is closed after it too.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// The age at which a connection of the proxy is closed: its certificate was looked at then ..
const PROXY_AGE: Duration = Duration::from_secs(600);
/// .. and of anybody else, who can only ask whether somebody is there.
const PROBE_AGE: Duration = Duration::from_secs(10);
/// The time for what is under way when a connection is to be closed.
const FINISH_WITHIN: Duration = Duration::from_secs(5);
/// Without a free file descriptor `accept` fails at once, and again.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Serves the API until `stop`, whenever it can.
pub async fn serve(listener: TcpListener, client: Client, place: Place, stop: CancellationToken) {
    let reader = Reader::new(&client, place);
    let (current, served) = watch::channel(None);
    let port = Port { answers: Answers { client, network: Network::default() }, served };
    tokio::select! {
        () = reader.follow(current) => {}
        () = port.serve(listener, stop) => {}
    }
}

/// What is behind the port.
pub(super) struct Port {
    pub(super) answers: Answers,
    pub(super) served: watch::Receiver<Current>,
}

impl Port {
    /// Answers until `stop`, and what is under way then.
    pub(super) async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        tokio::select! {
            () = self.accept(&listener, &tasks, &stop) => {}
            () = stop.cancelled() => {}
        }
        drop(listener);
        tasks.close();
        tasks.wait().await;
    }

    async fn accept(&self, listener: &TcpListener, tasks: &TaskTracker, stop: &CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (answers, served) = (self.answers.clone(), self.served.clone());
                    let connection = connection(stream, answers, served, stop.clone());
                    tasks.spawn(async move {
                        if let Err(error) = connection.await {
                            debug!(%error, "connection to the API of metrics");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(%error, "accept on the port of the API of metrics");
                    sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
    }
}

/// Serves one client until it leaves, is too slow or too old, or something else is to be served
/// with.
async fn connection(
    stream: TcpStream,
    answers: Answers,
    mut served: watch::Receiver<Current>,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    // Without a certificate there is nothing to say.
    let Some(credentials) = served.borrow_and_update().clone() else { return Ok(()) };
    let acceptor = TlsAcceptor::from(Arc::clone(&credentials.tls));
    let stream = timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await??;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let is_proxy = shown.is_some_and(|shown| credentials.front_proxy.is(shown));
    let proxy = is_proxy.then_some(credentials);

    let service = service_fn(move |request| {
        let (answers, proxy) = (answers.clone(), proxy.clone());
        async move {
            let proxy = proxy.as_deref().map(|it: &Credentials| &it.front_proxy);
            Ok::<_, Infallible>(answers.answer(proxy, request).await)
        }
    });
    let builder = builder();
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => {}
        _ = served.changed() => {}
        () = sleep(if is_proxy { PROXY_AGE } else { PROBE_AGE }) => {}
    }
    connection.as_mut().graceful_shutdown();
    timeout(FINISH_WITHIN, connection).await.unwrap_or(Ok(()))
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new()) // without one, hyper's timeout does nothing
        .header_read_timeout(HEADERS_WITHIN);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX);
    builder
}
