//! Answers other nodes.

use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sheaf_proto::peer::peer_server::{Peer, PeerServer};
use sheaf_proto::peer::{self, join_response, propose_response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::wire::{self, Caller, Malformed};
use super::{
    Asked, Batches, CONNECTION_WINDOW, CarriedParts, Chunks, FileParts, FilePiece, Kept, Listed,
    MESSAGE_BYTES_MAX, PING_INTERVAL, PING_TIMEOUT, Reply, Room, STREAM_WINDOW, STREAMS_MAX,
    Stamped, Told, Wanted,
};
use crate::checkpoint::facts::SegmentId;
use crate::checkpoint::facts::command::Command;
use crate::checkpoint::identity::{Birth, Identity};
use crate::checkpoint::raft::{Decision, Rpc};
use crate::cluster::formation::Hello;
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::event::time::UnixNanos;
use crate::failpoint::is_to_fail;
use crate::flush::gaps::Gaps;
use crate::flush::requests::Decided;

/// How long to wait when a connection cannot be accepted, for lack of file descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a node that stops waits for the answers under way.
const FINISH_WAIT: Duration = Duration::from_secs(1);

/// Messages of a copy that are made durable at once, at most.
const COPY_MESSAGES_MAX: usize = 64;

/// Why a node does not do what another asks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Declined {
    /// It cannot at the moment.
    #[error("{0}")]
    NotNow(String),
    /// Asking again changes nothing.
    #[error("{0}")]
    Never(String),
}

/// What a node answers to others. Those who ask for more than a hello, or to be taken in,
/// are members of its cluster: that was checked.
pub trait Answers: Send + Sync + 'static {
    /// Who the node is.
    ///
    /// # Errors
    /// While it does not know.
    fn hello(&self) -> Result<Hello, Declined>;

    /// Which member the node is.
    ///
    /// # Errors
    /// While it is none.
    fn identity(&self) -> Result<Arc<Identity>, Declined>;

    /// Takes in a node that was born so, and returns who it is from now on.
    fn join(&self, birth: Birth) -> impl Future<Output = Result<Reply<Identity>, Declined>> + Send;

    /// Answers one of Raft's own calls.
    fn raft(&self, rpc: Rpc, body: Bytes) -> impl Future<Output = Result<Bytes, Declined>> + Send;

    /// Has the cluster apply a command, and returns what it decided.
    fn propose(
        &self,
        command: Command,
    ) -> impl Future<Output = Result<Reply<Decision>, Declined>> + Send;

    /// What time it is here.
    fn now(&self) -> UnixNanos;

    /// As [`Holdings::stamped`](super::Holdings::stamped).
    fn stamped(
        &self,
        time: UnixNanos,
        lease: UnixNanos,
    ) -> impl Future<Output = Result<BTreeMap<SegmentId, Stamped>, Declined>> + Send;

    /// As [`Holdings::follow`](super::Holdings::follow).
    ///
    /// # Errors
    /// As it says, and while the node does not have its journals.
    fn follow(&self, segment: SegmentId, from: u64, slots: SlotSet) -> Result<Batches, Declined>;

    /// As [`Holdings::begin_copy`](super::Holdings::begin_copy).
    ///
    /// # Errors
    /// As it says, and while the node does not have its journals.
    fn begin_copy(&self, segment: SegmentId) -> Result<(), Declined>;

    /// As [`Holdings::copy`](super::Holdings::copy).
    fn copy(
        &self,
        segment: SegmentId,
        first: u64,
        frames: Vec<Bytes>,
    ) -> impl Future<Output = Result<u64, Declined>> + Send;

    /// As [`Holdings::fence`](super::Holdings::fence).
    fn fence(
        &self,
        segment: SegmentId,
    ) -> impl Future<Output = Result<Option<Stamped>, Declined>> + Send;

    /// As [`Holdings::tables`](super::Holdings::tables).
    ///
    /// # Errors
    /// As it says, and while the node does not have its results.
    fn tables(&self, aggregation: u32, end: UnixNanos) -> Result<Vec<Listed>, Declined>;

    /// As [`Holdings::results`](super::Holdings::results).
    ///
    /// # Errors
    /// As it says, and while the node does not have its results.
    fn results(
        &self,
        aggregation: u32,
        end: UnixNanos,
        table: u64,
        slots: SlotSet,
    ) -> Result<Chunks, Declined>;

    /// As [`Holdings::decided`](super::Holdings::decided).
    ///
    /// # Errors
    /// While the node does not have its journals.
    fn decided(&self) -> Result<Arc<Decided>, Declined>;

    /// As [`Holdings::keep`](super::Holdings::keep).
    fn keep(
        &self,
        primary: NodeId,
        kept: Kept,
        chunks: Chunks,
    ) -> impl Future<Output = Result<(), Declined>> + Send;

    /// As [`Holdings::carried`](super::Holdings::carried).
    ///
    /// # Errors
    /// As it says, and while the node does not have what it carries.
    fn carried(&self, slots: SlotSet) -> Result<CarriedParts, Declined>;

    /// As [`Holdings::files`](super::Holdings::files).
    ///
    /// # Errors
    /// As it says, and while the node does not have its files.
    fn files(&self, asked: Asked) -> Result<FileParts, Declined>;

    /// As [`Holdings::list`](super::Holdings::list).
    fn list(&self, wanted: Wanted) -> impl Future<Output = Result<Told, Declined>> + Send;

    /// As [`Holdings::read`](super::Holdings::read).
    ///
    /// # Errors
    /// As it says, and while the node does not have its files.
    fn read(&self, piece: FilePiece) -> Result<Chunks, Declined>;

    /// As [`Holdings::gaps`](super::Holdings::gaps).
    ///
    /// # Errors
    /// While the node does not have its journals.
    fn gaps(&self) -> Result<Arc<Gaps>, Declined>;

    /// As [`Holdings::room`](super::Holdings::room).
    fn room(&self) -> impl Future<Output = Result<Room, Declined>> + Send;

    /// As [`Holdings::live`](super::Holdings::live).
    fn live(&self, limit: u32) -> impl Future<Output = Result<Bytes, Declined>> + Send;
}

