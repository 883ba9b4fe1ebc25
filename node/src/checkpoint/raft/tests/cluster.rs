//! A cluster whose members reach each other by function calls.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::super::{Member, Raft, Rpc, Settings, StartError, Status, Transport, TransportError};
use super::example::{count_up, counted, initial};
use crate::event::node::NodeId;
use crate::store::Store;

/// Nothing here takes this long, on whatever clock.
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) const ONE: NodeId = NodeId(1);
pub(super) const TWO: NodeId = NodeId(2);
pub(super) const THREE: NodeId = NodeId(3);
pub(super) const FOUR: NodeId = NodeId(4);

/// Who is where, and which ways are cut.
#[derive(Default)]
struct Mesh {
    nodes: Mutex<BTreeMap<String, Raft>>,
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
    calls: Mutex<Vec<(NodeId, Rpc)>>,
    /// How long a snapshot is on its way.
    snapshots_take: Mutex<Duration>,
}

impl Mesh {
    /// Never returns where the way is cut.
    async fn pass(&self, from: NodeId, to: NodeId) {
        let cut = self.cut.lock().unwrap().contains(&(from, to));
        if cut {
            pending().await
        }
    }
}

/// The ways from one node.
struct Ways {
    from: NodeId,
    mesh: Arc<Mesh>,
}

impl Transport for Ways {
    fn call<'a>(
        &'a self,
        to: NodeId,
        address: &'a str,
        rpc: Rpc,
        body: Bytes,
        _within: Duration,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        Box::pin(async move {
            self.mesh.calls.lock().unwrap().push((to, rpc));
            self.mesh.pass(self.from, to).await;
            if rpc == Rpc::Snapshot {
                let takes = *self.mesh.snapshots_take.lock().unwrap();
                sleep(takes).await;
            }
            let node = self.mesh.nodes.lock().unwrap().get(address).cloned();
            let node = node.ok_or_else(|| TransportError(format!("nobody is at {address}")))?;
            let answer = node.answer(rpc, body).await;
            self.mesh.pass(to, self.from).await;
            Ok(answer)
        })
    }
}

fn address(id: NodeId) -> String {
    format!("node-{id}")
}

pub(super) fn member(id: NodeId) -> Member {
    Member { id, address: address(id) }
}

/// Some nodes and their folders.
#[derive(Default)]
pub(super) struct Cluster {
    mesh: Arc<Mesh>,
    folders: Mutex<BTreeMap<NodeId, Arc<TempDir>>>,
}

impl Cluster {
    /// Three voters that have a leader.
    pub(super) async fn of_three() -> Cluster {
        let cluster = Cluster::default();
        for id in [ONE, TWO, THREE] {
            cluster.start(id).await.unwrap();
        }
        let members = [ONE, TWO, THREE].map(member);
        cluster.node(ONE).initialize(members.into()).await.unwrap();
        cluster.leader().await;
        cluster
    }

    /// Starts a node on its folder; the first time on an empty one.
    pub(super) async fn start(&self, id: NodeId) -> Result<Raft, StartError> {
        let store = Arc::new(self.store(id));
        let settings = Settings { id, seed: id.0, initial_facts: initial() };
        let ways = Ways { from: id, mesh: Arc::clone(&self.mesh) };
        let raft = Raft::start(settings, store, Arc::new(ways)).await?;
        self.mesh.nodes.lock().unwrap().insert(address(id), raft.clone());
        Ok(raft)
    }

    /// A node's database, which must not be open.
    pub(super) fn store(&self, id: NodeId) -> Store {
        let mut folders = self.folders.lock().unwrap();
        let folder = folders.entry(id).or_insert_with(|| Arc::new(tempfile::tempdir().unwrap()));
        Store::open(folder.path()).unwrap()
    }

    /// Ends a node.
    pub(super) async fn stop(&self, id: NodeId) {
        let raft = self.mesh.nodes.lock().unwrap().remove(&address(id)).unwrap();
        raft.shutdown().await;
    }

    pub(super) fn node(&self, id: NodeId) -> Raft {
        self.mesh.nodes.lock().unwrap()[&address(id)].clone()
    }

    fn nodes(&self) -> Vec<Raft> {
        self.mesh.nodes.lock().unwrap().values().cloned().collect()
    }

    /// Cuts the ways from the first node to the second.
    pub(super) fn cut(&self, from: NodeId, to: NodeId) {
        self.mesh.cut.lock().unwrap().insert((from, to));
    }

    /// Cuts all ways to and from a node.
    pub(super) fn isolate(&self, id: NodeId) {
        for other in [ONE, TWO, THREE, FOUR] {
            self.cut(id, other);
            self.cut(other, id);
        }
    }

    /// Makes the ways slow for snapshots.
    pub(super) fn slow_down_snapshots(&self, takes: Duration) {
        *self.mesh.snapshots_take.lock().unwrap() = takes;
    }

    /// Mends all ways.
    pub(super) fn mend(&self) {
        self.mesh.cut.lock().unwrap().clear();
    }

    /// How often somebody tried to call a node like this.
    pub(super) fn calls(&self, to: NodeId, rpc: Rpc) -> usize {
        self.mesh.calls.lock().unwrap().iter().filter(|call| **call == (to, rpc)).count()
    }

    /// The node that leads and can prove it.
    pub(super) async fn leader(&self) -> Raft {
        let proven = async {
            loop {
                for node in self.nodes() {
                    if node.leading().is_some() && node.read_index().await.is_ok() {
                        return node;
                    }
                }
                self.somebody_learns_something().await;
            }
        };
        timeout(DEADLINE, proven).await.expect("nobody leads")
    }

    async fn somebody_learns_something(&self) {
        let nodes = self.nodes();
        let changes = nodes.iter().map(|node| {
            let before = node.status();
            Box::pin(node.until(move |status| *status != before))
        });
        let _ = futures::future::select_all(changes).await;
    }

    /// Has the leader count up, and returns it.
    pub(super) async fn count_up(&self) -> Raft {
        let leader = self.leader().await;
        leader.propose(count_up()).await.unwrap();
        leader
    }
}

/// Waits until a node's part is as it should be.
pub(super) async fn until(
    node: &Raft,
    condition: impl Fn(&Status) -> bool + Send + Sync,
) -> Status {
    let waited = timeout(DEADLINE, node.until(condition)).await;
    waited.unwrap_or_else(|_| panic!("still {:?}", node.status())).unwrap()
}

/// Waits until a node has applied so many commands.
pub(super) async fn until_counted(node: &Raft, count: u64) {
    let mut facts = node.facts();
    let waited = timeout(DEADLINE, facts.wait_for(|facts| counted(facts) == count)).await;
    let _ = waited.unwrap_or_else(|_| panic!("still {:?}", node.status())).unwrap();
}
