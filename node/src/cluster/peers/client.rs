//! Asks other nodes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use sheaf_proto::peer;
use sheaf_proto::peer::peer_client::PeerClient;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use super::MESSAGE_BYTES_MAX;
use super::wire::{self, Malformed};
use crate::checkpoint::identity::{Birth, Identity};
use crate::checkpoint::raft::{Rpc, Transport, TransportError};
use crate::cluster::formation::Hello;
use crate::event::node::NodeId;

/// A connection that does not come about within this time is tried anew at the next call.
const CONNECT_WAIT: Duration = Duration::from_secs(1);
/// A connection on which nothing comes back for this long, and then for as long again, is
/// given up.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// How long a node may take to say who it is.
const HELLO_WAIT: Duration = Duration::from_secs(2);
/// How long a cluster may take to take a node in: an election, and a decision.
const JOIN_WAIT: Duration = Duration::from_secs(10);

/// Why a node gave no answer, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// It was not reached, or broke off.
    #[error("not reached: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// It says no.
    #[error("{0}")]
    Refused(String),
    /// It answered what cannot be read.
    #[error("{0}")]
    Malformed(String),
    /// It does not lead, so it cannot do what was asked.
    #[error("it does not lead")]
    NotLeader {
        /// Where the leader is reached, if it knows.
        leader: Option<String>,
    },
}

/// The ways to other nodes: one connection to each address, made when it is needed and
/// made again when it broke. Clones share them.
#[derive(Clone, Default)]
pub struct Peers {
    channels: Arc<Mutex<HashMap<String, Channel>>>,
}

impl Peers {
    /// Asks the node at `address` who it is.
    ///
    /// # Errors
    /// As [`PeerError`] says.
    pub async fn hello(&self, address: &str) -> Result<Hello, PeerError> {
        let mut client = self.client(address)?;
        let answer = within(HELLO_WAIT, client.hello(peer::HelloRequest {})).await?;
        Ok(wire::hello(answer)?)
    }

    /// Asks the node at `address` to take in a node that was born so.
    ///
    /// # Errors
    /// As [`PeerError`] says.
    pub async fn join(
        &self,
        address: &str,
        cluster: Uuid,
        birth: &Birth,
    ) -> Result<Identity, PeerError> {
        let cluster = Bytes::copy_from_slice(cluster.as_bytes());
        let request = peer::JoinRequest { cluster, birth: Some(wire::to_birth(birth)) };
        let mut client = self.client(address)?;
        match within(JOIN_WAIT, client.join(request)).await?.answer {
            Some(peer::join_response::Answer::Joined(joined)) => Ok(wire::joined(joined)?),
            Some(peer::join_response::Answer::NotLeader(peer::NotLeader { leader })) => {
                Err(PeerError::NotLeader { leader: leader.map(|leader| leader.address) })
            }
            None => Err(Malformed("answer").into()),
        }
    }

    fn client(&self, address: &str) -> Result<PeerClient<Channel>, PeerError> {
        let client = PeerClient::new(self.channel(address)?);
        Ok(client
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    fn channel(&self, address: &str) -> Result<Channel, PeerError> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| PeerError::Unreachable(error.to_string()))?
            .connect_timeout(CONNECT_WAIT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect_lazy();
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

/// A member that calls the others.
pub struct Member {
    peers: Peers,
    caller: peer::Caller,
}

impl Member {
    /// Calls as `identity`.
    pub fn new(peers: Peers, identity: &Identity) -> Member {
        Member { peers, caller: wire::to_caller(identity) }
    }
}

impl Transport for Member {
    fn call<'a>(
        &'a self,
        _: NodeId,
        address: &'a str,
        rpc: Rpc,
        body: Bytes,
        limit: Duration,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        let request = peer::RaftRequest {
            caller: Some(self.caller.clone()),
            call: wire::to_call(rpc).into(),
            body,
        };
        let answer = async move {
            let mut client = self.peers.client(address)?;
            Ok(within(limit, client.raft(request)).await?.body)
        };
        answer
            .map(|answer: Result<_, PeerError>| {
                answer.map_err(|error| TransportError(error.to_string()))
            })
            .boxed()
    }
}

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, PeerError> {
    match timeout(limit, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status.into()),
        Err(_) => Err(PeerError::Timeout(limit)),
    }
}

impl From<Status> for PeerError {
    fn from(status: Status) -> PeerError {
        let message = status.message().to_owned();
        match status.code() {
            Code::FailedPrecondition | Code::InvalidArgument => PeerError::Refused(message),
            _ => PeerError::Unreachable(message),
        }
    }
}

impl From<Malformed> for PeerError {
    fn from(malformed: Malformed) -> PeerError {
        PeerError::Malformed(malformed.to_string())
    }
}
