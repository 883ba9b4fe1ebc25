use std::fs;

use serde_json::json;

use super::*;
use crate::checkpoint::facts::command::Command;
use crate::event::chunk::Chunk;
use crate::event::entry::EntryWriter;
use crate::event::fingerprint::FingerprintKey;
use crate::flush::example::node::{Life, Node, Source, everybody_waits};
use crate::flush::example::{Cluster, Lost, at, definition};

const KEY: FingerprintKey = FingerprintKey([7; 16]);
/// The aggregation that rebuilds files.
const FILES: u32 = 1;

/// A node that rebuilds files, with a checkpoint every two seconds, from second 2 on.
struct Setting {
    cluster: Arc<Cluster>,
    source: Arc<Source>,
    node: Node,
    segment: u64,
}

impl Setting {
    fn new() -> Setting {
        let (cluster, source) = (Cluster::of(2), Arc::new(Source::default()));
        cluster.apply(register(2));
        cluster.cut(2, &[]);
        let segment = cluster.open(2);
        let node = Node::new(1, &cluster, &source, u64::MAX);
        Setting { cluster, source, node, segment }
    }

    /// The next entry has a chunk.
    fn append(&self, second: u64, (id, seq): (&str, i64), payload: &'static str) {
        let mut entry = EntryWriter::new(None);
        let payload = Bytes::from_static(payload.as_bytes());
        let (id, seq) = (stream(id), seq.try_into().unwrap());
        entry.chunk(FILES, &Chunk { id, session: 7, seq, payload }, KEY);
        let entry = entry.finish(0).into();
        self.source.appended.send_modify(|all| all.push(self.segment, at(second), entry));
    }

    /// Cuts where everything that was appended is below, and waits until that has its effect.
    async fn cut(&self, second: u64) {
        let counts = self.source.appended.borrow().counts();
        self.cluster.cut(second, &counts);
        everybody_waits().await;
    }

    fn read(&self, id: &str) -> String {
        let path = self.node.files().path(FILES, &stream(id), 7);
        fs::read_to_string(path).unwrap()
    }

    fn key(id: &str) -> FileKey {
        FileKey { aggregation: FILES, hash: KEY.string(id.as_bytes()), session: 7 }
    }

    /// What the newest checkpoint has of a file: bytes, and chunks that wait.
    fn kept(&self, id: &str) -> Option<(u64, usize)> {
        let kept = self.node.files().kept(&Setting::key(id)).unwrap()?;
        let number = self.cluster.now().aggregations()[&FILES].progress(Setting::key(id).slot());
        let version = kept.as_of(number.number());
        Some((version.reached.length, version.waiting.len()))
    }

    /// Chunks in all checkpoints, and those of them that are in files.
    fn flushed(&self) -> (u64, u64) {
        let ledger = self.cluster.now().aggregations()[&FILES].ledger;
        (ledger.flushed, ledger.distinct)
    }
}

fn stream(id: &str) -> StreamId {
    id.to_owned().try_into().unwrap()
}

fn register(seconds: u64) -> Command {
    let files = json!({
        "name": "files", "type": "LogFiles", "logFiles": {"checkpointSeconds": seconds},
    });
    let by_foo = definition("by-foo", 10);
    Command::Register { definitions: [("by-foo".into(), by_foo), ("files".into(), files)].into() }
}

async fn runs(mut life: Life) -> Life {
    everybody_waits().await;
    assert!(life.failed().await.is_none());
    life
}

