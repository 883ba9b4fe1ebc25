//! gRPC's messages and statuses, for services of our own.

use std::fmt::Display;
use std::mem;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::Body as HttpBody;
use tonic::Status;
use tonic::body::Body;

use super::body::{Frames, Held};
use super::refusal::Refusal;
use crate::intake::admission::Admission;

/// What stands before each message: whether it is compressed, and its length in four bytes.
const PREFIX_BYTES: usize = 5;
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// What stands before a message.
pub(super) struct Prefix {
    pub(super) compressed: bool,
    /// The message's length in bytes.
    pub(super) length: usize,
}

impl Prefix {
    /// Reads the prefix of a call's only message; the second half is what came behind it in the
    /// same frame.
    pub(super) async fn read<B>(frames: &mut Frames<B>) -> Result<(Prefix, Bytes), Refusal>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Display,
    {
        let Some(first) = frames.next().await? else {
            return Err(Refusal::Undecodable("there is no message".into()));
        };
        Prefix::read_from(first, frames).await
    }

    async fn read_from<B>(
        mut frame: Bytes,
        frames: &mut Frames<B>,
    ) -> Result<(Prefix, Bytes), Refusal>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Display,
    {
        let mut prefix = [0; PREFIX_BYTES];
        let mut filled = 0;
        loop {
            let taken = frame.split_to(frame.len().min(PREFIX_BYTES - filled));
            prefix[filled..filled + taken.len()].copy_from_slice(&taken);
            filled += taken.len();
            if filled == PREFIX_BYTES {
                return Ok((Prefix::parse(prefix)?, frame));
            }
            frame = frames
                .next()
                .await?
                .ok_or_else(|| Refusal::Undecodable("the message ends within its prefix".into()))?;
        }
    }

    fn parse(prefix: [u8; PREFIX_BYTES]) -> Result<Prefix, Refusal> {
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
}

/// A message is compressed, and nobody said how.
pub(super) fn unannounced_compression() -> Refusal {
    Refusal::Undecodable("the message is compressed, and grpc-encoding does not say how".into())
}

/// The messages of a call, one after the other.
pub(super) struct Messages<B> {
    frames: Frames<B>,
    /// What has come of the next ones.
    rest: Bytes,
}

impl<B> Messages<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Display,
{
    pub(super) fn new(frames: Frames<B>) -> Self {
        Messages { frames, rest: Bytes::new() }
    }

    /// What stands before the next message, which [`Messages::message`] is to be asked for then;
    /// `None` at the end. Waits for a message to begin for as long as it takes.
    pub(super) async fn prefix(&mut self) -> Result<Option<Prefix>, Refusal> {
        let mut first = mem::take(&mut self.rest);
        if first.is_empty() {
            let Some(frame) = self.frames.next_in_peace().await? else { return Ok(None) };
            first = frame;
        }
        self.frames.begin();
        let (prefix, rest) = Prefix::read_from(first, &mut self.frames).await?;
        self.rest = rest;
        Ok(Some(prefix))
    }

    /// The message of so many bytes whose prefix was read last.
    pub(super) async fn message(
        &mut self,
        length: usize,
        admission: &Admission,
    ) -> Result<Held, Refusal> {
        self.frames.begin();
        let first = mem::take(&mut self.rest);
        let (message, rest) = self.frames.take(first, length, admission).await?;
        self.rest = rest;
        Ok(message)
    }
}

/// How messages are compressed that are; identity is `None`.
pub(super) fn encoding(
    headers: &HeaderMap,
    taken: &'static [&'static str],
) -> Result<Option<&'static str>, Refusal> {
    match headers.get(GRPC_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(None),
        Some(encoding) => {
            let known = taken.iter().find(|taken| taken.as_bytes() == encoding);
            known.copied().map(Some).ok_or_else(|| Refusal::UnsupportedCompression {
                found: String::from_utf8_lossy(encoding).into_owned(),
                taken,
            })
        }
    }
}

/// Whether the request is meant for gRPC, with protobuf in it.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type =
        headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/grpc")
        || media_type.eq_ignore_ascii_case("application/grpc+proto")
}

