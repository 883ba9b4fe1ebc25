//! Sends chunks to a node over many streams at once: `chunks ADDRESS STREAMS CHUNKS BYTES`, so many
//! chunks of so many bytes over each.
//!
//! Prints the seconds until all were answered. Then it keeps the streams open until its standard
//! input ends: what they cost is for the caller to see.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::channel::mpsc;
use futures::{SinkExt as _, StreamExt as _, stream};
use http::Request;
use http::header::{CONTENT_TYPE, TE};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use sheaf_proto::chunks::{LogPart, Receipt};
use sheaf_proto::names::CHUNK_GRPC_PATH;
use tokio::net::TcpStream;

/// Streams of one connection: fewer than a node allows.
const STREAMS_PER_CONNECTION: usize = 100;
/// Streams that send at the same time.
const SENDING_AT_ONCE: usize = 64;
/// The flag and the length before a message of gRPC.
const PREFIX_BYTES: usize = 5;

type Frames = mpsc::Receiver<Result<Frame<Bytes>, std::io::Error>>;
type Body = mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>;

/// What is sent over each stream.
#[derive(Clone, Copy)]
struct Load {
    address: SocketAddr,
    chunks: u64,
    bytes: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [address, streams, chunks, bytes] = &arguments[..] else {
        eprintln!("chunks: say ADDRESS STREAMS CHUNKS BYTES");
        return ExitCode::from(2);
    };
    let (address, streams): (_, usize) = (address.parse().unwrap(), streams.parse().unwrap());
    let load = Load { address, chunks: chunks.parse().unwrap(), bytes: bytes.parse().unwrap() };
    let mut connections = Vec::new();
    for _ in 0..streams.div_ceil(STREAMS_PER_CONNECTION) {
        let socket = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (requests, connection) = http2::handshake(TokioExecutor::new(), socket).await.unwrap();
        tokio::spawn(connection);
        connections.push(requests);
    }
    let begun = Instant::now();
    let sent = (0..streams).map(|stream| {
        let requests = connections[stream / STREAMS_PER_CONNECTION].clone();
        load.send(requests, stream)
    });
    let open: Vec<_> = stream::iter(sent).buffer_unordered(SENDING_AT_ONCE).collect().await;
    println!("{:.3}", begun.elapsed().as_secs_f64());
    std::io::stdout().flush().unwrap();
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    ended.await.unwrap().unwrap();
    drop(open);
    ExitCode::SUCCESS
}

impl Load {
    /// Sends a file of its own over a stream, which stays open.
    async fn send(
        self,
        mut requests: SendRequest<StreamBody<Frames>>,
        number: usize,
    ) -> (Body, Incoming) {
        let (mut body, frames) = mpsc::channel(1);
        let head = Request::post(format!("http://{}{CHUNK_GRPC_PATH}", self.address));
        let head = head.header(CONTENT_TYPE, "application/grpc").header(TE, "trailers");
        let request = head.body(StreamBody::new(frames)).unwrap();
        let sending = async {
            for seq in 1..=self.chunks {
                body.send(Ok(Frame::data(self.message(number, seq)))).await.unwrap();
            }
        };
        let answered = async {
            let mut answer = requests.send_request(request).await.unwrap().into_body();
            let mut received = BytesMut::new();
            let mut answered = 0;
            while answered < self.chunks {
                let frame = answer.frame().await.expect("the node answers all").unwrap();
                received.put(frame.into_data().expect("the stream goes on"));
                while let Some(receipt) = next(&mut received) {
                    assert!(receipt.refused.is_empty(), "all can be taken");
                    answered = receipt.answered;
                }
            }
            answer
        };
        let ((), answer) = tokio::join!(sending, answered);
        (body, answer)
    }

    fn message(self, number: usize, seq: u64) -> Bytes {
        let payload = vec![b'0' + (seq % 10) as u8; self.bytes];
        let (id, seq) = (format!("bench/{number}"), seq as i64);
        let part = LogPart { id, session: 1, seq, payload: payload.into() };
        let mut message = BytesMut::with_capacity(PREFIX_BYTES + part.encoded_len());
        message.put_u8(0);
        message.put_u32(part.encoded_len() as u32);
        part.encode(&mut message).unwrap();
        message.freeze()
    }
}

/// Takes a whole message off what was received.
fn next(received: &mut BytesMut) -> Option<Receipt> {
    let (prefix, rest) = received.split_first_chunk::<PREFIX_BYTES>()?;
    let [_, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length) as usize;
    if rest.len() < length {
        return None;
    }
    let message = received.split_to(PREFIX_BYTES + length);
    Some(Receipt::decode(&message[PREFIX_BYTES..]).unwrap())
}
