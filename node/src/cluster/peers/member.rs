//! Asks other nodes as a member of their cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, ready};
use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use futures::{FutureExt as _, TryStreamExt as _};
use sheaf_proto::peer::{self, propose_response};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::client::answer;
use super::wire::{self, Malformed};
use super::{
    Asked, Batch, CarriedPart, Chunks, FilePart, FilePiece, Kept, Listed, PeerError, Peers, Reply,
    Room, Stamped, Told, Wanted,
};
use crate::checkpoint::facts::SegmentId;
use crate::checkpoint::facts::command::Command;
use crate::checkpoint::identity::Identity;
use crate::checkpoint::raft::{Decision, Rpc, Transport, TransportError};
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::event::time::UnixNanos;
use crate::flush::gaps::Gaps;
use crate::flush::requests::Decided;

/// Batches as they arrive. After an error there are no more; whoever wants them asks
/// again, from the last `next` on.
pub type Followed = BoxStream<'static, Result<Batch, PeerError>>;
/// Chunks of one count table, or of a file, as they arrive: it is whole when they end without an
/// error.
pub type Received = BoxStream<'static, Result<Bytes, PeerError>>;

/// What is carried, as it arrives: all of it is there when it ends without an error.
pub type Carried = BoxStream<'static, Result<CarriedPart, PeerError>>;
/// Rebuilt files as they arrive: all is there when it ends without an error.
pub type Sent = BoxStream<'static, Result<FilePart, PeerError>>;
/// How many entries of a copy are durable, as that is told.
pub type Durable = BoxStream<'static, Result<u64, PeerError>>;

/// A member that asks the others.
#[derive(Clone)]
pub struct Member {
    peers: Peers,
    caller: peer::Caller,
}

/// One of the others, as a member asks it. Whoever else is at its address refuses to answer.
#[derive(Clone, Copy)]
pub struct Other<'a> {
    member: &'a Member,
    node: NodeId,
    address: &'a str,
}

impl Member {
    /// Asks as `identity`.
    pub fn new(peers: Peers, identity: &Identity) -> Member {
        Member { peers, caller: wire::to_caller(identity) }
    }

    /// Who is asked: `node`, which is reached at `address`.
    pub fn other<'a>(&'a self, node: NodeId, address: &'a str) -> Other<'a> {
        Other { member: self, node, address }
    }
}

