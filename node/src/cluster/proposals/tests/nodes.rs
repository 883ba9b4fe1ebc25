//! Nodes that reach each other over streams in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use futures::future::{BoxFuture, ready};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::checkpoint::facts::Settings;
use crate::checkpoint::raft::{self, Rpc, Transport, TransportError};
use crate::cluster::example::mesh::Mesh;
use crate::cluster::example::{born, identity, member};
use crate::cluster::peers::serve;
use crate::cluster::standing::Standing;
use crate::store::{Disk, Store};

/// Raft's calls from one node, as far as they are heard.
struct Ways {
    from: NodeId,
    member: Member,
    cut_off: Arc<Mutex<Option<NodeId>>>,
}

impl Transport for Ways {
    fn call<'a>(
        &'a self,
        to: NodeId,
        address: &'a str,
        rpc: Rpc,
        body: Bytes,
        within: Duration,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        let cut_off = *self.cut_off.lock().unwrap();
        if [self.from, to].into_iter().any(|node| cut_off == Some(node)) {
            return Box::pin(ready(Err(TransportError("the way is cut".to_owned()))));
        }
        self.member.call(to, address, rpc, body, within)
    }
}

struct Node {
    raft: Raft,
    member: Member,
    off: CancellationToken,
}

/// Some nodes of a cluster whose voters are 1, 2 and 3.
#[derive(Default)]
pub(super) struct Nodes {
    mesh: Arc<Mesh>,
    /// Who hears and says nothing of Raft.
    cut_off: Arc<Mutex<Option<NodeId>>>,
    nodes: Mutex<BTreeMap<u8, Node>>,
}

impl Nodes {
    /// All three, without a leader.
    pub(super) async fn without_leader() -> Nodes {
        let nodes = Nodes::default();
        for number in [1, 2, 3] {
            nodes.start(number).await;
        }
        nodes
    }

    /// All three, with a leader that all of them know.
    pub(super) async fn with_leader() -> Nodes {
        let nodes = Nodes::without_leader().await;
        nodes.begin().await;
        let leader = nodes.raft(1).until(|status| status.leader.is_some()).await.unwrap().leader;
        for number in [2, 3] {
            nodes.raft(number).until(|status| status.leader == leader).await.unwrap();
        }
        nodes
    }

    /// Lets them elect a leader.
    pub(super) async fn begin(&self) {
        self.raft(1).initialize([1, 2, 3].map(member).into()).await.unwrap();
    }

    async fn start(&self, number: u8) {
        let identity = identity(number);
        let member = Member::new(self.mesh.peers(), &identity);
        let settings = raft::Settings {
            id: identity.node,
            seed: number.into(),
            initial_facts: Facts::new(Settings { slots: 256 }),
        };
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        let cut_off = Arc::clone(&self.cut_off);
        let ways = Ways { from: identity.node, member: member.clone(), cut_off };
        let raft = Raft::start(settings, store, Arc::new(ways)).await.unwrap();
        let standing = Standing::default();
        standing.take_part(born(number), Arc::new(identity), raft.clone());

        let off = CancellationToken::new();
        tokio::spawn(serve(self.mesh.open(number), Arc::new(standing), off.clone()));
        self.nodes.lock().unwrap().insert(number, Node { raft, member, off });
    }

    /// Ends a node without a word to the others.
    pub(super) async fn stop(&self, number: u8) {
        let Node { raft, off, .. } = self.nodes.lock().unwrap().remove(&number).unwrap();
        self.mesh.close(number);
        off.cancel();
        raft.shutdown().await;
    }

    pub(super) fn raft(&self, number: u8) -> Raft {
        self.nodes.lock().unwrap()[&number].raft.clone()
    }

    pub(super) fn proposals(&self, number: u8) -> Proposals {
        let nodes = self.nodes.lock().unwrap();
        Proposals::new(nodes[&number].raft.clone(), nodes[&number].member.clone())
    }

    /// The node that leads, when one does.
    pub(super) async fn leader(&self) -> Raft {
        let known = self.raft(1).until(|status| status.leader.is_some()).await.unwrap();
        let leader = self.raft(known.leader.unwrap().0 as u8);
        leader.until(Status::leads).await.unwrap();
        leader
    }

    /// The leader, and the others.
    pub(super) fn roles(&self) -> (u8, Vec<u8>) {
        let numbers: Vec<u8> = self.nodes.lock().unwrap().keys().copied().collect();
        let (leaders, others): (Vec<u8>, Vec<u8>) =
            numbers.into_iter().partition(|number| self.raft(*number).leading().is_some());
        (leaders[0], others)
    }

    /// From now on none of Raft's calls reaches a node or comes from it; or all get through.
    pub(super) fn cut_off(&self, number: Option<u8>) {
        *self.cut_off.lock().unwrap() = number.map(|number| NodeId(number.into()));
    }
}
