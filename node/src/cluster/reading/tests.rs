use futures::TryStreamExt as _;

use super::*;
use crate::aggregation::log_files::session::{Held, Order, Session};
use crate::cluster::example::keeping_from;
use crate::cluster::example::mesh::{Lender, Mesh};
use crate::event::time::UnixNanos;
use crate::flush::example::node::{Node, Source};
use crate::flush::example::{Cluster, at, slots};
use crate::flush::feed::Consensus as _;
use crate::flush::files::{Change, FileKey, Folded};
use crate::flush::folding::Folding;
use crate::flush::results::Results;
use crate::journal::Position;
use crate::journal::copies::Copies;

const KEY: FingerprintKey = FingerprintKey([7; 16]);
const FILES: u32 = 1;

/// Nodes 1 and 2, which own all slots, node 2 as their primary; node 1 reads.
struct Setting {
    cluster: Arc<Cluster>,
    mesh: Arc<Mesh>,
    nodes: [Node; 2],
    /// Node 2 folds.
    folded: Option<Folded>,
    reading: Reading,
}

fn id(text: &str) -> StreamId {
    text.to_owned().try_into().unwrap()
}

impl Setting {
    fn new() -> Setting {
        let (cluster, source) = (Cluster::of(2), Arc::new(Source::default()));
        cluster.register_files();
        cluster.own("0-255", &[2, 1]);
        let nodes = [1, 2].map(|id| Node::new(id, &cluster, &source, u64::MAX));
        let mesh = Arc::new(Mesh::default());
        let folded = Some(nodes[1].files().fold(slots("0-255")));
        let own = lending(&nodes[0], &cluster, &mesh);
        let reading = Reading::new(own, mesh.member(), KEY);
        Setting { cluster, mesh, nodes, folded, reading }
    }

    /// Has node 2 answer.
    fn lend(&self) -> Lender {
        self.mesh.lend(2, Arc::new(lending(&self.nodes[1], &self.cluster, &self.mesh)))
    }

    /// Puts a chunk behind a node's file: into a checkpoint, or as far as it was folded.
    fn rebuild(
        &self,
        node: usize,
        (name, session): (&str, u64),
        payload: &'static str,
        is_kept: bool,
    ) {
        let (files, id) = (self.nodes[node - 1].files(), id(name));
        let key = FileKey { aggregation: FILES, hash: KEY.string(name.as_bytes()), session };
        let now = files.kept(&key).unwrap().map(|kept| kept.now).unwrap_or_default();
        let mut file = files.open(&key, &id, now.reached, now.reached).unwrap();
        let mut folding = Session::resume(now.reached, BTreeMap::new());
        let order = Order { stamp: at(1), position: Position { segment: 1, index: 1 } };
        let payload = Bytes::from_static(payload.as_bytes());
        let held = Held { fingerprint: 9, payload };
        folding.take(now.reached.next, order, held, &mut file).unwrap();
        if is_kept {
            let found = folding.close(|_| true, &mut file).unwrap();
            file.add_to_index(now.reached.next, &found.appended).unwrap();
            let number = now.checkpoint + 1;
            let numbers = [(key.slot(), number)].into();
            files.keep(&[Change { key, id, found }], &numbers, UnixNanos(0)).unwrap();
        } else {
            files.show(&key, &id, &folding);
        }
    }

    /// Ids, sessions and lengths, and the rest of the answer.
    async fn list(&self, query: Query) -> (Vec<(String, u64, u64)>, RebuiltFiles) {
        let list = self.reading.list(&query).await;
        let files = list.files.iter().map(|file| (file.id.clone(), file.session, file.bytes));
        (files.collect(), list)
    }

    async fn read(&self, name: &str, session: u64) -> Result<(String, Option<NodeId>), ReadError> {
        let found = self.reading.find(&id(name), session).await?;
        let (waits_for, part) = (found.waits_for, 0..found.file.bytes);
        let content = self.reading.read(found, part).await?;
        let pieces: Vec<Bytes> = content.try_collect().await.unwrap();
        Ok((String::from_utf8(pieces.concat()).unwrap(), waits_for))
    }
}

fn lending(node: &Node, cluster: &Arc<Cluster>, mesh: &Arc<Mesh>) -> Lending {
    Lending {
        journal: node.journal(),
        copies: Copies::open(Arc::clone(&node.store)).unwrap(),
        facts: cluster.facts(),
        results: Results::new(Arc::clone(&node.store)),
        keeping: keeping_from(node, cluster, mesh),
        folding: Folding::new().0,
        rejected: Arc::new(BTreeMap::new),
    }
}

fn all(limit: usize) -> Query {
    Query { which: Which::Prefix(String::new()), after: None, limit }
}

