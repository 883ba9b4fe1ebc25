//! Asks other nodes.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use sheaf_proto::peer::peer_client::PeerClient;
use sheaf_proto::peer::{self, join_response, propose_response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use super::wire::{self, Malformed};
use super::{MESSAGE_BYTES_MAX, PING_INTERVAL, PING_TIMEOUT, Reply};
use crate::checkpoint::identity::{Birth, Identity};
use crate::checkpoint::raft::{Rpc, Transport, TransportError};
use crate::cluster::formation::Hello;
use crate::event::node::NodeId;

/// A connection that does not come about within this time is tried anew at the next call.
const CONNECT_WAIT: Duration = Duration::from_secs(1);

/// Why a node gave no answer that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It was not reached, broke off, or cannot answer at the moment. It may have done
    /// what was asked.
    #[error("{0}")]
    Unreachable(String),
    /// It took too long. It may have done what was asked.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// It says no, and asking again changes nothing.
    #[error("{0}")]
    Refused(String),
    /// It answered what cannot be read.
    #[error("{0}")]
    Malformed(String),
}

/// The ways to other nodes: one connection to each address, made when it is needed and
/// made again when it broke. Clones share them.
#[derive(Clone)]
pub struct Peers {
    open: Arc<dyn Fn(&Endpoint) -> Channel + Send + Sync>,
    clients: Arc<Mutex<HashMap<String, PeerClient<Channel>>>>,
}

impl Peers {
    /// The ways over TCP.
    pub fn over_tcp() -> Peers {
        Peers::new(async |address: String| {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }

    /// The ways over what `connect` opens to a host and port.
    pub fn new<C, F, S>(connect: C) -> Peers
    where
        C: Fn(String) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let open = move |endpoint: &Endpoint| {
            let connect = connect.clone();
            endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: Uri| {
                let address = uri.authority().map(ToString::to_string).unwrap_or_default();
                connect(address).map(|stream| stream.map(TokioIo::new))
            }))
        };
        Peers { open: Arc::new(open), clients: Arc::default() }
    }

    /// Asks the node at `address` who it is.
    ///
    /// # Errors
    /// As [`PeerError`] says.
    pub async fn hello(&self, address: &str, within: Duration) -> Result<Hello, PeerError> {
        let mut client = self.client(address)?;
        Ok(wire::hello(answer(within, client.hello(peer::HelloRequest {})).await?)?)
    }

    /// Asks the node at `address` to take a node that was born so into `cluster`, to which
    /// it has said to belong. Asking again gives the same answer.
    ///
    /// # Errors
    /// As [`PeerError`] says.
    pub async fn join(
        &self,
        address: &str,
        cluster: Uuid,
        birth: &Birth,
        within: Duration,
    ) -> Result<Reply<Identity>, PeerError> {
        use join_response::Answer;
        let cluster = Bytes::copy_from_slice(cluster.as_bytes());
        let request = peer::JoinRequest { cluster, birth: Some(wire::to_birth(birth)) };
        let mut client = self.client(address)?;
        match answer(within, client.join(request)).await?.answer {
            Some(Answer::Joined(joined)) => Ok(Reply::Done(wire::joined(joined)?)),
            Some(Answer::NotLeader(not)) => Ok(Reply::NotLeader { leader: wire::leader(not) }),
            None => Err(Malformed("answer").into()),
        }
    }

    fn client(&self, address: &str) -> Result<PeerClient<Channel>, PeerError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(address) {
            return Ok(client.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| PeerError::Unreachable(error.to_string()))?
            .connect_timeout(CONNECT_WAIT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        // What is too long to be sent is refused, in words, by the other side.
        let client =
            PeerClient::new((self.open)(&endpoint)).max_decoding_message_size(MESSAGE_BYTES_MAX);
        clients.insert(address.to_owned(), client.clone());
        Ok(client)
    }
}

/// A member that asks the others.
#[derive(Clone)]
pub struct Member {
    peers: Peers,
    caller: peer::Caller,
}

impl Member {
    /// Asks as `identity`.
    pub fn new(peers: Peers, identity: &Identity) -> Member {
        Member { peers, caller: wire::to_caller(identity) }
    }

    /// Hands one of Raft's calls to the member at `address`, and returns its answer.
    ///
    /// # Errors
    /// As [`PeerError`] says.
    pub async fn raft(
        &self,
        address: &str,
        rpc: Rpc,
        body: Bytes,
        within: Duration,
    ) -> Result<Bytes, PeerError> {
        let call = wire::to_call(rpc).into();
        let request = peer::RaftRequest { caller: Some(self.caller.clone()), call, body };
        let mut client = self.peers.client(address)?;
        Ok(answer(within, client.raft(request)).await?.body)
    }

    /// Hands a command, in JSON, to the member at `address`, which is thought to lead;
    /// returns what the command did, in JSON.
    ///
    /// # Errors
    /// As [`PeerError`] says.
    pub async fn propose(
        &self,
        address: &str,
        command: Bytes,
        within: Duration,
    ) -> Result<Reply<Bytes>, PeerError> {
        use propose_response::Response;
        let request = peer::ProposeRequest { caller: Some(self.caller.clone()), command };
        let mut client = self.peers.client(address)?;
        match answer(within, client.propose(request)).await?.response {
            Some(Response::Answer(answer)) => Ok(Reply::Done(answer)),
            Some(Response::NotLeader(not)) => Ok(Reply::NotLeader { leader: wire::leader(not) }),
            None => Err(Malformed("response").into()),
        }
    }
}

impl Transport for Member {
    fn call<'a>(
        &'a self,
        _: NodeId,
        address: &'a str,
        rpc: Rpc,
        body: Bytes,
        within: Duration,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        let answer = self.raft(address, rpc, body, within);
        answer.map(|answer| answer.map_err(|error| TransportError(error.to_string()))).boxed()
    }
}

/// The answer, if it comes in time.
async fn answer<T>(
    within: Duration,
    asking: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, PeerError> {
    match timeout(within, asking).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status.into()),
        Err(_) => Err(PeerError::Timeout(within)),
    }
}

impl From<Status> for PeerError {
    fn from(status: Status) -> PeerError {
        match status.code() {
            Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::OutOfRange
            | Code::Unimplemented => PeerError::Refused(status.message().to_owned()),
            _ => PeerError::Unreachable(cause(&status)),
        }
    }
}

/// What lies behind a status: the system's own words, if the connection failed.
fn cause(status: &Status) -> String {
    let mut innermost = status.source();
    while let Some(source) = innermost.and_then(Error::source) {
        innermost = Some(source);
    }
    innermost.map_or_else(|| status.message().to_owned(), ToString::to_string)
}

impl From<Malformed> for PeerError {
    fn from(malformed: Malformed) -> PeerError {
        PeerError::Malformed(malformed.to_string())
    }
}
