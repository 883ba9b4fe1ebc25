//! What nodes are asked: for their cluster, to change it, and how full they are.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sheaf_proto::cluster::Cluster;
use sheaf_proto::names::{ADMIN_PORT, CLUSTER_PATH, CONTROL_PORT, QUEUE_PATH, member_path};
use sheaf_proto::queue::Queue;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a node may take to tell of its cluster ..
const TELL_WITHIN: Duration = Duration::from_secs(2);
/// .. and to change it. Forgetting waits until a lease has run out, and is asked for again.
const CHANGE_WITHIN: Duration = Duration::from_secs(10);
/// The most bytes of an answer: 300 members and some thousand segments ..
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// .. or a few numbers, of many nodes at a time.
const QUEUE_BYTES_MAX: usize = 4 << 10;

/// What a member is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// To hand over everything that it has.
    Drain(u64),
    /// To be given up.
    Forget(u64),
}

impl Change {
    fn path(self) -> String {
        match self {
            Change::Drain(member) => member_path(member, "drain"),
            Change::Forget(member) => member_path(member, "forget"),
        }
    }
}

/// Why a node did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The cluster does not allow it, and says why.
    #[error("{0}")]
    Refused(String),
    /// There is no such member.
    #[error("{0}")]
    Unknown(String),
    /// It does not answer, or not now.
    #[error("ask {address} for {path}: {reason}")]
    Unanswered {
        /// Which node.
        address: IpAddr,
        /// What was asked for.
        path: String,
        /// What happened instead.
        reason: String,
    },
}

/// The nodes, by their pods' addresses.
pub trait Nodes: Send + Sync + 'static {
    /// The cluster as a node knows it.
    fn cluster(&self, address: IpAddr) -> BoxFuture<'_, Result<Cluster, NodeError>>;

    /// Has the cluster of a node change. Asking again changes nothing.
    fn change<'a>(
        &'a self,
        address: IpAddr,
        change: Change,
        token: &'a str,
    ) -> BoxFuture<'a, Result<(), NodeError>>;
}

/// The nodes over HTTP, a connection for each question.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    admin_port: u16,
    control_port: u16,
}

impl Default for Network {
    fn default() -> Network {
        Network { admin_port: ADMIN_PORT, control_port: CONTROL_PORT }
    }
}

impl Network {
    /// How full a node is.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn queue(&self, address: IpAddr) -> Result<Queue, NodeError> {
        told(SocketAddr::new(address, self.admin_port), QUEUE_PATH, QUEUE_BYTES_MAX).await
    }

    /// Nodes that are all asked at this port.
    #[cfg(test)]
    pub(crate) fn at(port: u16) -> Network {
        Network { admin_port: port, control_port: port }
    }
}

impl Nodes for Network {
    fn cluster(&self, address: IpAddr) -> BoxFuture<'_, Result<Cluster, NodeError>> {
        let to = SocketAddr::new(address, self.admin_port);
        told(to, CLUSTER_PATH, ANSWER_BYTES_MAX).boxed()
    }

    fn change<'a>(
        &'a self,
        address: IpAddr,
        change: Change,
        token: &'a str,
    ) -> BoxFuture<'a, Result<(), NodeError>> {
        let to = SocketAddr::new(address, self.control_port);
        let asked = async move {
            let path = change.path();
            let question = question(to, Method::POST, &path, Some(token));
            let (status, body) = ask(to, &path, question, CHANGE_WITHIN, ANSWER_BYTES_MAX).await?;
            match status {
                status if status.is_success() => Ok(()),
                StatusCode::CONFLICT => Err(NodeError::Refused(reason(&body))),
                StatusCode::NOT_FOUND => Err(NodeError::Unknown(reason(&body))),
                status => Err(unanswered(to, &path, format!("{status}: {}", reason(&body)))),
            }
        };
        asked.boxed()
    }
}

/// How a node says what is wrong.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

fn reason(body: &[u8]) -> String {
    match serde_json::from_slice::<Refusal>(body) {
        Ok(Refusal { error }) => error,
        Err(_) => "it does not say why".to_owned(),
    }
}

fn unanswered(to: SocketAddr, path: &str, reason: impl ToString) -> NodeError {
    let (address, path) = (to.ip(), path.to_owned());
    NodeError::Unanswered { address, path, reason: reason.to_string() }
}

fn question(
    to: SocketAddr,
    method: Method,
    path: &str,
    token: Option<&str>,
) -> http::Result<Request<Empty<Bytes>>> {
    let mut request =
        Request::builder().method(method).uri(path).header(header::HOST, to.to_string());
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request.body(Empty::new())
}

/// What a node tells at a path, in at most so many bytes.
async fn told<T: DeserializeOwned>(
    to: SocketAddr,
    path: &str,
    bytes_max: usize,
) -> Result<T, NodeError> {
    let question = question(to, Method::GET, path, None);
    let (status, body) = ask(to, path, question, TELL_WITHIN, bytes_max).await?;
    if !status.is_success() {
        return Err(unanswered(to, path, status));
    }
    serde_json::from_slice(&body).map_err(|error| unanswered(to, path, error))
}

async fn ask(
    to: SocketAddr,
    path: &str,
    question: http::Result<Request<Empty<Bytes>>>,
    within: Duration,
    bytes_max: usize,
) -> Result<(StatusCode, Bytes), NodeError> {
    let question = question.map_err(|error| unanswered(to, path, error))?;
    match timeout(within, exchange(to, question, bytes_max)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(unanswered(to, path, error)),
        Err(_) => Err(unanswered(to, path, format!("no answer within {within:?}"))),
    }
}

async fn exchange(
    to: SocketAddr,
    question: Request<Empty<Bytes>>,
    bytes_max: usize,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let socket = TcpStream::connect(to).await?;
    let (mut requests, connection) = http1::handshake(TokioIo::new(socket)).await?;
    let asked = async move {
        let (head, body) = requests.send_request(question).await?.into_parts();
        let body = Limited::new(body, bytes_max).collect().await?;
        Ok((head.status, body.to_bytes()))
    };
    // The connection ends with the answer, or with whoever gives up on it.
    let driven = async move {
        match connection.await {
            Ok(()) => std::future::pending().await,
            Err(error) => Err(error.into()),
        }
    };
    tokio::select! {
        answer = asked => answer,
        failed = driven => failed,
    }
}

#[cfg(test)]
mod tests;