impl Other<'_> {
    /// Whether it says `within` that time that it takes copies.
    pub async fn takes_copies(self, within: Duration) -> bool {
        // There is no segment 0.
        self.fence(0, within).await.is_ok()
    }

    /// Hands it one of Raft's calls, and returns its answer.
    ///
    /// # Errors
    /// As [`PeerError`] says.
    pub async fn raft(self, rpc: Rpc, body: Bytes, within: Duration) -> Result<Bytes, PeerError> {
        let call = wire::to_call(rpc).into();
        let request = peer::RaftRequest { caller: self.caller(), call, body };
        let mut client = self.member.peers.calls(self.address)?;
        Ok(answer(within, client.raft(request)).await?.body)
    }

    /// Hands it a command, since it is thought to lead; returns what the cluster decided.
    ///
    /// # Errors
    /// As [`PeerError`] says.
    pub async fn propose(
        self,
        command: &Command,
        within: Duration,
    ) -> Result<Reply<Decision>, PeerError> {
        use propose_response::Response;
        let command = wire::to_command(command)?;
        let request = peer::ProposeRequest { caller: self.caller(), command };
        let mut client = self.member.peers.calls(self.address)?;
        match answer(within, client.propose(request)).await?.response {
            Some(Response::Decision(decision)) => Ok(Reply::Done(wire::decision(decision)?)),
            Some(Response::NotLeader(not)) => Ok(Reply::NotLeader { leader: wire::leader(not) }),
            None => Err(Malformed("response").into()),
        }
    }

    /// What time it is there.
    ///
    /// # Errors
    /// As [`PeerError`] says.
    pub async fn clock(self, within: Duration) -> Result<UnixNanos, PeerError> {
        let request = peer::ClockRequest { caller: self.caller() };
        let mut client = self.member.peers.calls(self.address)?;
        Ok(UnixNanos(answer(within, client.clock(request)).await?.now))
    }

    /// How much is stamped before `time`, a whole second, of each segment that it can tell of.
    /// Nothing more will be stamped before it there; what is stamped before `lease` may be.
    ///
    /// # Errors
    /// As [`PeerError`] says.
    pub async fn stamped(
        self,
        time: UnixNanos,
        lease: UnixNanos,
        within: Duration,
    ) -> Result<BTreeMap<SegmentId, Stamped>, PeerError> {
        let caller = self.caller();
        let request = peer::StampedRequest { caller, time: time.0, lease: lease.0 };
        let mut client = self.member.peers.calls(self.address)?;
        Ok(wire::stamped(answer(within, client.stamped(request)).await?))
    }

    /// The entries of a segment, from the index `from` on, that it has: of each the part of
    /// `slots`. Live ones follow as they come. The stream ends without an error when the
    /// segment is sealed and was read to its end. It is to begin `within` that time, and then
    /// takes all the time that it needs; at most 128 streams from one member are open at a
    /// time, and another waits for its turn.
    ///
    /// # Errors
    /// As [`PeerError`] says; also in the stream, which is given up if the member has
    /// gone silent.
    pub async fn follow(
        self,
        segment: SegmentId,
        from: u64,
        slots: SlotSet,
        within: Duration,
    ) -> Result<Followed, PeerError> {
        let slots = wire::to_slots(slots);
        let request = peer::FollowRequest { caller: self.caller(), segment, from, slots };
        let mut client = self.member.peers.streams(self.address)?;
        let messages = answer(within, client.follow(request)).await?;
        let batches = stream::try_unfold((messages, from), async |(mut messages, from)| {
            let Some(message) = messages.message().await? else { return Ok(None) };
            let batch = wire::batch(message, from)?;
            let next = batch.next;
            Ok(Some((batch, (messages, next))))
        });
        Ok(batches.boxed())
    }

    /// Has it take a copy of a segment that this node has just opened: what comes from
    /// `groups` (the number of the first entry, and frames). It is told how many entries are
    /// durable there. It is to begin `within` that time.
    ///
    /// # Errors
    /// As [`PeerError`] says, also in the stream.
    pub async fn copy(
        self,
        segment: SegmentId,
        groups: impl Stream<Item = (u64, Vec<Bytes>)> + Send + 'static,
        within: Duration,
    ) -> Result<Durable, PeerError> {
        let caller = self.caller();
        let head = peer::CopyRequest { caller, segment, ..Default::default() };
        let messages = stream::iter([head])
            .chain(groups.flat_map(|(first, frames)| stream::iter(wire::to_copies(first, frames))));
        let mut client = self.member.peers.streams(self.address)?;
        let told = answer(within, client.copy(messages)).await?;
        Ok(told.map_ok(|message| message.entries).map_err(PeerError::from).boxed())
    }

    /// Has it take no more entries of a segment; returns what its copy has, or `None` for
    /// segment 0, which there is not.
    ///
    /// # Errors
    /// As [`PeerError`] says.
    pub async fn fence(
        self,
        segment: SegmentId,
        within: Duration,
    ) -> Result<Option<Stamped>, PeerError> {
        let request = peer::FenceRequest { caller: self.caller(), segment };
        let mut client = self.member.peers.calls(self.address)?;
        Ok(answer(within, client.fence(request)).await?.reached.map(wire::one_stamped))
    }

    /// The count tables that it has of an aggregation's window that ended at `end`.
    ///
    /// # Errors
    /// As [`PeerError`] says.
    pub async fn tables(
        self,
        aggregation: u32,
        end: UnixNanos,
        within: Duration,
    ) -> Result<Vec<Listed>, PeerError> {
        let request = peer::TablesRequest { caller: self.caller(), aggregation, end: end.0 };
        let mut client = self.member.peers.calls(self.address)?;
        Ok(wire::tables(answer(within, client.tables(request)).await?)?)
    }

    /// What `slots` have of such a table. It is to begin `within` that time.
    ///
    /// # Errors
    /// As [`PeerError`] says, also in the stream.
    pub async fn results(
        self,
        (aggregation, end, table): (u32, UnixNanos, u64),
        slots: SlotSet,
        within: Duration,
    ) -> Result<Received, PeerError> {
        let (caller, end, slots) = (self.caller(), end.0, wire::to_slots(slots));
        let request = peer::ResultsRequest { caller, aggregation, end, table, slots };
        let mut client = self.member.peers.streams(self.address)?;
        let messages = answer(within, client.results(request)).await?;
        Ok(messages.map_ok(|message| message.chunk).map_err(PeerError::from).boxed())
    }

    /// Which entries repeat a request, as far as it has decided that.
    ///
    /// # Errors
    /// As [`PeerError`] says.
    pub async fn decided(self, within: Duration) -> Result<Decided, PeerError> {
        let request = peer::DecidedRequest { caller: self.caller() };
        let mut client = self.member.peers.calls(self.address)?;
        Ok(wire::decided(&answer(within, client.decided(request)).await?.decided)?)
    }

    /// Has it keep something of slots that this node is the primary of, with chunks that an
    /// error cuts off. `Ok` means durable there. Each chunk is to be taken `within` that time,
    /// and so is the answer to come.
    ///
    /// # Errors
    /// As [`PeerError`] says.
    pub async fn keep(
        self,
        kept: &Kept,
        chunks: Chunks,
        within: Duration,
    ) -> Result<(), PeerError> {
        let begin = wire::to_begin(self.caller(), kept)?;
        let (taken, progress) = watch::channel(());
        let mut client = self.member.peers.streams(self.address)?;
        let answered = client.keep(keep_messages(begin, chunks, taken)).boxed();
        tokio::select! {
            answer = answered => Ok(answer.map(drop)?),
            () = stalled(progress, within) => Err(PeerError::Timeout(within)),
        }
    }

    /// What it carries of these slots. It is to begin `within` that time.
    ///
    /// # Errors
    /// As [`PeerError`] says, also in the stream.
    pub async fn carried(self, slots: SlotSet, within: Duration) -> Result<Carried, PeerError> {
        let request = peer::CarriedRequest { caller: self.caller(), slots: wire::to_slots(slots) };
        let mut client = self.member.peers.streams(self.address)?;
        let messages = answer(within, client.carried(request)).await?;
        Ok(messages.map(|message| Ok(wire::carried(message?)?)).boxed())
    }

    /// What checkpoints have of rebuilt files, as far as it is not known. It is to begin
    /// `within` that time.
    ///
    /// # Errors
    /// As [`PeerError`] says, also in the stream.
    pub async fn files(self, asked: &Asked, within: Duration) -> Result<Sent, PeerError> {
        let request = wire::to_files_request(self.caller(), asked);
        let aggregation = asked.aggregation;
        let mut client = self.member.peers.streams(self.address)?;
        let messages = answer(within, client.files(request)).await?;
        Ok(messages.map(move |message| Ok(wire::file_part(message?, aggregation)?)).boxed())
    }

    /// The first rebuilt files of those that are wanted, as a reader sees them.
    ///
    /// # Errors
    /// As [`PeerError`] says.
    pub async fn list(self, wanted: &Wanted, within: Duration) -> Result<Told, PeerError> {
        let request = wire::to_list_request(self.caller(), wanted);
        // A list may be long: what Raft says does not wait for it.
        let mut client = self.member.peers.streams(self.address)?;
        Ok(wire::told(answer(within, client.list(request)).await?)?)
    }

    /// A part of a rebuilt file. It is to begin `within` that time.
    ///
    /// # Errors
    /// As [`PeerError`] says, also in the stream.
    pub async fn read(self, piece: &FilePiece, within: Duration) -> Result<Received, PeerError> {
        let request = wire::to_read_request(self.caller(), piece);
        let mut client = self.member.peers.streams(self.address)?;
        let messages = answer(within, client.read(request)).await?;
        Ok(messages.map_ok(|message| message.bytes).map_err(PeerError::from).boxed())
    }

    /// The files of the slots that it folds of which only what closes their gaps is to be taken.
    ///
    /// # Errors
    /// As [`PeerError`] says.
    pub async fn gaps(self, within: Duration) -> Result<Gaps, PeerError> {
        let request = peer::GapsRequest { caller: self.caller() };
        // There may be many: what Raft says does not wait for them.
        let mut client = self.member.peers.streams(self.address)?;
        Ok(wire::gaps(answer(within, client.gaps(request)).await?)?)
    }

    /// How much it has of rebuilt files, and how much more it has room for.
    ///
    /// # Errors
    /// As [`PeerError`] says.
    pub async fn room(self, within: Duration) -> Result<Room, PeerError> {
        let request = peer::RoomRequest { caller: self.caller() };
        let mut client = self.member.peers.calls(self.address)?;
        let peer::RoomResponse { taken_bytes, left_bytes } =
            answer(within, client.room(request)).await?;
        Ok(Room { taken: taken_bytes, left: left_bytes })
    }

    /// What it has accepted, refused, and counted so far in the windows that are open, in
    /// JSON, with at most `limit` counts for each.
    ///
    /// # Errors
    /// As [`PeerError`] says.
    pub async fn live(self, limit: u32, within: Duration) -> Result<Bytes, PeerError> {
        let request = peer::LiveRequest { caller: self.caller(), limit };
        let mut client = self.member.peers.calls(self.address)?;
        Ok(answer(within, client.live(request)).await?.live)
    }

    fn caller(&self) -> Option<peer::Caller> {
        Some(peer::Caller { asked: self.node.0, ..self.member.caller.clone() })
    }
}

