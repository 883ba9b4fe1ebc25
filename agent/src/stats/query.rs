//! One question to a node's admin port.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::endpoint::{Authority, ConnectError};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// Nobody listens.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke, or what answers does not speak HTTP.
    #[error("ask {authority} for {path}")]
    Broken {
        /// Which node.
        authority: Authority,
        /// What was asked for.
        path: String,
        /// What went wrong.
        source: hyper::Error,
    },
    /// The node took too long.
    #[error("ask {authority} for {path}: no answer within {TIMEOUT:?}")]
    Silent {
        /// Which node.
        authority: Authority,
        /// What was asked for.
        path: String,
    },
    /// The node does not have it.
    #[error("ask {authority} for {path}: {status}")]
    Status {
        /// Which node.
        authority: Authority,
        /// What was asked for.
        path: String,
        /// What it answered.
        status: StatusCode,
    },
}

/// The body of the answer to a `GET`.
///
/// # Errors
/// If there is no answer, or none with a status of success.
pub(crate) async fn get(authority: &Authority, path: &str) -> Result<String, QueryError> {
    let socket = authority.connect().await?;
    let exchange = timeout(TIMEOUT, exchange(TokioIo::new(socket), authority, path)).await;
    let (authority, path) = (authority.clone(), path.to_owned());
    match exchange {
        Ok(Ok((status, body))) if status.is_success() => {
            Ok(String::from_utf8_lossy(&body).into_owned())
        }
        Ok(Ok((status, _))) => Err(QueryError::Status { authority, path, status }),
        Ok(Err(source)) => Err(QueryError::Broken { authority, path, source }),
        Err(_) => Err(QueryError::Silent { authority, path }),
    }
}

async fn exchange(
    socket: TokioIo<tokio::net::TcpStream>,
    authority: &Authority,
    path: &str,
) -> Result<(StatusCode, Bytes), hyper::Error> {
    let (mut requests, driver) = http1::handshake(socket).await?;
    tokio::spawn(driver);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = path.parse().expect("the paths are constants");
    let host = authority.as_str().parse().expect("an authority is a valid header");
    request.headers_mut().insert(header::HOST, host);
    let response = requests.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}
