//! OTLP in, as its specification 1.11 has it: `LogsService/Export` over gRPC and `POST /v1/logs` over HTTP.
//!
//! What both share: the body arrives into memory that was charged before
//! ([`super::body`]), becomes one protobuf request ([`decode`]), goes to the intake, and
//! what went wrong becomes a status by one table ([`super::refusal`]).

mod decode; // gzip and JSON -> protobuf
mod grpc;
pub mod gzip;
mod http;
pub mod json;
mod reply; // ExportLogsServiceResponse
mod request_id; // the sender's own name of a request

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::intake::admission::{Admission, Permit};
use crate::intake::{Exported, Intake, IntakeError, Request};
use crate::source::Limits;

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

pub use decode::BUDGET_PER_REQUEST;

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
