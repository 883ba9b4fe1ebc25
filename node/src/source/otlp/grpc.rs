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

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use sheaf_proto::names::{OTLP_GRPC_LOGS_PATH, OTLP_GRPC_LOGS_SERVICE};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;

use super::body::Frames;
use super::refusal::Refusal;
use super::request_id::request_id;
use super::{Export, Limits, decode, reply, server};
use crate::intake::{self, Exported};

/// What stands before each message: whether it is compressed, and its length in four bytes.
const PREFIX_BYTES: usize = 5;
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

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
            return not_grpc(StatusCode::METHOD_NOT_ALLOWED);
        }
        if !is_grpc(request.headers()) {
            return not_grpc(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        match self.export(request).await {
            Ok(exported) => success(&reply::to_protobuf(exported)),
            Err(refusal) => failure(&refusal),
        }
    }

    async fn export(&self, request: Request<Body>) -> Result<Exported, Refusal> {
        if request.uri().path() != OTLP_GRPC_LOGS_PATH {
            return Err(Refusal::UnknownMethod("the service has no method but Export"));
        }
        let gzip = message_encoding(request.headers())?;
        let id = request_id(&self.intake, request.headers())?;
        let max = self.limits.request_bytes_max;
        let mut frames = Frames::new(request.into_body(), &self.limits);
        let (prefix, first) = read_prefix(&mut frames).await?;
        let held = frames.collect(first, Some(prefix.length), max, self.intake.admission()).await?;
        let held = match (prefix.compressed, gzip) {
            (false, _) => held,
            (true, true) => decode::gunzip(held, max).await?,
            (true, false) => {
                return Err(Refusal::Undecodable(
                    "the message is compressed, and grpc-encoding does not say how".into(),
                ));
            }
        };
        Ok(self.intake.export(intake::Request { body: held.bytes, id }, held.permit).await?)
    }
}

struct Prefix {
    compressed: bool,
    length: usize,
}

/// Reads the prefix; the second half is what came behind it in the same frame.
async fn read_prefix(frames: &mut Frames<Body>) -> Result<(Prefix, Bytes), Refusal> {
    let mut prefix = [0; PREFIX_BYTES];
    let mut filled = 0;
    loop {
        let Some(mut frame) = frames.next().await? else {
            let what = if filled == 0 {
                "there is no message"
            } else {
                "the message ends within its prefix"
            };
            return Err(Refusal::Undecodable(what.into()));
        };
        let taken = frame.split_to(frame.len().min(PREFIX_BYTES - filled));
        prefix[filled..filled + taken.len()].copy_from_slice(&taken);
        filled += taken.len();
        if filled == PREFIX_BYTES {
            return Ok((parse_prefix(prefix)?, frame));
        }
    }
}

fn parse_prefix(prefix: [u8; PREFIX_BYTES]) -> Result<Prefix, Refusal> {
    let [flag, length @ ..] = prefix;
    let compressed = match flag {
        0 => false,
        1 => true,
        _ => {
            return Err(Refusal::Undecodable(format!(
                "the message begins with {flag} in place of 0 or 1"
            )));
        }
    };
    Ok(Prefix { compressed, length: u32::from_be_bytes(length) as usize })
}

/// Whether compressed messages are gzip.
fn message_encoding(headers: &HeaderMap) -> Result<bool, Refusal> {
    match headers.get(GRPC_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(false),
        Some(b"gzip") => Ok(true),
        Some(other) => {
            Err(Refusal::UnsupportedCompression(String::from_utf8_lossy(other).into_owned()))
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type =
        headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/grpc")
        || media_type.eq_ignore_ascii_case("application/grpc+proto")
}

/// The answer to one who does not speak gRPC, and would not look for a gRPC status.
fn not_grpc(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

fn success(message: &Bytes) -> Response<Body> {
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32); // a response is far below 4 GiB: its message is ours
    framed.put_slice(message);
    let trailers = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]);
    let body = Full::new(framed.freeze()).with_trailers(future::ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// Headers alone: a response without a message carries its status there.
fn failure(refusal: &Refusal) -> Response<Body> {
    let mut response = refusal.to_status().into_http();
    if let Refusal::UnsupportedCompression(_) = refusal {
        response
            .headers_mut()
            .insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity,gzip"));
    }
    response
}
