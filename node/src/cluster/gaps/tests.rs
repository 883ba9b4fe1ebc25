use bytes::Bytes;
use tokio::task::JoinHandle;

use super::*;
use crate::cluster::example::mesh::{Lender, Mesh};
use crate::cluster::example::{identity, keeping_from};
use crate::cluster::lending::Lending;
use crate::flush::example::node::{Node, Source};
use crate::flush::example::{Cluster, register};
use crate::flush::feed::Consensus as _;
use crate::flush::folding::Commands;
use crate::flush::gaps::CHUNKS_TAKEN;
use crate::flush::results::Results;
use crate::journal::copies::Copies;

const LACKED: u64 = 5;
/// A chunk that is refused because of the gap.
const FAR: u64 = LACKED + CHUNKS_TAKEN;

/// Node 1, which asks node 2, the primary of all slots.
struct Setting {
    cluster: Arc<Cluster>,
    mesh: Arc<Mesh>,
    node: Node,
    known: KnownGaps,
    /// What the nodes fold.
    commands: [Commands; 2],
    folding: Folding,
    _asking: JoinHandle<Infallible>,
}

impl Setting {
    fn new() -> Setting {
        let (cluster, source) = (Cluster::of(2), Arc::new(Source::default()));
        cluster.register_files();
        cluster.own("0-255", &[2, 1]);
        let (mesh, node) = (Arc::new(Mesh::default()), Node::new(2, &cluster, &source, u64::MAX));
        let [(own, first), (folding, second)] = [(); 2].map(|()| Folding::new());
        let key = identity(1).fingerprint_key;
        let known = KnownGaps::new(NodeId(1), key, own, cluster.facts());
        let asking = Asking { known: known.clone(), members: mesh.member() };
        let _asking = tokio::spawn(asking.run());
        Setting { cluster, mesh, node, known, commands: [first, second], folding, _asking }
    }

    /// Has node 2 answer.
    fn lend(&self) -> Lender {
        let node = &self.node;
        let lending = Lending {
            journal: node.journal(),
            copies: Copies::open(Arc::clone(&node.store)).unwrap(),
            facts: self.cluster.facts(),
            results: Results::new(Arc::clone(&node.store)),
            keeping: keeping_from(node, &self.cluster, &self.mesh),
            folding: self.folding.clone(),
            rejected: Arc::new(BTreeMap::new),
        };
        self.mesh.lend(2, Arc::new(lending))
    }

    /// A node finds that too much waits behind the gap of a file, or of none.
    fn tell(&self, node: usize, id: Option<&str>) {
        let hash = |id: &str| self.known.key.string(id.as_bytes());
        let gaps = id.into_iter().map(|id| (hash(id), 7, seq(LACKED)));
        self.commands[node - 1].tell(gaps.collect());
    }

    fn lacks(&self, id: &str, number: u64) -> Option<u64> {
        let id = id.to_owned().try_into().unwrap();
        let chunk = Chunk { id, session: 7, seq: seq(number), payload: Bytes::new() };
        self.known.lacks(&chunk).map(Sequence::number)
    }
}

fn seq(number: u64) -> Sequence {
    Sequence::try_from(number as i64).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_a_primary_tells_is_known_everywhere_a_moment_later() {
    let it = Setting::new();
    let _lender = it.lend();
    it.tell(2, Some("a"));
    assert_eq!(it.lacks("a", FAR), None, "nobody was asked");
    sleep(2 * EVERY).await;
    assert_eq!(it.lacks("a", FAR), Some(LACKED));
    assert_eq!((it.lacks("a", FAR - 1), it.lacks("a", 1), it.lacks("b", FAR)), (None, None, None));
    sleep(3 * BELIEVED_FOR).await;
    assert_eq!(it.lacks("a", FAR), Some(LACKED), "it is asked again and again");
    it.tell(2, None);
    sleep(2 * EVERY).await;
    assert_eq!(it.lacks("a", FAR), None);
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_is_silent_is_believed_for_a_few_seconds() {
    let it = Setting::new();
    let lender = it.lend();
    it.tell(2, Some("a"));
    sleep(2 * EVERY).await;
    it.mesh.close(2);
    drop(lender);
    sleep(BELIEVED_FOR - 2 * EVERY).await;
    assert_eq!(it.lacks("a", FAR), Some(LACKED));
    sleep(2 * EVERY).await;
    assert_eq!(it.lacks("a", FAR), None);
}

#[tokio::test(start_paused = true)]
async fn nobody_but_the_primary_is_believed() {
    let it = Setting::new();
    let _lender = it.lend();
    it.tell(2, Some("a"));
    it.tell(1, Some("b"));
    sleep(2 * EVERY).await;
    assert_eq!((it.lacks("a", FAR), it.lacks("b", FAR)), (Some(LACKED), None));
    it.cluster.own("0-255", &[1, 2]);
    assert_eq!((it.lacks("a", FAR), it.lacks("b", FAR)), (None, Some(LACKED)));
    it.tell(1, None);
    assert_eq!(it.lacks("b", FAR), None);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_while_no_files_are_collected() {
    let it = Setting::new();
    let _lender = it.lend();
    it.tell(2, Some("a"));
    it.cluster.apply(register(&[("by-foo", 10)]));
    it.cluster.cut(2, &[]);
    sleep(3 * EVERY).await;
    assert!(it.known.told.borrow().is_empty());
}
