//! `POST /v1/logs`: OTLP over HTTP/1.1 and HTTP/2, as protobuf or JSON.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use serde_json::Value;
use sheaf_proto::names::OTLP_HTTP_LOGS_PATH;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::request_id::request_id;
use super::{Export, decode, reply};
use crate::event::entry::RequestId;
use crate::intake::{self, Exported};
use crate::source::body::{Frames, keeps_sending, promised};
use crate::source::refusal::Refusal;
use crate::source::{Limits, server};

/// The compressions that bodies may have.
const TAKEN: &[&str] = &["gzip", "identity"];

/// What a sender learns whose JSON had not one key in it that OTLP knows.
const NOTHING_KNOWN: &str = "the request has no key that OTLP knows, so nothing was taken from it";

pub(super) async fn serve<E: Export>(
    listener: TcpListener,
    intake: E,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let over = intake.admission().over();
    let service = service_fn(move |request| {
        let intake = intake.clone();
        async move { Ok::<_, Infallible>(answer(&intake, &limits, request).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    server::serve(listener, builder, |_| service.clone(), limits, over, shutdown).await;
}

/// The two forms that requests and their answers have.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    Protobuf,
    Json,
}

/// What a request's head says about its body.
struct Head {
    format: Format,
    gzip: bool,
    id: Option<RequestId>,
    /// `Content-Length`, in bytes.
    promised: Option<usize>,
}

async fn answer<E: Export>(
    intake: &E,
    limits: &Limits,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    // What cannot be told in the request's own format is told in the one that people can read.
    let format = format_of(request.headers()).unwrap_or(Format::Json);
    let keeps_sending = keeps_sending(&request);
    let head = parse_head(intake, &request);
    let mut frames = Frames::new(request.into_body(), limits);
    let outcome = match head {
        Ok(head) => export(intake, limits, head, &mut frames).await,
        Err(refusal) => Err(refusal),
    };
    match outcome {
        Ok(exported) => success(format, exported),
        Err(refusal) => {
            // Closing the connection on a sender that still sends would take the answer from it.
            if keeps_sending && !frames.is_over() {
                tokio::spawn(frames.discard(limits.request_bytes_max));
            }
            failure(format, &refusal)
        }
    }
}

fn parse_head(intake: &impl Export, request: &Request<Incoming>) -> Result<Head, Refusal> {
    if request.uri().path() != OTLP_HTTP_LOGS_PATH {
        return Err(Refusal::UnknownPath(format!("logs are taken at {OTLP_HTTP_LOGS_PATH}")));
    }
    if request.method() != Method::POST {
        return Err(Refusal::UnknownMethod("logs are sent by POST"));
    }
    let format = format_of(request.headers()).ok_or(Refusal::UnsupportedType(
        "logs come as application/x-protobuf or application/json",
    ))?;
    let gzip = is_gzip(request.headers())?;
    let id = request_id(intake, request.headers())?;
    Ok(Head { format, gzip, id, promised: promised(request) })
}

async fn export<E: Export>(
    intake: &E,
    limits: &Limits,
    head: Head,
    frames: &mut Frames<Incoming>,
) -> Result<Exported, Refusal> {
    let max = limits.request_bytes_max;
    let held = frames.collect(Bytes::new(), head.promised, max, intake.admission()).await?;
    let held = if head.gzip { decode::gunzip(held, max).await? } else { held };
    let (held, known) = match head.format {
        Format::Protobuf => (held, true),
        Format::Json => decode::transcode(held).await?,
    };
    let request = intake::Request { body: held.bytes, id: head.id };
    let mut exported = intake.export(request, held.permit).await?;
    if !known {
        exported.message.get_or_insert_with(|| NOTHING_KNOWN.into());
    }
    Ok(exported)
}

/// `None` if the request is in neither format; parameters such as `charset` do not matter.
fn format_of(headers: &HeaderMap) -> Option<Format> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media_type = content_type.split(';').next()?.trim();
    if media_type.eq_ignore_ascii_case("application/x-protobuf") {
        Some(Format::Protobuf)
    } else if media_type.eq_ignore_ascii_case("application/json") {
        Some(Format::Json)
    } else {
        None
    }
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, Refusal> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let coding = codings.next().map_or(&b""[..], HeaderValue::as_bytes).trim_ascii();
    let several = codings.next().is_some();
    match coding.to_ascii_lowercase().as_slice() {
        b"" | b"identity" | b"none" if !several => Ok(false),
        b"gzip" | b"x-gzip" if !several => Ok(true),
        other => {
            let found = String::from_utf8_lossy(other).into_owned();
            Err(Refusal::UnsupportedCompression { found, taken: TAKEN })
        }
    }
}

fn success(format: Format, exported: Exported) -> Response<Full<Bytes>> {
    match format {
        Format::Protobuf => respond(StatusCode::OK, format, reply::to_protobuf(exported)),
        Format::Json => respond(StatusCode::OK, format, json_bytes(&reply::to_json(exported))),
    }
}

fn failure(format: Format, refusal: &Refusal) -> Response<Full<Bytes>> {
    let body = match format {
        Format::Protobuf => Bytes::copy_from_slice(refusal.to_status().details()),
        Format::Json => json_bytes(&refusal.to_json()),
    };
    let mut response = respond(refusal.http_status(), format, body);
    if let Some((name, value)) = refusal.http_header() {
        response.headers_mut().insert(name, value);
    }
    response
}

fn respond(status: StatusCode, format: Format, body: Bytes) -> Response<Full<Bytes>> {
    let content_type = match format {
        Format::Protobuf => "application/x-protobuf",
        Format::Json => "application/json",
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn json_bytes(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}
