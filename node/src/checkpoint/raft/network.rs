//! Raft's calls between members, over a transport that the module above brings.
//!
//! A call names the node that it is meant for. An address outlives the node behind it,
//! and what was meant for the node that was there before must not reach the new one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, Either, select};
use openraft::OptionalSend;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::machine::{Image, Machine, Snapshot};
use super::record::blocking;
use super::{TypeConfig, Vote};
use crate::checkpoint::facts::Facts;
use crate::event::node::NodeId;

/// How long a member may take to write entries. Raft would allow the time between two heartbeats
/// for it: whoever has too much to do needs more, and would be sent the same again and again. The
/// heartbeats themselves it gives up by then.
const APPEND_WAIT: Duration = Duration::from_secs(1);

/// What a member asks of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rpc {
    /// To append entries to its log; without entries it is a heartbeat.
    AppendEntries,
    /// For its vote.
    Vote,
    /// Whether it would give its vote; this changes nothing.
    PreVote,
    /// To take all facts in place of a log that is gone.
    Snapshot,
    /// To ask for the others' votes at once.
    TransferLeader,
}

impl Rpc {
    fn action(self) -> RPCTypes {
        match self {
            Rpc::AppendEntries => RPCTypes::AppendEntries,
            Rpc::Vote | Rpc::PreVote => RPCTypes::Vote,
            Rpc::Snapshot => RPCTypes::InstallSnapshot,
            Rpc::TransferLeader => RPCTypes::TransferLeader,
        }
    }
}

/// Why a call got no answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TransportError(pub String);

/// The way to the other members.
///
/// A call may be lost, repeated or late, but what arrives is whole. A body is not much
/// longer than 1 MiB, unless it is a single entry that is longer, or a snapshot, which
/// has all facts in one body. The transport sees to it that the other side belongs to
/// the same cluster.
pub trait Transport: Send + Sync + 'static {
    /// Hands `body` to [`Raft::answer`](super::Raft::answer) of the node at `address`,
    /// which should be `to`, and returns its answer, or an error at the latest after
    /// `within`.
    fn call<'a>(
        &'a self,
        to: NodeId,
        address: &'a str,
        rpc: Rpc,
        body: Bytes,
        within: Duration,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>>;
}

/// Makes the ways from this node to the others.
pub(super) struct Network {
    pub(super) own: NodeId,
    pub(super) transport: Arc<dyn Transport>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, address: &String) -> Peer {
        let transport = Arc::clone(&self.transport);
        Peer { own: self.own, target, address: address.clone(), transport }
    }
}

/// The way to one other member.
pub(super) struct Peer {
    own: NodeId,
    target: NodeId,
    address: String,
    transport: Arc<dyn Transport>,
}

/// A request, and whom it is for.
#[derive(Serialize, Deserialize)]
struct Call<T> {
    to: NodeId,
    request: T,
}

/// A snapshot, and the vote of the leader that sends it.
#[derive(Serialize, Deserialize)]
struct Delivery<F> {
    vote: Vote,
    image: Image<F>,
}

impl Peer {
    async fn call<T: Serialize, U: DeserializeOwned>(
        &self,
        rpc: Rpc,
        request: T,
        within: Duration,
    ) -> Result<U, RPCError<TypeConfig>> {
        let unreachable = |reason: String| Unreachable::from_string(reason);
        let call = Call { to: self.target, request };
        let body = blocking(|| serde_json::to_vec(&call))
            .map_err(|error| unreachable(error.to_string()))?;
        let call = self.transport.call(self.target, &self.address, rpc, body.into(), within);
        let Ok(answer) = timeout(within, call).await else {
            let (id, target, action) = (self.own, self.target, rpc.action());
            return Err(Timeout { action, id, target, timeout: within }.into());
        };
        let answer = answer.map_err(|error| unreachable(error.to_string()))?;
        serde_json::from_slice::<Result<U, String>>(&answer)
            .unwrap_or_else(|error| Err(error.to_string()))
            .map_err(|reason| unreachable(reason).into())
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Arc<Facts>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Rpc::AppendEntries, request, APPEND_WAIT).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Rpc::Vote, request, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Rpc::PreVote, request, option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let image = Image { meta: snapshot.meta, facts: &*snapshot.snapshot };
        let sending = self.call(Rpc::Snapshot, Delivery { vote, image }, option.soft_ttl());
        match select(Box::pin(sending), Box::pin(cancel)).await {
            Either::Left((sent, _)) => Ok(sent?),
            Either::Right((closed, _)) => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Rpc::TransferLeader, request, option.soft_ttl()).await
    }
}