/// The answer to one who does not speak gRPC, and would not look for a gRPC status.
pub(super) fn not_grpc(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

/// A message behind its prefix.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32); // an answer is far below 4 GiB: its message is ours
    framed.put_slice(message);
    framed.freeze()
}

/// The answer whose messages, and status among the trailers, are in `body`.
pub(super) fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// What ends an answer that has messages.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if let Err(unwritable) = status.add_header(&mut trailers) {
        trailers.insert(GRPC_STATUS, HeaderValue::from(unwritable.code() as i32));
    }
    trailers
}

/// Headers alone: a response without a message carries its status there.
pub(super) fn failure(refusal: &Refusal) -> Response<Body> {
    let mut response = refusal.to_status().into_http();
    if let Refusal::UnsupportedCompression { taken, .. } = refusal
        && let Ok(taken) = HeaderValue::from_str(&taken.join(","))
    {
        response.headers_mut().insert(GRPC_ACCEPT_ENCODING, taken);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use futures::channel::mpsc;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use tokio::time::{Instant, advance};

    use super::*;
    use crate::source::Limits;

    type Sender = mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>;

    /// The messages of a body that is sent by hand.
    fn messages() -> (Sender, Messages<impl HttpBody<Data = Bytes, Error = Infallible> + Unpin>) {
        let (sender, body) = mpsc::unbounded();
        (sender, Messages::new(Frames::new(StreamBody::new(body), &Limits::default())))
    }

    fn send(sender: &Sender, bytes: &[u8]) {
        sender.unbounded_send(Ok(Frame::data(Bytes::copy_from_slice(bytes)))).unwrap();
    }

    /// The next message; `None` at the end.
    async fn next<B>(messages: &mut Messages<B>) -> Result<Option<Bytes>, Refusal>
    where
        B: HttpBody<Data = Bytes, Error = Infallible> + Unpin,
    {
        let Some(prefix) = messages.prefix().await? else { return Ok(None) };
        let held = messages.message(prefix.length, &Admission::new(1 << 20)).await?;
        assert_eq!(held.permit.bytes(), held.bytes.len());
        Ok(Some(held.bytes))
    }

    #[tokio::test]
    async fn messages_follow_each_other_within_frames_and_across_them() {
        let (sender, mut messages) = messages();
        let bytes = [framed(b"first"), framed(b""), framed(&[7; 300]), framed(b"last")].concat();
        for frame in [&bytes[..8], &bytes[8..18], &bytes[18..325], &bytes[325..]] {
            send(&sender, frame);
        }
        for expected in [&b"first"[..], b"", &[7; 300], b"last"] {
            assert_eq!(next(&mut messages).await.unwrap().unwrap(), expected);
        }
        drop(sender);
        assert!(next(&mut messages).await.unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn each_message_has_the_time_of_a_body_and_what_is_between_them_has_any() {
        let Limits { frame_wait, body_wait, .. } = Limits::default();
        let (sender, mut messages) = messages();
        let message = framed(b"late");
        for _ in 0..3 {
            let mut waiting = Box::pin(next(&mut messages));
            for piece in [&message[..2], &message[2..6], &message[6..]] {
                assert!(futures::poll!(&mut waiting).is_pending());
                advance(if piece.len() == 2 { 10 * body_wait } else { frame_wait / 2 }).await;
                send(&sender, piece);
            }
            assert_eq!(waiting.await.unwrap().unwrap(), "late");
        }
        send(&sender, &message[..2]);
        let began = Instant::now();
        assert!(matches!(next(&mut messages).await, Err(Refusal::TooSlow)));
        assert_eq!(began.elapsed(), frame_wait);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_comes_in_drops_is_given_up_at_its_deadline() {
        let (sender, mut messages) = messages();
        send(&sender, &[0, 0, 0, 1, 0]);
        let began = Instant::now();
        let mut waiting = Box::pin(next(&mut messages));
        loop {
            if let std::task::Poll::Ready(ended) = futures::poll!(&mut waiting) {
                assert!(matches!(ended, Err(Refusal::TooSlow)));
                break;
            }
            advance(Duration::from_secs(1)).await;
            send(&sender, b"x");
        }
        assert_eq!(began.elapsed(), Limits::default().body_wait);
    }
}