impl Transport for Member {
    fn call<'a>(
        &'a self,
        node: NodeId,
        address: &'a str,
        rpc: Rpc,
        body: Bytes,
        within: Duration,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        async move {
            let answer = self.other(node, address).raft(rpc, body, within).await;
            answer.map_err(|error| TransportError(error.to_string()))
        }
        .boxed()
    }
}

/// Tells of every message that is taken. Without the last one the other side knows that
/// something is missing.
fn keep_messages(
    begin: peer::KeepRequest,
    chunks: Chunks,
    taken: watch::Sender<()>,
) -> BoxStream<'static, peer::KeepRequest> {
    let whole = chunks.map(Some).chain(stream::iter([None]));
    let rest = whole.scan((), |(), chunk| {
        ready(match chunk {
            Some(Ok(chunk)) => Some(wire::to_chunk(chunk)),
            Some(Err(_)) => None,
            None => Some(wire::to_end()),
        })
    });
    let messages = stream::iter([begin]).chain(rest);
    messages.inspect(move |_| taken.send_replace(())).boxed()
}

/// Waits until there is no progress for so long.
async fn stalled(mut progress: watch::Receiver<()>, within: Duration) {
    while let Ok(news) = timeout(within, progress.changed()).await {
        if news.is_err() {
            // All was sent.
            return sleep(within).await;
        }
    }
}
