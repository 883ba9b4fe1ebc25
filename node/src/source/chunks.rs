//! Chunks of files in, as docs/protocol.md has it: over HTTP/1.1 and HTTP/2, and as a stream over
//! gRPC, on one port.
//!
//! A chunk arrives into memory that was charged before ([`super::body`]), is read in place
//! ([`part`]), and goes to the intake. Its payload is a slice of what arrived.

mod grpc; // `sheaf.v1.Chunks/Send`
mod http; // `/data` and the other paths
pub mod part; // LogPart -> chunk
mod stream; // chunks one after the other: read ahead, answered in order
mod throttle; // how long senders are asked to wait

use std::convert::Infallible;

use ::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use sheaf_proto::names::CHUNK_GRPC_PATH;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use crate::event::chunk::Chunk;
use crate::intake::admission::{Admission, Busy, Permit};
use crate::source::{Limits, server};

/// What the server needs of the node.
pub trait Collect: Clone + Send + Sync + 'static {
    /// The budget that chunks are charged to before they are buffered.
    fn admission(&self) -> &Admission;

    /// `Ok` means durable.
    fn collect(
        &self,
        chunk: Chunk,
        permit: Permit,
    ) -> impl Future<Output = Result<(), Busy>> + Send;

    /// Counts a chunk that was refused for good before it came to the intake.
    fn unusable(&self);

    /// Chunks that were accepted in this life of the process.
    fn accepted(&self) -> u64;

    /// How many seconds all senders of the cluster are asked to wait, as far as this node knows.
    fn throttle(&self) -> u32;

    /// Has all senders of the cluster asked to wait so many seconds from now on.
    fn set_throttle(&self, seconds: u32) -> impl Future<Output = Result<(), Busy>> + Send;
}

/// Takes chunks on `listener` until `shutdown`; then finishes what is in flight.
pub async fn serve<C: Collect>(
    listener: TcpListener,
    collector: C,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let over = collector.admission().over();
    let builder = auto::Builder::new(TokioExecutor::new());
    let service = |ending: CancellationToken| {
        let collector = collector.clone();
        service_fn(move |request| {
            let (collector, ending) = (collector.clone(), ending.clone());
            async move { Ok::<_, Infallible>(answer(collector, limits, ending, request).await) }
        })
    };
    server::serve(listener, builder, service, limits, over, shutdown).await;
}

async fn answer<C: Collect>(
    collector: C,
    limits: Limits,
    ending: CancellationToken,
    request: Request<Incoming>,
) -> Response<Body> {
    match request.uri().path() {
        CHUNK_GRPC_PATH => grpc::answer(collector, &limits, ending, request),
        _ => http::answer(&collector, &limits, request).await,
    }
}
