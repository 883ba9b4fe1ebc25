//! `LogsService/Export` over gRPC, as a service of our own inside tonic's routes.
//!
//! tonic's own codec answers several errors with codes that make OTLP senders
//! drop what they should send again, or send again what can never be taken; and
//! it buffers a message before anything can be asked of the budget.

mod health;

use std::convert::Infallible;
use std::future::{self, Future};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use sheaf_proto::names::{OTLP_GRPC_LOGS_PATH, OTLP_GRPC_LOGS_SERVICE};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;

use super::request_id::request_id;
use super::{Export, decode, reply};
use crate::intake::{self, Exported};
use crate::source::body::Frames;
use crate::source::grpc::{self, Prefix};
use crate::source::refusal::Refusal;
use crate::source::{Limits, server};

/// The compressions that messages may have.
const TAKEN: &[&str] = &["identity", "gzip"];

pub(super) async fn serve<E: Export>(
    listener: TcpListener,
    intake: E,
    limits: Limits,
    readiness: watch::Receiver<bool>,
    shutdown: CancellationToken,
) {
    let (reporter, health) = tonic_health::server::health_reporter();
    let over = intake.admission().over();
    let routes = Routes::new(LogsService { intake, limits }).add_service(health).prepare();
    let builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    let service = TowerToHyperService::new(routes);
    let service = |_| service.clone();
    tokio::select! {
        () = server::serve(listener, builder, service, limits, over, shutdown.clone()) => {}
        never = health::report(reporter, readiness, shutdown) => match never {},
    }
}

#[derive(Clone)]
struct LogsService<E> {
    intake: E,
    limits: Limits,
}

impl<E> NamedService for LogsService<E> {
    const NAME: &'static str = OTLP_GRPC_LOGS_SERVICE;
}

impl<E: Export> tower::Service<Request<Body>> for LogsService<E> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.answer(request).await) })
    }
}

impl<E: Export> LogsService<E> {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        if request.method() != Method::POST {
            return grpc::not_grpc(StatusCode::METHOD_NOT_ALLOWED);
        }
        if !grpc::is_grpc(request.headers()) {
            return grpc::not_grpc(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        match self.export(request).await {
            Ok(exported) => success(&reply::to_protobuf(exported)),
            Err(refusal) => grpc::failure(&refusal),
        }
    }

    async fn export(&self, request: Request<Body>) -> Result<Exported, Refusal> {
        if request.uri().path() != OTLP_GRPC_LOGS_PATH {
            return Err(Refusal::UnknownMethod("the service has no method but Export"));
        }
        let gzip = grpc::encoding(request.headers(), TAKEN)?.is_some();
        let id = request_id(&self.intake, request.headers())?;
        let max = self.limits.request_bytes_max;
        let mut frames = Frames::new(request.into_body(), &self.limits);
        let (prefix, first) = Prefix::read(&mut frames).await?;
        let held = frames.collect(first, Some(prefix.length), max, self.intake.admission()).await?;
        let held = match (prefix.compressed, gzip) {
            (false, _) => held,
            (true, true) => decode::gunzip(held, max).await?,
            (true, false) => return Err(grpc::unannounced_compression()),
        };
        Ok(self.intake.export(intake::Request { body: held.bytes, id }, held.permit).await?)
    }
}

fn success(message: &Bytes) -> Response<Body> {
    let trailers = grpc::trailers(&Status::ok(""));
    let body = Full::new(grpc::framed(message));
    grpc::response(Body::new(body.with_trailers(future::ready(Some(Ok(trailers))))))
}
