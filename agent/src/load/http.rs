//! OTLP over HTTP/1.1: one connection per sender, one request at a time on it.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use sheaf_proto::names::{OTLP_HTTP_LOGS_PATH, REQUEST_ID_HEADER};
use tokio::time::timeout;

use super::{
    answer::{self, Answer, Lost},
    request,
};
use crate::endpoint::Authority;

/// An answer is a few hundred bytes; who sends more is not a node.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A connection that is opened when it is needed.
#[derive(Debug)]
pub(crate) struct Connection {
    authority: Authority,
    gzip: bool,
    timeout: Duration,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// An answer that takes longer than `timeout` is lost.
    pub(crate) fn new(authority: Authority, gzip: bool, timeout: Duration) -> Self {
        Connection { authority, gzip, timeout, open: None }
    }

    /// Sends a request and waits for the answer.
    ///
    /// # Errors
    /// `Lost` if there is no answer, for whatever reason.
    pub(crate) async fn send(&mut self, request: &request::Request) -> Result<Answer, Lost> {
        match timeout(self.timeout, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Lost(format!("no answer within {:?}", self.timeout))),
        }
    }

    async fn exchange(&mut self, request: &request::Request) -> Result<Answer, Lost> {
        // Taken, so that a connection on which anything failed, or on which an
        // answer is still due, is never used again.
        let mut open = match self.open.take() {
            Some(open) if open.is_ready() => open,
            _ => self.connect().await?,
        };
        let request = self.request(request).map_err(|error| Lost(error.to_string()))?;
        let lost = |error: &dyn std::error::Error| Lost(format!("the connection broke: {error}"));
        let response = open.send_request(request).await.map_err(|error| lost(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| lost(&*error))?
            .to_bytes();
        if open.ready().await.is_ok() {
            self.open = Some(open);
        }
        Ok(answer::from_http(head.status, &head.headers, &body))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Lost> {
        let socket = self.authority.connect().await.map_err(|error| Lost(error.to_string()))?;
        let (open, driver) = http1::handshake(TokioIo::new(socket))
            .await
            .map_err(|error| Lost(format!("greet {}: {error}", self.authority)))?;
        // Its end shows in the requests' errors.
        tokio::spawn(driver);
        Ok(open)
    }

    fn request(&self, request: &request::Request) -> Result<Request<Full<Bytes>>, http::Error> {
        let request::Request { id, content } = request.clone();
        let head = Request::post(OTLP_HTTP_LOGS_PATH)
            .header(header::HOST, self.authority.as_str())
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(REQUEST_ID_HEADER, id)
            .header(header::USER_AGENT, concat!("sheaf/", env!("CARGO_PKG_VERSION")));
        if self.gzip { head.header(header::CONTENT_ENCODING, "gzip") } else { head }
            .body(Full::new(content))
    }
}