#[tokio::test(start_paused = true)]
async fn a_file_is_there_at_once_and_in_a_checkpoint_in_time() {
    let it = Setting::new();
    let life = it.node.start();
    it.append(3, ("a", 1), "one ");
    it.append(3, ("b", 1), "x");
    it.append(3, ("a", 2), "two");
    it.cut(3).await;
    assert_eq!((it.read("a"), it.read("b")), ("one two".to_owned(), "x".to_owned()));
    assert_eq!(it.kept("a"), None, "it is not time yet");
    it.cut(4).await;
    assert_eq!((it.kept("a"), it.kept("b")), (Some((7, 0)), Some((1, 0))));
    assert_eq!(it.flushed(), (3, 3));
    it.append(5, ("a", 3), "!");
    it.cut(5).await;
    it.cut(6).await;
    assert_eq!(
        (it.read("a"), it.kept("a"), it.flushed()),
        ("one two!".to_owned(), Some((8, 0)), (4, 4))
    );
    let balance = it.cluster.now().balance(FILES).unwrap();
    assert_eq!((balance.pending, balance.holds()), (0, true), "the journal can be trimmed");
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_claimed_while_nothing_comes() {
    let it = Setting::new();
    let life = it.node.start();
    it.append(3, ("a", 1), "one");
    it.cut(4).await;
    let claims = |it: &Setting| {
        let is_claim =
            |command: &&Command| matches!(command, Command::Claim { aggregation: FILES, .. });
        it.cluster.proposed().iter().filter(is_claim).count()
    };
    assert_eq!(claims(&it), 1);
    for second in 5..20 {
        it.cut(second).await;
    }
    assert_eq!(claims(&it), 1);
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_behind_a_gap_outlives_the_journal() {
    let it = Setting::new();
    let life = it.node.start();
    it.append(3, ("a", 3), "three");
    it.append(3, ("a", 1), "one ");
    it.cut(4).await;
    assert_eq!(
        (it.read("a"), it.kept("a"), it.flushed()),
        ("one ".to_owned(), Some((4, 1)), (1, 1))
    );
    assert_eq!(it.cluster.now().balance(FILES).unwrap().pending, 0);
    life.end().await.unwrap();
    let life = it.node.start();
    it.append(5, ("a", 2), "two ");
    it.cut(6).await;
    assert_eq!((it.read("a"), it.kept("a")), ("one two three".to_owned(), Some((13, 0))));
    assert_eq!(it.flushed(), (3, 3));
    let left = it.node.files().with_gaps(FILES, Setting::key("a").slot()).unwrap();
    assert!(!left.is_empty(), "the checkpoint before has it");
    it.append(7, ("a", 4), "!");
    it.cut(8).await;
    let left = it.node.files().with_gaps(FILES, Setting::key("a").slot()).unwrap();
    assert!(left.is_empty());
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn chunks_that_come_again_or_contradict_are_settled_and_in_no_file() {
    let it = Setting::new();
    let life = it.node.start();
    it.append(3, ("a", 1), "one");
    it.cut(4).await;
    it.append(5, ("a", 1), "one");
    it.append(5, ("a", 1), "ONE");
    it.append(5, ("a", 1), "one");
    it.cut(6).await;
    assert_eq!((it.read("a"), it.flushed()), ("one".to_owned(), (4, 1)));
    let kept = it.node.files().kept(&Setting::key("a")).unwrap().unwrap();
    assert_eq!(kept.now.contradicting, 1);
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_ends_anywhere_comes_to_the_same_files() {
    let commands = 5;
    for (count, lost) in
        (1..=commands).flat_map(|count| [(count, Lost::Command), (count, Lost::Answer)])
    {
        let it = Setting::new();
        it.cluster.end_at(count, lost);
        let mut life = it.node.start();
        it.append(3, ("a", 2), "two ");
        it.append(3, ("b", 1), "x");
        it.cut(4).await;
        it.append(5, ("a", 1), "one ");
        it.append(5, ("a", 4), "four");
        it.cut(6).await;
        assert!(life.failed().await.is_some() || count == commands, "{count} {lost:?}");
        drop(life);
        it.cluster.go_on();
        it.append(7, ("a", 3), "three ");
        let life = it.node.start();
        it.cut(8).await;
        it.cut(10).await;
        assert_eq!(it.read("a"), "one two three four", "{count} {lost:?}");
        assert_eq!((it.read("b"), it.flushed()), ("x".to_owned(), (5, 5)), "{count} {lost:?}");
        assert_eq!(it.kept("a"), Some((18, 0)), "{count} {lost:?}");
        runs(life).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_resumed_at_its_cut_whatever_came_since() {
    let it = Setting::new();
    it.cluster.end_at(1, Lost::Answer);
    let life = it.node.start();
    it.append(3, ("a", 1), "one ");
    it.cut(4).await;
    drop(life);
    it.cluster.go_on();
    it.append(5, ("a", 2), "two");
    it.cut(5).await;
    let life = it.node.start();
    everybody_waits().await;
    assert_eq!((it.kept("a"), it.flushed()), (Some((4, 0)), (1, 1)), "as claimed");
    it.cut(6).await;
    assert_eq!((it.kept("a"), it.flushed()), (Some((7, 0)), (2, 2)));
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn slots_that_leave_and_come_back_count_nothing_twice() {
    let it = Setting::new();
    let life = it.node.start();
    it.append(3, ("a", 1), "one ");
    // While the checkpoint is being claimed, they are another node's for a moment.
    let is_claim: fn(&Command) -> bool = |command| matches!(command, Command::Claim { .. });
    it.cluster.before(is_claim, it.cluster.place_command("0-255", 2));
    it.cut(4).await;
    it.cluster.place("0-255", 1);
    it.append(5, ("a", 2), "two");
    it.cut(6).await;
    it.cut(8).await;
    assert_eq!((it.read("a"), it.flushed()), ("one two".to_owned(), (2, 2)));
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn another_interval_takes_effect_on_the_files_that_there_are() {
    let it = Setting::new();
    let life = it.node.start();
    it.append(3, ("a", 1), "one ");
    it.cut(4).await;
    it.cluster.apply(register(4));
    it.append(5, ("a", 2), "two");
    it.cut(7).await;
    assert_eq!((it.read("a"), it.kept("a")), ("one two".to_owned(), Some((4, 0))));
    it.cut(8).await;
    assert_eq!(it.kept("a"), Some((7, 0)));
    runs(life).await;
}

#[test]
fn a_file_that_lost_something_that_was_durable_is_refused() {
    let it = Setting::new();
    let (files, key, id) = (it.node.files(), Setting::key("a"), stream("a"));
    let reached = Reached { length: 3, ..Reached::default() };
    let refused = files.open(&key, &id, reached, Reached::default()).unwrap_err();
    assert!(matches!(refused, FilesError::Short { found: 0, expected: 3, .. }), "{refused}");
}