/// Answers another member's call.
pub(super) async fn answer(
    raft: &openraft::Raft<TypeConfig, Machine>,
    rpc: Rpc,
    body: &[u8],
) -> Bytes {
    let own = *raft.node_id();
    match rpc {
        Rpc::AppendEntries => reply(own, body, |request| raft.append_entries(request)).await,
        Rpc::Vote => reply(own, body, |request| raft.vote(request)).await,
        Rpc::PreVote => reply(own, body, |request| raft.pre_vote(request)).await,
        Rpc::Snapshot => {
            reply(own, body, |Delivery { vote, image }| {
                let Image { meta, facts } = image;
                let facts = Arc::<Facts>::new(facts);
                raft.install_full_snapshot(vote, Snapshot { meta, snapshot: facts })
            })
            .await
        }
        Rpc::TransferLeader => {
            reply(own, body, |request| raft.handle_transfer_leader(request)).await
        }
    }
}

async fn reply<T, U, E, F>(own: NodeId, body: &[u8], handle: impl FnOnce(T) -> F) -> Bytes
where
    T: DeserializeOwned,
    U: Serialize,
    E: fmt::Display,
    F: Future<Output = Result<U, E>>,
{
    let answer = match blocking(|| serde_json::from_slice::<Call<T>>(body)) {
        Ok(Call { to, request }) if to == own => {
            handle(request).await.map_err(|error| error.to_string())
        }
        Ok(Call { to, .. }) => Err(format!("this is node {own}, and the call is for {to}")),
        Err(error) => Err(format!("unreadable request: {error}")),
    };
    // The caller takes an empty answer for an unreadable one.
    serde_json::to_vec(&answer).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use openraft::vote::RaftLeaderId;
    use tokio::time::Instant;

    use super::*;
    use crate::checkpoint::raft::LeaderId;

    /// Never answers, or always the same.
    struct Fixed(Option<&'static [u8]>);

    impl Transport for Fixed {
        fn call<'a>(
            &'a self,
            _to: NodeId,
            _address: &'a str,
            _rpc: Rpc,
            _body: Bytes,
            _within: Duration,
        ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
            Box::pin(async move {
                match self.0 {
                    Some(answer) => Ok(Bytes::from_static(answer)),
                    None => pending().await,
                }
            })
        }
    }

    async fn peer(answer: Option<&'static [u8]>) -> Peer {
        let mut network = Network { own: NodeId(1), transport: Arc::new(Fixed(answer)) };
        network.new_client(NodeId(2), &"node-2".to_owned()).await
    }

    async fn ask(answer: Option<&'static [u8]>) -> Result<(), RPCError<TypeConfig>> {
        let mut peer = peer(answer).await;
        let vote = Vote { leader_id: LeaderId::new(1, NodeId(1)), committed: false };
        let request = VoteRequest::new(vote, None);
        let option = RPCOption::new(Duration::from_secs(4));
        peer.vote(request, option).await.map(drop)
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_nobody_answers_ends_before_raft_gives_it_up() {
        let begin = Instant::now();
        let error = ask(None).await.unwrap_err();
        assert!(matches!(error, RPCError::Timeout(_)), "{error}");
        assert_eq!(begin.elapsed(), RPCOption::new(Duration::from_secs(4)).soft_ttl());
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_has_longer_to_write_entries_than_raft_gives_it() {
        let begin = Instant::now();
        let mut peer = peer(None).await;
        let leader_id = LeaderId::new(1, NodeId(1));
        let vote = Vote { leader_id, committed: true };
        let request =
            AppendEntriesRequest { vote, prev_log_id: None, entries: vec![], leader_commit: None };
        let option = RPCOption::new(Duration::from_millis(100));
        let error = peer.append_entries(request, option).await.unwrap_err();
        assert!(matches!(error, RPCError::Timeout(_)), "{error}");
        assert_eq!(begin.elapsed(), APPEND_WAIT);
    }

    #[tokio::test]
    async fn what_went_wrong_on_the_other_side_is_an_error_here() {
        let error = ask(Some(br#"{"Err":"it has stopped"}"#)).await.unwrap_err();
        assert!(error.to_string().contains("it has stopped"), "{error}");
        let error = ask(Some(b"<html>")).await.unwrap_err();
        assert!(matches!(error, RPCError::Unreachable(_)), "{error}");
    }
}
