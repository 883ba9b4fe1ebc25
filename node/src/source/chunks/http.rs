//! `/data`, `/throttle`, `/count` and `/`: the older protocol's answers, to the byte.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use sheaf_proto::names::{CHUNK_COUNT_PATH, CHUNK_DATA_PATH, CHUNK_THROTTLE_PATH};
use tonic::body::Body;

use super::throttle::Wish;
use super::{Collect, part, throttle};
use crate::intake::admission::Busy;
use crate::source::Limits;
use crate::source::body::{Frames, keeps_sending, promised};
use crate::source::refusal::{Refusal, whole_seconds};

/// The compressions that a body may have.
const TAKEN: &[&str] = &["identity"];
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

pub(super) async fn answer<C: Collect>(
    collector: &C,
    limits: &Limits,
    request: Request<Incoming>,
) -> Response<Body> {
    let (keeps_sending, promised) = (keeps_sending(&request), promised(&request));
    let (head, body) = request.into_parts();
    let mut frames = Frames::new(body, limits);
    let response = match head.uri.path() {
        CHUNK_DATA_PATH => match take(collector, limits, &head, promised, &mut frames).await {
            Ok(()) => waited(StatusCode::OK, throttle::seconds(collector).into()),
            Err(Refusal::Busy(busy)) => come_back(collector, &busy),
            Err(refusal) => refuse(&refusal),
        },
        CHUNK_THROTTLE_PATH => match wait(collector, head.uri.query().unwrap_or_default()).await {
            Ok(seconds) => respond(StatusCode::OK, format!("Log server throttle = {seconds}")),
            Err(refusal) => refuse(&refusal),
        },
        CHUNK_COUNT_PATH => respond(StatusCode::OK, format!("Count={}", collector.accepted())),
        "/" => respond(StatusCode::OK, "Log Server Is Alive".to_owned()),
        _ => refuse(&unknown_path()),
    };
    // Closing the connection on a sender that still sends would take the answer from it.
    if keeps_sending && !frames.is_over() {
        tokio::spawn(frames.discard(limits.request_bytes_max));
    }
    response
}

/// Takes a chunk; `Ok` means durable.
async fn take(
    collector: &impl Collect,
    limits: &Limits,
    head: &Parts,
    promised: Option<usize>,
    frames: &mut Frames<Incoming>,
) -> Result<(), Refusal> {
    if head.method != Method::POST {
        return Err(Refusal::UnknownMethod("a chunk is sent by POST"));
    }
    check_encoding(&head.headers)?;
    let (max, admission) = (limits.request_bytes_max, collector.admission());
    let held = frames.collect(Bytes::new(), promised, max, admission).await?;
    let chunk = part::decode(&held.bytes).map_err(|unusable| {
        collector.unusable();
        Refusal::Undecodable(unusable.to_string())
    })?;
    drop(held.bytes);
    Ok(collector.collect(chunk, held.permit).await?)
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter().map(HeaderValue::as_bytes);
    match codings.find(|coding| !coding.trim_ascii().eq_ignore_ascii_case(b"identity")) {
        Some(other) => {
            let found = String::from_utf8_lossy(other).into_owned();
            Err(Refusal::UnsupportedCompression { found, taken: TAKEN })
        }
        None => Ok(()),
    }
}

/// Sets how long senders are asked to wait, or reads it.
async fn wait(collector: &impl Collect, query: &str) -> Result<u32, Refusal> {
    if let Wish::Set(seconds) = Wish::parse(query)? {
        collector.set_throttle(seconds).await?;
    }
    Ok(collector.throttle())
}

fn unknown_path() -> Refusal {
    Refusal::UnknownPath(format!(
        "there are {CHUNK_DATA_PATH}, {CHUNK_THROTTLE_PATH}, {CHUNK_COUNT_PATH} and /"
    ))
}

/// The answer to a chunk: how many seconds to wait before the next one.
fn waited(status: StatusCode, seconds: u64) -> Response<Body> {
    respond(status, format!("Throttle: {seconds}"))
}

/// A chunk was not taken, and is to be sent again. An old sender reads the body, and others the
/// header.
fn come_back(collector: &impl Collect, busy: &Busy) -> Response<Body> {
    let seconds = whole_seconds(busy).max(throttle::seconds(collector).into());
    let mut response = waited(StatusCode::SERVICE_UNAVAILABLE, seconds);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

fn refuse(refusal: &Refusal) -> Response<Body> {
    let mut response = respond(refusal.http_status(), format!("{refusal}\n"));
    if let Some((name, value)) = refusal.http_header() {
        response.headers_mut().insert(name, value);
    }
    response
}

fn respond(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}
