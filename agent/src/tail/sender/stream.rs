//! Chunks and receipts over gRPC, on HTTP/2 itself: large payloads are not copied, small chunks
//! share a frame, and what a node answers is seen as it comes.

use std::{pin::Pin, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use h2::{RecvStream, SendStream, client::ResponseFuture};
use http::{Request, StatusCode, Uri, Version, header};
use prost::Message;
use sheaf_proto::{chunks::Receipt, names::CHUNK_GRPC_PATH};
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    endpoint::{Authority, ConnectError},
    status::{self, Status},
    tail::parcel::Parcel,
};

const PREFIX_BYTES: usize = 5;
/// A receipt is a few bytes; who sends more is not a node.
const RECEIPT_BYTES_MAX: usize = 1 << 20;
/// A payload of so many bytes has a frame of its own; smaller ones are copied into one frame.
const LARGE_BYTES: usize = 4 << 10;
/// So many bytes of small chunks are a frame, which every server takes (RFC 9113, section 4.2). Of
/// frames with a few bytes each, servers take some thousands that nobody has read yet, and then
/// end the connection.
const FRAME_BYTES: usize = 16 << 10;
/// Statuses of a stream whose next message is none that the node takes.
const INVALID_ARGUMENT: u16 = 3;
const RESOURCE_EXHAUSTED: u16 = 8;
/// How long a greeting may take.
const GREETING: Duration = Duration::from_secs(10);

/// A stream to a node, and the connection that it has for itself.
#[derive(Debug)]
pub(crate) struct Stream {
    body: SendStream<Bytes>,
    /// What is to be sent as one frame.
    gathered: BytesMut,
    answer: Answer,
    /// What was received, but not read.
    received: BytesMut,
    connection: JoinHandle<()>,
}

#[derive(Debug)]
enum Answer {
    Awaited(Pin<Box<ResponseFuture>>),
    Begun(RecvStream),
}

/// Why a stream came to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// There is no connection.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// It broke.
    #[error("{0}")]
    Stream(#[from] h2::Error),
    /// The node says nothing.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// The node ended it.
    #[error("{}", .0.reason)]
    Ended(Status),
    /// What answers knows no gRPC.
    #[error("{0}")]
    Http(StatusCode),
    /// What answers is no node.
    #[error("its answer cannot be read: {0}")]
    Unreadable(&'static str),
}

impl Broken {
    /// How long the node asks to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Broken::Ended(status) => status.retry_after,
            _ => None,
        }
    }

    /// Why the node does not take the first chunk that it did not answer, if that is what broke
    /// the stream: to send it again at once would break the next.
    pub(crate) fn not_taken(&self) -> Option<&str> {
        match self {
            Broken::Ended(Status {
                code: INVALID_ARGUMENT | RESOURCE_EXHAUSTED,
                reason,
                retry_after: None,
            }) => Some(reason),
            _ => None,
        }
    }
}

impl Stream {
    /// Connects to a node and begins a stream.
    ///
    /// # Errors
    /// If there is no connection, or no answer within ten seconds.
    pub(crate) async fn open(node: &Authority) -> Result<Stream, Broken> {
        let socket = node.connect().await?;
        let greeting = h2::client::Builder::new().enable_push(false).handshake(socket);
        let silent = |_| Broken::Silent(GREETING);
        let (streams, driver) = timeout(GREETING, greeting).await.map_err(silent)??;
        // Its end shows in the stream's errors.
        let connection = tokio::spawn(async { drop(driver.await) });
        let mut streams = timeout(GREETING, streams.ready()).await.map_err(silent)??;
        let head = head(node).map_err(|_| Broken::Unreadable("its address is no host's"))?;
        let (answer, body) = streams.send_request(head, false)?;
        let answer = Answer::Awaited(Box::pin(answer));
        let [gathered, received] = [BytesMut::new(), BytesMut::new()];
        Ok(Stream { body, gathered, answer, received, connection })
    }

    /// Sends a chunk, at the latest when all is [flushed](Stream::flush); how many are under way
    /// is bounded elsewhere.
    ///
    /// # Errors
    /// If the stream is broken.
    pub(crate) fn send(&mut self, parcel: &Parcel) -> Result<(), Broken> {
        let Parcel { head, payload, .. } = parcel;
        let is_large = payload.len() >= LARGE_BYTES;
        let copied = if is_large { &[][..] } else { payload };
        if self.gathered.len() + head.len() + copied.len() > FRAME_BYTES {
            self.flush()?;
        }
        self.gathered.extend_from_slice(head);
        self.gathered.extend_from_slice(copied);
        if is_large {
            self.flush()?;
            self.body.send_data(payload.clone(), false)?;
        }
        Ok(())
    }

