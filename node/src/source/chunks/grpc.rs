//! `sheaf.v1.Chunks/Send`, as a service of our own.
//!
//! tonic's codec buffers a message before anything can be asked of the budget, and answers
//! errors with codes that tell a sender to give up what it should send again.

use std::convert::Infallible;

use futures::stream;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::StreamBody;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::Collect;
use super::stream::Sending;
use crate::source::Limits;
use crate::source::body::Frames;
use crate::source::grpc::{self, Messages};

/// The compressions that messages may have.
const TAKEN: &[&str] = &["identity"];

pub(super) fn answer<C: Collect>(
    collector: C,
    limits: &Limits,
    ending: CancellationToken,
    request: Request<Incoming>,
) -> Response<Body> {
    if request.version() < Version::HTTP_2 {
        return grpc::not_grpc(StatusCode::HTTP_VERSION_NOT_SUPPORTED);
    }
    if request.method() != Method::POST {
        return grpc::not_grpc(StatusCode::METHOD_NOT_ALLOWED);
    }
    if !grpc::is_grpc(request.headers()) {
        return grpc::not_grpc(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    if let Err(refusal) = grpc::encoding(request.headers(), TAKEN) {
        return grpc::failure(&refusal);
    }
    let messages = Messages::new(Frames::new(request.into_body(), limits));
    let (to_sender, mut receipts) = mpsc::channel(1);
    tokio::spawn(Sending::new(collector, limits, messages, ending).answer(to_sender));
    let receipts =
        stream::poll_fn(move |cx| receipts.poll_recv(cx).map(|next| next.map(Ok::<_, Infallible>)));
    grpc::response(Body::new(StreamBody::new(receipts)))
}
