#![allow(dead_code, reason = "each test uses a part of it")]

use std::net::SocketAddr;

use bytes::Bytes;
use futures::SinkExt as _;
use futures::channel::mpsc;
use http::header::{HeaderMap, HeaderName};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::waiting::PATIENCE;

type Frames = mpsc::Receiver<Result<Frame<Bytes>, std::io::Error>>;

/// A request's body, to be sent piece by piece; it ends when this is dropped.
pub(crate) struct Body(mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>);

impl Body {
    pub(crate) async fn send(&mut self, bytes: impl Into<Bytes>) {
        self.0.send(Ok(Frame::data(bytes.into()))).await.unwrap();
    }

    /// As [`Body::send`], if the node still listens.
    pub(crate) async fn try_send(&mut self, bytes: impl Into<Bytes>) -> bool {
        self.0.send(Ok(Frame::data(bytes.into()))).await.is_ok()
    }

    /// Goes away in the middle.
    pub(crate) async fn break_off(mut self) {
        self.0.send(Err(std::io::Error::other("gone"))).await.unwrap();
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl Answer {
    /// The text of a header, "" if there is none.
    pub(crate) fn header(&self, name: HeaderName) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

/// A connection, over HTTP/1.1 or HTTP/2 with prior knowledge.
pub(crate) struct Connection {
    requests: Requests,
    /// Resolves when the connection has ended; `Err` if not in good order.
    pub(crate) ended: JoinHandle<Result<(), hyper::Error>>,
}

enum Requests {
    One(http1::SendRequest<StreamBody<Frames>>),
    Two(http2::SendRequest<StreamBody<Frames>>),
}

impl Connection {
    pub(crate) async fn http1(address: SocketAddr) -> Connection {
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (requests, connection) = http1::handshake(stream).await.unwrap();
        Connection { requests: Requests::One(requests), ended: tokio::spawn(connection) }
    }

    pub(crate) async fn http2(address: SocketAddr) -> Connection {
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (requests, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        Connection { requests: Requests::Two(requests), ended: tokio::spawn(connection) }
    }

    /// Begins a request whose body follows by hand.
    pub(crate) async fn begin(
        &mut self,
        head: http::request::Builder,
    ) -> (Body, JoinHandle<Answer>) {
        let (body, frames) = mpsc::channel(0);
        let request = head.body(StreamBody::new(frames)).unwrap();
        let answer = self.send(request).await;
        (
            Body(body),
            tokio::spawn(
                async move { whole(timeout(PATIENCE, answer).await.unwrap().unwrap()).await },
            ),
        )
    }

    /// Begins a request whose body follows by hand, and whose answer comes meanwhile.
    pub(crate) async fn exchange(
        &mut self,
        head: http::request::Builder,
    ) -> (Body, Response<Incoming>) {
        let (body, frames) = mpsc::channel(0);
        let answer = self.send(head.body(StreamBody::new(frames)).unwrap()).await;
        (Body(body), timeout(PATIENCE, answer).await.unwrap().unwrap())
    }

    /// Sends a request whose body is these frames.
    pub(crate) async fn call(&mut self, head: http::request::Builder, frames: &[Bytes]) -> Answer {
        let (mut body, answer) = self.begin(head).await;
        for frame in frames {
            // Whether the node has heard enough is seen from its answer.
            let _ = body.0.send(Ok(Frame::data(frame.clone()))).await;
        }
        drop(body);
        answer.await.unwrap()
    }

    async fn send(
        &mut self,
        request: Request<StreamBody<Frames>>,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + Send + 'static {
        match &mut self.requests {
            Requests::One(requests) => {
                requests.ready().await.unwrap();
                futures::future::Either::Left(requests.send_request(request))
            }
            Requests::Two(requests) => {
                requests.ready().await.unwrap();
                futures::future::Either::Right(requests.send_request(request))
            }
        }
    }
}

async fn whole(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let collected = timeout(PATIENCE, body.collect()).await.unwrap().unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    Answer { status: head.status, headers: head.headers, body: collected.to_bytes(), trailers }
}