    /// Sends what was gathered.
    ///
    /// # Errors
    /// If the stream is broken.
    pub(crate) fn flush(&mut self) -> Result<(), Broken> {
        if !self.gathered.is_empty() {
            self.body.send_data(self.gathered.split().freeze(), false)?;
        }
        Ok(())
    }

    /// The next receipt. It may be waited for again if the waiting was given up.
    ///
    /// # Errors
    /// If the stream is broken or has come to its end.
    pub(crate) async fn receipt(&mut self) -> Result<Receipt, Broken> {
        loop {
            if let Some(receipt) = next_message(&mut self.received)? {
                return Ok(receipt);
            }
            match &mut self.answer {
                Answer::Awaited(answer) => {
                    let (head, body) = answer.await?.into_parts();
                    if head.status != StatusCode::OK {
                        return Err(Broken::Http(head.status));
                    }
                    if let Some(status) = status::read(&head.headers) {
                        return Err(Broken::Ended(status));
                    }
                    self.answer = Answer::Begun(body);
                }
                Answer::Begun(body) => match body.data().await {
                    Some(part) => {
                        let part = part?;
                        body.flow_control().release_capacity(part.len())?;
                        self.received.extend_from_slice(&part);
                    }
                    None => return Err(end(body).await),
                },
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn end(body: &mut RecvStream) -> Broken {
    match body.trailers().await {
        Ok(Some(trailers)) => match status::read(&trailers) {
            Some(status) => Broken::Ended(status),
            None => Broken::Unreadable("it has no grpc-status"),
        },
        Ok(None) => Broken::Unreadable("it ends without a status"),
        Err(error) => error.into(),
    }
}

fn next_message(received: &mut BytesMut) -> Result<Option<Receipt>, Broken> {
    let Some((prefix, rest)) = received.split_at_checked(PREFIX_BYTES) else { return Ok(None) };
    let length = (&prefix[1..]).get_u32() as usize;
    if prefix[0] != 0 || length > RECEIPT_BYTES_MAX {
        return Err(Broken::Unreadable("it is compressed or too long"));
    }
    if rest.len() < length {
        return Ok(None);
    }
    received.advance(PREFIX_BYTES);
    let message = received.split_to(length);
    let unreadable = |_| Broken::Unreadable("it is no receipt");
    Receipt::decode(message).map(Some).map_err(unreadable)
}

fn head(node: &Authority) -> Result<Request<()>, http::Error> {
    let uri = Uri::builder()
        .scheme("http")
        .authority(node.as_str())
        .path_and_query(CHUNK_GRPC_PATH)
        .build()?;
    Request::post(uri)
        .version(Version::HTTP_2)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, concat!("sheaf/", env!("CARGO_PKG_VERSION")))
        .body(())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use sheaf_proto::chunks::LogPart;
    use tokio::net::TcpListener;

    use super::*;
    use crate::endpoint::Endpoint;

    /// Takes one stream, and returns its frames.
    async fn received(listener: TcpListener) -> Vec<Bytes> {
        let (socket, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(socket).await.unwrap();
        let (request, _answer) = connection.accept().await.unwrap().unwrap();
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        let (mut body, mut frames) = (request.into_body(), Vec::new());
        while let Some(Ok(frame)) = body.data().await {
            body.flow_control().release_capacity(frame.len()).unwrap();
            frames.push(frame);
        }
        frames
    }

    #[tokio::test]
    async fn many_small_chunks_share_a_frame_and_a_large_one_has_its_own() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let node = format!("http://{address}").parse::<Endpoint>().unwrap().at(address.port());
        let received = tokio::spawn(received(listener));
        let mut stream = Stream::open(&node).await.unwrap();
        let small = (1..=10_000).map(|seq| (seq, Bytes::from(format!("line {seq}\n"))));
        let large = (10_001, Bytes::from(vec![b'x'; LARGE_BYTES]));
        let last = (10_002, Bytes::from_static(b"the last"));
        let sent: Vec<_> = small.chain([large, last]).collect();
        for (seq, payload) in &sent {
            stream.send(&Parcel::new(1, "host/log", 7, *seq, payload.clone())).unwrap();
        }
        stream.flush().unwrap();
        stream.body.send_data(Bytes::new(), true).unwrap();
        let frames = received.await.unwrap();

        let mut bytes = frames.concat();
        // Flow control divides some.
        let count = 2 * bytes.len() / FRAME_BYTES;
        assert!(frames.len() <= count, "{} frames", frames.len());
        for (seq, payload) in sent {
            let length = u32::from_be_bytes(bytes[1..PREFIX_BYTES].try_into().unwrap()) as usize;
            let rest = bytes.split_off(PREFIX_BYTES + length);
            let part = LogPart::decode(&bytes[PREFIX_BYTES..]).unwrap();
            assert_eq!((part.seq as u64, part.payload), (seq, payload));
            bytes = rest;
        }
        assert!(bytes.is_empty());
    }
}
