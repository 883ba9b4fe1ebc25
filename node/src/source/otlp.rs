//! OTLP in, as its specification 1.11 has it: `LogsService/Export` over gRPC and `POST /v1/logs` over HTTP.
//!
//! What both share: the body arrives into memory that was charged before
//! ([`body`]), becomes one protobuf request ([`decode`]), goes to the intake, and
//! what went wrong becomes a status by one table ([`refusal`]).

mod body; // frames -> one contiguous, charged body
mod decode; // gzip and JSON -> protobuf
mod grpc;
pub mod gzip;
mod http;
pub mod json;
mod refusal; // what went wrong -> gRPC status, HTTP status, google.rpc.Status
mod reply; // ExportLogsServiceResponse
mod request_id; // the sender's own name of a request
mod server; // connections: how many, how long, how they end
mod socket; // one connection's reads

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::intake::admission::{Admission, Permit};
use crate::intake::{Exported, Intake, IntakeError, Request};

/// What the servers need of the intake.
pub trait Export: Clone + Send + Sync + 'static {
    /// The budget that bodies are charged to before they are buffered.
    fn admission(&self) -> &Admission;

    /// `Ok` means durable.
    fn export(
        &self,
        request: Request,
        permit: Permit,
    ) -> impl Future<Output = Result<Exported, IntakeError>> + Send;

    /// Counts a request that was refused for good before it came to the intake.
    fn unusable(&self);
}

impl Export for Intake {
    fn admission(&self) -> &Admission {
        Intake::admission(self)
    }

    async fn export(&self, request: Request, permit: Permit) -> Result<Exported, IntakeError> {
        Intake::export(self, request, permit).await
    }

    fn unusable(&self) {
        self.received().refuse();
    }
}

/// How much a sender may ask of a server, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one request, both as it comes and decompressed.
    pub request_bytes_max: usize,
    /// Connections that one server serves at a time; more wait to be accepted.
    /// Besides the admission's budget, a connection may hold unread up to
    /// [`CONNECTION_BYTES_MAX`], if its sender really sends that much.
    pub connections_max: usize,
    /// How long a connection may take to open and a request's head to arrive;
    /// over HTTP/1.1 also how long a connection is kept without a request.
    pub head_wait: Duration,
    /// How long a body may pause between two frames.
    pub frame_wait: Duration,
    /// How long a body may take altogether.
    pub body_wait: Duration,
    /// After this long, give or take a fifth, a connection is closed without losing a request,
    /// so that senders spread anew.
    pub connection_age: Duration,
    /// How long requests in flight may take to finish at shutdown.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            request_bytes_max: 64 << 20,
            connections_max: 2048,
            head_wait: Duration::from_secs(60),
            frame_wait: Duration::from_secs(10),
            body_wait: Duration::from_secs(60),
            connection_age: Duration::from_secs(5 * 60),
            drain: Duration::from_secs(20),
        }
    }
}

pub use decode::BUDGET_PER_REQUEST;
pub use server::CONNECTION_BYTES_MAX;

/// Serves OTLP/gRPC and gRPC health until `shutdown`; then finishes what is in
/// flight. `readiness` is what the health service reports.
pub async fn serve_grpc<E: Export>(
    listener: TcpListener,
    intake: E,
    limits: Limits,
    readiness: watch::Receiver<bool>,
    shutdown: CancellationToken,
) {
    grpc::serve(listener, intake, limits, readiness, shutdown).await;
}

/// Serves OTLP/HTTP, over HTTP/1.1 and HTTP/2, until `shutdown`; then finishes what is in flight.
pub async fn serve_http<E: Export>(
    listener: TcpListener,
    intake: E,
    limits: Limits,
    shutdown: CancellationToken,
) {
    http::serve(listener, intake, limits, shutdown).await;
}
