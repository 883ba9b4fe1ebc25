//! OTLP over gRPC, on HTTP/2 itself: the requests are encoded already, and a gRPC
//! library would copy them once more and choose the frames.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::{RecvStream, client::SendRequest};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use sheaf_proto::names::{OTLP_GRPC_LOGS_PATH, REQUEST_ID_HEADER};
use tokio::{sync::Mutex, time::timeout};

use super::{
    answer::{self, Answer, Lost},
    encode::GRPC_PREFIX_BYTES,
    request,
};
use crate::endpoint::Authority;

/// An answer is a few hundred bytes; who sends more is not a node.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// One HTTP/2 connection, shared by several senders and opened when it is needed.
#[derive(Debug)]
pub(crate) struct Channel {
    authority: Authority,
    gzip: bool,
    max_frame_size: usize,
    timeout: Duration,
    connection: Mutex<Connection>,
}

#[derive(Debug, Default)]
struct Connection {
    /// Counts the connections: of many senders on a broken one only the first
    /// discards it, and none discards its successor.
    number: u64,
    streams: Option<SendRequest<Bytes>>,
}

impl Channel {
    /// Frames are at most `max_frame_size` bytes long, and never longer than the
    /// node allows; an answer that takes longer than `timeout` is lost.
    pub(crate) fn new(
        authority: Authority,
        gzip: bool,
        max_frame_size: usize,
        timeout: Duration,
    ) -> Self {
        let connection = Mutex::default();
        Channel { authority, gzip, max_frame_size, timeout, connection }
    }

    /// Sends a request, prefix included, and waits for the answer.
    ///
    /// # Errors
    /// `Lost` if there is no answer, for whatever reason.
    pub(crate) async fn send(&self, request: &request::Request) -> Result<Answer, Lost> {
        let (number, streams) = self.streams().await?;
        let answer = match timeout(self.timeout, self.exchange(streams, request)).await {
            Ok(Ok(response)) => return read(&response),
            Ok(Err(error)) => error,
            Err(_) => Broken::Silent(self.timeout),
        };
        if answer.concerns_connection() {
            let mut connection = self.connection.lock().await;
            if connection.number == number {
                connection.streams = None;
            }
        }
        Err(Lost(answer.to_string()))
    }

    async fn streams(&self) -> Result<(u64, SendRequest<Bytes>), Lost> {
        let mut connection = self.connection.lock().await;
        if connection.streams.is_none() {
            connection.streams = Some(self.connect().await?);
            connection.number += 1;
        }
        let streams = connection.streams.clone().ok_or_else(|| Lost("not connected".into()))?;
        Ok((connection.number, streams))
    }

    async fn connect(&self) -> Result<SendRequest<Bytes>, Lost> {
        let socket = self.authority.connect().await.map_err(|error| Lost(error.to_string()))?;
        let broken = |error| Lost(format!("greet {}: {error}", self.authority));
        let greeting = h2::client::Builder::new().enable_push(false).handshake(socket);
        let (streams, driver) = timeout(self.timeout, greeting)
            .await
            .map_err(|_| broken("no answer".to_owned()))?
            .map_err(|error| broken(error.to_string()))?;
        // Its end shows in the streams' errors.
        tokio::spawn(driver);
        Ok(streams)
    }

    async fn exchange(
        &self,
        streams: SendRequest<Bytes>,
        request: &request::Request,
    ) -> Result<Received, Broken> {
        let request::Request { id, content: mut request } = request.clone();
        let mut streams = streams.ready().await.map_err(Broken::Connection)?;
        let head = self.head(id).map_err(|error| Broken::Malformed(error.to_string()))?;
        let (response, mut body) = streams.send_request(head, false)?;
        while request.len() > self.max_frame_size {
            body.send_data(request.split_to(self.max_frame_size), false)?;
        }
        body.send_data(request, true)?;
        Received::from(response.await?).await
    }

    fn head(&self, id: HeaderValue) -> Result<Request<()>, http::Error> {
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.authority.as_str())
            .path_and_query(OTLP_GRPC_LOGS_PATH)
            .build()?;
        let head = Request::post(uri)
            .version(Version::HTTP_2)
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .header(REQUEST_ID_HEADER, id)
            .header(header::USER_AGENT, concat!("sheaf/", env!("CARGO_PKG_VERSION")));
        if self.gzip { head.header("grpc-encoding", "gzip") } else { head }.body(())
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the connection is closed: {0}")]
    Connection(h2::Error),
    #[error("{0}")]
    Stream(#[from] h2::Error),
    #[error("no answer within {0:?}")]
    Silent(Duration),
    #[error("the answer has more than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    #[error("{0}")]
    Malformed(String),
}

impl Broken {
    /// A stream that the node reset says nothing about the others; silence may
    /// mean that the connection is dead.
    fn concerns_connection(&self) -> bool {
        match self {
            Broken::Stream(error) => !error.is_reset(),
            Broken::TooLong | Broken::Malformed(_) => false,
            Broken::Connection(_) | Broken::Silent(_) => true,
        }
    }
}

struct Received {
    status: StatusCode,
    headers: HeaderMap,
    message: BytesMut,
    trailers: Option<HeaderMap>,
}

impl Received {
    async fn from(response: Response<RecvStream>) -> Result<Self, Broken> {
        let (head, mut body) = response.into_parts();
        let mut message = BytesMut::new();
        while let Some(part) = body.data().await {
            let part = part?;
            body.flow_control().release_capacity(part.len())?;
            message.extend_from_slice(&part);
            if message.len() > ANSWER_BYTES_MAX {
                return Err(Broken::TooLong);
            }
        }
        let trailers = body.trailers().await?;
        Ok(Received { status: head.status, headers: head.headers, message, trailers })
    }
}

fn read(received: &Received) -> Result<Answer, Lost> {
    // A proxy that knows no gRPC answers in plain HTTP.
    if received.status != StatusCode::OK {
        return Ok(answer::from_http(received.status, &received.headers, &[]));
    }
    let mut message = &received.message[..];
    message.advance(message.len().min(GRPC_PREFIX_BYTES));
    answer::from_grpc(received.trailers.as_ref().unwrap_or(&received.headers), message)
}