#[tokio::test(start_paused = true)]
async fn each_file_is_listed_and_read_as_its_primary_has_it() {
    let it = Setting::new();
    let _lender = it.lend();
    for node in [1, 2] {
        it.rebuild(node, ("a", 7), "one ", true);
    }
    it.rebuild(2, ("a", 7), "two", false);
    it.rebuild(2, ("b", 8), "new", false);
    let (files, list) = it.list(all(9)).await;
    assert_eq!(files, [("a".to_owned(), 7, 7), ("b".to_owned(), 8, 3)]);
    assert_eq!((list.complete, list.waits_for, list.next), (true, None, None));
    assert_eq!(list.files[0].checkpointed_bytes, 4);
    assert_eq!(it.read("a", 7).await.unwrap(), ("one two".to_owned(), None));
    assert_eq!(it.read("b", 8).await.unwrap(), ("new".to_owned(), None));
}

#[tokio::test(start_paused = true)]
async fn where_the_primary_is_silent_another_owner_has_what_a_checkpoint_has() {
    let it = Setting::new();
    it.rebuild(1, ("a", 7), "one ", true);
    let (files, list) = it.list(all(9)).await;
    assert_eq!(files, [("a".to_owned(), 7, 4)]);
    let waits_for =
        FilesWaitFor { slots: "0-255".to_owned(), missing: String::new(), nodes: vec![2] };
    assert_eq!((list.complete, list.waits_for), (false, Some(waits_for)));
    assert_eq!(it.read("a", 7).await.unwrap(), ("one ".to_owned(), Some(NodeId(2))));
    let error = it.read("new", 7).await.unwrap_err();
    assert!(matches!(error, ReadError::Unanswered { .. }), "it may be new there: {error}");
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_does_not_fold_yet_is_not_believed_that_there_is_no_more() {
    let mut it = Setting::new();
    let _lender = it.lend();
    it.rebuild(2, ("a", 7), "one ", true);
    it.rebuild(2, ("a", 7), "two", false);
    it.folded = None;
    let (files, list) = it.list(all(9)).await;
    assert_eq!((files, list.complete), (vec![("a".to_owned(), 7, 4)], false));
    assert_eq!(it.read("a", 7).await.unwrap(), ("one ".to_owned(), Some(NodeId(2))));
    assert!(matches!(it.read("b", 7).await, Err(ReadError::Unanswered { .. })));
}

#[tokio::test(start_paused = true)]
async fn slots_of_which_nobody_tells_are_missing() {
    let it = Setting::new();
    it.cluster.own("100-255", &[2]);
    let waits_for = it.list(all(9)).await.1.waits_for.unwrap();
    assert_eq!((waits_for.slots.as_str(), waits_for.missing.as_str()), ("0-255", "100-255"));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_id_is_told_from_an_unknown_session() {
    let it = Setting::new();
    let _lender = it.lend();
    it.rebuild(2, ("a", 7), "one", true);
    for session in [6, 8] {
        let error = it.read("a", session).await.unwrap_err();
        assert!(matches!(error, ReadError::UnknownSession { .. }), "{error}");
    }
    let error = it.read("b", 7).await.unwrap_err();
    assert!(matches!(error, ReadError::UnknownId { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_long_list_goes_on_where_it_ended() {
    let it = Setting::new();
    let _lender = it.lend();
    let mut names = ["b", "a", "a/b", "c", "ä"].map(|name| (name, 7)).to_vec();
    names.extend([("a", 10), ("a", 0)]);
    names.iter().for_each(|&name| it.rebuild(2, name, "x", name.1 == 7));
    names.sort();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let (files, list) = it.list(Query { after, ..all(2) }).await;
        found.extend(files.into_iter().map(|(id, session, _)| (id, session)));
        let Some(next) = list.next else { break };
        let (session, id) = next.split_once('/').unwrap();
        after = Some((id.to_owned(), session.parse().unwrap()));
    }
    let names: Vec<_> = names.into_iter().map(|(id, session)| (id.to_owned(), session)).collect();
    assert_eq!(found, names);
    let (files, _) = it.list(Query { which: Which::Id(id("a")), ..all(9) }).await;
    assert_eq!(files.into_iter().map(|file| file.1).collect::<Vec<_>>(), [0, 7, 10]);
    let (files, _) = it.list(Query { which: Which::Prefix("a/".to_owned()), ..all(9) }).await;
    assert_eq!(files.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_files_are_read_at_a_time() {
    let it = Setting::new();
    let _lender = it.lend();
    it.rebuild(2, ("a", 7), "one", true);
    let found = it.reading.find(&id("a"), 7).await.unwrap();
    let mut contents = Vec::new();
    for _ in 0..READERS_MAX {
        contents.push(it.reading.read(found.clone(), 0..3).await.unwrap());
    }
    assert!(matches!(it.reading.read(found.clone(), 0..3).await, Err(ReadError::TooMany)));
    contents.pop();
    assert!(it.reading.read(found, 0..3).await.is_ok());
}