/// The connections that come to `listener`.
pub fn accept(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    stream::unfold(listener, async |listener| {
        let accepted = listener.accept().await.and_then(|(stream, _)| {
            stream.set_nodelay(true)?;
            Ok(stream)
        });
        Some((accepted, listener))
    })
}

/// Answers other nodes over `incoming` connections until `shutdown` is cancelled, and then
/// what is under way, within a second.
pub async fn serve<S, A>(
    incoming: impl Stream<Item = io::Result<S>>,
    answers: Arc<A>,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Answers,
{
    // What is too long to be sent is refused by the other side, which knows what it is.
    let service = PeerServer::new(Server { answers }).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let connections = TaskTracker::new();
    {
        let mut incoming = pin!(incoming);
        while let Some(Some(accepted)) = shutdown.run_until_cancelled(incoming.next()).await {
            match accepted {
                Ok(stream) => {
                    connections.spawn(connection(stream, service.clone(), shutdown.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept another node's connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    connections.close();
    connections.wait().await;
}

/// Serves one connection until the other side leaves or goes silent, or the node stops.
async fn connection<S, A>(stream: S, service: PeerServer<Server<A>>, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Answers,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let service = TowerToHyperService::new(service);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = match shutdown.run_until_cancelled(connection.as_mut()).await {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(FINISH_WAIT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "another node's connection ended early");
    }
}

struct Server<A> {
    answers: Arc<A>,
}

impl<A: Answers> Server<A> {
    /// Which member calls.
    fn admit(&self, caller: Option<peer::Caller>) -> Result<NodeId, Status> {
        let caller = wire::caller(caller)?;
        admit(&*self.answers.identity()?, caller)?;
        Ok(caller.node)
    }
}

/// Declines whoever is not of the same cluster, or asks for another node.
fn admit(own: &Identity, caller: Caller) -> Result<(), Declined> {
    let (cluster, here, there) = (own.cluster, own.node, caller.node);
    if caller.cluster != cluster {
        let other = caller.cluster;
        return Err(Declined::Never(format!(
            "this is node {here} of cluster {cluster}, and node {there} of cluster {other} calls"
        )));
    }
    if caller.key_digest != own.fingerprint_key.digest() {
        return Err(Declined::Never(format!(
            "node {here} and node {there} have different fingerprint keys, although both belong \
             to cluster {cluster}"
        )));
    }
    let asked = caller.asked;
    if asked != here && !is_to_fail("planted-any-node-answers") {
        return Err(Declined::Never(format!("this is node {here}, and node {asked} was asked")));
    }
    Ok(())
}

#[async_trait]
impl<A: Answers> Peer for Server<A> {
    async fn hello(
        &self,
        _: Request<peer::HelloRequest>,
    ) -> Result<Response<peer::HelloResponse>, Status> {
        Ok(Response::new(wire::to_hello(&self.answers.hello()?)))
    }

    async fn join(
        &self,
        request: Request<peer::JoinRequest>,
    ) -> Result<Response<peer::JoinResponse>, Status> {
        use join_response::Answer;
        let peer::JoinRequest { cluster, birth } = request.into_inner();
        let (own, wanted) = (self.answers.identity()?.cluster, wire::cluster(&cluster)?);
        if own != wanted {
            let reason = format!("this node belongs to cluster {own}, and not to {wanted}");
            return Err(Declined::Never(reason).into());
        }
        let birth = wire::birth(birth.ok_or(Malformed("birth"))?)?;
        let answer = match self.answers.join(birth).await? {
            Reply::Done(identity) => Answer::Joined(wire::to_joined(&identity)),
            Reply::NotLeader { leader } => Answer::NotLeader(wire::to_not_leader(leader)),
        };
        Ok(Response::new(peer::JoinResponse { answer: Some(answer) }))
    }

    async fn raft(
        &self,
        request: Request<peer::RaftRequest>,
    ) -> Result<Response<peer::RaftResponse>, Status> {
        let rpc = wire::call(request.get_ref().call())?;
        let peer::RaftRequest { caller, body, .. } = request.into_inner();
        self.admit(caller)?;
        let body = self.answers.raft(rpc, body).await?;
        Ok(Response::new(peer::RaftResponse { body }))
    }

    async fn propose(
        &self,
        request: Request<peer::ProposeRequest>,
    ) -> Result<Response<peer::ProposeResponse>, Status> {
        use propose_response::Response as Answer;
        let peer::ProposeRequest { caller, command } = request.into_inner();
        self.admit(caller)?;
        let response = match self.answers.propose(wire::command(&command)?).await? {
            Reply::Done(decision) => Answer::Decision(wire::to_decision(&decision)?),
            Reply::NotLeader { leader } => Answer::NotLeader(wire::to_not_leader(leader)),
        };
        Ok(Response::new(peer::ProposeResponse { response: Some(response) }))
    }

    async fn clock(
        &self,
        request: Request<peer::ClockRequest>,
    ) -> Result<Response<peer::ClockResponse>, Status> {
        self.admit(request.into_inner().caller)?;
        Ok(Response::new(peer::ClockResponse { now: self.answers.now().0 }))
    }

    async fn stamped(
        &self,
        request: Request<peer::StampedRequest>,
    ) -> Result<Response<peer::StampedResponse>, Status> {
        let peer::StampedRequest { caller, time, lease } = request.into_inner();
        self.admit(caller)?;
        let stamped = self.answers.stamped(wire::whole_second(time)?, UnixNanos(lease)).await?;
        Ok(Response::new(wire::to_stamped(&stamped)))
    }

    type FollowStream = BoxStream<'static, Result<peer::FollowResponse, Status>>;

    async fn follow(
        &self,
        request: Request<peer::FollowRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let peer::FollowRequest { caller, segment, from, slots } = request.into_inner();
        self.admit(caller)?;
        let batches = self.answers.follow(segment, from, wire::slots(&slots)?)?;
        let messages = batches.map_ok(|batch| stream::iter(wire::to_batches(batch)).map(Ok));
        Ok(Response::new(messages.map_err(Status::from).try_flatten().boxed()))
    }

    type CopyStream = BoxStream<'static, Result<peer::CopyResponse, Status>>;

    async fn copy(
        &self,
        request: Request<Streaming<peer::CopyRequest>>,
    ) -> Result<Response<Self::CopyStream>, Status> {
        let mut messages = request.into_inner();
        let head = messages.message().await?.ok_or(Malformed("caller"))?;
        self.admit(head.caller)?;
        self.answers.begin_copy(head.segment)?;
        let (answers, segment) = (Arc::clone(&self.answers), head.segment);
        // What came while the disk was busy is made durable at once.
        let groups = messages.ready_chunks(COPY_MESSAGES_MAX);
        let begun = (groups, answers, wire::Copied::default());
        let copying =
            stream::try_unfold(begun, move |(mut groups, answers, mut copied)| async move {
                while let Some(group) = groups.next().await {
                    for message in group {
                        copied.add(message?);
                    }
                    if let Some((first, frames)) = copied.take() {
                        let entries = answers.copy(segment, first, frames).await?;
                        let told = peer::CopyResponse { entries };
                        return Ok(Some((told, (groups, answers, copied))));
                    }
                }
                Ok(None)
            });
        Ok(Response::new(copying.boxed()))
    }

    async fn fence(
        &self,
        request: Request<peer::FenceRequest>,
    ) -> Result<Response<peer::FenceResponse>, Status> {
        let peer::FenceRequest { caller, segment } = request.into_inner();
        self.admit(caller)?;
        let reached = self.answers.fence(segment).await?.map(wire::to_one_stamped);
        Ok(Response::new(peer::FenceResponse { reached }))
    }

    async fn tables(
        &self,
        request: Request<peer::TablesRequest>,
    ) -> Result<Response<peer::TablesResponse>, Status> {
        let peer::TablesRequest { caller, aggregation, end } = request.into_inner();
        self.admit(caller)?;
        let tables = self.answers.tables(aggregation, UnixNanos(end))?;
        Ok(Response::new(wire::to_tables(&tables)?))
    }

    type ResultsStream = BoxStream<'static, Result<peer::ResultsResponse, Status>>;

    async fn results(
        &self,
        request: Request<peer::ResultsRequest>,
    ) -> Result<Response<Self::ResultsStream>, Status> {
        let peer::ResultsRequest { caller, aggregation, end, table, slots } = request.into_inner();
        self.admit(caller)?;
        let (end, slots) = (UnixNanos(end), wire::slots(&slots)?);
        let chunks = self.answers.results(aggregation, end, table, slots)?;
        let messages = chunks.map_ok(|chunk| peer::ResultsResponse { chunk });
        Ok(Response::new(messages.map_err(Status::from).boxed()))
    }

    async fn decided(
        &self,
        request: Request<peer::DecidedRequest>,
    ) -> Result<Response<peer::DecidedResponse>, Status> {
        self.admit(request.into_inner().caller)?;
        let decided = wire::to_decided(&*self.answers.decided()?)?;
        Ok(Response::new(peer::DecidedResponse { decided }))
    }

    async fn keep(
        &self,
        request: Request<Streaming<peer::KeepRequest>>,
    ) -> Result<Response<peer::KeepResponse>, Status> {
        let mut messages = request.into_inner();
        let (caller, kept) = wire::kept(messages.message().await?)?;
        let primary = self.admit(caller)?;
        self.answers.keep(primary, kept, wire::chunks(messages)).await?;
        Ok(Response::new(peer::KeepResponse {}))
    }

    type CarriedStream = BoxStream<'static, Result<peer::CarriedResponse, Status>>;

    async fn carried(
        &self,
        request: Request<peer::CarriedRequest>,
    ) -> Result<Response<Self::CarriedStream>, Status> {
        let peer::CarriedRequest { caller, slots } = request.into_inner();
        self.admit(caller)?;
        let parts = self.answers.carried(wire::slots(&slots)?)?;
        let messages = parts.map(|part| Ok(wire::to_carried(part?)?));
        Ok(Response::new(messages.boxed()))
    }

    type FilesStream = BoxStream<'static, Result<peer::FilesResponse, Status>>;

    async fn files(
        &self,
        request: Request<peer::FilesRequest>,
    ) -> Result<Response<Self::FilesStream>, Status> {
        let (caller, asked) = wire::asked(request.into_inner())?;
        self.admit(caller)?;
        let parts = self.answers.files(asked)?;
        let messages = parts.map(|part| Ok(wire::to_file_part(part?)?));
        Ok(Response::new(messages.boxed()))
    }

    async fn list(
        &self,
        request: Request<peer::ListRequest>,
    ) -> Result<Response<peer::ListResponse>, Status> {
        let (caller, wanted) = wire::wanted(request.into_inner())?;
        self.admit(caller)?;
        Ok(Response::new(wire::to_told(self.answers.list(wanted).await?)))
    }

    type ReadStream = BoxStream<'static, Result<peer::ReadResponse, Status>>;

    async fn read(
        &self,
        request: Request<peer::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let (caller, piece) = wire::piece(request.into_inner())?;
        self.admit(caller)?;
        let bytes = self.answers.read(piece)?;
        let messages = bytes.map_ok(|bytes| peer::ReadResponse { bytes });
        Ok(Response::new(messages.map_err(Status::from).boxed()))
    }

    async fn gaps(
        &self,
        request: Request<peer::GapsRequest>,
    ) -> Result<Response<peer::GapsResponse>, Status> {
        self.admit(request.into_inner().caller)?;
        Ok(Response::new(wire::to_gaps(&*self.answers.gaps()?)))
    }

    async fn room(
        &self,
        request: Request<peer::RoomRequest>,
    ) -> Result<Response<peer::RoomResponse>, Status> {
        self.admit(request.into_inner().caller)?;
        let Room { taken, left } = self.answers.room().await?;
        Ok(Response::new(peer::RoomResponse { taken_bytes: taken, left_bytes: left }))
    }

    async fn live(
        &self,
        request: Request<peer::LiveRequest>,
    ) -> Result<Response<peer::LiveResponse>, Status> {
        let peer::LiveRequest { caller, limit } = request.into_inner();
        self.admit(caller)?;
        let live = self.answers.live(limit).await?;
        Ok(Response::new(peer::LiveResponse { live }))
    }
}

impl From<Declined> for Status {
    fn from(declined: Declined) -> Status {
        match declined {
            Declined::NotNow(reason) => Status::unavailable(reason),
            Declined::Never(reason) => Status::failed_precondition(reason),
        }
    }
}

impl From<Malformed> for Status {
    fn from(malformed: Malformed) -> Status {
        Status::invalid_argument(malformed.to_string())
    }
}
