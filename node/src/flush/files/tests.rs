mod gaps; // what waits behind gaps
mod owners; // what other owners get
mod tidied; // what is old is removed, and what is full is compressed

use std::fs;
use std::ops::RangeInclusive;

use serde_json::json;
use tokio::sync::mpsc;

use super::*;
use crate::aggregation::log_files::session::Content as _;
use crate::checkpoint::Digest;
use crate::checkpoint::facts::command::{Command, SlotClaim, SlotNumber};
use crate::event::chunk::Chunk;
use crate::event::entry::EntryWriter;
use crate::event::fingerprint::FingerprintKey;
use crate::event::node::NodeId;
use crate::event::time::Window;
use crate::flush::example::node::{Life, Node, Source, everybody_waits};
use crate::flush::example::{Cluster, Lost, at, copy_files, definition};
use crate::flush::gaps::CHUNK_BYTES;

const KEY: FingerprintKey = FingerprintKey([7; 16]);
/// The aggregation that rebuilds files.
const FILES: u32 = 1;

/// A node that rebuilds files, with a checkpoint every two seconds, from second 2 on.
pub(in crate::flush) struct Setting {
    pub(in crate::flush) cluster: Arc<Cluster>,
    pub(in crate::flush) source: Arc<Source>,
    pub(in crate::flush) node: Node,
    pub(in crate::flush) segment: u64,
}

impl Setting {
    pub(in crate::flush) fn new() -> Setting {
        let (cluster, source) = (Cluster::of(2), Arc::new(Source::default()));
        cluster.apply(register(2));
        cluster.cut(2, &[]);
        let segment = cluster.open(2);
        let node = Node::new(1, &cluster, &source, u64::MAX);
        Setting { cluster, source, node, segment }
    }

    /// The next entry has a chunk.
    pub(in crate::flush) fn append(
        &self,
        second: u64,
        (id, seq): (&str, i64),
        payload: &'static str,
    ) {
        self.append_all(second, id, seq..=seq, payload);
    }

    /// The next entry has these chunks, each with this payload.
    fn append_all(
        &self,
        second: u64,
        id: &str,
        sequence: RangeInclusive<i64>,
        payload: &'static str,
    ) {
        let mut entry = EntryWriter::new(None);
        for seq in sequence {
            let payload = Bytes::from_static(payload.as_bytes());
            let (id, seq) = (stream(id), seq.try_into().unwrap());
            entry.chunk(FILES, &Chunk { id, session: 7, seq, payload }, KEY);
        }
        let entry = entry.finish(0).into();
        self.source.appended.send_modify(|all| all.push(self.segment, at(second), entry));
    }

    /// Cuts where everything that was appended is below, and waits until that has its effect.
    pub(in crate::flush) async fn cut(&self, second: u64) {
        let counts = self.source.appended.borrow().counts();
        self.cluster.cut(second, &counts);
        everybody_waits().await;
    }

    pub(in crate::flush) fn read(&self, id: &str) -> String {
        let path = self.node.files().path(FILES, &stream(id), 7);
        fs::read_to_string(path).unwrap()
    }

    fn key(id: &str) -> FileKey {
        FileKey { aggregation: FILES, hash: KEY.string(id.as_bytes()), session: 7 }
    }

    /// What the newest checkpoint has of a file: bytes, and chunks that wait.
    pub(in crate::flush) fn kept(&self, id: &str) -> Option<(u64, usize)> {
        let kept = self.node.files().kept(&Setting::key(id)).unwrap()?;
        let number = self.cluster.now().aggregations()[&FILES].progress(Setting::key(id).slot());
        let version = kept.as_of(number.number());
        Some((version.reached.length, version.waiting.len()))
    }

    /// Chunks behind gaps, their bytes, and those of them that are in memory.
    fn waiting(&self) -> (u64, u64, u64) {
        let open = self.node.open.lock().unwrap();
        let files = open.files.values().next().copied().unwrap_or_default();
        (files.chunks, files.bytes, files.memory_bytes)
    }

    /// Chunks in all checkpoints, and those of them that are in files.
    pub(in crate::flush) fn flushed(&self) -> (u64, u64) {
        let ledger = self.cluster.now().aggregations()[&FILES].ledger;
        (ledger.flushed, ledger.distinct)
    }
}

fn stream(id: &str) -> StreamId {
    id.to_owned().try_into().unwrap()
}

fn register(seconds: u64) -> Command {
    register_as(&json!({"checkpointSeconds": seconds}))
}

