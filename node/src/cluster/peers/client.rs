//! Asks other nodes.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::Uri;
use hyper_util::rt::TokioIo;
use sheaf_proto::peer::peer_client::PeerClient;
use sheaf_proto::peer::{self, join_response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use super::wire::{self, Malformed};
use super::{
    CONNECTION_WINDOW, MESSAGE_BYTES_MAX, PING_INTERVAL, PING_TIMEOUT, Reply, STREAM_WINDOW,
};
use crate::checkpoint::identity::{Birth, Identity};
use crate::cluster::formation::Hello;

/// A connection that does not come about within this time is tried anew at the next call.
const CONNECT_WAIT: Duration = Duration::from_secs(1);

/// Why a node gave no answer that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It was not reached, broke off, or cannot answer at the moment. It may have done
    /// what was asked.
    #[error("{0}")]
    Unreachable(String),
    /// Nobody listens at its address: it is not there, rather than slow.
    #[error("{0}")]
    Gone(String),
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

/// The ways to other nodes: to each address one connection for calls and one for streams,
/// made when they are needed and made again when they broke. Clones share them.
#[derive(Clone)]
pub struct Peers {
    open: Arc<dyn Fn(&Endpoint) -> Channel + Send + Sync>,
    ways: Arc<Mutex<HashMap<String, Ways>>>,
}

/// The ways to one node.
#[derive(Clone)]
struct Ways {
    calls: PeerClient<Channel>,
    streams: PeerClient<Channel>,
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
        Peers { open: Arc::new(open), ways: Arc::default() }
    }

    /// Asks the node at `address` who it is.
    ///
    /// # Errors
    /// As [`PeerError`] says.
    pub async fn hello(&self, address: &str, within: Duration) -> Result<Hello, PeerError> {
        let mut client = self.calls(address)?;
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
        let mut client = self.calls(address)?;
        match answer(within, client.join(request)).await?.answer {
            Some(Answer::Joined(joined)) => Ok(Reply::Done(wire::joined(joined)?)),
            Some(Answer::NotLeader(not)) => Ok(Reply::NotLeader { leader: wire::leader(not) }),
            None => Err(Malformed("answer").into()),
        }
    }

    /// For what is asked and answered.
    pub(super) fn calls(&self, address: &str) -> Result<PeerClient<Channel>, PeerError> {
        Ok(self.ways(address)?.calls)
    }

    /// For answers that go on and on, and that are read when there is time.
    pub(super) fn streams(&self, address: &str) -> Result<PeerClient<Channel>, PeerError> {
        Ok(self.ways(address)?.streams)
    }

    fn ways(&self, address: &str) -> Result<Ways, PeerError> {
        let mut known = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ways) = known.get(address) {
            return Ok(ways.clone());
        }
        let endpoint = endpoint(address)?;
        // What is too long to be sent is refused, in words, by the other side.
        let client = || PeerClient::new((self.open)(&endpoint));
        let ways = Ways {
            calls: client().max_decoding_message_size(MESSAGE_BYTES_MAX),
            // An entry that was accepted has to get through.
            streams: client().max_decoding_message_size(usize::MAX),
        };
        known.insert(address.to_owned(), ways.clone());
        Ok(ways)
    }
}

fn endpoint(address: &str) -> Result<Endpoint, PeerError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| PeerError::Unreachable(error.to_string()))?;
    Ok(endpoint
        .connect_timeout(CONNECT_WAIT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true))
}

/// The answer, if it comes in time.
pub(super) async fn answer<T>(
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
            _ => unreachable(&status),
        }
    }
}

/// What lies behind a status: the system's own words, if the connection failed.
fn unreachable(status: &Status) -> PeerError {
    let mut innermost = status.source();
    while let Some(source) = innermost.and_then(Error::source) {
        innermost = Some(source);
    }
    let Some(innermost) = innermost else {
        return PeerError::Unreachable(status.message().to_owned());
    };
    let system = innermost.downcast_ref::<io::Error>().map(io::Error::kind);
    match system {
        Some(io::ErrorKind::ConnectionRefused) => PeerError::Gone(innermost.to_string()),
        _ => PeerError::Unreachable(innermost.to_string()),
    }
}

impl From<Malformed> for PeerError {
    fn from(malformed: Malformed) -> PeerError {
        PeerError::Malformed(malformed.to_string())
    }
}
