//! One question to a node's admin or control port, and what the answer means.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::{
    endpoint::{Authority, ConnectError},
    text::printable,
    token::Token,
};

/// How long a node may take to tell something ..
const TELL_WITHIN: Duration = Duration::from_secs(10);
/// .. and how long to do something: it may have to wait for a lease to end.
const DO_WITHIN: Duration = Duration::from_secs(60);

/// Why there is no answer that can be used.
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
    #[error("ask {authority} for {path}: no answer within {within:?}")]
    Silent {
        /// Which node.
        authority: Authority,
        /// What was asked for.
        path: String,
        /// How long it had.
        within: Duration,
    },
    /// The node does not do it, and says why.
    #[error("{authority} refuses: {reason}")]
    Refused {
        /// Which node.
        authority: Authority,
        /// Why.
        reason: String,
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
    /// The node answered something else.
    #[error("read {path} from {authority}")]
    Unreadable {
        /// Which node.
        authority: Authority,
        /// What was asked for.
        path: String,
        /// What is wrong with the answer.
        source: serde_json::Error,
    },
}

/// The body of the answer to a `GET`.
///
/// # Errors
/// If there is no answer, or none with a status of success.
pub(crate) async fn get(authority: &Authority, path: &str) -> Result<String, QueryError> {
    get_with(authority, None, path).await
}

/// As [`get`], from a port that may want a token.
///
/// # Errors
/// As [`get`].
pub(crate) async fn get_with(
    authority: &Authority,
    token: Option<&Token>,
    path: &str,
) -> Result<String, QueryError> {
    ask(authority, request(authority, token, Method::GET, path), TELL_WITHIN).await
}

/// The body of the answer to a `POST` without a body, from a port that may want a token.
///
/// # Errors
/// As [`get`], and if the node says why it does not do it.
pub(crate) async fn post_with(
    authority: &Authority,
    token: Option<&Token>,
    path: &str,
) -> Result<String, QueryError> {
    ask(authority, request(authority, token, Method::POST, path), DO_WITHIN).await
}

async fn ask(
    authority: &Authority,
    request: Request<Empty<Bytes>>,
    within: Duration,
) -> Result<String, QueryError> {
    let is_wish = request.method() == Method::POST;
    let path = request.uri().to_string();
    let socket = authority.connect().await?;
    let exchange = timeout(within, exchange(TokioIo::new(socket), request)).await;
    let authority = authority.clone();
    match exchange {
        Ok(Ok((status, body))) if status.is_success() => {
            Ok(String::from_utf8_lossy(&body).into_owned())
        }
        Ok(Ok((status, body))) => match serde_json::from_slice(&body) {
            Ok(Refusal { error }) if is_wish => {
                Err(QueryError::Refused { authority, reason: printable(&error) })
            }
            _ => Err(QueryError::Status { authority, path, status }),
        },
        Ok(Err(source)) => Err(QueryError::Broken { authority, path, source }),
        Err(_) => Err(QueryError::Silent { authority, path, within }),
    }
}

/// How a node says what is wrong.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// What the body of an answer says.
///
/// # Errors
/// If it is not JSON of that shape.
pub(crate) fn read<T: DeserializeOwned>(
    authority: &Authority,
    path: &str,
    body: &str,
) -> Result<T, QueryError> {
    serde_json::from_str(body).map_err(|source| {
        let (authority, path) = (authority.clone(), path.to_owned());
        QueryError::Unreadable { authority, path, source }
    })
}

fn request(
    authority: &Authority,
    token: Option<&Token>,
    method: Method,
    path: &str,
) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().expect("the paths are constants, but for numbers");
    let host = authority.as_str().parse().expect("an authority is a valid header");
    request.headers_mut().insert(header::HOST, host);
    if let Some(token) = token {
        request.headers_mut().insert(header::AUTHORIZATION, token.header());
    }
    request
}

async fn exchange(
    socket: TokioIo<tokio::net::TcpStream>,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Bytes), hyper::Error> {
    let (mut requests, driver) = http1::handshake(socket).await?;
    tokio::spawn(driver);
    let response = requests.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

#[cfg(test)]
pub(crate) mod tests {
    use sheaf_proto::names::WINDOWS_PATH;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinHandle,
    };

    use super::*;
    use crate::{endpoint::Endpoint, text::error_line};

    /// A node that gives the answers of a test, in its own process, until it is dropped.
    pub(crate) struct Node {
        pub(crate) address: String,
        listener: JoinHandle<()>,
    }

    impl Node {
        /// Gives these answers (status line and body), one per connection.
        pub(crate) async fn answering(answers: &[(&str, &str)]) -> Node {
            Node::answering_to("", answers).await
        }

        /// As [`Node::answering`], but breaks off if a request has not got this in it.
        pub(crate) async fn answering_to(wanted: &str, answers: &[(&str, &str)]) -> Node {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let answers: Vec<String> = answers
                .iter()
                .map(|(status, body)| {
                    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                })
                .collect();
            let wanted = wanted.to_owned();
            let listener = tokio::spawn(async move {
                for answer in answers {
                    let (mut socket, _) = listener.accept().await.unwrap();
                    let mut request = [0; 1024];
                    let length = socket.read(&mut request).await.unwrap();
                    if String::from_utf8_lossy(&request[..length]).contains(&wanted) {
                        socket.write_all(answer.as_bytes()).await.unwrap();
                    }
                }
            });
            Node { address, listener }
        }

        /// An error as the last words of `sheaf`, with `NODE` for the address.
        pub(crate) fn last_words(&self, error: &QueryError) -> String {
            error_line(error).replace(&self.address, "NODE")
        }
    }

    impl Drop for Node {
        fn drop(&mut self) {
            self.listener.abort();
        }
    }

    #[tokio::test]
    async fn an_unreachable_node_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let authority = address.parse::<Endpoint>().unwrap().at(0);
        let error = get(&authority, WINDOWS_PATH).await.unwrap_err();
        let wanted = format!("sheaf: connect to {address}: Connection refused");
        assert!(error_line(&error).starts_with(&wanted));
    }
}