fn register_as(member: &serde_json::Value) -> Command {
    let files = json!({"name": "files", "type": "LogFiles", "logFiles": member});
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
async fn whoever_begins_at_another_time_makes_checkpoints_at_the_same_cuts() {
    let it = Setting::new();
    it.cluster.apply(register(4));
    it.cut(3).await;
    let life = it.node.start();
    it.append(4, ("a", 1), "one");
    it.cut(5).await;
    assert_eq!(it.kept("a"), Some((3, 0)), "the cut of second 4 is not there: it is the first");
    it.append(6, ("a", 2), "two");
    it.cut(6).await;
    it.cut(7).await;
    assert_eq!(it.kept("a"), Some((3, 0)));
    it.cut(8).await;
    assert_eq!(it.kept("a"), Some((6, 0)));
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_does_not_wait_for_its_time_when_many_chunks_came_however_small() {
    let it = Setting::new();
    it.cluster.apply(register(3600));
    it.cut(3).await;
    let life = it.node.start();
    let chunks = (64 << 20) / CHUNK_BYTES.cast_signed();
    for first in (1..=chunks).step_by(1 << 12) {
        it.append_all(4, "a", first..=chunks.min(first + 0xfff), "");
    }
    it.cut(5).await;
    assert_eq!(it.flushed(), (0, 0));
    it.append(5, ("a", chunks + 1), "the last");
    everybody_waits().await;
    it.cut(6).await;
    let all = chunks.cast_unsigned() + 1;
    assert_eq!((it.read("a"), it.flushed()), ("the last".to_owned(), (all, all)));
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
async fn a_checkpoint_that_goes_on_from_another_than_the_last_is_given_up() {
    let it = Setting::new();
    it.cluster.apply(register(4));
    let (life, mut due) = it.node.fold();
    it.append(3, ("a", 1), "one ");
    it.cut(3).await;
    it.append(4, ("a", 2), "two");
    it.cut(4).await;
    let late = due.try_recv().unwrap();
    // Before it is claimed, its slot goes away and comes back with a checkpoint of an earlier cut.
    let slot = Setting::key("a").slot();
    it.cluster.place(&slot.to_string(), 2);
    let facts = it.cluster.now();
    let (epoch, number, node) = (facts.slots()[&slot].epoch, 1, NodeId(2));
    let cut = facts.cuts().find(|cut| cut.time == at(3)).unwrap().number;
    let (records, distinct, digest) = (1, 1, Digest(0));
    let claim = SlotClaim { epoch, number, records, distinct, digest };
    let (aggregation, window) = (FILES, Window { start: at(2), end: at(3) });
    let slots = [(slot, claim)].into();
    it.cluster.apply(Command::Claim { node, aggregation, window, cut, slots });
    let slots = [(slot, SlotNumber { epoch, number })].into();
    it.cluster.apply(Command::Complete { node, aggregation, slots, keeps: false });
    it.cluster.place(&slot.to_string(), 1);
    let (sender, receiver) = mpsc::unbounded_channel();
    sender.send(late).ok().unwrap();
    drop(sender);
    it.node.delivery(life.folding.clone()).run(receiver).await.unwrap();
    assert_eq!(it.flushed(), (1, 1), "its first chunk would count twice");
    assert_eq!(it.cluster.now().aggregations()[&FILES].progress(slot).number(), 1);
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

/// What node 1 has after two checkpoints: a file of two chunks, one that waits, and another file.
async fn two_checkpoints() -> (Setting, Life) {
    let it = Setting::new();
    let life = it.node.start();
    it.append(3, ("a", 1), "one ");
    it.append(3, ("a", 4), "four");
    it.cut(4).await;
    it.append(5, ("a", 2), "two ");
    it.append(5, ("b", 1), "x");
    it.cut(6).await;
    (it, life)
}

/// Asks for both files, as of their slots' checkpoints of this number.
fn ask(files: &Files, checkpoint: u64) -> Asked {
    let checkpoints = [("a", checkpoint), ("b", checkpoint)];
    let checkpoints = checkpoints.map(|(id, number)| (Setting::key(id).slot(), number)).into();
    files.ask_all(FILES, checkpoints).unwrap()
}

/// The parts that come of what is asked for, in short.
fn parts(files: &Files, asked: Asked) -> Vec<String> {
    let short = |part| match part {
        FilePart::Begin { kept, continues, .. } => format!("{} {continues}", kept.id),
        FilePart::Fingerprints(chunks) => format!("{} chunks", chunks.len() / 16),
        FilePart::Gone(begin) => format!("from {begin}"),
        FilePart::Bytes(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        FilePart::Waiting(seq, held) => format!("{} waits: {:?}", seq.number(), held.payload),
    };
    files.lend(asked).unwrap().map(|part| short(part.unwrap())).collect()
}

fn content(files: &Files, id: &str) -> String {
    fs::read_to_string(files.path(FILES, &stream(id), 7)).unwrap()
}

fn other() -> (tempfile::TempDir, Files) {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::in_memory(&crate::store::Disk::default()).unwrap());
    let files = Files::new(root.path().to_owned(), store);
    (root, files)
}

#[tokio::test(start_paused = true)]
async fn files_are_forgotten_with_all_that_belongs_to_them() {
    let (it, life) = two_checkpoints().await;
    let ((root, there), here) = (other(), it.node.files());
    copy_files(&here, &there, ask(&there, 9)).unwrap();
    let slot = Setting::key("a").slot();
    assert_eq!(there.forget(FILES, slot, 9, |_| false).unwrap(), 0);
    assert_eq!(there.forget(FILES, slot, 9, |_| true).unwrap(), 1);
    assert_eq!(there.forget(FILES, slot, 9, |_| true).unwrap(), 0);
    assert_eq!(there.kept(&Setting::key("a")).unwrap(), None);
    assert!(there.with_gaps(FILES, slot).unwrap().is_empty());
    let left = |folder: &str| fs::read_dir(root.path().join(folder)).unwrap().count();
    assert_eq!((left("1"), left("1.index")), (1, 1), "the other file stays");
    runs(life).await;
}

/// What a reader is shown of a file: its bytes, those of them that a checkpoint has, what it waits
/// for, and what waits.
fn shown(it: &Setting, id: &str) -> Option<(u64, u64, Option<u64>, u64)> {
    let key = Setting::key(id);
    let slots = [key.slot()].into_iter().collect();
    let (named, after) = (Named::Hash(key.hash), None);
    let wanted = Wanted { aggregation: FILES, slots, named, after, limit: 1 };
    let file = it.node.files().list(&wanted).unwrap().pop()?.file;
    assert_eq!(file.id, id);
    Some((file.bytes, file.checkpointed_bytes, file.waits_for, file.waiting))
}

#[tokio::test(start_paused = true)]
async fn a_reader_sees_what_this_life_has_folded_and_what_checkpoints_have() {
    let it = Setting::new();
    let life = it.node.start();
    it.append(3, ("a", 1), "one ");
    it.append(3, ("a", 3), "three");
    it.cut(3).await;
    assert_eq!(shown(&it, "a"), Some((4, 0, Some(2), 1)));
    it.cut(4).await;
    assert_eq!(shown(&it, "a"), Some((4, 4, Some(2), 1)));
    it.append(5, ("a", 2), "two ");
    it.append(5, ("b", 1), "new");
    it.cut(5).await;
    assert_eq!(shown(&it, "a"), Some((13, 4, None, 0)));
    assert_eq!(shown(&it, "b"), Some((3, 0, None, 0)));
    drop(life);
    everybody_waits().await;
    assert_eq!(it.read("a"), "one two three", "as far as it happens to be on disk");
    assert_eq!(shown(&it, "a"), Some((4, 4, Some(2), 1)), "and nobody knows whether it is whole");
    assert_eq!(shown(&it, "b"), None);
    let life = it.node.start();
    everybody_waits().await;
    assert_eq!((shown(&it, "a"), shown(&it, "b")), (Some((13, 4, None, 0)), Some((3, 0, None, 0))));
    it.cut(6).await;
    assert_eq!(shown(&it, "a"), Some((13, 13, None, 0)));
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn slots_are_not_folded_as_one_again_while_a_file_would_get_shorter() {
    let it = Setting::new();
    let life = it.node.start();
    it.cluster.apply(register(60));
    let others = if Setting::key("a").slot() < 128 { "128-255" } else { "0-127" };
    let folded_last = || it.source.followed().last().map(|(_, _, slots)| slots.clone());
    it.append(3, ("a", 1), "one ");
    it.cut(3).await;
    it.cluster.place(others, 2);
    it.cut(4).await;
    it.cluster.place(others, 1);
    for second in 5..9 {
        it.cut(second).await;
        assert_eq!(folded_last().as_deref(), Some(others));
        assert_eq!(shown(&it, "a"), Some((4, 0, None, 0)));
    }
    it.cluster.apply(register(1));
    for second in 9..12 {
        it.cut(second).await;
        assert_eq!(shown(&it, "a").map(|shown| shown.0), Some(4));
    }
    assert_eq!(shown(&it, "a"), Some((4, 4, None, 0)));
    assert_eq!(folded_last().as_deref(), Some("0-255"));
    runs(life).await;
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_file_is_read_piece_by_piece() {
    let (it, life) = two_checkpoints().await;
    let (files, path) = (it.node.files(), it.node.files().path(FILES, &stream("long"), 7));
    let bytes: Vec<u8> = (0..600_000_u32).map(|number| number as u8).collect();
    fs::write(path, &bytes).unwrap();
    let read = |part| {
        let pieces = files.read(FILES, &stream("long"), 7, &part).unwrap();
        pieces.collect::<Result<Vec<_>, _>>()
    };
    let pieces = read(10..599_999).unwrap();
    assert!(pieces.len() > 1 && pieces.concat() == bytes[10..599_999]);
    assert!(read(5..5).unwrap().is_empty());
    assert!(read(0..600_001).is_err(), "what is not there is not made up");
    assert!(files.read(FILES, &stream("none"), 7, &(0..1)).is_err());
    runs(life).await;
}
